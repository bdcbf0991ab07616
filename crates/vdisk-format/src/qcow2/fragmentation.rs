//! [`fragmentation`]: how much of the disk is allocated, and how much of that in pieces.

use std::collections::BTreeMap;

use crate::cluster_set::ClusterSet;
use crate::qcow2::geometry::{Area, OFFSET_MASK};
use crate::qcow2::l2::L2Entry;
use crate::qcow2::reader::Reader;
use crate::qcow2::snapshot::Snapshot;
use crate::qcow2::tables::Tables;
use crate::units::HostOffset;

/// Statistics of allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Fragmentation {
    /// Clusters of the virtual disk.
    pub total_clusters: u64,
    /// Entries that name a cluster or compressed data, right or wrong: each time, where tables or entries are there twice.
    pub allocated_clusters: u64,
    /// Of these, those that do not follow the one before, in whichever table that is, and all that are compressed.
    pub fragmented_clusters: u64,
    /// Of these, those that are compressed.
    pub compressed_clusters: u64,
    /// L1 entries that name no table that begins in the file: they are not counted.
    pub skipped_tables: u64,
}

/// Counts over all tables of the disk as it is.
///
/// What is counted is what `qemu-img check` counts; but unlike there, and in [`check`](crate::qcow2::check), a table's
/// first cluster is compared with the last one of the table before, as [`qed`](crate::qed::fragmentation) does it.
///
/// ```
/// use vdisk_format::generate::Qcow2;
/// use vdisk_format::qcow2::{Tables, fragmentation::fragmentation};
/// let image = Qcow2::new(1 << 20).data(0, b"one").data(1 << 17, b"two").compressed(1 << 18, [7; 1 << 16]).build()?;
/// let found = fragmentation(&Tables::new(&image)?);
/// assert_eq!((found.total_clusters, found.allocated_clusters), (16, 3));
/// assert_eq!((found.fragmented_clusters, found.compressed_clusters), (1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn fragmentation(tables: &Tables<'_>) -> Fragmentation {
    let geometry = tables.geometry();
    count(tables, geometry.l1_table(), geometry.virtual_size())
}

/// Counts over all tables of the disk as it was when a snapshot was taken.
#[must_use]
pub fn fragmentation_of_snapshot(tables: &Tables<'_>, snapshot: &Snapshot<'_>) -> Fragmentation {
    let size = snapshot.disk_size().unwrap_or_else(|| tables.geometry().virtual_size());
    count(tables, snapshot.l1_table(), size)
}

fn count(tables: &Tables<'_>, l1_table: Area, size: u64) -> Fragmentation {
    let geometry = tables.geometry();
    let bits = geometry.cluster_bits();
    let mut all =
        Fragmentation { total_clusters: size.div_ceil(geometry.cluster_size()), ..Fragmentation::default() };
    let named = || {
        let used = tables.l1_entries(l1_table).filter(|(_, entry)| entry.is_allocated());
        used.map(|(index, entry)| (index, entry.l2_table()))
    };
    // Each table is read once, however many entries name it.
    let repeated =
        ClusterSet::named_twice(named().map(|(_, table)| table.0 >> bits), geometry.file_clusters());
    let (mut counted, mut reader) = (BTreeMap::new(), Reader::default());
    let mut next = None;
    for (l1_index, table) in named() {
        if !geometry.is_aligned(table.0) || table.0 >= geometry.file_length() {
            all.skipped_tables += 1;
            continue;
        }
        let counts = match counted.get(&table) {
            Some(counts) => *counts,
            None => {
                let counts = Counts::of(tables, table, &mut reader);
                if repeated.intersects(table.0 >> bits, 1) {
                    counted.insert(table, counts);
                }
                tables.view().was_read();
                tables.view().report(l1_index + 1, l1_table.length / 8);
                counts
            }
        };
        all.allocated_clusters += counts.clusters + counts.compressed;
        all.fragmented_clusters += counts.breaks + counts.compressed;
        all.compressed_clusters += counts.compressed;
        if let Some((first, behind)) = counts.ends {
            all.fragmented_clusters += u64::from(next.is_some_and(|next| next != first));
            next = Some(behind);
        }
    }
    all
}

/// What one table has.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    /// Clusters that are not compressed.
    clusters: u64,
    /// Of these, those that do not follow the one before.
    breaks: u64,
    compressed: u64,
    /// The first cluster, and what follows the last one.
    ends: Option<(u64, u64)>,
}

