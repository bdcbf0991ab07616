//! [`Walk`]: the tables are visited, each once, and who refers to which cluster is counted.

use std::ops::Range;

use super::fault::{Fault, L1Fault};
use super::l2_tables::{L2Tables, Referrers};
use super::lost::MOST_RUNS;
use super::problems::Problems;
use super::snapshots::{SnapshotEntries, SnapshotEntry};
use crate::check::{Check, Findings};
use crate::cluster_counts::ClusterCounts;
use crate::cluster_set::ClusterSet;
use crate::qcow2::claims::Owner;
use crate::qcow2::geometry::{Area, Geometry, MAX_L1_BYTES};
use crate::qcow2::l1::L1Entry;
use crate::qcow2::reader::Reader;
use crate::qcow2::segments::{Segment, segments};
use crate::qcow2::tables::Tables;

/// What the visits come to.
pub(super) struct Walk<'t, 'a> {
    pub(super) tables: &'t Tables<'a>,
    pub(super) geometry: Geometry,
    pub(super) check: &'t mut Check,
    pub(super) findings: &'t mut Findings,
    pub(super) problems: Problems,
    /// References to clusters of the file. A marked one has the `COPIED` flag, and is from the active tables.
    pub(super) counts: ClusterCounts,
    /// Clusters that the active tables refer to without that flag.
    pub(super) uncopied: ClusterSet,
    /// The L2 tables that the file may have.
    pub(super) l2_tables: L2Tables,
    /// All other tables. There may be one for each cluster.
    pub(super) others: Vec<Other>,
    /// References to clusters with compressed data.
    pub(super) compressed: Option<ClusterCounts>,
    pub(super) reader: Reader,
    /// Clusters with a refcount that nothing refers to, in order; not all of them where they are many runs.
    pub(super) leaks: Vec<Range<u64>>,
    /// Those that have more of a refcount than references: somebody else may have had them, too.
    pub(super) surplus: Vec<Range<u64>>,
    /// L1 entries that name tables which the file does not have, or not all of: those of the disk, else of snapshots.
    pub(super) missing_tables: Vec<Missing>,
    /// L2 tables of the disk as it is in which nothing is.
    pub(super) empty_tables: Vec<u64>,
    /// And those that something else lies over, or in which nothing is an entry.
    pub(super) overwritten_tables: Vec<u64>,
}

/// A part of the file as [`Region`] has it, in as few bytes as can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Other {
    pub(super) area: Area,
    /// Whether it is of no use without its end.
    pub(super) is_whole: bool,
}

impl Other {
    /// The snapshot table's end may be padding that nobody wrote; whether its entries are there has been looked at.
    fn new(owner: Owner, area: Area) -> Self {
        use Owner::{BitmapData, CryptoHeader, Header, SnapshotTable};
        let is_whole = !matches!(owner, Header | BitmapData { .. } | CryptoHeader | SnapshotTable);
        Self { area, is_whole }
    }
}

/// An L1 entry whose table is not in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) at: u64,
    pub(super) table: u64,
    is_active: bool,
}

/// A table that is no L2 table, or another part of the file that is not the guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) owner: Owner,
    pub(super) area: Area,
}

impl<'t, 'a> Walk<'t, 'a> {
    pub(super) fn new(tables: &'t Tables<'a>, check: &'t mut Check, findings: &'t mut Findings) -> Self {
        let geometry = tables.geometry();
        Self {
            tables,
            geometry,
            check,
            findings,
            problems: Problems::default(),
            counts: ClusterCounts::new(geometry.file_clusters()),
            uncopied: ClusterSet::new(geometry.file_clusters()),
            l2_tables: L2Tables::default(),
            others: Vec::new(),
            compressed: None,
            reader: Reader::default(),
            leaks: Vec::new(),
            surplus: Vec::new(),
            missing_tables: Vec::new(),
            empty_tables: Vec::new(),
            overwritten_tables: Vec::new(),
        }
    }

