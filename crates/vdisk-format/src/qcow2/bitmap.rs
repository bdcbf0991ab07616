//! Bitmaps: the header extension, the directory it points to, and each bitmap's table. Specification: "Bitmaps".

use std::ops::Range;

use crate::bytes::{clipped, exactly, round_up_8};
use crate::error::{Error, Result};
use crate::limits::{MAX_BITMAP_TABLE_ENTRIES, MAX_BITMAPS, MIN_BITMAP_TABLE_ENTRIES};
use crate::qcow2::extension::Content;
use crate::qcow2::geometry::{Area, OFFSET_MASK};
use crate::qcow2::header::Header;
use crate::record::record;
use crate::units::HostOffset;

/// Autoclear feature bit 0: the bitmaps are as the disk is. Without it they mean nothing, and QEMU does not look at them.
pub(in crate::qcow2) const AUTOCLEAR_BITMAPS: u64 = 1;

record! {
    /// The data of the bitmaps extension. Specification: "Bitmaps extension".
    pub struct BitmapsExtension: big, at 0, called "bitmaps extension" {
        /// Bitmaps in the image, at least 1.
        nb_bitmaps: u32, Dec;
        /// Must be 0.
        reserved32: u32, Dec;
        /// Size of the bitmap directory in bytes.
        bitmap_directory_size: u64, Hex;
        /// Offset of the bitmap directory, a multiple of the cluster size.
        bitmap_directory_offset: u64, Hex;
    }
}

record! {
    /// The fixed part of a bitmap directory entry. Specification: "Bitmap directory".
    pub struct BitmapEntryHeader: big, at 0, called "bitmap directory entry" {
        /// Offset of the bitmap's table, a multiple of the cluster size.
        bitmap_table_offset: u64, Hex;
        /// Entries of that table.
        bitmap_table_size: u32, Dec;
        /// Bit 0 `in_use`, 1 `auto`, 2 `extra_data_compatible`; the others must be 0.
        flags: u32, Bits;
        /// 1: dirty tracking bitmap; the other values are reserved.
        type_: u8, Dec;
        /// One bit stands for `1 << granularity_bits` bytes: 0 to 63; QEMU takes 9 to 31.
        granularity_bits: u8, Dec;
        /// Length of the name in bytes, not 0; QEMU takes up to 1023.
        name_size: u16, Dec;
        /// Length of the extra data in bytes: 0, as none are defined.
        extra_data_size: u32, Dec;
    }
}

/// `in_use`: the bitmap was not saved correctly and may be inconsistent.
pub const FLAG_IN_USE: u32 = 1;
/// `auto`: the bitmap tracks all changes of the disk.
pub const FLAG_AUTO: u32 = 2;
/// `extra_data_compatible`: who does not know the extra data may use the bitmap all the same.
pub const FLAG_EXTRA_DATA_COMPATIBLE: u32 = 4;
/// The flags that the specification defines; the others must be 0.
pub const KNOWN_FLAGS: u32 = FLAG_IN_USE | FLAG_AUTO | FLAG_EXTRA_DATA_COMPATIBLE;

impl BitmapsExtension {
    /// That of an image, as far as its extensions can be read; of several, which should not be, the last, as QEMU has it.
    #[must_use]
    pub fn of(header: &Header<'_>) -> Option<Self> {
        let extensions = header.extensions().map_while(Result::ok);
        let found = extensions.filter_map(|extension| match extension.content() {
            Ok(Content::Bitmaps(bitmaps)) => Some(bitmaps),
            _ => None,
        });
        found.last()
    }

