//! [`Fault`]: all that can be wrong with an image's tables, as a check notes it.

use std::ops::Range;

use super::walk::{Missing, Region};
use crate::qcow2::claims::Owner;
use crate::qcow2::crypto::LuksProblem;
use crate::qcow2::geometry::{Area, Geometry};
use crate::report::Severity;

/// Something that is wrong. Offsets and indices are those of the entries concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    // L1 and L2 tables.
    L1Entry {
        at: u64,
        fault: L1Fault,
    },
    L2Unread {
        tables: u64,
    },
    // The others.
    RegionOutside(Region),
    SnapshotsWithDataFile,
    SnapshotL1Unaligned {
        index: u32,
        entry: u64,
        offset: u64,
    },
    SnapshotL1Size {
        index: u32,
        entry: u64,
        entries: u64,
    },
    SnapshotExtraData {
        index: u32,
        entry: u64,
        size: u32,
    },
    SnapshotTable(String),
    BitmapTableEntry {
        bitmap: u32,
        at: u64,
        entry: u64,
    },
    // Refcounts.
    RefcountTableReserved {
        index: u64,
        entry: u64,
    },
    RefcountBlockUnaligned {
        index: u64,
        block: u64,
    },
    RefcountBlockOutside {
        index: u64,
        block: u64,
    },
    RefcountBlockShared {
        index: u64,
        block: u64,
        count: u64,
    },
    Refcounts {
        clusters: Range<u64>,
        fault: RefcountFault,
    },
    // What QEMU does not look for.
    Overlap {
        clusters: Range<u64>,
        /// Whether it is compressed data, and no table, that something else lies over.
        is_compressed: bool,
    },
    TableCut {
        area: Area,
    },
    Field {
        code: &'static str,
        name: &'static str,
        expected: String,
        found: String,
    },
    SnapshotId {
        index: u32,
        at: u64,
        /// The place in the table of the first snapshot with that ID.
        earlier: u32,
    },
    SnapshotL1Short {
        index: u32,
        entry: u64,
        entries: u64,
        needed: u64,
    },
    CryptoHeaderUnaligned {
        at: u64,
    },
    LuksUnreadable {
        at: u64,
        error: String,
    },
    Luks(LuksProblem),
    LostTable {
        cluster: u64,
        entries: u64,
    },
    /// L2 tables that the file does not have, or not all of, and leaks.
    MissingTables {
        entries: Vec<Missing>,
        /// Clusters.
        leaked: u64,
    },
    /// L2 tables in which nothing is, and leaks that are not behind them.
    EmptyTables {
        first: u64,
        count: u64,
        /// Clusters.
        leaked: u64,
    },
    WithoutData {
        table: u64,
        clusters: Range<u64>,
        /// Whether something else lies over the table, or nothing in it is an entry; it is empty else.
        is_overwritten: bool,
    },
}

/// What is wrong with an entry of an L1 table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum L1Fault {
    Reserved { entry: u64 },
    Copied { entry: u64, refcount: u64 },
    TableOutside { table: u64 },
    TableUnaligned { table: u64 },
}

/// What is wrong with the refcount of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RefcountFault {
    TooLow { refcount: u64, references: u64 },
    TooHigh { refcount: u64, references: u64 },
    Overflow { count: u64, most: u64 },
    Leak { refcount: u64 },
}

/// What is wrong with an entry of an L2 table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum L2Fault {
    Reserved,
    ZeroFlag,
    Copied {
        refcount: u64,
    },
    NotCopied,
    DataUnaligned,
    DataOutside,
    DataMisplaced {
        is_shared: bool,
    },
    SubclustersWithoutCluster,
    SubclustersInvalid,
    CompressedCopied,
    CompressedReserved,
    CompressedWithDataFile,
    CompressedSubclusters,
    #[cfg(feature = "decompress")]
    Undecodable(String),
    /// Empty, where as many clusters are leaked.
    Emptied {
        leaked: Range<u64>,
        /// Whether a part of the table seems to be lost, or it may be a crash's as well.
        is_lost: bool,
    },
}

