//! Images as bytes, to be read and patched where no tool would.

use std::fs;
use std::path::Path;

/// Offsets of header fields, as docs/interop/qed_spec gives them.
pub(crate) mod at {
    pub(crate) const MAGIC: usize = 0;
    pub(crate) const CLUSTER_SIZE: usize = 4;
    pub(crate) const TABLE_SIZE: usize = 8;
    pub(crate) const HEADER_SIZE: usize = 12;
    pub(crate) const FEATURES: usize = 16;
    pub(crate) const COMPAT_FEATURES: usize = 24;
    pub(crate) const AUTOCLEAR_FEATURES: usize = 32;
    pub(crate) const L1_TABLE_OFFSET: usize = 40;
    pub(crate) const IMAGE_SIZE: usize = 48;
    pub(crate) const BACKING_FILENAME_OFFSET: usize = 56;
    pub(crate) const BACKING_FILENAME_SIZE: usize = 60;
}

/// The bytes of a whole image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Bytes {
    pub(crate) fn read(path: &Path) -> Bytes {
        Bytes(fs::read(path).unwrap())
    }

    pub(crate) fn write(&self, path: &Path) {
        fs::write(path, &self.0).unwrap();
    }

    pub(crate) fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.0[at..at + 4].try_into().unwrap())
    }

    pub(crate) fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[at..at + 8].try_into().unwrap())
    }

    pub(crate) fn put(&mut self, at: usize, new: &[u8]) {
        self.0[at..at + new.len()].copy_from_slice(new);
    }

    pub(crate) fn put_u32(&mut self, at: usize, value: u32) {
        self.put(at, &value.to_le_bytes());
    }

    pub(crate) fn put_u64(&mut self, at: usize, value: u64) {
        self.put(at, &value.to_le_bytes());
    }

    pub(crate) fn cluster_size(&self) -> usize {
        self.u32(at::CLUSTER_SIZE) as usize
    }

    pub(crate) fn table_bytes(&self) -> usize {
        self.cluster_size() * self.u32(at::TABLE_SIZE) as usize
    }

    pub(crate) fn l1(&self) -> usize {
        usize::try_from(self.u64(at::L1_TABLE_OFFSET)).unwrap()
    }

    /// The entries of the table at `offset` that are not 0: where they are in the file, and their values.
    pub(crate) fn used_entries(&self, offset: usize) -> Vec<(usize, u64)> {
        const ZEROES: [u8; 4096] = [0; 4096];
        let table = &self.0[offset..offset + self.table_bytes()];
        let blocks = table.chunks(ZEROES.len()).enumerate();
        // Most of a table is zero.
        let blocks = blocks.filter(|(_, block)| !ZEROES.starts_with(block));
        let entries = blocks.flat_map(|(index, block)| {
            let start = offset + index * ZEROES.len();
            (start..start + block.len()).step_by(8).map(|at| (at, self.u64(at)))
        });
        entries.filter(|&(_, value)| value != 0).collect()
    }

    /// The offsets of the L2 tables.
    pub(crate) fn l2_tables(&self) -> Vec<usize> {
        let entries = self.used_entries(self.l1()).into_iter();
        entries.map(|(_, value)| usize::try_from(value).unwrap()).collect()
    }

    /// Where the L2 entry for a guest offset is in the file; its table has to be there.
    pub(crate) fn l2_entry(&self, guest: u64) -> usize {
        let cluster = usize::try_from(guest).unwrap() / self.cluster_size();
        let entries = self.table_bytes() / 8;
        let table = self.u64(self.l1() + cluster / entries * 8);
        assert_ne!(table, 0, "an L2 table for guest offset {guest:#x}");
        usize::try_from(table).unwrap() + cluster % entries * 8
    }

    /// The offsets of the 8-byte words in which two images differ.
    #[track_caller]
    pub(crate) fn differences(&self, other: &Bytes) -> Vec<usize> {
        assert_eq!(self.0.len(), other.0.len(), "lengths");
        const BLOCK: usize = 4096;
        let blocks = self.0.chunks(BLOCK).zip(other.0.chunks(BLOCK)).enumerate();
        let blocks = blocks.filter(|(_, (a, b))| a != b);
        let words = blocks.flat_map(|(block, (a, b))| {
            let words = a.chunks(8).zip(b.chunks(8)).enumerate().filter(|(_, (a, b))| a != b);
            words.map(move |(word, _)| block * BLOCK + word * 8)
        });
        words.collect()
    }
}
