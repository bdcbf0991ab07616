//! Who has a cluster: found by a second walk, for the few clusters that two want.

use std::collections::BTreeMap;

use crate::cluster_set::ClusterSet;
use crate::qed::geometry::Entry;
use crate::qed::tables::Tables;
use crate::units::HostOffset;

/// The first that claims a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    L1Table,
    L2Table { l1_index: u64 },
    Data { table: HostOffset, index: u64 },
}

/// Finds the first owner of each of the `wanted` clusters. `visited` are the L1 entries whose tables are looked into.
pub(super) fn find(tables: &Tables<'_>, visited: &ClusterSet, wanted: &mut BTreeMap<u64, Option<Owner>>) {
    let geometry = tables.geometry();
    let bits = geometry.cluster_bits();
    let mut filter = ClusterSet::new(geometry.clusters());
    for &cluster in wanted.keys() {
        filter.insert(cluster, 1, |_| {});
    }
    let mut claim = |first: u64, count: u64, owner: &dyn Fn(u64) -> Owner| {
        if filter.intersects(first, count) {
            for (&cluster, found) in wanted.range_mut(first..first + count) {
                found.get_or_insert(owner(cluster - first));
            }
        }
    };
    if let Some(l1) = tables.readable_l1_table() {
        claim(l1.0 >> bits, geometry.table_clusters(), &|_| Owner::L1Table);
    }
    for (l1_index, value) in tables.l1_entries() {
        let Ok(table) = geometry.table_offset(value) else { continue };
        claim(table.0 >> bits, geometry.table_clusters(), &|_| Owner::L2Table { l1_index });
        if !visited.intersects(l1_index, 1) {
            continue;
        }
        for run in tables.l2_runs(table).filter(|run| run.value > 1) {
            for (entry, part) in geometry.kinds(run) {
                if let Entry::Data(offset) = entry {
                    claim(offset.0 >> bits, part.count, &|i| Owner::Data { table, index: part.index + i });
                }
            }
        }
        tables.was_visited(l1_index);
    }
}