    /// The directory, read as it is asked for: [`nb_bitmaps`](Self::nb_bitmaps) entries, but no more than
    /// [`MAX_BITMAPS`]. It ends after the first entry that lies outside the file.
    #[must_use]
    pub fn directory<'a>(&self, image: &'a [u8]) -> BitmapDirectory<'a> {
        BitmapDirectory { image, at: self.bitmap_directory_offset, left: self.nb_bitmaps.min(MAX_BITMAPS) }
    }

    /// Where the directory is, as the extension claims.
    #[must_use]
    pub fn directory_area(&self) -> Area {
        Area::new(self.bitmap_directory_offset, self.bitmap_directory_size)
    }
}

impl BitmapEntryHeader {
    /// Bytes of the virtual disk that a bit is for; `None` where that is no `u64`.
    #[must_use]
    pub fn granularity(&self) -> Option<u64> {
        1u64.checked_shl(self.granularity_bits.into())
    }

    /// Bits that a disk of `virtual_size` bytes needs, the last one perhaps for less than its granularity.
    #[must_use]
    pub fn bits_needed(&self, virtual_size: u64) -> Option<u64> {
        Some(virtual_size.div_ceil(self.granularity()?))
    }

    /// Entries that the bitmap's table needs for a disk of `virtual_size` bytes, in clusters of `cluster_size`.
    #[must_use]
    pub fn table_entries_needed(&self, virtual_size: u64, cluster_size: u64) -> Option<u64> {
        Some(self.bits_needed(virtual_size)?.div_ceil(8).div_ceil(cluster_size))
    }

    /// Where the bit for a guest offset is, in clusters of `cluster_size` bytes.
    ///
    /// ```
    /// use vdisk_format::qcow2::bitmap::{BitPlace, BitmapEntryHeader};
    /// let bitmap = BitmapEntryHeader { granularity_bits: 16, ..Default::default() };
    /// // 64 KiB of bitmap data are for 32 GiB of the disk.
    /// let place = BitPlace { table_index: 1, byte: 0, bit: 3 };
    /// assert_eq!(bitmap.bit_place((32 << 30) + 3 * 65536, 65536), Some(place));
    /// ```
    #[must_use]
    pub fn bit_place(&self, guest: u64, cluster_size: u64) -> Option<BitPlace> {
        let index = guest / self.granularity()?;
        let byte = index / 8;
        Some(BitPlace {
            table_index: byte.checked_div(cluster_size)?,
            byte: byte.checked_rem(cluster_size)?,
            bit: (index % 8) as u32,
        })
    }

    /// The range of guest offsets that a bit is for, the inverse of [`bit_place`](Self::bit_place): it may reach over the
    /// end of the disk. `None` where it starts where no `u64` reaches.
    #[must_use]
    pub fn guest_range(&self, place: BitPlace, cluster_size: u64) -> Option<Range<u64>> {
        let byte = place.table_index.checked_mul(cluster_size)?.checked_add(place.byte)?;
        let index = byte.checked_mul(8)?.checked_add(place.bit.into())?;
        let start = index.checked_mul(self.granularity()?)?;
        Some(start..start.saturating_add(self.granularity()?))
    }

    /// Where the bitmap's table is.
    #[must_use]
    pub fn table(&self) -> Area {
        Area::new(self.bitmap_table_offset, u64::from(self.bitmap_table_size) * 8)
    }
}

/// Where a bit of a bitmap is. Specification: "Bitmap data".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BitPlace {
    /// Which entry of the bitmap's table has its cluster, or says what all bits of it are.
    pub table_index: u64,
    /// Which byte of that cluster.
    pub byte: u64,
    /// Which bit of that byte, 0 the least significant.
    pub bit: u32,
}

/// The walk over a bitmap directory.
#[derive(Debug, Clone)]
pub struct BitmapDirectory<'a> {
    image: &'a [u8],
    at: u64,
    left: u32,
}

