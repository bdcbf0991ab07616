//! [`survey`]: what a check counts, for those who copy what it looks at.

use std::ops::Range;

use super::l2_tables::L2Tables;
use super::lost::LostTable;
use super::snapshots::{SnapshotEntries, SnapshotEntry};
use super::walk::Walk;
use crate::check::{Check, Findings};
use crate::cluster_counts::ClusterCounts;
use crate::qcow2::tables::Tables;

/// What a check makes of an image before it tells of it.
#[derive(Debug)]
pub(in crate::qcow2) struct Survey {
    /// How often each cluster is referred to.
    pub(in crate::qcow2) counts: ClusterCounts,
    /// The L2 tables, by their offsets.
    pub(in crate::qcow2) l2_tables: L2Tables,
    /// Clusters with a refcount that nothing refers to, in order.
    pub(in crate::qcow2) leaks: Vec<Range<u64>>,
    /// Those whose refcount is larger than the references to them, in order.
    pub(in crate::qcow2) surplus: Vec<Range<u64>>,
    /// Leaked clusters that read as tables.
    pub(in crate::qcow2) lost_tables: Vec<LostTable>,
}

/// Goes through all tables as a check does.
pub(in crate::qcow2) fn survey(tables: &Tables<'_>) -> Survey {
    let (mut check, mut findings) = (Check::default(), Findings::default());
    let mut walk = Walk::new(tables, &mut check, &mut findings);
    walk.references();
    walk.compare();
    let lost_tables = walk.lost_tables();
    let Walk { counts, l2_tables, leaks, surplus, .. } = walk;
    Survey { counts, l2_tables, leaks, surplus, lost_tables }
}

/// The entries of the snapshot table, those that the file does not have included.
pub(in crate::qcow2) fn snapshot_entries(tables: &Tables<'_>) -> impl Iterator<Item = SnapshotEntry> {
    SnapshotEntries::new(tables)
}
