//! [`map`]: where the data of the virtual disk are, as extents.

use crate::cluster_set::ClusterSet;
use crate::qed::geometry::{Entry, Geometry, Invalid};
use crate::qed::tables::Tables;
use crate::units::{GuestOffset, HostOffset};

/// A range of the virtual disk that is in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Extent {
    /// Where it starts in the virtual disk.
    pub start: GuestOffset,
    /// Its length in bytes.
    pub length: u64,
    /// What is there.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub kind: ExtentKind,
}

/// What is in an [`Extent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(tag = "kind", rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum ExtentKind {
    /// Data, from this offset of the file on.
    Data {
        /// Where the first byte is in the file.
        offset: HostOffset,
    },
    /// Zeroes, whatever the backing file has.
    Zero,
    /// What the backing file has there; zeroes without one.
    Unallocated,
    /// Nobody can tell: an entry is wrong.
    Invalid {
        /// Why.
        why: Invalid,
    },
}

/// The extents of an image's virtual disk, in order, from its start to its end. Neighbours are joined where the data go
/// on in the file, as `qemu-img map` does. A backing file is not looked into. Where so many entries name the same tables
/// that these would be read for hours, the rest is [`Invalid::TooOften`].
///
/// ```
/// use vdisk_format::generate::Qed;
/// use vdisk_format::qed::{Tables, map::{ExtentKind, map}};
/// let image = Qed::new(1 << 20).data(65536, b"data").zero(131072..262144).build()?;
/// let tables = Tables::new(&image)?;
/// let kinds: Vec<_> = map(&tables).map(|extent| (extent.start.0, extent.kind)).collect();
/// assert_eq!(kinds[0], (0, ExtentKind::Unallocated));
/// assert_eq!(kinds[2], (131072, ExtentKind::Zero));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn map<'t>(tables: &'t Tables<'_>) -> impl Iterator<Item = Extent> + 't {
    let geometry = tables.geometry();
    // What is behind the last entry that could be read.
    let rest = match tables.l1_table() {
        Ok(_) => ExtentKind::Unallocated,
        Err(why) => ExtentKind::Invalid { why },
    };
    let mut repeats = Repeats::new(tables);
    let extents = l1(tables).flat_map(move |(l1_index, count, value)| {
        let (whole, table) = match geometry.table_offset(value).and_then(|table| repeats.allowed(table)) {
            _ if value == 0 => (Some(ExtentKind::Unallocated), None),
            Err(why) => (Some(ExtentKind::Invalid { why }), None),
            Ok(table) => (None, Some(table)),
        };
        let whole = whole.map(|kind| (l1_index, 0, count.saturating_mul(geometry.entries()), kind));
        let entries = table.into_iter().flat_map(move |table| l2(tables, l1_index, table));
        whole.into_iter().chain(entries)
    });
    let extents = extents.map_while(move |(l1_index, l2_index, clusters, kind)| {
        let start = geometry.guest_offset(l1_index, l2_index)?;
        let left = geometry.image_size().checked_sub(start).filter(|&left| left > 0)?;
        let length = clusters.saturating_mul(geometry.cluster_size()).min(left);
        Some(Extent { start: GuestOffset(start), length, kind })
    });
    Joined { extents, last: None, end: 0, disk: geometry.image_size(), rest }
}

/// Keeps an image in which all entries name one table from being walked over for hours: what tables are read again, in
/// whole or in part, may be half as long as the file.
struct Repeats {
    geometry: Geometry,
    seen: ClusterSet,
    bytes_left: u64,
}

impl Repeats {
    fn new(tables: &Tables<'_>) -> Self {
        let geometry = tables.geometry();
        let bytes_left = (tables.view().length() / 2).max(2 * geometry.table_bytes());
        Self { geometry, seen: ClusterSet::new(geometry.clusters()), bytes_left }
    }

    fn allowed(&mut self, table: HostOffset) -> Result<HostOffset, Invalid> {
        let clusters = self.geometry.table_clusters();
        if self.seen.insert(table.0 >> self.geometry.cluster_bits(), clusters, |_| {}) > 0 {
            self.bytes_left =
                self.bytes_left.checked_sub(self.geometry.table_bytes()).ok_or(Invalid::TooOften)?;
        }
        Ok(table)
    }
}

/// The entries of the L1 table, those that are 0 together: index, count and value.
fn l1<'t>(tables: &'t Tables<'_>) -> impl Iterator<Item = (u64, u64, u64)> + 't {
    let bits = tables.geometry().cluster_bits();
    tables.l1_runs().flat_map(move |run| {
        let (times, count) = if run.value == 0 { (1, run.count) } else { (run.count, 1) };
        (0..times).map(move |i| (run.index + i, count, run.entry(i, bits)))
    })
}

/// What the entries of an L2 table say: indices in both tables, count, kind.
fn l2<'t>(
    tables: &'t Tables<'_>,
    l1_index: u64,
    table: HostOffset,
) -> impl Iterator<Item = (u64, u64, u64, ExtentKind)> + 't {
    let geometry = tables.geometry();
    let entries = tables.l2_runs(table).flat_map(move |run| {
        geometry.kinds(run).map(move |(entry, part)| {
            let kind = match entry {
                Entry::Unallocated => ExtentKind::Unallocated,
                Entry::Zero => ExtentKind::Zero,
                Entry::Data(offset) => ExtentKind::Data { offset },
                Entry::Invalid(why) => ExtentKind::Invalid { why },
            };
            (l1_index, part.index, part.count, kind)
        })
    });
    entries.chain(std::iter::from_fn(move || {
        tables.was_visited(l1_index);
        None
    }))
}

