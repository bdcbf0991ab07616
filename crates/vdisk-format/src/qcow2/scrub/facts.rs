//! [`Facts`]: all that a check makes of a word of a table. Words with the same facts are the same to it.

use crate::qcow2::bitmap::{BitmapTableEntry, BitmapTableEntryKind};
use crate::qcow2::check::{is_readable, stored_refcount};
use crate::qcow2::geometry::{Area, Geometry, OFFSET_MASK};
use crate::qcow2::l1::L1Entry;
use crate::qcow2::l2::{L2Entry, SubclusterBitmap};
use crate::qcow2::refcount::RefcountTableEntry;
use crate::qcow2::tables::Tables;

/// What a check takes for reserved in an L2 entry that is not compressed.
const L2_RESERVED: u64 = 0x3f00_0000_0000_01fe;
/// An offset that is beyond any file, and a multiple of any cluster size.
const FAR: u64 = 1 << 54;
/// So many offsets behind it are tried.
const BEYOND: u64 = 3;

/// What a check makes of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Facts {
    /// The word is 0.
    Nothing,
    L1 {
        reserved: bool,
        table: Place,
    },
    L2 {
        reserved: bool,
        /// Bit 0 where it is reserved, but is not for `qemu-img check`.
        low_reserved: bool,
        low: bool,
        host: Option<Place>,
    },
    Compressed {
        copied: bool,
        reserved: bool,
        /// Which bytes of the file; `None` where they do not begin in it.
        data: Option<Area>,
    },
    Subclusters {
        any: bool,
        allocated: bool,
        invalid: bool,
    },
    Refcounts {
        reserved: bool,
        readable: bool,
        block: Place,
    },
    Bitmap {
        reserved: bool,
        low: bool,
        data: Place,
    },
}

/// Where an entry points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// To a cluster of the file. Where there is a `COPIED` flag, whether it is set.
    In { offset: u64, copied: bool },
    /// Elsewhere.
    Out {
        aligned: bool,
        /// Whether the `COPIED` flag contradicts the refcount, which there is all the same.
        wrong: bool,
    },
    /// To the external data file: where, unless that is behind its end.
    External { offset: Option<u64>, aligned: bool, copied: bool },
}

/// What an entry is judged by.
#[derive(Debug)]
pub(super) struct Judge<'t, 'a> {
    tables: &'t Tables<'a>,
    geometry: Geometry,
    /// Behind the last cluster that is counted.
    known_end: u64,
}

impl<'t, 'a> Judge<'t, 'a> {
    /// `clusters` are counted by a check.
    pub(super) fn new(tables: &'t Tables<'a>, clusters: u64) -> Self {
        let geometry = tables.geometry();
        let clusters = clusters.max(geometry.file_clusters());
        Self { tables, geometry, known_end: clusters.saturating_mul(geometry.cluster_size()) }
    }

    pub(super) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Whether an offset is that of a cluster that a check knows.
    pub(super) fn is_known(&self, offset: u64) -> bool {
        offset < self.known_end
    }

    fn place(&self, offset: u64, copied: bool, active: bool) -> Place {
        if self.is_known(offset) {
            return Place::In { offset, copied };
        }
        let refcount = stored_refcount(self.tables, offset >> self.geometry.cluster_bits());
        let wrong = active && refcount.is_some_and(|refcount| (refcount == 1) != copied);
        Place::Out { aligned: self.geometry.is_aligned(offset), wrong }
    }

    /// Where something is in the external data file.
    fn external(&self, offset: u64, copied: bool) -> Place {
        // Clusters have their places behind the disk's end, too, if the file has an L1 entry there.
        let disk = self.geometry.guest_clusters().saturating_mul(self.geometry.cluster_size());
        let l1_entries = self.geometry.l1_table().clipped(self.geometry.file_length()).length / 8;
        let end = disk.max(l1_entries.saturating_mul(self.geometry.l2_span()));
        let aligned = self.geometry.is_aligned(offset);
        Place::External { offset: Some(offset).filter(|&offset| offset < end), aligned, copied }
    }

    /// Offsets in stead of one that is not known, aligned as it is: behind `from`, which is beyond any file.
    fn beyond(&self, offset: u64, from: u64) -> impl Iterator<Item = u64> + use<> {
        let size = self.geometry.cluster_size();
        let more = if self.geometry.is_aligned(offset) { 0 } else { 512 };
        (0..BEYOND).map(move |i| from + 2 * i * size + more)
    }

