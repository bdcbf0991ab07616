//! [`map`]: where the data of the virtual disk are, as extents.

mod holes;
mod runs;
#[cfg(test)]
mod tests;

use crate::cluster_set::ClusterSet;
use crate::qcow2::geometry::{Area, Geometry};
use crate::qcow2::l1::L1Entry;
use crate::qcow2::runs::L2Runs;
use crate::qcow2::snapshot::Snapshot;
use crate::qcow2::tables::Tables;
use crate::units::{GuestOffset, HostOffset};
use crate::view::SECTOR;

pub use holes::{metadata_is_preallocated, with_holes};
use runs::Parts;

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

/// What is in an [`Extent`]. Offsets are those of its first byte: in the external data file, where the image has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(tag = "kind", rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum ExtentKind {
    /// Data, from this offset of the file on.
    Data {
        /// Where the first byte is.
        offset: HostOffset,
    },
    /// Clusters of data that nobody has written: the file has a hole there. [`with_holes`] finds them.
    Hole {
        /// Where the first byte would be.
        offset: HostOffset,
    },
    /// Data in compressed clusters.
    Compressed,
    /// Zeroes, whatever the backing file has.
    Zero {
        /// Where a write would go to, if there are clusters for it.
        #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
        preallocated: Option<HostOffset>,
    },
    /// What the backing file has there; zeroes without one.
    Unallocated {
        /// Where a write would go to: subclusters can be unallocated in a cluster that is not.
        #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
        preallocated: Option<HostOffset>,
    },
    /// An entry is wrong. QEMU reads zeroes from what lies behind the end of the file, and refuses the rest.
    Invalid {
        /// Why.
        why: Invalid,
        /// Of data behind the end of the file: where they should be.
        #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
        offset: Option<HostOffset>,
    },
}

/// What is wrong with an entry. Reserved bits are not looked at: what an entry says is clear without them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Invalid {
    /// The data's offset is no multiple of the cluster size.
    Unaligned,
    /// The data begin behind the end of the file.
    PastEnd,
    /// The compressed data begin behind the end of the file.
    CompressedPastEnd,
    /// The zero flag is set, which version 2 does not have.
    ZeroFlag,
    /// A subcluster is both allocated and zero, or allocated where there is no cluster.
    Subclusters,
    /// The offset in the external data file is not the guest's.
    Misplaced,
    /// The data are compressed, in an image with an external data file.
    CompressedElsewhere,
    /// The L2 table's offset is no multiple of the cluster size.
    TableUnaligned,
    /// The file ends before the entry of the L1 or L2 table.
    TablePastEnd,
    /// The L1 table is too small for the disk.
    NoL1Entry,
    /// The L2 table is that of too many other entries.
    TooOften,
}

impl Invalid {
    /// What is wrong, as a sentence.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Unaligned => "an L2 entry's offset is no multiple of the cluster size",
            Self::PastEnd => "an L2 entry names data past the end of the file",
            Self::CompressedPastEnd => "an L2 entry names compressed data past the end of the file",
            Self::ZeroFlag => "an L2 entry has the zero flag, which version 2 does not know",
            Self::Subclusters => "an L2 entry's subclusters contradict one another",
            Self::Misplaced => "an L2 entry's offset in the external data file is not the guest's",
            Self::CompressedElsewhere => "an L2 entry is compressed in spite of an external data file",
            Self::TableUnaligned => "an L1 entry's offset is no multiple of the cluster size",
            Self::TablePastEnd => "the entry's table lies past the end of the file",
            Self::NoL1Entry => "the L1 table is too small for the disk",
            Self::TooOften => "an L1 entry names a table of too many other entries",
        }
    }
}

/// The extents of an image's virtual disk, in order, from its start to its end. Neighbours are joined where the data go
/// on in the file, as `qemu-img map` does. A backing file is not looked into. Where so many entries name the same tables
/// that these would be read for hours, the rest is [`Invalid::TooOften`].
///
/// As for QEMU, a disk has whole sectors of 512 bytes: what `size` says beyond them is left out.
///
/// ```
/// use vdisk_format::generate::Qcow2;
/// use vdisk_format::qcow2::{Tables, map::{ExtentKind, map}};
/// let image = Qcow2::new(1 << 20).data(65536, b"data").zero(131072..262144).build()?;
/// let tables = Tables::new(&image)?;
/// let kinds: Vec<_> = map(&tables).map(|extent| (extent.start.0, extent.kind)).collect();
/// assert_eq!(kinds[0], (0, ExtentKind::Unallocated { preallocated: None }));
/// assert_eq!(kinds[2], (131072, ExtentKind::Zero { preallocated: None }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn map<'t>(tables: &'t Tables<'_>) -> impl Iterator<Item = Extent> + 't {
    let geometry = tables.geometry();
    let disk = Disk { l1_table: geometry.l1_table(), size: geometry.virtual_size(), may_lack_entries: false };
    extents(tables, disk)
}

