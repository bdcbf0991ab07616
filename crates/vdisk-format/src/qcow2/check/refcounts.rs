//! The refcounts of the image, beside the references that were counted.

use std::ops::Range;

use super::fault::{Fault, RefcountFault};
use super::lost::MOST_RUNS as MOST_LEAKS;
use super::problems::Problems;
use super::walk::Walk;
use crate::check::{Check, Findings};
use crate::cluster_counts::CountedRun;
use crate::cluster_set::ClusterSet;
use crate::qcow2::claims::Owner;
use crate::qcow2::geometry::{Area, Geometry};
use crate::qcow2::refcount::{RefcountBlock, RefcountRun, RefcountTableEntry};
use crate::qcow2::tables::Tables;
use crate::units::HostOffset;
use crate::view::View;

/// What a comparison leaves to be looked at.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// Clusters with a `COPIED` flag and another refcount than 1, or without it and with that refcount.
    pub(super) suspects: Option<ClusterSet>,
    /// The last cluster that is referred to, or has a refcount.
    last: u64,
}

/// A refcount block that was read, for the entries of the refcount table that come back to it.
struct Block {
    offset: u64,
    runs: Vec<RefcountRun>,
}

/// More runs than that are not kept.
const MOST_RUNS: usize = 1 << 16;

impl Walk<'_, '_> {
    /// Claims the refcount blocks. They come last: each has to be the only owner of its cluster.
    pub(super) fn refcount_blocks(&mut self) {
        let tables = self.tables;
        for (index, entry) in tables.refcount_table_entries() {
            let block = entry.block().0;
            let cluster = block >> self.geometry.cluster_bits();
            let fault = if entry.reserved() != 0 {
                Fault::RefcountTableReserved { index, entry: entry.0 }
            } else if !self.geometry.is_aligned(block) {
                Fault::RefcountBlockUnaligned { index, block }
            } else if cluster >= self.counts.end() {
                Fault::RefcountBlockOutside { index, block }
            } else {
                let area = Area::new(block, self.geometry.cluster_size());
                self.region(Owner::RefcountBlock { index }, area);
                let count = self.counts.count(cluster).min(self.most());
                if count == 1 {
                    continue;
                }
                Fault::RefcountBlockShared { index, block, count }
            };
            self.check.corruptions += 1;
            self.problems.add(fault, self.findings);
        }
    }

    /// The largest refcount that there can be.
    fn most(&self) -> u64 {
        let bits = 1u32 << self.geometry.refcount_order().unwrap_or(6);
        u64::MAX >> (64 - bits)
    }

    /// The refcount of a cluster; `None` where it cannot be read.
    pub(super) fn stored_refcount(&self, cluster: u64) -> Option<u64> {
        stored_refcount(self.tables, cluster)
    }

    /// Compares the refcounts of all clusters of the file with the references to them.
    pub(super) fn compare(&mut self) -> Compared {
        let mut compared = Compared::default();
        let Some(entries) = self.geometry.refcount_block_entries() else { return compared };
        let end = self.counts.end();
        let tables = self.tables;
        let mut at = 0;
        let mut known = None;
        for (index, entry) in tables.refcount_table_entries() {
            let Some(first) = index.checked_mul(entries).filter(|&first| first < end) else { break };
            self.compare_run(at..first, 0, &mut compared);
            at = first.saturating_add(entries).min(end);
            self.compare_block(entry, first..at, &mut known, &mut compared);
        }
        self.compare_run(at..end, 0, &mut compared);
        self.check.image_end_offset = Some((compared.last + 1) << self.geometry.cluster_bits());
        compared
    }

    fn compare_block(
        &mut self,
        entry: RefcountTableEntry,
        clusters: Range<u64>,
        known: &mut Option<Block>,
        compared: &mut Compared,
    ) {
        let offset = entry.block().0;
        if offset == 0 {
            self.compare_run(clusters, 0, compared);
            return;
        }
        if !is_readable(&self.geometry, offset) {
            // QEMU cannot tell their refcounts, and counts them as errors of the check.
            self.check.check_errors += clusters.end - clusters.start;
            self.overflows(clusters);
            return;
        }
        if known.as_ref().is_some_and(|block| block.offset == offset) {
            for run in known.iter().flat_map(|block| &block.runs) {
                self.compare_part(&clusters, *run, compared);
            }
        } else {
            *known = self.read_block(offset, &clusters, compared);
        }
    }

    fn read_block(&mut self, offset: u64, clusters: &Range<u64>, compared: &mut Compared) -> Option<Block> {
        let tables = self.tables;
        let size = self.geometry.cluster_size();
        let mut reader = std::mem::take(&mut self.reader);
        if let Some(bytes) = reader.refcount_block(tables.view(), offset, size) {
            let copy = View::from(bytes);
            let block = RefcountBlock::of(&copy, &self.geometry, HostOffset(0));
            let block = block.and_then(|block| self.compare_runs(block, offset, clusters, compared));
            self.reader = reader;
            return block;
        }
        self.reader = reader;
        let block = tables.refcount_block(HostOffset(offset))?;
        self.compare_runs(block, offset, clusters, compared)
    }

