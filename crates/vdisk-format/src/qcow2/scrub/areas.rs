//! [`Areas`]: which parts of the file are tables of numbers, and how often each cluster is referred to.

use std::collections::{BTreeMap, BTreeSet};

use super::Structure;
use crate::cluster_counts::ClusterCounts;
use crate::qcow2::bitmap::{BitmapTableEntryKind, BitmapsExtension};
use crate::qcow2::extension::Content;
use crate::qcow2::geometry::{Area, Geometry, OFFSET_MASK};
use crate::qcow2::l2::L2Entry;
use crate::qcow2::tables::Tables;
use crate::units::HostOffset;

/// The largest L1 table of a snapshot whose references a check counts, in bytes.
const MAX_L1_BYTES: u64 = 32 << 20;
/// Autoclear feature bit 0: without it, a check does not count what bitmaps refer to.
const AUTOCLEAR_BITMAPS: u64 = 1;

/// What the numbers of a table mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Entries of an L1 table.
    L1 {
        active: bool,
    },
    /// Entries of the L2 table that begins where the area does.
    L2 {
        /// Whether the disk as it is has it.
        active: bool,
        /// Whether nothing else claims its cluster.
        exclusive: bool,
    },
    RefcountTable,
    /// Refcounts of clusters from `first` on.
    RefcountBlock {
        first: u64,
    },
    BitmapTable,
    /// Data of a bitmap, which are to be copied.
    BitmapData,
}

impl Role {
    pub(super) const fn structure(self) -> Structure {
        match self {
            Self::L1 { active: true } => Structure::L1Table,
            Self::L1 { active: false } => Structure::SnapshotL1Table,
            Self::L2 { .. } => Structure::L2Table,
            Self::RefcountTable => Structure::RefcountTable,
            Self::RefcountBlock { .. } => Structure::RefcountBlock,
            Self::BitmapTable => Structure::BitmapTable,
            Self::BitmapData => Structure::BitmapData,
        }
    }
}

/// A part of the file that something takes for a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbers {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) role: Role,
}

/// How many L1 entries of the disk as it is, and of snapshots, name an L2 table.
#[derive(Debug, Clone, Copy, Default)]
struct Referrers {
    active: u64,
    snapshots: u64,
}

/// All tables, and the references that a check counts.
pub(super) struct Areas<'t, 'a> {
    tables: &'t Tables<'a>,
    geometry: Geometry,
    pub(super) numbers: Vec<Numbers>,
    /// As a check counts them.
    pub(super) counts: ClusterCounts,
    /// Clusters with the data of bitmaps.
    pub(super) bitmap_data: BTreeSet<u64>,
    l2_tables: BTreeMap<u64, Referrers>,
}

impl<'t, 'a> Areas<'t, 'a> {
    /// Goes through all tables, in the order of a check: what it counts depends on that, as a table may go beyond the file's
    /// end.
    pub(super) fn new(tables: &'t Tables<'a>) -> Self {
        let geometry = tables.geometry();
        let mut areas = Self {
            tables,
            geometry,
            numbers: Vec::new(),
            counts: ClusterCounts::new(geometry.file_clusters()),
            bitmap_data: BTreeSet::new(),
            l2_tables: BTreeMap::new(),
        };
        areas.claim(Area::new(0, geometry.cluster_size()), 1);
        areas.l1_tables();
        for (table, by) in areas.l2_tables.clone() {
            areas.l2_table(table, by.active.saturating_add(by.snapshots));
        }
        areas.regions();
        areas.refcounts();
        // Now all that is claimed is known.
        for (table, by) in std::mem::take(&mut areas.l2_tables) {
            let references = areas.counts.count(table >> geometry.cluster_bits());
            let exclusive = geometry.is_aligned(table) && references == by.active + by.snapshots;
            let role = Role::L2 { active: by.active > 0, exclusive };
            areas.add(Area::new(table, geometry.cluster_size()), role);
        }
        areas
    }

    fn add(&mut self, area: Area, role: Role) {
        let area = area.clipped(self.geometry.file_length());
        if area.length > 0 {
            self.numbers.push(Numbers { start: area.offset.0, end: area.end(), role });
        }
    }

    /// Counts references, by the rules of a check.
    fn claim(&mut self, area: Area, times: u64) -> bool {
        if area.length == 0 {
            return true;
        }
        let limit = self.geometry.file_length().saturating_add(self.geometry.cluster_size());
        if area.end() >= limit {
            return false;
        }
        let clusters = self.geometry.clusters(area);
        self.counts.extend(clusters.end);
        self.counts.add(clusters.start, clusters.end - clusters.start, times, false);
        true
    }

    fn l1_tables(&mut self) {
        let active = self.geometry.l1_table();
        self.claim(active, 1);
        self.add(active, Role::L1 { active: true });
        self.l1_entries(active, Referrers { active: 1, snapshots: 0 });
        let mut snapshots = Vec::new();
        for snapshot in self.tables.snapshots().map_while(Result::ok) {
            let table = snapshot.l1_table();
            if !self.geometry.is_aligned(table.offset.0) {
                continue; // nobody looks into it
            }
            let is_counted = table.length <= MAX_L1_BYTES;
            if is_counted {
                self.claim(table, 1);
            }
            snapshots.push((table, u64::from(is_counted)));
        }
        for (area, times) in segments(&snapshots) {
            self.add(area, Role::L1 { active: false });
            self.l1_entries(area, Referrers { active: 0, snapshots: times });
        }
    }