    /// Visits everything, and counts who refers to what.
    pub(super) fn references(&mut self) {
        self.region(Owner::Header, Area::new(0, self.geometry.cluster_size()));
        self.l1_tables();
        self.l2_tables();
        self.regions();
        self.counts.settle();
        self.refcount_blocks();
    }

    /// The active L1 table, then those of the snapshots: they are claimed, and the L2 tables that they refer to are noted.
    fn l1_tables(&mut self) {
        let active = self.geometry.l1_table();
        self.region(Owner::L1Table { snapshot: None }, active);
        self.l1_entries(active, Referrers { active: 1, snapshots: 0 });
        let snapshots = self.snapshot_l1_tables();
        for segment in segments(snapshots) {
            self.l1_entries(segment.area, Referrers { active: 0, snapshots: segment.times });
        }
        self.l2_tables.settle();
    }

    fn snapshot_l1_tables(&mut self) -> Vec<Area> {
        if self.geometry.data_file() && self.tables.header().v2.nb_snapshots > 0 {
            self.check.corruptions += 1;
            self.problems.add(Fault::SnapshotsWithDataFile, self.findings);
        }
        let (mut tables, mut there) = (Vec::new(), Vec::new());
        for snapshot in SnapshotEntries::new(self.tables) {
            let table = snapshot.l1_table();
            if let Some(fault) = self.refused(&snapshot) {
                self.check.corruptions += 1;
                self.problems.add(fault, self.findings);
                continue;
            }
            // QEMU looks into those that the file does not have, too.
            if self.note(Owner::L1Table { snapshot: Some(snapshot.index) }, table) {
                there.push(table);
            }
            tables.push(table);
        }
        self.count_all(&there);
        tables
    }

    /// Why QEMU does not look into a snapshot's L1 table.
    pub(super) fn refused(&self, snapshot: &SnapshotEntry) -> Option<Fault> {
        let table = snapshot.l1_table();
        let (index, entry) = (snapshot.index, snapshot.offset);
        if !self.geometry.is_aligned(table.offset.0) {
            return Some(Fault::SnapshotL1Unaligned { index, entry, offset: table.offset.0 });
        }
        (table.length > MAX_L1_BYTES).then_some(Fault::SnapshotL1Size {
            index,
            entry,
            entries: table.length / 8,
        })
    }

    /// Notes the L2 tables that the entries in `area` refer to, each as often as `by` says.
    fn l1_entries(&mut self, area: Area, by: Referrers) {
        let times = by.all();
        for (index, entry) in self.tables.l1_entries(area) {
            let at = area.offset.0 + index * 8;
            if entry.0 & L1Entry::RESERVED != 0 {
                self.check.corruptions += times;
                self.problems
                    .add(Fault::L1Entry { at, fault: L1Fault::Reserved { entry: entry.0 } }, self.findings);
            }
            let table = entry.l2_table().0;
            let is_copied = by.active > 0 && entry.copied();
            let area = Area::new(table, self.geometry.cluster_size());
            if area.end() > self.geometry.file_length() {
                self.missing(Missing { at, table, is_active: by.active > 0 });
            }
            if !self.claim(area, times, is_copied) {
                self.check.corruptions += times;
                self.problems
                    .add(Fault::L1Entry { at, fault: L1Fault::TableOutside { table } }, self.findings);
                if by.active > 0 {
                    // What lies outside has a refcount all the same, which the flag has to agree with.
                    let cluster = table >> self.geometry.cluster_bits();
                    self.flag(cluster, is_copied, 1, |refcount| Fault::L1Entry {
                        at,
                        fault: L1Fault::Copied { entry: entry.0, refcount },
                    });
                }
            } else if by.active > 0 && !is_copied {
                self.uncopied.insert(table >> self.geometry.cluster_bits(), 1, |_| {});
            }
            if !self.geometry.is_aligned(table) {
                self.check.corruptions += times;
                self.problems
                    .add(Fault::L1Entry { at, fault: L1Fault::TableUnaligned { table } }, self.findings);
            }
            // Of what lies behind the file there is nothing to read.
            if table < self.geometry.reach() {
                self.l2_tables.add(table, by);
            }
        }
    }

