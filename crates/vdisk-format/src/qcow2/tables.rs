//! [`Tables`]: the way from a header to the entries of its tables.

use crate::error::Result;
use crate::qcow2::bitmap::BitmapTableEntry;
use crate::qcow2::geometry::{Area, Geometry};
use crate::qcow2::header::Header;
use crate::qcow2::l1::L1Entry;
use crate::qcow2::l2::{L2Entry, L2Format};
use crate::qcow2::refcount::{RefcountBlock, RefcountTableEntry, number_at};
use crate::qcow2::runs::L2Runs;
use crate::qcow2::snapshot::Snapshots;
use crate::table::Pieces;
use crate::units::HostOffset;
use crate::view::View;

/// As many entries of L2 tables that are not aligned are read of any file; of a large one, twice as many as it has room for.
const MIN_UNALIGNED_ENTRIES: u64 = 1 << 17;

/// An image whose tables can be read: whatever they say, but for a header whose cluster size is none.
///
/// Every table is read where its entry or its header says, as far as the file has it; whether it is one, and whose, is not
/// asked.
///
/// ```
/// use vdisk_format::qcow2::Tables;
/// # let mut image = vec![0; 4 * 512];
/// # image[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
/// # (image[23], image[30], image[39], image[46]) = (9, 2, 1, 2);
/// # image[512..520].copy_from_slice(&0x8000_0000_0000_0400u64.to_be_bytes());
/// # image[1024..1032].copy_from_slice(&0x8000_0000_0000_0600u64.to_be_bytes());
/// let tables = Tables::new(&image)?;
/// for (l1_index, l1_entry) in tables.l1_entries(tables.geometry().l1_table()) {
///     for (l2_index, l2_entry) in tables.l2_entries(l1_entry.l2_table()) {
///         assert_eq!((l1_index, l2_index, l2_entry.offset().0), (0, 0, 0x600));
///     }
/// }
/// # Ok::<(), vdisk_format::Error>(())
/// ```
#[derive(Debug)]
pub struct Tables<'a> {
    view: View<'a>,
    header: Header<'a>,
    geometry: Geometry,
    l2_format: L2Format,
}

impl<'a> Tables<'a> {
    /// Reads the header of an image, and nothing else.
    ///
    /// # Errors
    /// [`Truncated`](crate::Error::Truncated) where there is no header; a refusal with
    /// [`Reason::BadGeometry`](crate::error::Reason::BadGeometry) where its cluster size is none.
    pub fn new(image: impl Into<View<'a>>) -> Result<Self> {
        let view = image.into();
        let header = Header::parse(view.bytes())?;
        let geometry = Geometry::new(&header, view.length())?;
        Ok(Self { view, header, geometry, l2_format: L2Format::new(&geometry) })
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header<'a> {
        &self.header
    }

    /// What its sizes make.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// What its L2 entries look like.
    #[must_use]
    pub fn l2_format(&self) -> L2Format {
        self.l2_format
    }

