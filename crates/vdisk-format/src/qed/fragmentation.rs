//! [`fragmentation`]: how much of the disk is allocated, and how much of that in pieces.

use std::collections::BTreeMap;

use crate::cluster_set::ClusterSet;
use crate::qed::tables::Tables;
use crate::units::HostOffset;

/// Statistics of allocation, as qed-tool.py's `fragcheck` counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Fragmentation {
    /// Clusters of the virtual disk.
    pub total_clusters: u64,
    /// Entries that name a cluster, right or wrong: each time, where tables or entries are there twice.
    pub allocated_clusters: u64,
    /// Of these, those that do not follow the one before, in whichever table that is.
    pub fragmented_clusters: u64,
    /// L1 entries that name no table that lies whole in the file: they are not counted.
    pub skipped_tables: u64,
}

/// Counts over all tables.
///
/// Unlike [`check`](crate::qed::check::check), which follows `qemu-img check`, a table's first cluster is compared with
/// the last one of the table before.
///
/// ```
/// use vdisk_format::qed::{self, Tables, fragmentation::fragmentation};
/// # let mut image = qed::HeaderFields { magic: qed::header::MAGIC, cluster_size: 4096, table_size: 1, header_size: 1,
/// #     l1_table_offset: 4096, image_size: 8192, ..Default::default() }.to_bytes();
/// # image.resize(4 * 4096, 0);
/// # image[4096..4104].copy_from_slice(&8192u64.to_le_bytes());
/// image[8192..8200].copy_from_slice(&0x5000u64.to_le_bytes());
/// image[8200..8208].copy_from_slice(&0x3000u64.to_le_bytes()); // not behind the one before
/// let found = fragmentation(&Tables::new(&image)?);
/// assert_eq!((found.total_clusters, found.allocated_clusters, found.fragmented_clusters), (2, 2, 1));
/// # Ok::<(), vdisk_format::Error>(())
/// ```
#[must_use]
pub fn fragmentation(tables: &Tables<'_>) -> Fragmentation {
    let geometry = tables.geometry();
    let size = geometry.cluster_size();
    let mut all = Fragmentation { total_clusters: geometry.guest_clusters(), ..Fragmentation::default() };
    // Tables that more than one L1 entry names: each is read once all the same.
    let offsets = tables.l1_entries().filter_map(|(_, value)| geometry.table_offset(value).ok());
    let first_clusters = offsets.map(|table| table.0 >> geometry.cluster_bits());
    let repeated = ClusterSet::named_twice(first_clusters, geometry.clusters());
    let mut counted = BTreeMap::new();
    let mut last: Option<u64> = None;
    for (l1_index, value) in tables.l1_entries() {
        let Ok(table) = geometry.table_offset(value) else {
            all.skipped_tables += 1;
            continue;
        };
        let counts = match counted.get(&table) {
            Some(counts) => *counts,
            None => {
                let counts = Counts::of(tables, table);
                if repeated.intersects(table.0 >> geometry.cluster_bits(), 1) {
                    counted.insert(table, counts);
                }
                tables.was_visited(l1_index);
                counts
            }
        };
        let Some((first, end)) = counts.ends else { continue };
        let breaks = last.is_some_and(|last| last.wrapping_add(size) != first);
        all.allocated_clusters += counts.allocated;
        all.fragmented_clusters += counts.fragmented + u64::from(breaks);
        last = Some(end);
    }
    all
}

/// What one table has.
#[derive(Clone, Copy, Default)]
struct Counts {
    allocated: u64,
    fragmented: u64,
    /// The first and the last offset.
    ends: Option<(u64, u64)>,
}

impl Counts {
    fn of(tables: &Tables<'_>, table: HostOffset) -> Self {
        let size = tables.geometry().cluster_size();
        let mut counts = Self::default();
        for (_, entries) in tables.l2_pieces(table) {
            counts.add(entries, size);
        }
        counts
    }

    /// Without a branch in its loop: this is all that a count of fragments does.
    fn add(&mut self, entries: &[[u8; 8]], size: u64) {
        let mut values = entries.iter().map(|&entry| u64::from_le_bytes(entry));
        let (first, mut next) = match self.ends {
            Some((first, last)) => (first, last.wrapping_add(size)),
            None => {
                let Some(first) = values.by_ref().find(|&value| value >= size) else { return };
                self.allocated = 1;
                (first, first.wrapping_add(size))
            }
        };
        let (mut allocated, mut fragmented) = (0, 0);
        for value in values {
            let is_cluster = value >= size;
            allocated += u64::from(is_cluster);
            fragmented += u64::from(is_cluster & (value != next));
            next = if is_cluster { value.wrapping_add(size) } else { next };
        }
        self.allocated += allocated;
        self.fragmented += fragmented;
        self.ends = Some((first, next.wrapping_sub(size)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As the original counts.
    fn plainly(tables: &[Vec<u64>], size: u64) -> (u64, u64) {
        let (mut allocated, mut fragmented, mut last) = (0, 0, None::<u64>);
        for &value in tables.iter().flatten().filter(|&&value| value >= size) {
            allocated += 1;
            fragmented += u64::from(last.is_some_and(|last| last.wrapping_add(size) != value));
            last = Some(value);
        }
        (allocated, fragmented)
    }

    proptest! {
        /// Tables of one cluster of 4 KiB, any of which the L1 table names, some twice.
        #[test]
        fn counts_as_the_original(
            contents in proptest::collection::vec(
                proptest::collection::vec(prop_oneof![Just(0), Just(1), 0..9000u64, (0..9u64).prop_map(|n| n << 12)], 0..9),
                1..5,
            ),
            named in proptest::collection::vec(0..5usize, 0..12),
        ) {
            let mut bytes = crate::qed::header::HeaderFields {
                cluster_size: 4096,
                table_size: 1,
                header_size: 1,
                l1_table_offset: 4096,
                ..Default::default()
            }
            .to_bytes();
            bytes.resize(4096 * (2 + contents.len()), 0);
            let offset = |index: usize| (index as u64 + 2) * 4096;
            for (index, name) in named.iter().enumerate() {
                bytes[4096 + index * 8..][..8].copy_from_slice(&offset(*name).to_le_bytes());
            }
            for (index, entries) in contents.iter().enumerate() {
                for (entry, value) in entries.iter().enumerate() {
                    bytes[offset(index) as usize + entry * 8..][..8].copy_from_slice(&value.to_le_bytes());
                }
            }
            let read: Vec<Vec<u64>> = named.iter().filter_map(|&name| contents.get(name).cloned()).collect();
            let found = fragmentation(&Tables::new(&bytes).unwrap());
            prop_assert_eq!((found.allocated_clusters, found.fragmented_clusters), plainly(&read, 4096));
            prop_assert_eq!(found.skipped_tables, (named.len() - read.len()) as u64);
        }
    }
}