impl<'a> Iterator for BitmapDirectory<'a> {
    type Item = Result<Bitmap<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let at = self.at;
        let fixed = match BitmapEntryHeader::parse(self.image, at) {
            Ok(fixed) => fixed,
            Err(error) => {
                self.left = 0;
                return Some(Err(error));
            }
        };
        let name_at = at + BitmapEntryHeader::SIZE + u64::from(fixed.extra_data_size);
        let name = clipped(self.image, name_at, fixed.name_size.into());
        let size = BitmapEntryHeader::SIZE + u64::from(fixed.extra_data_size) + u64::from(fixed.name_size);
        self.at = at.saturating_add(round_up_8(size));
        Some(Ok(Bitmap { image: self.image, offset: HostOffset(at), fixed, name, next: HostOffset(self.at) }))
    }
}

/// One bitmap of the directory.
#[derive(Debug, Clone, Copy)]
pub struct Bitmap<'a> {
    image: &'a [u8],
    /// Where its directory entry starts.
    pub offset: HostOffset,
    /// The entry's fixed part.
    pub fixed: BitmapEntryHeader,
    /// The bitmap's name, cut at the end of the file.
    pub name: &'a [u8],
    /// Where the next entry starts.
    pub next: HostOffset,
}

impl<'a> Bitmap<'a> {
    /// The entry's extra data, cut at the end of the file; none are defined.
    #[must_use]
    pub fn extra_data(&self) -> &'a [u8] {
        clipped(self.image, self.offset.0 + BitmapEntryHeader::SIZE, self.fixed.extra_data_size.into())
    }

    /// The entry itself, with its padding.
    #[must_use]
    pub fn area(&self) -> Area {
        Area::new(self.offset.0, self.next.0 - self.offset.0)
    }

    /// The bit for a guest offset, with clusters of `cluster_size` bytes. `None` where there is no such bit: the table is
    /// too short, its entry is invalid, or the file ends before.
    #[must_use]
    pub fn bit(&self, guest: u64, cluster_size: u64) -> Option<bool> {
        let place = self.fixed.bit_place(guest, cluster_size)?;
        if place.table_index >= self.fixed.bitmap_table_size.into() {
            return None;
        }
        let at = self.fixed.bitmap_table_offset.checked_add(place.table_index * 8)?;
        let entry = clipped(self.image, at, 8).first_chunk()?;
        let entry = BitmapTableEntry(u64::from_be_bytes(*entry));
        match entry.kind() {
            BitmapTableEntryKind::AllZeroes => Some(false),
            BitmapTableEntryKind::AllOnes => Some(true),
            BitmapTableEntryKind::Serialized => {
                let byte = clipped(self.image, entry.cluster().0.checked_add(place.byte)?, 1).first()?;
                Some(byte >> place.bit & 1 != 0)
            }
            BitmapTableEntryKind::Invalid => None,
        }
    }

    /// The bitmap's table.
    ///
    /// # Errors
    /// [`Error::Truncated`] where a part of it lies outside the file.
    pub fn table(&self) -> Result<BitmapTable<'a>> {
        let size = u64::from(self.fixed.bitmap_table_size) * 8;
        // A table of no entries is at home anywhere, also outside the file.
        let bytes = exactly(self.image, self.fixed.bitmap_table_offset, size, "bitmap table")?;
        Ok(BitmapTable { bytes })
    }
}

/// A bitmap's table: where its data are.
#[derive(Debug, Clone, Copy)]
pub struct BitmapTable<'a> {
    bytes: &'a [u8],
}

impl<'a> BitmapTable<'a> {
    /// Its entries.
    pub fn entries(self) -> impl ExactSizeIterator<Item = BitmapTableEntry> + 'a {
        self.bytes.as_chunks::<8>().0.iter().map(|bytes| BitmapTableEntry(u64::from_be_bytes(*bytes)))
    }
}

/// One entry of a bitmap table. Specification: "Bitmap table".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BitmapTableEntry(pub u64);

impl BitmapTableEntry {
    const RESERVED_MASK: u64 = !(OFFSET_MASK | 1);

    /// Offset of the cluster with the data; 0: there is none.
    #[must_use]
    pub const fn cluster(self) -> HostOffset {
        HostOffset(self.0 & OFFSET_MASK)
    }