    /// The image.
    #[must_use]
    pub fn view(&self) -> &View<'a> {
        &self.view
    }

    /// The entries of an L1 table that are not 0, with their indices: of
    /// [the active one](Geometry::l1_table), or of [a snapshot's](crate::qcow2::Snapshot::l1_table).
    pub fn l1_entries(&self, table: Area) -> impl Iterator<Item = (u64, L1Entry)> {
        self.used(table).map(|(index, value)| (index, L1Entry(value)))
    }

    /// Entry `index` of an L1 table; `None` where the table or the file ends before it.
    #[must_use]
    pub fn l1_entry(&self, table: Area, index: u64) -> Option<L1Entry> {
        self.number(table, index).map(L1Entry)
    }

    /// The runs of the L2 table at `table`: all of its entries.
    #[must_use]
    pub fn l2_runs(&self, table: HostOffset) -> L2Runs<'_, 'a> {
        L2Runs::new(&self.view, &self.geometry, table)
    }

    /// The entries of the L2 table at `table` that are not 0, with their indices.
    pub fn l2_entries(&self, table: HostOffset) -> impl Iterator<Item = (u64, L2Entry)> {
        let words = usize::from(self.l2_format.extended()) + 1;
        let entries = self.l2_pieces(table).flat_map(move |(first, numbers)| {
            (first..).zip(numbers.chunks_exact(words).map(|entry| match *entry {
                [raw, bitmap] => L2Entry::extended(u64::from_be_bytes(raw), u64::from_be_bytes(bitmap)),
                [raw] => L2Entry::new(u64::from_be_bytes(raw)),
                _ => L2Entry::default(), // words is 1 or 2
            }))
        });
        entries.filter(|(_, entry)| *entry != L2Entry::default())
    }

    /// Entry `index` of the L2 table at `table`; `None` where the table or the file ends before it.
    #[must_use]
    pub fn l2_entry(&self, table: HostOffset, index: u64) -> Option<L2Entry> {
        let table = Area { offset: table, length: self.geometry.cluster_size() };
        if !self.l2_format.extended() {
            return self.number(table, index).map(L2Entry::new);
        }
        let raw = self.number(table, index.checked_mul(2)?)?;
        Some(L2Entry::extended(raw, self.number(table, index * 2 + 1)?))
    }

    /// The entries of the refcount table that are not 0, with their indices.
    pub fn refcount_table_entries(&self) -> impl Iterator<Item = (u64, RefcountTableEntry)> {
        self.used(self.geometry.refcount_table()).map(|(index, value)| (index, RefcountTableEntry(value)))
    }

    /// Entry `index` of the refcount table; `None` where the table or the file ends before it.
    #[must_use]
    pub fn refcount_table_entry(&self, index: u64) -> Option<RefcountTableEntry> {
        self.number(self.geometry.refcount_table(), index).map(RefcountTableEntry)
    }

    /// The refcount block at `block`; `None` where the header has a wrong `refcount_order`.
    #[must_use]
    pub fn refcount_block(&self, block: HostOffset) -> Option<RefcountBlock<'_, 'a>> {
        RefcountBlock::of(&self.view, &self.geometry, block)
    }

    /// How many L2 tables are worth reading that are not aligned: tables that are do not overlap, but a small file has room
    /// for millions of others, which cost as much as if it were a thousand times as large.
    pub(crate) fn unaligned_l2_tables(&self) -> u64 {
        (self.geometry.file_length() / 4).max(MIN_UNALIGNED_ENTRIES) / (self.geometry.cluster_size() / 8)
    }

    /// The refcount of a cluster: 0 where there is no block for it; `None` where the order is wrong, or the file ends before
    /// the entry or the refcount.
    #[must_use]
    pub fn refcount(&self, cluster: u64) -> Option<u64> {
        let (entry, index) = self.geometry.refcount_indices(cluster)?;
        if entry >= self.geometry.refcount_table().length / 8 {
            return Some(0);
        }
        match self.refcount_table_entry(entry)?.block() {
            HostOffset(0) => Some(0),
            block => self.refcount_block(block)?.count_at(index),
        }
    }

    /// The snapshot table.
    #[must_use]
    pub fn snapshots(&self) -> Snapshots<'a> {
        Snapshots::new(&self.header)
    }

    /// The entries of [a bitmap's table](crate::qcow2::bitmap::BitmapEntryHeader::table) that are not 0, with their indices.
    pub fn bitmap_table_entries(&self, table: Area) -> impl Iterator<Item = (u64, BitmapTableEntry)> {
        self.used(table).map(|(index, value)| (index, BitmapTableEntry(value)))
    }

    /// The entries of the L2 table at `table`, as far as the file has them and they are no hole.
    pub(crate) fn l2_pieces(&self, table: HostOffset) -> Pieces<'_, 'a> {
        Pieces::new(&self.view, table.0, self.geometry.l2_entries(), self.l2_format.words())
    }

    /// The numbers of a table, as far as the file has them and they are no hole.
    pub(crate) fn pieces(&self, table: Area) -> Pieces<'_, 'a> {
        Pieces::new(&self.view, table.offset.0, table.length / 8, 1)
    }

    /// The big-endian numbers of a table that are not 0, with their indices.
    fn used(&self, table: Area) -> impl Iterator<Item = (u64, u64)> {
        let numbers = self.pieces(table).flat_map(|(first, numbers)| {
            let numbers = numbers.iter().map(|number| u64::from_be_bytes(*number));
            (first..).zip(numbers)
        });
        numbers.filter(|&(_, number)| number != 0)
    }

    fn number(&self, table: Area, index: u64) -> Option<u64> {
        if index >= table.length / 8 {
            return None;
        }
        number_at(&self.view, table.offset.0.checked_add(index * 8)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Clusters of 512 bytes: header, L1 table, then two more that `tail` begins.
    fn image(incompatible: u8, l1_size: u32, tail: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 2048];
        bytes[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        (bytes[23], bytes[30], bytes[46], bytes[79], bytes[99]) = (9, 2, 2, incompatible, 4);
        bytes[36..40].copy_from_slice(&l1_size.to_be_bytes());
        bytes[1024..1024 + tail.len()].copy_from_slice(tail);
        bytes
    }

    #[test]
    fn extended_entries_are_pairs() {
        let tail: Vec<u8> = [0, 0, 0x600, 5, 0, 7u64].iter().flat_map(|word| word.to_be_bytes()).collect();
        let bytes = image(16, 1, &tail);
        let tables = Tables::new(&bytes).unwrap();
        let entries = [(1, L2Entry::extended(0x600, 5)), (2, L2Entry::extended(0, 7))];
        assert!(tables.l2_entries(HostOffset(1024)).eq(entries));
        for (index, entry) in entries {
            assert_eq!(tables.l2_entry(HostOffset(1024), index), Some(entry));
        }
        assert_eq!(tables.l2_entry(HostOffset(1024), 32), None);
        assert_eq!(tables.l2_pieces(HostOffset(1024)).map(|(_, words)| words.len()).sum::<usize>(), 64);
    }

    #[test]
    fn a_table_of_any_size_ends_with_the_file() {
        let mut bytes = image(0, u32::MAX, &[]);
        bytes.truncate(1500);
        bytes[1499] = 1; // in the middle of an entry
        let tables = Tables::new(&bytes).unwrap();
        let l1 = tables.geometry().l1_table();
        assert_eq!(tables.l1_entries(l1).collect::<Vec<_>>(), [(123, L1Entry(1 << 32))]);
        assert_eq!(tables.l1_entry(l1, 123), Some(L1Entry(1 << 32)));
        assert_eq!((tables.l1_entry(l1, 127), tables.l1_entry(l1, 128)), (Some(L1Entry(0)), None));
        assert_eq!(tables.l1_entry(Area::new(u64::MAX, u64::MAX), 1), None);
    }

    #[test]
    fn refcounts_are_found() {
        let mut bytes = image(0, 1, &[]);
        bytes[54] = 4; // the table at 0x400
        bytes[59] = 1;
        bytes[1024 + 8 + 6] = 6; // blocks: none, then one at 0x600
        bytes[1536 + 3] = 9;
        let tables = Tables::new(&bytes).unwrap();
        let counts = [0, 255, 256, 257, 258, 64 * 256].map(|cluster| tables.refcount(cluster));
        assert_eq!(counts, [Some(0), Some(0), Some(0), Some(9), Some(0), Some(0)]);
        bytes[99] = 7;
        assert_eq!(Tables::new(&bytes).unwrap().refcount(257), None);
    }

    proptest! {
        #[test]
        fn any_bytes_have_tables(mut bytes in proptest::collection::vec(any::<u8>(), 104..3000), bits in 9u8..=21, at: u64) {
            bytes[20..24].copy_from_slice(&[0, 0, 0, bits]);
            let tables = Tables::new(&bytes).unwrap();
            for at in [at, at % 3000, at % 3000 / 512 * 512] {
                let area = Area::new(at, u64::from(u32::MAX) * 8);
                for (index, entry) in tables.l1_entries(area) {
                    prop_assert_eq!(tables.l1_entry(area, index), Some(entry));
                }
                for (index, entry) in tables.l2_entries(HostOffset(at)).take(100) {
                    prop_assert_eq!(tables.l2_entry(HostOffset(at), index), Some(entry));
                }
            }
            let _ = (tables.refcount(at), tables.refcount(at % 100), tables.refcount_table_entries().count());
            let _ = tables.snapshots().count();
        }
    }
}