    pub(super) fn l1(&self, word: u64, active: bool) -> Facts {
        let entry = L1Entry(word);
        let table = self.place(entry.l2_table().0, entry.copied(), active);
        if word == 0 { Facts::Nothing } else { Facts::L1 { reserved: entry.reserved() != 0, table } }
    }

    pub(super) fn l1_offers(&self, word: u64) -> Vec<u64> {
        let entry = L1Entry(word);
        let flags = u64::from(entry.reserved() != 0);
        let copied = word & L1Entry::COPIED;
        let offset = entry.l2_table().0;
        self.with_offsets(flags, copied, offset, None)
    }

    /// `flags` with the flag as it is, or as it is not, and an offset that says nothing.
    fn with_offsets(&self, flags: u64, copied: u64, offset: u64, follows: Option<u64>) -> Vec<u64> {
        if self.is_known(offset) {
            return vec![flags | copied | offset];
        }
        let offsets = follows.into_iter().chain(self.beyond(offset, FAR));
        offsets
            .flat_map(|offset| [flags | copied | offset, flags | copied ^ L1Entry::COPIED | offset])
            .collect()
    }

    /// The cluster of an entry of an L2 table, which fragments are counted by.
    pub(super) fn host(&self, word: u64) -> Option<u64> {
        let entry = L2Entry::new(word);
        let (offset, extended) = (entry.offset().0, self.geometry.extended_l2());
        let at_0 = self.geometry.data_file() && entry.copied() && (extended || !entry.zero_flag());
        (!entry.is_compressed() && (offset != 0 || at_0)).then_some(offset)
    }

    pub(super) fn l2(&self, word: u64, active: bool) -> Facts {
        let entry = L2Entry::new(word);
        let format = self.tables.l2_format();
        if word == 0 {
            return Facts::Nothing;
        }
        if entry.is_compressed() {
            let data = entry.compressed(&format);
            let area = Area { offset: data.offset, length: data.length };
            let data = self.is_known(data.offset.0).then_some(area);
            return Facts::Compressed {
                copied: entry.copied(),
                reserved: entry.reserved(&format) != 0,
                data,
            };
        }
        let reserved = word & L2_RESERVED != 0;
        let host = self.host(word).map(|offset| {
            if self.geometry.data_file() {
                self.external(offset, entry.copied())
            } else {
                self.place(offset, entry.copied(), active)
            }
        });
        let low_reserved = !reserved && entry.reserved(&format) != 0;
        Facts::L2 { reserved, low_reserved, low: word & 1 != 0, host }
    }

    /// Entries in stead of one of an L2 table; `follows` is the cluster behind that of the entry before it.
    pub(super) fn l2_offers(&self, word: u64, follows: u64) -> Vec<u64> {
        let entry = L2Entry::new(word);
        let format = self.tables.l2_format();
        let copied = word & L2Entry::COPIED;
        if entry.is_compressed() {
            let flags = copied | L2Entry::COMPRESSED;
            let reserved = entry.reserved(&format);
            // The lowest of the reserved bits, behind which the offset is none of the file.
            let reserved = reserved & reserved.wrapping_neg();
            let split = self.geometry.compressed_split().min(56);
            let beyond = 1u64 << (split - 1);
            let there = word & !(L2Entry::COPIED | L2Entry::COMPRESSED);
            return match self.l2(word, false) {
                Facts::Compressed { data: Some(_), .. } => vec![flags | there],
                _ => [beyond, beyond | 512, 0].map(|offset| flags | reserved | offset).to_vec(),
            };
        }
        let flags = word & 1 | if word & L2_RESERVED != 0 { 2 } else { 0 };
        match self.host(word) {
            None => vec![flags | copied, flags],
            Some(offset) if self.geometry.data_file() => {
                if let Place::External { offset: Some(offset), .. } = self.external(offset, entry.copied()) {
                    return vec![flags | copied | offset];
                }
                let offsets = [follows].into_iter().chain(self.beyond(offset, FAR));
                offsets.map(|offset| flags | copied | offset & OFFSET_MASK).collect()
            }
            Some(offset) => {
                let follows = Some(follows).filter(|&follows| follows <= OFFSET_MASK && follows != 0);
                self.with_offsets(flags, copied, offset, follows)
            }
        }
    }