/// Joins extents that go on in their neighbours, and fills up the disk.
struct Joined<I> {
    extents: I,
    last: Option<Extent>,
    /// Where `last` ends.
    end: u64,
    disk: u64,
    rest: ExtentKind,
}

impl<I: Iterator<Item = Extent>> Iterator for Joined<I> {
    type Item = Extent;

    fn next(&mut self) -> Option<Extent> {
        while self.end < self.disk {
            let rest = Extent { start: GuestOffset(self.end), length: self.disk - self.end, kind: self.rest };
            let next = self.extents.next().unwrap_or(rest);
            self.end = next.start.0 + next.length;
            match &mut self.last {
                Some(last) if last.goes_on_in(&next) => last.length += next.length,
                last => {
                    if let Some(done) = last.replace(next) {
                        return Some(done);
                    }
                }
            }
        }
        self.last.take()
    }
}

impl Extent {
    fn goes_on_in(&self, next: &Self) -> bool {
        match (self.kind, next.kind) {
            (ExtentKind::Data { offset }, ExtentKind::Data { offset: next }) => {
                offset.0 + self.length == next.0
            }
            (kind, next) => kind == next,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qed::header::HeaderFields;

    /// Clusters of 4 KiB, tables of one: header, L1, an L2, and three clusters of data.
    fn image(image_size: u64, l2: &[u64]) -> Vec<u8> {
        let fields = HeaderFields {
            magic: crate::qed::header::MAGIC,
            cluster_size: 4096,
            table_size: 1,
            header_size: 1,
            l1_table_offset: 4096,
            image_size,
            ..HeaderFields::default()
        };
        let mut bytes = fields.to_bytes();
        bytes.resize(6 * 4096, 0);
        bytes[4096 + 8..4096 + 16].copy_from_slice(&8192u64.to_le_bytes());
        for (index, entry) in l2.iter().enumerate() {
            bytes[8192 + index * 8..][..8].copy_from_slice(&entry.to_le_bytes());
        }
        bytes
    }

    fn extents(image: &[u8]) -> Vec<(u64, u64, ExtentKind)> {
        let tables = Tables::new(image).unwrap();
        map(&tables).map(|extent| (extent.start.0, extent.length, extent.kind)).collect()
    }

    #[test]
    fn neighbours_are_joined_and_the_disk_is_covered() {
        let data = |offset| ExtentKind::Data { offset: HostOffset(offset) };
        let span = 512 * 4096;
        let image = image(2 * span + 1024, &[0x3000, 0x4000, 0x3000, 1, 1, 0, 0x9000, 0x9001]);
        assert_eq!(
            extents(&image),
            [
                (0, span, ExtentKind::Unallocated),
                (span, 8192, data(0x3000)),
                (span + 8192, 4096, data(0x3000)),
                (span + 3 * 4096, 8192, ExtentKind::Zero),
                (span + 5 * 4096, 4096, ExtentKind::Unallocated),
                (span + 6 * 4096, 4096, ExtentKind::Invalid { why: Invalid::PastEnd }),
                (span + 7 * 4096, 4096, ExtentKind::Invalid { why: Invalid::Unaligned }),
                (span + 8 * 4096, span - 8 * 4096 + 1024, ExtentKind::Unallocated),
            ]
        );
    }

    #[test]
    fn the_disk_ends_where_it_ends() {
        assert_eq!(extents(&image(0, &[])), []);
        assert_eq!(extents(&image(512, &[])), [(0, 512, ExtentKind::Unallocated)]);
        let whole = extents(&image(u64::MAX - 511, &[]));
        assert_eq!(whole, [(0, u64::MAX - 511, ExtentKind::Unallocated)]);
    }

    #[test]
    fn a_table_that_ends_inside_the_last_sector_is_mapped_whole() {
        let span = 512 * 4096;
        let mut bytes = image(3 * span, &[0x1000, 1]);
        bytes.copy_within(8192..8200, 5 * 4096);
        bytes[4096 + 8..4096 + 16].copy_from_slice(&0x5000u64.to_le_bytes());
        bytes.truncate(6 * 4096 - 100);
        let data = ExtentKind::Data { offset: HostOffset(0x1000) };
        assert_eq!(
            extents(&bytes),
            [
                (0, span, ExtentKind::Unallocated),
                (span, 4096, data),
                (span + 4096, 2 * span - 4096, ExtentKind::Unallocated),
            ]
        );
    }

    #[test]
    fn without_an_l1_table_nobody_can_tell() {
        let mut bytes = image(8192, &[]);
        bytes[40..48].copy_from_slice(&0x10_0000u64.to_le_bytes());
        assert_eq!(extents(&bytes), [(0, 8192, ExtentKind::Invalid { why: Invalid::PastEnd })]);
    }
}