    /// The reserved bits, which must be 0.
    #[must_use]
    pub const fn reserved(self) -> u64 {
        self.0 & Self::RESERVED_MASK
    }

    /// What the entry says.
    #[must_use]
    pub const fn kind(self) -> BitmapTableEntryKind {
        match (self.cluster().0 != 0, self.0 & 1 != 0) {
            (true, true) => BitmapTableEntryKind::Invalid,
            (true, false) => BitmapTableEntryKind::Serialized,
            (false, true) => BitmapTableEntryKind::AllOnes,
            (false, false) => BitmapTableEntryKind::AllZeroes,
        }
    }
}

/// The kinds of [`BitmapTableEntry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum BitmapTableEntryKind {
    /// The data are in a cluster.
    Serialized,
    /// All bits are 0, and there is no cluster.
    AllZeroes,
    /// All bits are 1, and there is no cluster.
    AllOnes,
    /// There is a cluster, and the bit that must then be 0 is 1.
    Invalid,
}

impl BitmapTableEntryKind {
    /// `serialized`, `all-zeroes`, `all-ones` or `invalid`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Serialized => "serialized",
            Self::AllZeroes => "all-zeroes",
            Self::AllOnes => "all-ones",
            Self::Invalid => "invalid",
        }
    }
}

/// How many bitmap table entries may still be read: tables that overlap make a small file claim gigabytes of them.
///
/// A healthy image's tables do not overlap, so that together they have no more entries than the file has room for; a small file may have some more.
#[derive(Debug, Clone)]
pub struct TableBudget {
    left: u64,
}

impl TableBudget {
    /// The budget for one dump of `image`.
    #[must_use]
    pub fn new(image: &[u8]) -> Self {
        let room = image.len() as u64 / 8;
        Self { left: room.clamp(MIN_BITMAP_TABLE_ENTRIES, MAX_BITMAP_TABLE_ENTRIES) }
    }