/// The extents of the disk as it was when a snapshot was taken, with the size that it had then.
///
/// ```
/// use vdisk_format::generate::{Qcow2, Snapshot};
/// use vdisk_format::qcow2::{Tables, map::{ExtentKind, map_snapshot}};
/// let image = Qcow2::new(1 << 20).snapshot(Snapshot::new("1", "empty")).data(65536, b"data").build()?;
/// let tables = Tables::new(&image)?;
/// let snapshot = tables.snapshots().next().unwrap()?;
/// let kinds: Vec<_> = map_snapshot(&tables, &snapshot).map(|extent| extent.kind).collect();
/// assert_eq!(kinds, [ExtentKind::Unallocated { preallocated: None }]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn map_snapshot<'t>(
    tables: &'t Tables<'_>,
    snapshot: &Snapshot<'_>,
) -> impl Iterator<Item = Extent> + 't + use<'t> {
    let disk = Disk {
        l1_table: snapshot.l1_table(),
        size: snapshot.disk_size().unwrap_or_else(|| tables.geometry().virtual_size()),
        // One that does not say how large its disk was is of a disk that may have grown since.
        may_lack_entries: snapshot.disk_size().is_none(),
    };
    extents(tables, disk)
}

/// A state of the disk.
#[derive(Debug, Clone, Copy)]
struct Disk {
    l1_table: Area,
    size: u64,
    /// Where the L1 table is too small for the disk, the rest is unallocated.
    may_lack_entries: bool,
}

fn extents<'t>(tables: &'t Tables<'_>, disk: Disk) -> impl Iterator<Item = Extent> + 't + use<'t> {
    let geometry = tables.geometry();
    let size = disk.size / SECTOR * SECTOR;
    let parts = Tree {
        l1: tables.l1_entries(disk.l1_table),
        repeats: Repeats::new(&geometry),
        tables,
        geometry,
        needed: size.div_ceil(geometry.l2_span()),
        open: None,
    };
    Joined { parts, next: None, last: None, end: 0, size, rest: rest(tables, disk, size) }
}

/// From where on there are no entries of the L1 table, and what is there.
fn rest(tables: &Tables<'_>, disk: Disk, size: u64) -> Extent {
    let geometry = tables.geometry();
    let claimed = disk.l1_table.length / 8;
    let there = tables.pieces(disk.l1_table).entries();
    let invalid = |why| ExtentKind::Invalid { why, offset: None };
    let kind = match () {
        () if there < claimed => invalid(Invalid::TablePastEnd),
        () if disk.may_lack_entries => ExtentKind::Unallocated { preallocated: None },
        () => invalid(Invalid::NoL1Entry),
    };
    let start = geometry.guest_offset(there, 0).unwrap_or(u64::MAX).min(size);
    Extent { start: GuestOffset(start), length: size - start, kind }
}

/// The entries of the L1 table, and of the L2 tables below it: what is not unallocated, in order.
struct Tree<'t, 'a, L1> {
    tables: &'t Tables<'a>,
    geometry: Geometry,
    l1: L1,
    /// L1 entries that the disk has.
    needed: u64,
    repeats: Repeats,
    open: Option<Table<'t, 'a>>,
}

/// An L2 table that is being read.
struct Table<'t, 'a> {
    l1_index: u64,
    /// Where the disk's part that the table is for starts.
    guest: u64,
    runs: L2Runs<'t, 'a>,
    /// Entries that were read.
    read: u64,
    parts: Option<Parts>,
}

impl<'t, 'a, L1: Iterator<Item = (u64, L1Entry)>> Tree<'t, 'a, L1> {
    /// The next table that an L1 entry names, or what is wrong with that entry.
    fn next_l1(&mut self) -> Option<Result<Table<'t, 'a>, Extent>> {
        let (l1_index, entry) = self.l1.find(|(_, entry)| entry.is_allocated())?;
        if l1_index >= self.needed {
            return None;
        }
        let (geometry, table) = (self.geometry, entry.l2_table());
        let guest = geometry.guest_offset(l1_index, 0)?;
        let invalid = |why| {
            let kind = ExtentKind::Invalid { why, offset: None };
            Some(Err(Extent::new(guest, geometry.l2_span(), kind)))
        };
        if !geometry.is_aligned(table.0) {
            return invalid(Invalid::TableUnaligned);
        }
        if !self.repeats.allow(table) {
            return invalid(Invalid::TooOften);
        }
        Some(Ok(Table { l1_index, guest, runs: self.tables.l2_runs(table), read: 0, parts: None }))
    }