    fn compare_runs(
        &mut self,
        block: RefcountBlock<'_, '_>,
        offset: u64,
        clusters: &Range<u64>,
        compared: &mut Compared,
    ) -> Option<Block> {
        let mut runs = Vec::new();
        let mut behind = 0;
        for run in block.runs() {
            self.compare_part(clusters, run, compared);
            if runs.len() <= MOST_RUNS {
                runs.push(run);
            }
            behind = run.index + run.count;
        }
        // What the file does not have of it.
        let rest = clusters.start.saturating_add(behind).min(clusters.end)..clusters.end;
        self.compare_run(rest, 0, compared);
        let is_whole = behind >= block.entries() && runs.len() <= MOST_RUNS;
        is_whole.then_some(Block { offset, runs })
    }

    fn compare_part(&mut self, clusters: &Range<u64>, run: RefcountRun, compared: &mut Compared) {
        let start = clusters.start.saturating_add(run.index).min(clusters.end);
        let end = start.saturating_add(run.count).min(clusters.end);
        self.compare_run(start..end, run.refcount, compared);
    }

    /// Clusters whose refcounts cannot be read: they may be referred to more often than any refcount can say.
    fn overflows(&mut self, clusters: Range<u64>) {
        let most = self.most();
        let (check, problems, findings) = (&mut *self.check, &mut self.problems, &mut *self.findings);
        self.counts.runs(clusters, |run| overflow(&run, most, check, problems, findings));
    }

    /// Clusters whose refcount is `refcount`.
    fn compare_run(&mut self, clusters: Range<u64>, refcount: u64, compared: &mut Compared) {
        if clusters.is_empty() {
            return;
        }
        if refcount > 0 {
            compared.last = compared.last.max(clusters.end - 1);
        }
        let most = self.most();
        let (counts, uncopied) = (&self.counts, &self.uncopied);
        let (check, problems, findings) = (&mut *self.check, &mut self.problems, &mut *self.findings);
        let (leaks, surplus) = (&mut self.leaks, &mut self.surplus);
        counts.runs(clusters, |CountedRun { clusters, count, marked }| {
            let length = clusters.end - clusters.start;
            let references = count.min(most);
            if count > 0 {
                compared.last = compared.last.max(clusters.end - 1);
                let is_wrong =
                    if refcount == 1 { uncopied.intersects(clusters.start, length) } else { marked };
                if is_wrong {
                    let suspects = compared.suspects.get_or_insert_with(|| ClusterSet::new(counts.end()));
                    suspects.insert(clusters.start, length, |_| {});
                }
            }
            let run = CountedRun { clusters, count, marked };
            overflow(&run, most, check, problems, findings);
            let clusters = run.clusters;
            if references > refcount {
                check.corruptions += length;
                let fault = RefcountFault::TooLow { refcount, references };
                problems.add(Fault::Refcounts { clusters, fault }, findings);
            } else if references < refcount {
                check.leaks += length;
                let fault = if references == 0 {
                    remember(leaks, &clusters);
                    RefcountFault::Leak { refcount }
                } else {
                    remember(surplus, &clusters);
                    RefcountFault::TooHigh { refcount, references }
                };
                problems.add(Fault::Refcounts { clusters, fault }, findings);
            }
        });
    }
}

/// The refcount of a cluster; `None` where it cannot be read.
pub(in crate::qcow2) fn stored_refcount(tables: &Tables<'_>, cluster: u64) -> Option<u64> {
    let (entry, index) = tables.geometry().refcount_indices(cluster)?;
    let block = tables.refcount_table_entry(entry).unwrap_or_default().block();
    if block.0 == 0 {
        return Some(0);
    }
    // What is behind the end of the file reads as zeroes.
    let stored = || tables.refcount_block(block).and_then(|block| block.count_at(index)).unwrap_or(0);
    is_readable(&tables.geometry(), block.0).then(stored)
}

/// Where the largest file ends that QEMU reads: its offsets are signed, and files a multiple of its largest alignment.
const MAX_LENGTH: u64 = (1 << 63) - (1 << 30);

/// Whether QEMU reads a refcount block there.
pub(in crate::qcow2) fn is_readable(geometry: &Geometry, block: u64) -> bool {
    geometry.is_aligned(block) && block <= MAX_LENGTH - geometry.cluster_size()
}

/// References to clusters beyond what their refcounts can say: QEMU counts each.
fn overflow(
    run: &CountedRun,
    most: u64,
    check: &mut Check,
    problems: &mut Problems,
    findings: &mut Findings,
) {
    let CountedRun { clusters, count, .. } = run;
    if *count > most {
        let corruptions = (clusters.end - clusters.start).saturating_mul(count - most);
        check.corruptions = check.corruptions.saturating_add(corruptions);
        let fault = RefcountFault::Overflow { count: *count, most };
        problems.add(Fault::Refcounts { clusters: clusters.clone(), fault }, findings);
    }
}

/// Adds leaked clusters to those that are known, behind which they are.
fn remember(leaks: &mut Vec<Range<u64>>, clusters: &Range<u64>) {
    if let Some(last) = leaks.last_mut()
        && last.end == clusters.start
    {
        last.end = clusters.end;
    } else if leaks.len() < MOST_LEAKS {
        leaks.push(clusters.clone());
    }
}