    /// Those of the disk come first: what snapshots have is mostly the same.
    fn missing(&mut self, entry: Missing) {
        let is_wanted = self.missing_tables.first().is_none_or(|first| first.is_active == entry.is_active);
        if is_wanted && self.missing_tables.len() < MOST_RUNS {
            self.missing_tables.push(entry);
        }
    }

    /// Claims a region, and remembers it.
    pub(super) fn region(&mut self, owner: Owner, area: Area) -> bool {
        let is_there = self.note(owner, area);
        if is_there {
            self.count(area, 1, false);
        }
        is_there
    }

    /// Remembers a region that is counted later, if the file has it.
    pub(super) fn note(&mut self, owner: Owner, area: Area) -> bool {
        let is_there = self.is_there(area);
        if !is_there {
            // QEMU's lengths are signed: it counts nothing of an encryption header whose length is below 0 then.
            if matches!(owner, Owner::CryptoHeader) && i64::try_from(area.length).is_err() {
                self.check.extra_corruptions += 1;
            } else {
                self.check.corruptions += 1;
            }
            self.problems.add(Fault::RegionOutside(Region { owner, area }), self.findings);
        } else if area.length > 0 {
            self.others.push(Other::new(owner, area));
        }
        is_there
    }

    /// Counts a reference to each cluster of each area: thousands that overlap cost no more than one.
    pub(super) fn count_all(&mut self, areas: &[Area]) {
        let bits = self.geometry.cluster_bits();
        let whole = areas.iter().map(|&area| {
            let clusters = self.geometry.clusters(area);
            Area::new(clusters.start << bits, (clusters.end - clusters.start) << bits)
        });
        for Segment { area, times, .. } in segments(whole.collect::<Vec<_>>()) {
            self.count(area, times, false);
        }
    }

    /// Counts `times` references to the clusters of `area`, if the file has it.
    pub(super) fn claim(&mut self, area: Area, times: u64, marked: bool) -> bool {
        let is_there = self.is_there(area);
        if is_there {
            self.count(area, times, marked);
        }
        is_there
    }

    /// As for QEMU, the last cluster may go beyond the end of the file, and is counted then; whatever goes farther is not.
    pub(super) fn is_there(&self, area: Area) -> bool {
        area.length == 0 || area.end() < self.geometry.reach()
    }

    fn count(&mut self, area: Area, times: u64, marked: bool) {
        let clusters = self.geometry.clusters(area);
        if area.length == 0 {
            return;
        }
        self.counts.extend(clusters.end);
        let count = clusters.end - clusters.start;
        if marked {
            self.counts.add(clusters.start, count, times, true);
        } else {
            self.counts.add_range(clusters.start, count, times);
        }
    }

    /// Visits the L2 tables in the order of the file. Those that are not aligned may overlap: no more of them are looked at
    /// than [`Tables::unaligned_l2_tables`] allows, and the others are forgotten.
    fn l2_tables(&mut self) {
        let mut tables = std::mem::take(&mut self.l2_tables);
        let (known, mut left) = (tables.len(), self.tables.unaligned_l2_tables());
        tables.retain(|table| {
            let is_free = self.geometry.is_aligned(table) || table >= self.geometry.file_length();
            let is_read = is_free || left > 0;
            left -= u64::from(is_read && !is_free);
            is_read
        });
        if tables.len() < known {
            let fault = Fault::L2Unread { tables: (known - tables.len()) as u64 };
            self.problems.add(fault, self.findings);
        }
        let total = tables.len() as u64;
        for (done, (table, by)) in tables.iter().enumerate() {
            self.l2_table(table, by);
            self.tables.view().report(done as u64 + 1, total);
        }
        self.l2_tables = tables;
    }

    /// Makes findings of all that was found.
    pub(super) fn tell(self) {
        let Self { tables, findings, problems, counts, uncopied, l2_tables, others, .. } = self;
        // To say who is concerned takes as much memory again.
        drop((counts, uncopied, l2_tables, others));
        problems.tell(tables, findings);
    }
}
