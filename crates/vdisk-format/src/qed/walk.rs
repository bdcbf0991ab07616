//! [`walk`]: every claim that the tables make on a cluster of the file, each table visited once.

use std::ops::Range;

use crate::cluster_set::ClusterSet;
use crate::qed::geometry::{Entry, Geometry, Invalid};
use crate::qed::tables::Tables;
use crate::table::Run;
use crate::units::HostOffset;

/// What a walk meets, in the order of the tables' entries: an L2 table's runs follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// An L1 entry that names no table.
    NoTable {
        /// Index of the entry in the L1 table.
        l1_index: u64,
        /// Why not.
        invalid: Invalid,
    },
    /// An L1 entry whose table takes clusters that something before it has. It is not visited.
    Overlap {
        /// Index of the entry in the L1 table.
        l1_index: u64,
        /// Its value.
        table: HostOffset,
        /// Clusters that were claimed before.
        clusters: u64,
        /// The first of these, as a cluster number.
        first: u64,
    },
    /// An L2 table is visited.
    Table {
        /// Index of the entry in the L1 table.
        l1_index: u64,
        /// Its value.
        table: HostOffset,
    },
    /// Entries of the table that are neither unallocated nor zero clusters: all data, or all invalid in one way.
    Run(Run, Entry),
    /// Entries of the table that are data which nothing before them has.
    Scattered(Scattered),
    /// Entries of the run before, from index `from` on, whose `clusters` something before it has.
    Again {
        /// Index in the table of the first.
        from: u64,
        /// Cluster numbers.
        clusters: Range<u64>,
    },
}

/// Data entries one by one: what runs are too short for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scattered {
    /// Index of the first entry in its table.
    pub index: u64,
    /// Entries.
    pub count: u64,
    /// Value of the first.
    pub first: u64,
    /// Value of the last.
    pub last: u64,
    /// How many do not follow the one before, the first one left out.
    pub breaks: u64,
}

/// Entries that follow one another in such a number are better walked over as a run.
const MANY: u64 = 16;

/// Claims the clusters of `entries`, up to the first entry that is no data, or whose cluster something has already, or
/// behind which a long run begins.
///
/// This is where a check of an image in no order spends its time: on the memory that the clusters are noted in. The loop
/// is so short that the processor waits for several of them at once.
fn scattered(entries: &[[u8; 8]], geometry: Geometry, used: &mut ClusterSet) -> Option<Scattered> {
    let (bits, size) = (geometry.cluster_bits(), geometry.cluster_size());
    let start = geometry.header_end().0.max(size);
    let length = geometry.file_end().0.saturating_sub(start);
    let (mut count, mut breaks, mut streak) = (0, 0, 0);
    let first = u64::from_le_bytes(*entries.first()?);
    let mut next = first;
    for entry in entries {
        let value = u64::from_le_bytes(*entry);
        if value & (size - 1) != 0 || value.wrapping_sub(start) >= length || !used.insert_new(value >> bits) {
            break;
        }
        count += 1;
        let follows = value == next;
        breaks += u64::from(!follows);
        streak = if follows { streak + 1 } else { 0 };
        next = value + size;
        if streak > MANY {
            break;
        }
    }
    used.note_added(count);
    (count > 0).then(|| Scattered { index: 0, count, first, last: next - size, breaks })
}

/// Walks over the tables, and tells `visit` what it meets.
///
/// Who comes first has a cluster: the L1 table, then for each of its entries in turn the L2 table and the data it names.
/// So says QEMU's check, whose counts follow from this order.
///
/// ```
/// use vdisk_format::qed::{self, Entry, Tables, walk::{Event, walk}};
/// # let mut image = qed::HeaderFields { magic: qed::header::MAGIC, cluster_size: 4096, table_size: 1, header_size: 1,
/// #     l1_table_offset: 4096, image_size: 8192, ..Default::default() }.to_bytes();
/// # image.resize(4 * 4096, 0);
/// # image[4096..4104].copy_from_slice(&8192u64.to_le_bytes());
/// image[8192..8200].copy_from_slice(&0x3000u64.to_le_bytes());
/// image[8200..8208].copy_from_slice(&0x3000u64.to_le_bytes()); // the same cluster again
/// let (mut data, mut again) = (0, 0);
/// walk(&Tables::new(&image)?, |event| match event {
///     Event::Run(run, Entry::Data(_)) => data += run.count,
///     Event::Scattered(scattered) => data += scattered.count,
///     Event::Again { clusters, .. } => again += clusters.end - clusters.start,
///     _ => {}
/// });
/// assert_eq!((data, again), (2, 1));
/// # Ok::<(), vdisk_format::Error>(())
/// ```
pub fn walk(tables: &Tables<'_>, visit: impl FnMut(Event)) {
    claims(tables, visit);
}

/// As [`walk`], and returns the clusters that are claimed.
pub(crate) fn claims(tables: &Tables<'_>, mut visit: impl FnMut(Event)) -> ClusterSet {
    let geometry = tables.geometry();
    let bits = geometry.cluster_bits();
    let mut used = ClusterSet::new(geometry.clusters());
    if let Some(l1) = tables.readable_l1_table() {
        used.insert(l1.0 >> bits, geometry.table_clusters(), |_| {});
    }
    for (l1_index, value) in tables.l1_entries() {
        let table = match geometry.table_offset(value) {
            Ok(table) => table,
            Err(invalid) => {
                visit(Event::NoTable { l1_index, invalid });
                continue;
            }
        };
        let mut first = u64::MAX;
        let clusters =
            used.insert(table.0 >> bits, geometry.table_clusters(), |seen| first = first.min(seen.start));
        if clusters > 0 {
            visit(Event::Overlap { l1_index, table, clusters, first });
            continue;
        }
        visit(Event::Table { l1_index, table });
        let mut runs = tables.l2_runs(table);
        while let Some(run) = runs.next() {
            if run.value > 1 {
                for (entry, part) in geometry.kinds(run) {
                    visit(Event::Run(part, entry));
                    if let Entry::Data(offset) = entry {
                        let start = offset.0 >> bits;
                        used.insert(start, part.count, |clusters| {
                            visit(Event::Again { from: part.index + (clusters.start - start), clusters });
                        });
                    }
                }
            }
            if run.count < MANY
                && let Some(scattered) = scattered(runs.rest(), geometry, &mut used)
            {
                visit(Event::Scattered(Scattered { index: run.index + run.count, ..scattered }));
                runs.skip_entries(scattered.count);
            }
        }
        tables.was_visited(l1_index);
    }
    used
}
