//! What is wanted: the setters of [`Qed`].

use std::io::{Cursor, Seek, Write};
use std::ops::Range;

use super::layout::Layout;
use super::{validate, write};
use crate::generate::guest::Operation;
use crate::generate::sink::buffer;
use crate::generate::{GenerateError, Order};

/// Describes a QED image, and writes it.
///
/// Every setter has the default of a new image of `qemu-img`. Where two calls of [`data`](Self::data),
/// [`zero`](Self::zero) and [`allocate`](Self::allocate) touch the same bytes, the later one wins. Every cluster behind the
/// header is in use once: there are no leaks.
///
/// Shapes that QEMU does not open are valid all the same: a table size of 1, and sizes of clusters and tables that
/// together address 2^64 bytes or more.
///
/// ```
/// use vdisk_format::generate::{Order, Qed};
/// use vdisk_format::{check::Verdict, qed};
///
/// let image = Qed::new(64 << 20)
///     .cluster_size(4096)
///     .table_size(1)
///     .backing_file("base.raw", true)
///     .data(1 << 20, b"known contents")
///     .zero(2 << 20..3 << 20)
///     .order(Order::Random(1))
///     .build()?;
/// assert_eq!(qed::check::check(&image)?.verdict(), Verdict::Clean);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Qed {
    pub(super) size: u64,
    pub(super) cluster_size: u32,
    pub(super) table_size: u32,
    pub(super) header_size: u32,
    pub(super) need_check: bool,
    pub(super) compat_features: u64,
    pub(super) autoclear_features: u64,
    pub(super) backing_file: Option<BackingFile>,
    pub(super) order: Order,
    pub(super) l1_last: bool,
    pub(super) contents: Vec<Operation>,
}

#[derive(Debug, Clone)]
pub(super) struct BackingFile {
    pub(super) name: Vec<u8>,
    pub(super) no_probe: bool,
    /// Where the name is.
    pub(super) offset: u32,
}

impl Qed {
    /// An empty image with a virtual disk of `size` bytes: a multiple of 512.
    pub fn new(size: u64) -> Self {
        Self {
            size,
            cluster_size: 65536,
            table_size: 4,
            header_size: 1,
            need_check: false,
            compat_features: 0,
            autoclear_features: 0,
            backing_file: None,
            order: Order::InOrder,
            l1_last: false,
            contents: Vec::new(),
        }
    }

    /// Bytes a cluster: a power of two from 4 KiB to 64 MiB.
    pub fn cluster_size(mut self, bytes: u32) -> Self {
        self.cluster_size = bytes;
        self
    }

    /// Clusters a table: 1, 2, 4, 8 or 16. QEMU opens no image with 1.
    pub fn table_size(mut self, clusters: u32) -> Self {
        self.table_size = clusters;
        self
    }

    /// Clusters of the header: at least 1.
    pub fn header_size(mut self, clusters: u32) -> Self {
        self.header_size = clusters;
        self
    }

    /// Whether the image says that it was not closed cleanly.
    pub fn need_check(mut self, need_check: bool) -> Self {
        self.need_check = need_check;
        self
    }

    /// The bits of `compat_features`: none is defined, and all are allowed.
    pub fn compat_features(mut self, bits: u64) -> Self {
        self.compat_features = bits;
        self
    }

    /// The bits of `autoclear_features`: none is defined, and all are allowed. QEMU clears them when it writes.
    pub fn autoclear_features(mut self, bits: u64) -> Self {
        self.autoclear_features = bits;
        self
    }

    /// The backing file's name, of 1 to 4095 bytes, and whether it is raw whatever it looks like. The name stands behind
    /// the header's fields.
    pub fn backing_file(mut self, name: impl Into<Vec<u8>>, no_probe: bool) -> Self {
        self.backing_file = Some(BackingFile { name: name.into(), no_probe, offset: 64 });
        self
    }

    /// Where the backing file's name stands: at least 64, and inside the header's clusters with all of it.
    pub fn backing_filename_offset(mut self, offset: u32) -> Self {
        if let Some(backing_file) = &mut self.backing_file {
            backing_file.offset = offset;
        }
        self
    }

    /// The order of L2 tables and data in the file.
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Puts the L1 table at the end of the file, not behind the header.
    pub fn l1_last(mut self) -> Self {
        self.l1_last = true;
        self
    }

    /// Writes bytes at offset `offset` of the disk.
    pub fn data(mut self, offset: u64, bytes: impl AsRef<[u8]>) -> Self {
        self.contents.push(Operation::Data { offset, bytes: bytes.as_ref().to_vec() });
        self
    }

    /// Allocates a range of the disk, in bytes, and writes nothing there: it reads as zeroes, and takes no space.
    pub fn allocate(mut self, range: Range<u64>) -> Self {
        self.contents.push(Operation::Allocate(range));
        self
    }

    /// Makes a range of the disk zero clusters: bytes, from and to the start of a cluster, or to the end of the disk.
    pub fn zero(mut self, range: Range<u64>) -> Self {
        self.contents.push(Operation::Zero { range, preallocated: false });
        self
    }

    /// The image.
    ///
    /// # Errors
    /// A shape that the specification does not allow, or one too large for the memory.
    pub fn build(&self) -> Result<Vec<u8>, GenerateError> {
        let layout = self.layout()?;
        let mut out = Cursor::new(buffer(layout.length())?);
        write::image(self, &layout, &mut out)?;
        Ok(out.into_inner())
    }

    /// Writes the image, from the start of `out` on, which is empty. What is zero is not written. Returns the image's
    /// length in bytes.
    ///
    /// # Errors
    /// A shape that the specification does not allow, or whatever `out` has.
    pub fn write_to(&self, out: &mut (impl Write + Seek)) -> Result<u64, GenerateError> {
        write::image(self, &self.layout()?, out)
    }

    fn layout(&self) -> Result<Layout<'_>, GenerateError> {
        validate::fields(self)?;
        Layout::new(self)
    }
}
