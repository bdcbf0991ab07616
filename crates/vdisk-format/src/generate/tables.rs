//! From runs of clusters to the L2 tables that describe them.

use std::ops::Range;

use super::guest::Extent;

/// An L2 table.
#[derive(Debug)]
pub(super) struct L2Table {
    /// The index of its L1 entry.
    pub(super) l1_index: u64,
    /// Its host cluster.
    pub(super) host: u64,
    /// Which of the extents it describes.
    pub(super) extents: Range<usize>,
}

/// The number of clusters that have a place in the file.
pub(super) fn allocated(extents: &[Extent]) -> u64 {
    extents.iter().filter(|extent| extent.allocated).map(|extent| extent.count).sum()
}

/// Splits the extents that reach over the end of an L2 table of `l2_entries` entries.
pub(super) fn split(extents: Vec<Extent>, l2_entries: u64) -> Vec<Extent> {
    let mut parts = Vec::with_capacity(extents.len());
    for extent in extents {
        let (mut first, end) = (extent.first, extent.first + extent.count);
        while first < end {
            let count = (end - first).min(l2_entries - first % l2_entries);
            parts.push(Extent { first, count, ..extent });
            first += count;
        }
    }
    parts
}

/// The L2 tables of `l2_entries` entries that describe the extents, ascending. They have no place yet.
pub(super) fn l2_tables(extents: &[Extent], l2_entries: u64) -> Vec<L2Table> {
    let mut tables: Vec<L2Table> = Vec::new();
    for (index, extent) in extents.iter().enumerate() {
        let l1_index = extent.first / l2_entries;
        match tables.last_mut() {
            Some(table) if table.l1_index == l1_index => table.extents.end = index + 1,
            _ => tables.push(L2Table { l1_index, host: 0, extents: index..index + 1 }),
        }
    }
    tables
}