    fn l1_entries(&mut self, area: Area, by: Referrers) {
        let tables = self.tables;
        for (_, entry) in tables.l1_entries(area) {
            let table = entry.l2_table().0;
            self.claim(Area::new(table, self.geometry.cluster_size()), by.active + by.snapshots);
            let known = self.l2_tables.entry(table).or_default();
            known.active += by.active;
            known.snapshots = known.snapshots.saturating_add(by.snapshots);
        }
    }

    fn l2_table(&mut self, table: u64, times: u64) {
        if self.geometry.data_file() {
            return; // its entries are about another file
        }
        let (tables, format) = (self.tables, self.tables.l2_format());
        let (bits, size) = (self.geometry.cluster_bits(), self.geometry.cluster_size());
        for run in tables.l2_runs(HostOffset(table)) {
            let L2Entry { raw, bitmap } = run.first;
            let host = raw & OFFSET_MASK;
            if run.first.is_compressed() {
                if bitmap.0 == 0 {
                    let data = run.first.compressed(&format);
                    let area = Area { offset: data.offset, length: data.length };
                    self.claim(area, times.saturating_mul(run.count));
                }
            } else if host == 0 {
            } else if run.step == 0 {
                self.claim(Area::new(host, size), times.saturating_mul(run.count));
            } else if self.geometry.is_aligned(host) {
                let there = self.geometry.file_clusters().saturating_sub(host >> bits).min(run.count);
                self.counts.add(host >> bits, there, times, false);
            } else {
                for (_, entry) in run.entries() {
                    self.claim(Area::new(entry.raw & OFFSET_MASK, size), times);
                }
            }
        }
    }

    fn regions(&mut self) {
        let tables = self.tables;
        let mut snapshots = tables.snapshots();
        snapshots.by_ref().for_each(drop);
        self.claim(snapshots.area(), 1);
        let refcounts = self.geometry.refcount_table();
        self.claim(refcounts, 1);
        self.add(refcounts, Role::RefcountTable);
        // A check counts the first one, if its bit says so; all are looked at.
        let mut is_counted = tables.header().v3.autoclear_features & AUTOCLEAR_BITMAPS != 0;
        for extension in tables.header().extensions().map_while(Result::ok) {
            match extension.content() {
                Ok(Content::CryptoHeader(pointer)) if self.geometry.crypt_method() == 2 => {
                    self.claim(Area::new(pointer.offset, pointer.length), 1);
                }
                Ok(Content::Bitmaps(bitmaps)) => {
                    self.bitmaps(&bitmaps, is_counted);
                    is_counted = false;
                }
                _ => {}
            }
        }
    }

    fn bitmaps(&mut self, extension: &BitmapsExtension, is_counted: bool) {
        let tables = self.tables;
        if is_counted {
            self.claim(extension.directory_area(), 1);
        }
        let (mut even, mut odd) = (Vec::new(), BTreeSet::new());
        for bitmap in extension.directory(tables.view().bytes()).map_while(Result::ok) {
            let table = bitmap.fixed.table();
            let is_there = is_counted && self.claim(table, 1);
            if table.offset.0.is_multiple_of(8) {
                even.push((table, u64::from(is_there)));
            } else {
                odd.insert((table.offset.0, table.length));
            }
        }
        for (start, length) in odd {
            self.add(Area::new(start, length), Role::BitmapTable);
        }
        for (area, times) in segments(&even) {
            self.add(area, Role::BitmapTable);
            for (_, entry) in tables.bitmap_table_entries(area) {
                let is_valid = entry.reserved() == 0 && entry.kind() == BitmapTableEntryKind::Serialized;
                if is_valid && self.geometry.is_aligned(entry.cluster().0) {
                    self.bitmap_data.insert(entry.cluster().0);
                    self.claim(Area::new(entry.cluster().0, self.geometry.cluster_size()), times);
                }
            }
        }
    }

    fn refcounts(&mut self) {
        let tables = self.tables;
        for (index, entry) in tables.refcount_table_entries() {
            let block = entry.block().0;
            if !self.geometry.is_aligned(block) {
                continue; // nobody looks into it
            }
            let area = Area::new(block, self.geometry.cluster_size());
            let is_there = block >> self.geometry.cluster_bits() < self.counts.end();
            if is_there && entry.reserved() == 0 {
                self.claim(area, 1);
            }
            if let Some(first) = self.geometry.refcounted_cluster(index, 0) {
                self.add(area, Role::RefcountBlock { first });
            }
        }
    }
}

/// The parts of `tables`, each once, in the order of the file, with the sum of the weights of those that it is part of.
fn segments(tables: &[(Area, u64)]) -> Vec<(Area, u64)> {
    let mut changes: BTreeMap<u64, (i64, i64)> = BTreeMap::new();
    for (table, weight) in tables.iter().filter(|(table, _)| table.length > 0) {
        let weight = i64::try_from(*weight).unwrap_or(i64::MAX);
        for (at, sign) in [(table.offset.0, 1), (table.end(), -1)] {
            let change = changes.entry(at).or_default();
            *change = (change.0 + sign, change.1 + sign * weight);
        }
    }
    let (mut cover, mut weight) = (0, 0);
    let mut parts = Vec::new();
    let mut changes = changes.into_iter().peekable();
    while let Some((start, change)) = changes.next() {
        (cover, weight) = (cover + change.0, weight + change.1);
        if let Some(&(end, _)) = changes.peek().filter(|_| cover > 0) {
            parts.push((Area::new(start, end - start), u64::try_from(weight).unwrap_or(0)));
        }
    }
    parts
}
