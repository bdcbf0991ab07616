//! [`SharedTable`]: which L1 entries name an L2 table, where more than one does.

use std::collections::{BTreeMap, BTreeSet};

use crate::qcow2::claims::{Claim, L1Place, Owner};
use crate::qcow2::geometry::Area;
use crate::qcow2::tables::Tables;
use crate::units::HostOffset;

/// Most entries that are kept of a table.
const MOST_PLACES: usize = 16;
/// As many entries of L1 tables are looked at in any file, and four times as many as it has room for: snapshots whose tables
/// overlap make a small file claim billions.
const MIN_ENTRIES: u64 = 1 << 20;

/// An L2 table that several L1 entries name, as where snapshots share it: whatever it has belongs to all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SharedTable {
    /// The table.
    pub table: HostOffset,
    /// The entries, up to 16.
    pub named_by: Vec<L1Place>,
    /// Entries that are not kept.
    pub omitted: u64,
}

/// The tables of some claims that are shared.
pub(super) fn shared<'c>(tables: &Tables<'_>, claims: impl Iterator<Item = &'c Claim>) -> Vec<SharedTable> {
    let wanted: BTreeSet<u64> = claims
        .filter_map(|claim| match claim.owner {
            Owner::L2Table { .. } => Some(claim.area.offset.0),
            Owner::Data { table, .. } | Owner::Compressed { table, .. } => Some(table.0),
            _ => None,
        })
        .collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    let empty = |table| SharedTable { table: HostOffset(table), named_by: Vec::new(), omitted: 0 };
    let mut found: Vec<SharedTable> = wanted.iter().map(|&table| empty(table)).collect();
    let file_length = tables.geometry().file_length();
    let mut left = (file_length / 2).max(MIN_ENTRIES);
    for (area, owners) in l1_tables(tables) {
        let Some(rest) = left.checked_sub(area.clipped(file_length).length / 8) else { break };
        left = rest;
        for (index, entry) in tables.l1_entries(area) {
            let table = entry.l2_table();
            let Ok(at) = found.binary_search_by_key(&table, |shared| shared.table) else { continue };
            let Some(shared) = found.get_mut(at) else { continue };
            let room = MOST_PLACES.saturating_sub(shared.named_by.len()).min(owners.len());
            let places = owners.iter().map(|&snapshot| L1Place { snapshot, index });
            shared.named_by.extend(places.take(room));
            shared.omitted += (owners.len() - room) as u64;
        }
    }
    found.retain(|shared| shared.named_by.len() > 1);
    found
}

/// The active L1 table and those of the snapshots, each once however many snapshots claim it, with whose it is.
fn l1_tables(tables: &Tables<'_>) -> Vec<(Area, Vec<Option<u32>>)> {
    let geometry = tables.geometry();
    let snapshots = tables.snapshots().map_while(Result::ok);
    let snapshots = snapshots.map(|snapshot| (Some(snapshot.index), snapshot.l1_table()));
    let (mut found, mut seen) = (Vec::<(Area, Vec<_>)>::new(), BTreeMap::new());
    let all = [(None, geometry.l1_table())].into_iter().chain(snapshots);
    for (snapshot, area) in all.filter(|(_, area)| geometry.is_aligned(area.offset.0)) {
        let at = *seen.entry((area.offset, area.length)).or_insert(found.len());
        match found.get_mut(at) {
            Some((_, owners)) => owners.push(snapshot),
            None => found.push((area, vec![snapshot])),
        }
    }
    found
}
