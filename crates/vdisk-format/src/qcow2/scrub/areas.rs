//! [`Areas`]: which parts of the file are tables of numbers.

use std::collections::{BTreeMap, BTreeSet};

use super::Structure;
use super::refcounts::MOST_NARROW;
use crate::qcow2::bitmap::{AUTOCLEAR_BITMAPS, BitmapTableEntryKind, BitmapsExtension};
use crate::qcow2::check::{LostTable, LostTables, Referrers, Survey, snapshot_entries, survey};
use crate::qcow2::geometry::{Area, Geometry};
use crate::qcow2::refcount::RefcountBlock;
use crate::qcow2::segments::segments;
use crate::qcow2::tables::Tables;

/// So many runs of wrong refcounts a block has where something went wrong; one that is none has more.
const MOST_WRONG: u64 = 64;

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
        /// Whether its bits may be a guest's.
        is_doubtful: bool,
    },
    BitmapTable,
    /// Data of a bitmap, which are to be copied.
    BitmapData,
    /// A leaked cluster that reads as a table.
    LostTable {
        /// Of how many words its entries are.
        words: usize,
    },
    /// A leaked cluster that does not, and must not in the copy.
    Leaked,
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
            Self::LostTable { .. } | Self::Leaked => Structure::LeakedCluster,
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

/// All tables, and what a check counts.
pub(super) struct Areas<'t, 'a> {
    tables: &'t Tables<'a>,
    geometry: Geometry,
    pub(super) numbers: Vec<Numbers>,
    pub(super) survey: Survey,
}

impl<'t, 'a> Areas<'t, 'a> {
    /// All that a check, or whoever asks for a cluster's owners, takes for a table.
    pub(super) fn new(tables: &'t Tables<'a>) -> Self {
        let geometry = tables.geometry();
        let mut areas = Self { tables, geometry, numbers: Vec::new(), survey: survey(tables) };
        areas.l1_tables();
        areas.l2_tables();
        areas.refcounts();
        if let Some(bitmaps) = BitmapsExtension::of(tables.header()) {
            areas.bitmap_tables(&bitmaps);
        }
        for LostTable { cluster, words, .. } in std::mem::take(&mut areas.survey.lost_tables) {
            areas.add_cluster(cluster << geometry.cluster_bits(), Role::LostTable { words });
        }
        areas
    }

    /// The clusters with data of bitmaps that nothing else has. Of bitmaps that are not consistent nobody keeps track: what
    /// their tables name may be anybody's by now.
    pub(super) fn add_bitmap_data(&mut self) {
        if self.tables.header().v3.autoclear_features & AUTOCLEAR_BITMAPS == 0 {
            return;
        }
        let (tables, bits) = (self.tables, self.geometry.cluster_bits());
        let bitmap_tables = self.numbers.iter().filter(|numbers| numbers.role == Role::BitmapTable);
        let entries = bitmap_tables.flat_map(|numbers| {
            tables.bitmap_table_entries(Area::new(numbers.start, numbers.end - numbers.start))
        });
        let clusters: BTreeSet<u64> = entries
            .filter(|(_, entry)| entry.reserved() == 0 && entry.kind() == BitmapTableEntryKind::Serialized)
            .map(|(_, entry)| entry.cluster().0)
            .filter(|&cluster| self.geometry.is_aligned(cluster) && cluster < self.geometry.file_length())
            .filter(|&cluster| self.survey.counts.count(cluster >> bits) <= 1)
            .collect();
        clusters.into_iter().for_each(|cluster| self.add_cluster(cluster, Role::BitmapData));
    }

    /// Leaked clusters of which something is copied, though they do not read as tables.
    pub(super) fn add_leaked(&mut self, fixed: impl Iterator<Item = u64>) {
        let bits = self.geometry.cluster_bits();
        let leaks = std::mem::take(&mut self.survey.leaks);
        let mut leaked = BTreeSet::new();
        for numbers in &self.numbers {
            let clusters = numbers.start >> bits..numbers.end.div_ceil(1 << bits);
            let first = leaks.partition_point(|run| run.end <= clusters.start);
            for run in leaks.iter().skip(first).take_while(|run| run.start < clusters.end) {
                leaked.extend(run.start.max(clusters.start)..run.end.min(clusters.end));
            }
        }
        leaked.extend(fixed.map(|at| at >> bits).filter(|&cluster| {
            let behind = leaks.partition_point(|run| run.end <= cluster);
            leaks.get(behind).is_some_and(|run| run.contains(&cluster))
        }));
        for numbers in self.numbers.iter().filter(|numbers| matches!(numbers.role, Role::LostTable { .. })) {
            leaked.remove(&(numbers.start >> bits));
        }
        leaked.into_iter().for_each(|cluster| self.add_cluster(cluster << bits, Role::Leaked));
        self.survey.leaks = leaks;
    }