    /// Spends what reading `bitmap`'s entry and table costs.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the budget does not suffice; it is then used up.
    pub fn spend(&mut self, bitmap: &Bitmap<'_>) -> Result<()> {
        let entry = (bitmap.next.0 - bitmap.offset.0) / 8;
        let cost = u64::from(bitmap.fixed.bitmap_table_size).saturating_add(entry);
        if let Some(left) = self.left.checked_sub(cost) {
            self.left = left;
            return Ok(());
        }
        self.left = 0;
        Err(Error::Unsupported {
            what: format!("bitmap table at offset {:#x}", bitmap.fixed.bitmap_table_offset),
            why: "the bitmaps' directory entries and tables claim more entries than the file can hold"
                .to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn entries_are_what_the_specification_says() {
        use BitmapTableEntryKind::*;
        for (entry, kind, reserved) in [
            (0, AllZeroes, 0),
            (1, AllOnes, 0),
            (0x5_0000, Serialized, 0),
            (0x5_0001, Invalid, 0),
            (0x0100_0000_0000_0002, AllZeroes, 0x0100_0000_0000_0002),
        ] {
            let entry = BitmapTableEntry(entry);
            assert_eq!((entry.kind(), entry.reserved()), (kind, reserved), "{entry:?}");
        }
    }

    #[test]
    fn a_bit_is_found_in_the_data_or_in_the_table() {
        // A directory entry at 0, a table of three entries at 512, data at 1024; clusters of 512 bytes.
        let fixed = BitmapEntryHeader {
            bitmap_table_offset: 512,
            bitmap_table_size: 4,
            type_: 1,
            granularity_bits: 9,
            name_size: 1,
            ..BitmapEntryHeader::default()
        };
        let mut image = fixed.to_bytes();
        image.resize(1536, 0);
        for (index, entry) in [1024u64, 1, 0, 1025].iter().enumerate() {
            image[512 + index * 8..][..8].copy_from_slice(&entry.to_be_bytes());
        }
        image[1024 + 2] = 0b100;
        let extension = BitmapsExtension { nb_bitmaps: 1, ..BitmapsExtension::default() };
        let bitmap = extension.directory(&image).next().unwrap().unwrap();
        let span = 512 * 8 * 512;
        let bit = |bit: u64| bitmap.bit(bit * 512, 512);
        assert_eq!((bit(18), bit(17), bit(19)), (Some(true), Some(false), Some(false)));
        let other = [span, 2 * span, 3 * span, 4 * span, u64::MAX].map(|guest| bitmap.bit(guest, 512));
        assert_eq!(other, [Some(true), Some(false), None, None, None]);
        assert_eq!(fixed.table_entries_needed(3 * span + 1, 512), Some(4));
        assert_eq!(BitmapEntryHeader { granularity_bits: 64, ..fixed }.granularity(), None);
    }

    proptest! {
        #[test]
        fn a_bit_is_for_its_guest_range(guest: u64, granularity_bits in 0..64u8, cluster_bits in 9..=21u32) {
            let fixed = BitmapEntryHeader { granularity_bits, ..BitmapEntryHeader::default() };
            let place = fixed.bit_place(guest, 1 << cluster_bits).unwrap();
            prop_assert!(place.bit < 8 && place.byte < 1 << cluster_bits);
            let range = fixed.guest_range(place, 1 << cluster_bits).unwrap();
            prop_assert!(range.start <= guest && (guest < range.end || range.end == u64::MAX));
            prop_assert!(place.table_index < fixed.table_entries_needed(u64::MAX, 1 << cluster_bits).unwrap() || guest == u64::MAX);
        }

        #[test]
        fn directories_round_trip(
            parts in proptest::collection::vec(
                (any::<[u8; 24]>(), proptest::collection::vec(any::<u8>(), 0..9), proptest::collection::vec(any::<u8>(), 0..9)),
                0..5,
            )
        ) {
            let entry = |fixed: BitmapEntryHeader, extra: &[u8], name: &[u8]| {
                let (extra_data_size, name_size) = (u32::try_from(extra.len()), u16::try_from(name.len()));
                let fixed = BitmapEntryHeader {
                    extra_data_size: extra_data_size.unwrap(),
                    name_size: name_size.unwrap(),
                    ..fixed
                };
                let mut bytes = [&fixed.to_bytes(), extra, name].concat();
                bytes.resize(bytes.len().next_multiple_of(8), 0);
                bytes
            };
            let mut directory = Vec::new();
            for (fixed, extra, name) in &parts {
                directory.extend(entry(BitmapEntryHeader::parse(fixed, 0).unwrap(), extra, name));
            }
            let nb_bitmaps = u32::try_from(parts.len()).unwrap();
            let extension = BitmapsExtension { nb_bitmaps, ..BitmapsExtension::default() };
            let mut back = Vec::new();
            for bitmap in extension.directory(&directory).map(Result::unwrap) {
                prop_assert_eq!(bitmap.area().offset.0, back.len() as u64);
                back.extend(entry(bitmap.fixed, bitmap.extra_data(), bitmap.name));
            }
            prop_assert_eq!(back, directory);
        }
    }

    #[test]
    fn tables_that_overlap_exhaust_the_budget() {
        // Bitmaps at 0, each with a table of 0x4000 entries at 0: the least budget has room for three.
        let mut image = vec![0u8; 0x2_0000];
        for entry in image.chunks_exact_mut(24) {
            entry[10] = 0x40;
        }
        let extension = BitmapsExtension { nb_bitmaps: u32::MAX, ..BitmapsExtension::default() };
        let mut budget = TableBudget::new(&image);
        let read =
            extension.directory(&image).map_while(Result::ok).filter(|b| budget.spend(b).is_ok()).count();
        assert_eq!(read, 3);
    }
}