impl Fault {
    pub(super) fn severity(&self) -> Severity {
        match self {
            Self::Refcounts { fault: RefcountFault::Leak { .. } | RefcountFault::TooHigh { .. }, .. }
            | Self::L2Unread { .. }
            | Self::EmptyTables { .. } => Severity::Warning,
            _ => Severity::Error,
        }
    }

    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::L1Entry { fault, .. } => fault.code(),
            Self::L2Unread { .. } => "l2-tables-unread",
            Self::RegionOutside(region) => code_outside(region.owner),
            Self::SnapshotsWithDataFile => "snapshots-with-data-file",
            Self::SnapshotL1Unaligned { .. } => "snapshot-l1-unaligned",
            Self::SnapshotL1Size { .. } => "snapshot-l1-size",
            Self::SnapshotExtraData { .. } => "snapshot-extra-data",
            Self::SnapshotTable(_) => "snapshot-table",
            Self::BitmapTableEntry { .. } => "bitmap-table-entry",
            Self::RefcountTableReserved { .. } => "refcount-table-reserved",
            Self::RefcountBlockUnaligned { .. } => "refcount-block-unaligned",
            Self::RefcountBlockOutside { .. } => "refcount-block-outside",
            Self::RefcountBlockShared { .. } => "refcount-block-shared",
            Self::Refcounts { fault, .. } => fault.code(),
            Self::Overlap { .. } => "overlap",
            Self::TableCut { .. } => "table-cut",
            Self::Field { code, .. } => code,
            Self::SnapshotId { .. } => "snapshot-id",
            Self::SnapshotL1Short { .. } => "snapshot-l1-size",
            Self::CryptoHeaderUnaligned { .. } => "crypto-header-unaligned",
            Self::LuksUnreadable { .. } => "luks-header",
            Self::Luks(problem) => problem.fault.code(),
            Self::LostTable { .. } => "lost-table",
            Self::MissingTables { .. } => "missing-table",
            Self::EmptyTables { .. } => "unlinked-clusters",
            Self::WithoutData { is_overwritten: false, .. } => "empty-table",
            Self::WithoutData { .. } => "overwritten-table",
        }
    }

    /// The L2 table that is empty, or no table any more.
    pub(super) fn l2_table(&self) -> Option<u64> {
        match self {
            Self::EmptyTables { first: table, count: 1, .. } | Self::WithoutData { table, .. } => {
                Some(*table)
            }
            _ => None,
        }
    }

    /// The clusters whose owners are worth knowing.
    pub(super) fn contested(&self, geometry: &Geometry) -> Option<Range<u64>> {
        let cluster = |offset: u64| {
            let first = offset >> geometry.cluster_bits();
            Some(first..first + 1)
        };
        match self {
            Self::Refcounts { fault: RefcountFault::Leak { .. }, .. } => None,
            Self::Refcounts { clusters, .. } | Self::Overlap { clusters, .. } => Some(clusters.clone()),
            Self::TableCut { area } => cluster(area.offset.0),
            Self::RefcountBlockShared { block, .. } => cluster(*block),
            Self::L1Entry { at, .. } | Self::BitmapTableEntry { at, .. } => cluster(*at),
            Self::RefcountTableReserved { index, .. }
            | Self::RefcountBlockUnaligned { index, .. }
            | Self::RefcountBlockOutside { index, .. } => {
                cluster(geometry.refcount_table().offset.0.saturating_add(index * 8))
            }
            _ => None,
        }
    }

    /// Takes `next` in, if that is the same of the clusters behind.
    pub(super) fn joins(&mut self, next: &Self) -> bool {
        let Self::Refcounts { clusters: next_clusters, fault: next_fault } = next else { return false };
        let Self::Refcounts { clusters, fault } = self else { return false };
        // Those that several refer to are told one by one, with their owners.
        let has_several = matches!(fault, RefcountFault::TooLow { references: 2.., .. });
        let joins = !has_several && fault == next_fault && clusters.end == next_clusters.start;
        if joins {
            clusters.end = next_clusters.end;
        }
        joins
    }

    /// Whether it is wrong with an entry of a table, whose cluster has one owner at least.
    pub(super) fn is_in_table(&self) -> bool {
        matches!(
            self,
            Self::L1Entry { .. }
                | Self::BitmapTableEntry { .. }
                | Self::RefcountTableReserved { .. }
                | Self::RefcountBlockUnaligned { .. }
                | Self::RefcountBlockOutside { .. }
        )
    }
}

impl RefcountFault {
    fn code(&self) -> &'static str {
        match self {
            Self::TooLow { .. } => "refcount-too-low",
            Self::TooHigh { .. } => "refcount-too-high",
            Self::Overflow { .. } => "refcount-overflow",
            Self::Leak { .. } => "leak",
        }
    }
}

impl L1Fault {
    fn code(&self) -> &'static str {
        match self {
            Self::Reserved { .. } => "l1-entry-reserved",
            Self::Copied { .. } => "l1-entry-copied",
            Self::TableOutside { .. } => "l2-table-outside",
            Self::TableUnaligned { .. } => "l2-table-unaligned",
        }
    }
}

impl L2Fault {
    pub(super) fn severity(&self) -> Severity {
        match self {
            Self::Emptied { is_lost: false, .. } => Severity::Warning,
            _ => Severity::Error,
        }
    }

    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Reserved => "l2-entry-reserved",
            Self::ZeroFlag => "l2-entry-zero-flag",
            Self::Copied { .. } | Self::NotCopied => "l2-entry-copied",
            Self::DataUnaligned => "data-unaligned",
            Self::DataOutside => "data-outside",
            Self::DataMisplaced { .. } => "data-misplaced",
            Self::SubclustersWithoutCluster => "subclusters-without-cluster",
            Self::SubclustersInvalid => "subclusters-invalid",
            Self::CompressedCopied => "compressed-copied",
            Self::CompressedReserved => "compressed-reserved",
            Self::CompressedWithDataFile => "compressed-with-data-file",
            Self::CompressedSubclusters => "compressed-subclusters",
            #[cfg(feature = "decompress")]
            Self::Undecodable(_) => "compressed-undecodable",
            Self::Emptied { is_lost: true, .. } => "lost-entries",
            Self::Emptied { .. } => "unlinked-clusters",
        }
    }
}

fn code_outside(owner: Owner) -> &'static str {
    match owner {
        Owner::Header => "header-outside",
        Owner::L1Table { snapshot: None } => "l1-table-outside",
        Owner::L1Table { .. } => "snapshot-l1-outside",
        Owner::SnapshotTable => "snapshot-table-outside",
        Owner::RefcountTable => "refcount-table-outside",
        Owner::RefcountBlock { .. } => "refcount-block-outside",
        Owner::CryptoHeader => "crypto-header-outside",
        Owner::BitmapDirectory => "bitmap-directory-outside",
        Owner::BitmapTable { .. } => "bitmap-table-outside",
        Owner::BitmapData { .. } => "bitmap-data-outside",
        Owner::L2Table { .. } => "l2-table-outside",
        Owner::Data { .. } | Owner::Compressed { .. } => "data-outside",
    }
}