    fn next_l2(&mut self) -> Option<Extent> {
        let open = self.open.as_mut()?;
        loop {
            if let Some(part) = open.parts.as_mut().and_then(|parts| parts.next(&self.geometry)) {
                return Some(part);
            }
            let Some(run) = open.runs.next() else { break };
            open.read = run.index + run.count;
            let guest = open.guest + (run.index << self.geometry.cluster_bits());
            open.parts = Some(Parts::new(run, guest, self.tables));
        }
        let Table { l1_index, guest, read, .. } = *open;
        self.open = None;
        self.tables.view().was_read();
        self.tables.view().report(l1_index + 1, self.needed);
        let bits = self.geometry.cluster_bits();
        let missing = (self.geometry.l2_entries() - read) << bits;
        let kind = ExtentKind::Invalid { why: Invalid::TablePastEnd, offset: None };
        (missing > 0).then(|| Extent::new(guest + (read << bits), missing, kind))
    }
}

impl<L1: Iterator<Item = (u64, L1Entry)>> Iterator for Tree<'_, '_, L1> {
    type Item = Extent;

    fn next(&mut self) -> Option<Extent> {
        loop {
            if let Some(part) = self.next_l2() {
                return Some(part);
            }
            match self.next_l1()? {
                Ok(table) => self.open = Some(table),
                Err(part) => return Some(part),
            }
        }
    }
}

/// Keeps an image in which all entries name one table from being walked over for hours: what tables are read again may be
/// half as long as the file.
struct Repeats {
    geometry: Geometry,
    seen: ClusterSet,
    bytes_left: u64,
}

impl Repeats {
    fn new(geometry: &Geometry) -> Self {
        let bytes_left = (geometry.file_length() / 2).max(2 * geometry.cluster_size());
        Self { geometry: *geometry, seen: ClusterSet::new(geometry.file_clusters()), bytes_left }
    }

    fn allow(&mut self, table: HostOffset) -> bool {
        if self.seen.insert(table.0 >> self.geometry.cluster_bits(), 1, |_| {}) > 0 {
            match self.bytes_left.checked_sub(self.geometry.cluster_size()) {
                Some(left) => self.bytes_left = left,
                None => return false,
            }
        }
        true
    }
}

/// Joins parts that go on in their neighbours, and fills up the disk.
struct Joined<I> {
    parts: I,
    /// A part that lies behind a gap.
    next: Option<Extent>,
    last: Option<Extent>,
    /// Where `last` ends.
    end: u64,
    size: u64,
    /// What is behind the L1 table.
    rest: Extent,
}

impl<I: Iterator<Item = Extent>> Joined<I> {
    /// What begins at `end`.
    fn part(&mut self) -> Extent {
        let next = self.next.take().or_else(|| self.parts.next()).unwrap_or(self.rest);
        let start = next.start.0;
        if start > self.end {
            self.next = Some(next);
            let gap = start.min(self.size) - self.end;
            return Extent::new(self.end, gap, ExtentKind::Unallocated { preallocated: None });
        }
        Extent { length: next.length.min(self.size - self.end), ..next }
    }
}

impl<I: Iterator<Item = Extent>> Iterator for Joined<I> {
    type Item = Extent;

    fn next(&mut self) -> Option<Extent> {
        while self.end < self.size {
            let part = self.part();
            self.end = part.start.0 + part.length;
            match &mut self.last {
                Some(last) if last.goes_on_in(&part) => last.length += part.length,
                last => {
                    if let Some(done) = last.replace(part) {
                        return Some(done);
                    }
                }
            }
        }
        self.last.take()
    }
}

impl Extent {
    #[inline]
    const fn new(start: u64, length: u64, kind: ExtentKind) -> Self {
        Self { start: GuestOffset(start), length, kind }
    }

    /// Where it ends.
    #[inline]
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.start.0 + self.length
    }

    #[inline]
    fn goes_on_in(&self, next: &Self) -> bool {
        self.kind.moved_by(self.length) == Some(next.kind)
    }
}

impl ExtentKind {
    /// What is `bytes` further in an extent of this kind; `None` where offsets end before.
    #[inline]
    fn moved_by(self, bytes: u64) -> Option<Self> {
        let moved = |offset: HostOffset| offset.0.checked_add(bytes).map(HostOffset);
        let maybe = |offset: Option<HostOffset>| match offset {
            None => Some(None),
            Some(offset) => moved(offset).map(Some),
        };
        Some(match self {
            Self::Data { offset } => Self::Data { offset: moved(offset)? },
            Self::Hole { offset } => Self::Hole { offset: moved(offset)? },
            Self::Compressed => Self::Compressed,
            Self::Zero { preallocated } => Self::Zero { preallocated: maybe(preallocated)? },
            Self::Unallocated { preallocated } => Self::Unallocated { preallocated: maybe(preallocated)? },
            Self::Invalid { why, offset } => Self::Invalid { why, offset: maybe(offset)? },
        })
    }
}