    /// What a leaked cluster has to look like.
    pub(super) fn lost_tables(&self) -> LostTables<'_, 'a> {
        LostTables { tables: self.tables, leaks: &self.survey.leaks, surplus: &self.survey.surplus }
    }

    fn add_cluster(&mut self, start: u64, role: Role) {
        self.add(Area::new(start, self.geometry.cluster_size()), role);
    }

    fn add(&mut self, area: Area, role: Role) {
        let area = area.clipped(self.geometry.file_length());
        if area.length > 0 {
            self.numbers.push(Numbers { start: area.offset.0, end: area.end(), role });
        }
    }

    fn l1_tables(&mut self) {
        self.add(self.geometry.l1_table(), Role::L1 { active: true });
        let snapshots = snapshot_entries(self.tables).map(|snapshot| snapshot.l1_table());
        for segment in segments(snapshots.filter(|table| self.geometry.is_aligned(table.offset.0))) {
            self.add(segment.area, Role::L1 { active: false });
            // A check does not look into tables that are too large, but who claims what they name is told.
            for (_, entry) in self.tables.l1_entries(segment.area) {
                let table = entry.l2_table().0;
                if table < self.geometry.reach() {
                    self.survey.l2_tables.add(table, Referrers::default());
                }
            }
        }
    }

    fn l2_tables(&mut self) {
        let mut tables = std::mem::take(&mut self.survey.l2_tables);
        tables.settle();
        for (table, by) in tables.iter() {
            let references = self.survey.counts.count(table >> self.geometry.cluster_bits());
            let exclusive = self.geometry.is_aligned(table) && references == by.all();
            self.add_cluster(table, Role::L2 { active: by.active > 0, exclusive });
        }
    }

    fn refcounts(&mut self) {
        self.add(self.geometry.refcount_table(), Role::RefcountTable);
        let mut blocks = BTreeMap::new();
        for (index, entry) in self.tables.refcount_table_entries() {
            if let Some(first) = self.geometry.refcounted_cluster(index, 0)
                && self.geometry.is_aligned(entry.block().0)
            {
                // Of several entries, the first is for clusters that are counted, if any is.
                blocks.entry(entry.block().0).or_insert(first);
            }
        }
        for (block, first) in blocks {
            let is_doubtful = self.is_doubtful(block, first);
            self.add_cluster(block, Role::RefcountBlock { first, is_doubtful });
        }
    }

    /// Whether what claims to be a block of narrow refcounts may be something else: something else claims it, or it is wrong all
    /// over.
    fn is_doubtful(&self, block: u64, first: u64) -> bool {
        let counts = &self.survey.counts;
        if self.geometry.refcount_order().is_none_or(|order| order > MOST_NARROW) {
            return false;
        }
        if counts.count(block >> self.geometry.cluster_bits()) != 1 {
            return true;
        }
        let mut wrong = 0;
        for run in self.tables.refcount_block(block.into()).iter().flat_map(RefcountBlock::runs) {
            let clusters = first.saturating_add(run.index)..first.saturating_add(run.index + run.count);
            // Those behind the file's end are right if it was cut short, and then few runs.
            counts.runs(clusters, |counted| wrong += u64::from(counted.count != run.refcount));
            if wrong > MOST_WRONG {
                return true;
            }
        }
        false
    }

    /// Tables that begin at no multiple of 8 are read by nobody but who looks for their first wrong entry.
    fn bitmap_tables(&mut self, extension: &BitmapsExtension) {
        let directory = extension.directory(self.tables.view().bytes()).map_while(Result::ok);
        let tables = directory.map(|bitmap| bitmap.fixed.table());
        for segment in segments(tables.filter(|table| table.offset.0.is_multiple_of(8))) {
            self.add(segment.area, Role::BitmapTable);
        }
    }
}
