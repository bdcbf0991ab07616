//! Images as bytes, to be patched where no tool would.

use std::fs;
use std::ops::Range;
use std::path::Path;

/// Offsets of header fields, as docs/interop/qcow2 gives them.
pub(crate) mod at {
    pub(crate) const MAGIC: usize = 0;
    pub(crate) const VERSION: usize = 4;
    pub(crate) const BACKING_FILE_OFFSET: usize = 8;
    pub(crate) const BACKING_FILE_SIZE: usize = 16;
    pub(crate) const CLUSTER_BITS: usize = 20;
    pub(crate) const SIZE: usize = 24;
    pub(crate) const CRYPT_METHOD: usize = 32;
    pub(crate) const L1_SIZE: usize = 36;
    pub(crate) const L1_TABLE_OFFSET: usize = 40;
    pub(crate) const REFCOUNT_TABLE_OFFSET: usize = 48;
    pub(crate) const REFCOUNT_TABLE_CLUSTERS: usize = 56;
    pub(crate) const NB_SNAPSHOTS: usize = 60;
    pub(crate) const SNAPSHOTS_OFFSET: usize = 64;
    pub(crate) const INCOMPATIBLE_FEATURES: usize = 72;
    pub(crate) const AUTOCLEAR_FEATURES: usize = 88;
    pub(crate) const REFCOUNT_ORDER: usize = 96;
    pub(crate) const HEADER_LENGTH: usize = 100;
}

/// Magics of header extensions.
pub(crate) mod magic {
    pub(crate) const BITMAPS: u32 = 0x2385_2875;
    pub(crate) const BACKING_FORMAT: u32 = 0xe279_2aca;
    pub(crate) const FEATURE_NAMES: u32 = 0x6803_f857;
    pub(crate) const ENCRYPTION: u32 = 0x0537_be77;
    pub(crate) const DATA_FILE: u32 = 0x4441_5441;
    pub(crate) const UNKNOWN: u32 = 0x1234_5678;
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
        u32::from_be_bytes(self.0[at..at + 4].try_into().unwrap())
    }

    pub(crate) fn u64(&self, at: usize) -> u64 {
        u64::from_be_bytes(self.0[at..at + 8].try_into().unwrap())
    }

    /// The bytes with `new` at `at`; the image grows when it has to.
    #[must_use]
    pub(crate) fn with(mut self, at: usize, new: &[u8]) -> Bytes {
        let end = at + new.len();
        if self.0.len() < end {
            self.0.resize(end, 0);
        }
        self.0[at..end].copy_from_slice(new);
        self
    }

    #[must_use]
    pub(crate) fn with_u32(self, at: usize, value: u32) -> Bytes {
        self.with(at, &value.to_be_bytes())
    }

    #[must_use]
    pub(crate) fn with_u64(self, at: usize, value: u64) -> Bytes {
        self.with(at, &value.to_be_bytes())
    }

    pub(crate) fn cluster_size(&self) -> usize {
        1 << self.u32(at::CLUSTER_BITS)
    }

    pub(crate) fn version(&self) -> u32 {
        self.u32(at::VERSION)
    }

    /// Where the extensions begin.
    pub(crate) fn header_length(&self) -> usize {
        if self.version() == 2 { 72 } else { usize::try_from(self.u32(at::HEADER_LENGTH)).unwrap() }
    }

    /// The bytes with the extension area (up to the first cluster's end) replaced. `area` is
    /// raw: [`extension`] makes its parts, and nothing adds an end marker but the zeroes after.
    #[must_use]
    pub(crate) fn with_area(self, area: &[u8]) -> Bytes {
        let (start, end) = (self.header_length(), self.cluster_size());
        assert!(start + area.len() <= end, "{} bytes of extensions do not fit", area.len());
        let zeroes = vec![0; end - start];
        self.with(start, &zeroes).with(start, area)
    }

    /// Where the data of the first extension with `magic` is.
    pub(crate) fn extension(&self, magic: u32) -> Option<Range<usize>> {
        let mut at = self.header_length();
        while at + 8 <= self.cluster_size().min(self.0.len()) && self.u32(at) != 0 {
            let data = at + 8;
            let length = usize::try_from(self.u32(at + 4)).unwrap();
            if self.u32(at) == magic {
                return Some(data..data + length);
            }
            at = data + length.next_multiple_of(8);
        }
        None
    }

    /// The offset of the bitmap directory.
    pub(crate) fn bitmap_directory(&self) -> usize {
        let data = self.extension(magic::BITMAPS).unwrap();
        usize::try_from(self.u64(data.start + 16)).unwrap()
    }
}

/// One header extension, padded.
pub(crate) fn extension(magic: u32, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap();
    let mut bytes = [magic.to_be_bytes(), length.to_be_bytes()].concat();
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// Panics with the offsets at which two images differ.
#[track_caller]
pub(crate) fn assert_same(found: &Bytes, expected: &Bytes, what: &str) {
    assert_eq!(found.0.len(), expected.0.len(), "{what}: length");
    let pairs = found.0.iter().zip(&expected.0).enumerate();
    let different = pairs.filter(|(_, (found, expected))| found != expected);
    let list: Vec<String> =
        different.take(20).map(|(at, (a, b))| format!("{at:#x}: {a:02x} for {b:02x}")).collect();
    assert!(list.is_empty(), "{what}: {list:?}");
}