impl Counts {
    fn of(tables: &Tables<'_>, table: HostOffset, reader: &mut Reader) -> Self {
        let (geometry, format) = (tables.geometry(), tables.l2_format());
        let size = geometry.cluster_size();
        // With an external data file, that an entry is in use can be all that it says.
        let used = if geometry.data_file() { OFFSET_MASK | L2Entry::COPIED } else { OFFSET_MASK };
        let mut counts = Self::default();
        let mut add = |numbers: &[[u8; 8]]| {
            if format.extended() {
                counts.add(numbers.as_chunks::<2>().0.iter().map(|[entry, _]| *entry), size, used);
            } else {
                counts.add(numbers.iter().copied(), size, used);
            }
        };
        if let Some(table) = reader.l2_table(tables.view(), table.0, size) {
            add(table.as_chunks().0);
            reader.note(counts.ends.is_some() || counts.compressed > 0);
        } else {
            tables.l2_pieces(table).for_each(|(_, numbers)| add(numbers));
        }
        counts
    }

    /// Without a branch in its loop: this is all that a count of fragments does.
    #[inline]
    fn add(&mut self, entries: impl Iterator<Item = [u8; 8]>, size: u64, used: u64) {
        let mut values = entries.map(u64::from_be_bytes);
        if self.ends.is_none() {
            let is_first = |value: &u64| value & L2Entry::COMPRESSED == 0 && value & used != 0;
            let skipped = values.by_ref().map(|value| (value, is_first(&value)));
            for (value, is_first) in skipped {
                self.compressed += u64::from(value & L2Entry::COMPRESSED != 0);
                if is_first {
                    let first = value & OFFSET_MASK;
                    self.clusters = 1;
                    self.ends = Some((first, first + size));
                    break;
                }
            }
        }
        let Some((first, mut next)) = self.ends else { return };
        let (mut clusters, mut breaks, mut compressed) = (0, 0, 0);
        for value in values {
            let offset = value & OFFSET_MASK;
            let is_compressed = value & L2Entry::COMPRESSED != 0;
            let is_cluster = !is_compressed & (value & used != 0);
            clusters += u64::from(is_cluster);
            breaks += u64::from(is_cluster & (offset != next));
            compressed += u64::from(is_compressed);
            next = if is_cluster { offset + size } else { next };
        }
        self.clusters += clusters;
        self.breaks += breaks;
        self.compressed += compressed;
        self.ends = Some((first, next));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One entry after the other.
    fn plainly(entries: impl Iterator<Item = u64>) -> (u64, u64, u64) {
        let (mut clusters, mut fragmented, mut compressed, mut next) = (0, 0, 0, None);
        for entry in entries {
            if entry & L2Entry::COMPRESSED != 0 {
                compressed += 1;
            } else if entry & OFFSET_MASK != 0 {
                clusters += 1;
                fragmented += u64::from(next.is_some_and(|next| next != entry & OFFSET_MASK));
                next = Some((entry & OFFSET_MASK) + 512);
            }
        }
        (clusters + compressed, fragmented + compressed, compressed)
    }

    proptest! {
        /// Tables of one cluster of 512 bytes, any of which the L1 table names, some twice, some wrongly.
        #[test]
        fn counts_across_tables(
            contents in proptest::collection::vec(
                proptest::collection::vec(prop_oneof![Just(0), Just(1), (0..9u64).prop_map(|n| n << 9), any::<u64>()], 0..9),
                1..5,
            ),
            named in proptest::collection::vec(0..5usize, 1..12),
        ) {
            let mut bytes = vec![0; 512 * (2 + contents.len())];
            bytes[..4].copy_from_slice(b"QFI\xfb");
            (bytes[7], bytes[23], bytes[39], bytes[46]) = (3, 9, named.len() as u8, 2);
            let offset = |index: usize| (index + 2) * 512;
            for (index, name) in named.iter().enumerate() {
                bytes[512 + index * 8..][..8].copy_from_slice(&(offset(*name) as u64).to_be_bytes());
            }
            for (index, entries) in contents.iter().enumerate() {
                for (entry, value) in entries.iter().enumerate() {
                    bytes[offset(index) + entry * 8..][..8].copy_from_slice(&value.to_be_bytes());
                }
            }
            let read = || named.iter().filter_map(|&name| contents.get(name));
            let found = fragmentation(&Tables::new(&bytes).unwrap());
            let counts = (found.allocated_clusters, found.fragmented_clusters, found.compressed_clusters);
            prop_assert_eq!(counts, plainly(read().flatten().copied()));
            prop_assert_eq!(found.skipped_tables, (named.len() - read().count()) as u64);
        }
    }
}