    /// Whether an entry of an L2 table says where a cluster is, or that there is none, and nothing else.
    pub(super) fn l2_is_public(&self, word: u64) -> bool {
        match self.l2(word, false) {
            Facts::Nothing => true,
            Facts::L2 { reserved: false, low_reserved: false, host: None, .. } => {
                word & !(L2Entry::COPIED | 1) == 0
            }
            Facts::L2 {
                reserved: false, low_reserved: false, host: Some(Place::In { offset, .. }), ..
            } => self.geometry.is_aligned(offset),
            Facts::L2 {
                reserved: false,
                low_reserved: false,
                host: Some(Place::External { offset: Some(_), aligned, .. }),
                ..
            } => aligned,
            Facts::Compressed { copied: false, reserved: false, data: Some(_) } => !self.geometry.data_file(),
            _ => false,
        }
    }

    /// The second half of an extended entry.
    pub(super) fn subclusters(word: u64) -> Facts {
        let bitmap = SubclusterBitmap(word);
        let (allocated, invalid) = (bitmap.allocated() != 0, bitmap.invalid() != 0);
        Facts::Subclusters { any: word != 0, allocated, invalid }
    }

    /// Words for what several tables make something of, each something else: the parts that entries have, in all ways.
    pub(super) fn offers_to_several(&self, word: u64, follows: u64) -> impl Iterator<Item = u64> + use<> {
        let split = self.geometry.compressed_split().min(56);
        let offset = word & OFFSET_MASK;
        let known = Some(offset).filter(|&offset| self.is_known(offset));
        let far = [FAR, FAR | 512, 1 << (split - 1), 1 << (split - 1) | 512];
        let near = [follows & OFFSET_MASK, 0].into_iter();
        let offsets: Vec<u64> = known.into_iter().chain(near).chain(far).collect();
        let flags = word & L2Entry::COMPRESSED;
        offsets.into_iter().flat_map(move |offset| {
            let copied = [word & L2Entry::COPIED, !word & L2Entry::COPIED];
            let high = [0, 1 << 56, 1 << 61];
            copied.into_iter().flat_map(move |copied| {
                high.into_iter()
                    .flat_map(move |high| (0..4).map(move |low| flags | copied | high | offset | low))
            })
        })
    }

    pub(super) const SUBCLUSTER_OFFERS: [u64; 3] = [1 << 32 | 1, 1, 1 << 32];

    pub(super) fn refcount_table(&self, word: u64) -> Facts {
        let entry = RefcountTableEntry(word);
        let offset = entry.block().0;
        let (reserved, readable) = (entry.reserved() != 0, is_readable(&self.geometry, offset));
        let block = self.place(offset, false, false);
        if word == 0 { Facts::Nothing } else { Facts::Refcounts { reserved, readable, block } }
    }

    pub(super) fn refcount_table_offers(&self, word: u64) -> Vec<u64> {
        let entry = RefcountTableEntry(word);
        let flags = u64::from(entry.reserved() != 0);
        let block = entry.block().0;
        if self.is_known(block) {
            return vec![flags | block];
        }
        let offsets = self.beyond(block, FAR);
        let unreadable = self.beyond(block, 1 << 63);
        offsets.chain(unreadable).map(|block| flags | block).collect()
    }

    pub(super) fn bitmap_table(&self, word: u64) -> Facts {
        let entry = BitmapTableEntry(word);
        let low = word & 1 != 0;
        let data = self.place(entry.cluster().0, false, false);
        if word == 0 { Facts::Nothing } else { Facts::Bitmap { reserved: entry.reserved() != 0, low, data } }
    }

    pub(super) fn bitmap_table_offers(&self, word: u64) -> Vec<u64> {
        let entry = BitmapTableEntry(word);
        let flags = word & 1 | if entry.reserved() != 0 { 2 } else { 0 };
        self.with_offsets(flags, 0, entry.cluster().0, None)
    }

    /// Whether an entry of another table than an L2 table says where a cluster is, and nothing else.
    pub(super) fn is_public(&self, facts: Facts, word: u64) -> bool {
        match facts {
            Facts::Nothing => true,
            Facts::L1 { reserved: false, table: Place::In { offset, .. } }
            | Facts::Refcounts { reserved: false, block: Place::In { offset, .. }, .. } => {
                self.geometry.is_aligned(offset)
            }
            Facts::Bitmap { reserved: false, data: Place::In { offset, .. }, .. } => {
                self.geometry.is_aligned(offset)
                    && BitmapTableEntry(word).kind() != BitmapTableEntryKind::Invalid
            }
            _ => false,
        }
    }
}
