//! Two owners of one cluster, where one of them is a table: wrong whatever the refcounts say.

use std::ops::Range;

use super::fault::Fault;
use super::lost::MOST_RUNS;
use super::walk::{Other, Walk};
use crate::qcow2::geometry::Area;

/// A table, and how many references to its clusters are known to be its own.
#[derive(Debug, Clone, Copy)]
struct Table {
    area: Area,
    times: u64,
    /// Whether it is of no use without its end.
    is_whole: bool,
}

impl Walk<'_, '_> {
    /// Looks for clusters of tables that something else claims, too; and for tables that the file's end cuts short.
    pub(super) fn overlaps(&mut self) {
        let (l2_tables, mut others) = (std::mem::take(&mut self.l2_tables), std::mem::take(&mut self.others));
        others.sort_unstable_by_key(|other| (other.area.offset, other.area.length));
        let mut told = 0;
        let mut others_left = others.iter().peekable();
        // The two in the order of the file: there may be as many as there are clusters.
        for (table, by) in l2_tables.iter() {
            while let Some(other) = others_left.next_if(|other| other.area.offset.0 <= table) {
                self.overlap(other.into(), &mut told);
            }
            let area = Area::new(table, self.geometry.cluster_size());
            if self.is_there(area) {
                let is_shared = self.overlap(Table { area, times: by.all(), is_whole: true }, &mut told);
                if is_shared && by.active > 0 && self.overwritten_tables.len() < MOST_RUNS {
                    self.overwritten_tables.push(table);
                }
            }
        }
        for other in others_left {
            self.overlap(other.into(), &mut told);
        }
        (self.l2_tables, self.others) = (l2_tables, others);
        self.compressed_overlaps();
    }

    /// One of them, and whether something else claims a part of it; `told` is where the last one ended that was told of.
    fn overlap(&mut self, table: Table, told: &mut u64) -> bool {
        if table.is_whole && table.area.end() > self.geometry.file_length() {
            self.extra(Fault::TableCut { area: table.area });
        }
        let clusters = self.geometry.clusters(table.area);
        let mut shared: Option<Range<u64>> = None;
        // Of two tables in one place, the first one has told of it.
        self.counts.runs(clusters.start.max(*told)..clusters.end.max(*told), |run| {
            if run.count > table.times {
                shared.get_or_insert(run.clusters.start..0).end = run.clusters.end;
            }
        });
        let is_shared = shared.is_some() || clusters.start < *told;
        if let Some(clusters) = shared {
            *told = clusters.end;
            self.extra(Fault::Overlap { clusters, is_compressed: false });
        }
        is_shared
    }

    /// Clusters with compressed data that are other data's as well.
    fn compressed_overlaps(&mut self) {
        let Some(compressed) = self.compressed.take() else { return };
        let mut shared = Vec::new();
        compressed.runs(0..compressed.end(), |run| {
            if run.count > 0 {
                self.counts.runs(run.clusters, |all| {
                    if all.count > run.count {
                        shared.push(all.clusters);
                    }
                });
            }
        });
        for clusters in shared {
            self.extra(Fault::Overlap { clusters, is_compressed: true });
        }
    }

    /// Something that QEMU's check does not look for.
    pub(super) fn extra(&mut self, fault: Fault) {
        self.check.extra_corruptions += 1;
        self.problems.add(fault, self.findings);
    }
}

impl From<&Other> for Table {
    fn from(other: &Other) -> Self {
        Self { area: other.area, times: 1, is_whole: other.is_whole }
    }
}
