//! Where the tables of an image are, as its bytes say it: right or wrong, nothing here fails.

use super::bytes::{Bytes, at, magic};

/// Bits 9 to 55 of an entry: an offset.
pub(crate) const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Bit 63 of an entry: the refcount is 1.
pub(crate) const COPIED: u64 = 1 << 63;

/// What a table is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    L1,
    L2,
    RefcountTable,
    RefcountBlock,
    SnapshotTable,
    SnapshotL1,
    BitmapDirectory,
    BitmapTable,
}

/// A table, or a part of it that is worth a change. All of it is in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) kind: Kind,
    pub(crate) start: usize,
    pub(crate) length: usize,
}

/// Entries of a table that are looked at: these are for small images.
const MOST: usize = 1 << 14;

impl Bytes {
    /// A number of 8 bytes; what the file does not have is 0.
    pub(crate) fn number(&self, at: usize) -> u64 {
        if at.checked_add(8).is_some_and(|end| end <= self.0.len()) { self.u64(at) } else { 0 }
    }

    /// An offset at `at`.
    pub(crate) fn place(&self, at: usize) -> usize {
        usize::try_from(self.number(at)).unwrap()
    }

    /// The active L1 table.
    pub(crate) fn l1(&self) -> usize {
        self.place(at::L1_TABLE_OFFSET)
    }

    /// The refcount table.
    pub(crate) fn refcount_table(&self) -> usize {
        self.place(at::REFCOUNT_TABLE_OFFSET)
    }

    /// The L2 table of an entry of the active L1 table.
    pub(crate) fn l2(&self, l1_index: usize) -> usize {
        usize::try_from(self.number(self.l1() + 8 * l1_index) & OFFSET).unwrap()
    }

    /// Where the entry for a guest offset is in the file, where entries have 8 bytes; its table has to be there.
    pub(crate) fn l2_entry(&self, guest: usize) -> usize {
        let (cluster, entries) = (guest / self.cluster_size(), self.cluster_size() / 8);
        let table = self.l2(cluster / entries);
        assert_ne!(table, 0, "an L2 table for guest offset {guest:#x}");
        table + 8 * (cluster % entries)
    }

    /// The host offset of the cluster at a guest offset.
    pub(crate) fn host(&self, guest: usize) -> usize {
        usize::try_from(self.u64(self.l2_entry(guest)) & OFFSET).unwrap()
    }

    /// Where the refcount of the cluster at `offset` is, where refcounts have 16 bits.
    pub(crate) fn refcount(&self, offset: usize) -> usize {
        let (cluster, entries) = (offset / self.cluster_size(), self.cluster_size() / 2);
        let block = self.place(self.refcount_table() + 8 * (cluster / entries));
        assert_ne!(block, 0, "a refcount block for {offset:#x}");
        block + 2 * (cluster % entries)
    }

    /// The bytes with another refcount for the cluster at `offset`.
    #[must_use]
    pub(crate) fn with_refcount(self, offset: usize, refcount: u16) -> Bytes {
        let at = self.refcount(offset);
        self.with(at, &refcount.to_be_bytes())
    }

    /// All tables that the file has in full.
    pub(crate) fn tables(&self) -> Vec<Table> {
        let bits = self.u32(at::CLUSTER_BITS);
        if !(9..=21).contains(&bits) {
            return Vec::new();
        }
        let mut tables = Tables { bytes: self, size: 1 << bits, found: Vec::new() };
        tables.l1(Kind::L1, self.l1(), self.u32(at::L1_SIZE));
        tables.refcounts();
        tables.snapshots();
        tables.bitmaps();
        tables.found
    }
}

struct Tables<'b> {
    bytes: &'b Bytes,
    size: usize,
    found: Vec<Table>,
}

impl Tables<'_> {
    fn add(&mut self, kind: Kind, start: usize, length: usize) -> bool {
        let is_there = start.checked_add(length).is_some_and(|end| end <= self.bytes.0.len());
        if is_there && length >= 8 && start > 0 {
            self.found.push(Table { kind, start, length });
        }
        is_there
    }

    fn entries(&mut self, start: usize, count: usize, kind: Kind, mask: u64) {
        for index in 0..count.min(MOST) {
            let entry = self.bytes.number(start.saturating_add(8 * index)) & mask;
            if entry != 0 {
                let size = self.size;
                self.add(kind, usize::try_from(entry).unwrap(), size);
            }
        }
    }

    fn l1(&mut self, kind: Kind, start: usize, entries: u32) {
        if self.add(kind, start, 8 * entries as usize) {
            self.entries(start, entries as usize, Kind::L2, OFFSET);
        }
    }

    fn refcounts(&mut self) {
        let start = self.bytes.refcount_table();
        // Behind its first entries, the table is empty.
        self.add(Kind::RefcountTable, start, 64);
        let length = (self.bytes.u32(at::REFCOUNT_TABLE_CLUSTERS) as usize).saturating_mul(self.size);
        self.entries(start, length / 8, Kind::RefcountBlock, !0x1ff);
    }

    fn snapshots(&mut self) {
        let mut at = usize::try_from(self.bytes.u64(at::SNAPSHOTS_OFFSET)).unwrap();
        for _snapshot in 0..self.bytes.u32(at::NB_SNAPSHOTS).min(1000) {
            if !self.add(Kind::SnapshotTable, at, 40) {
                break;
            }
            let half = |offset| self.bytes.u32(at + offset) as usize;
            let (entries, sizes, extra) = (self.bytes.u32(at + 8), half(12), half(36));
            self.l1(Kind::SnapshotL1, usize::try_from(self.bytes.u64(at)).unwrap(), entries);
            at = (at + 40 + extra + (sizes >> 16) + (sizes & 0xffff)).next_multiple_of(8);
        }
    }

    fn bitmaps(&mut self) {
        let Some(extension) = self.bytes.extension(magic::BITMAPS) else { return };
        if extension.end > self.bytes.0.len() || extension.len() < 24 {
            return;
        }
        let length = usize::try_from(self.bytes.u64(extension.start + 8)).unwrap();
        let start = usize::try_from(self.bytes.u64(extension.start + 16)).unwrap();
        if !self.add(Kind::BitmapDirectory, start, length) {
            return;
        }
        let mut at = start;
        while at + 24 <= start + length && at + 24 <= self.bytes.0.len() {
            let entries = self.bytes.u32(at + 8) as usize;
            self.add(Kind::BitmapTable, usize::try_from(self.bytes.u64(at)).unwrap(), 8 * entries);
            let more = (self.bytes.u32(at + 16) & 0xffff) as usize + self.bytes.u32(at + 20) as usize;
            at = (at + 24 + more).next_multiple_of(8);
        }
    }
}
