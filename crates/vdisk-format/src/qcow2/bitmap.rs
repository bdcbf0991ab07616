//! Bitmaps: the header extension, the directory it points to, and each bitmap's table. Specification: "Bitmaps".

use crate::bytes::{clipped, exactly, round_up_8};
use crate::error::{Error, Result};
use crate::limits::{MAX_BITMAP_TABLE_ENTRIES, MAX_BITMAPS, MIN_BITMAP_TABLE_ENTRIES};
use crate::record::record;
use crate::units::HostOffset;

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

impl BitmapsExtension {
    /// The directory, read as it is asked for: [`nb_bitmaps`](Self::nb_bitmaps) entries, but no more than
    /// [`MAX_BITMAPS`]. It ends after the first entry that lies outside the file.
    #[must_use]
    pub fn directory<'a>(&self, image: &'a [u8]) -> BitmapDirectory<'a> {
        BitmapDirectory { image, at: self.bitmap_directory_offset, left: self.nb_bitmaps.min(MAX_BITMAPS) }
    }
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
    const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
    const RESERVED_MASK: u64 = 0xff00_0000_0000_01fe;

    /// Offset of the cluster with the data; 0: there is none.
    #[must_use]
    pub const fn cluster(self) -> HostOffset {
        HostOffset(self.0 & Self::OFFSET_MASK)
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
