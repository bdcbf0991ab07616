//! What is wanted: the setters of [`Qcow2`].

use std::io::{Cursor, Seek, Write};
use std::ops::Range;

use super::layout::Layout;
use super::{Bitmap, Luks, Snapshot, write};
use crate::generate::guest::Operation;
use crate::generate::sink::buffer;
use crate::generate::{GenerateError, Order};

/// Describes a qcow2 image, and writes it.
///
/// Every setter has the default of a new image of `qemu-img`. Where two calls of [`data`](Self::data),
/// [`zero`](Self::zero) and their like touch the same bytes, the later one wins.
///
/// ```
/// use vdisk_format::generate::Qcow2;
///
/// let mut file = std::io::Cursor::new(Vec::new());
/// let length = Qcow2::new(1 << 40).data(1 << 39, [0x55; 4096]).write_to(&mut file)?;
/// assert_eq!(length % 65536, 0);
/// # Ok::<(), vdisk_format::generate::GenerateError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Qcow2 {
    pub(super) size: u64,
    pub(super) version: u32,
    pub(super) cluster_bits: u32,
    pub(super) refcount_order: u32,
    /// `None`: 72 in version 2, 112 in version 3.
    pub(super) header_length: Option<u32>,
    pub(super) lazy_refcounts: bool,
    pub(super) dirty: bool,
    pub(super) compression_type: u8,
    pub(super) extended_l2: bool,
    /// `None`: in version 3, if there is enough room.
    pub(super) feature_name_table: Option<bool>,
    pub(super) backing_file: Option<BackingFile>,
    pub(super) data_file: Option<DataFile>,
    pub(super) extensions: Vec<(u32, Vec<u8>)>,
    pub(super) bitmaps: Vec<Bitmap>,
    pub(super) luks: Option<Luks>,
    pub(super) order: Order,
    pub(super) contents: Vec<Operation>,
    /// Each with the number of operations, of the contents, that were there before it.
    pub(super) snapshots: Vec<(usize, Snapshot)>,
}

/// The name and perhaps the format of a backing file.
#[derive(Debug, Clone)]
pub(super) struct BackingFile {
    pub(super) name: String,
    pub(super) format: Option<String>,
}

/// The name of the external data file, and whether it is a raw image in itself.
#[derive(Debug, Clone)]
pub(super) struct DataFile {
    pub(super) name: String,
    pub(super) raw: bool,
}

impl Qcow2 {
    /// An empty version 3 image with a virtual disk of `size` bytes.
    pub fn new(size: u64) -> Self {
        Qcow2 {
            size,
            version: 3,
            cluster_bits: 16,
            refcount_order: 4,
            header_length: None,
            lazy_refcounts: false,
            dirty: false,
            compression_type: 0,
            extended_l2: false,
            feature_name_table: None,
            backing_file: None,
            data_file: None,
            extensions: Vec::new(),
            bitmaps: Vec::new(),
            luks: None,
            order: Order::InOrder,
            contents: Vec::new(),
            snapshots: Vec::new(),
        }
    }

    /// The version of the format: 2 or 3. The default is 3.
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// A cluster has `1 << cluster_bits` bytes: 9 to 21, with extended L2 entries 14 to 21.
    /// The default is 16.
    pub fn cluster_bits(mut self, cluster_bits: u32) -> Self {
        self.cluster_bits = cluster_bits;
        self
    }

    /// A reference count has `1 << refcount_order` bits: 0 to 6, in version 2 only 4.
    /// The default is 4.
    pub fn refcount_order(mut self, refcount_order: u32) -> Self {
        self.refcount_order = refcount_order;
        self
    }

    /// The length of the header in bytes: a multiple of 8, from 104. What is behind the known
    /// fields is zero. The default is 112; version 2 knows only 72.
    pub fn header_length(mut self, header_length: u32) -> Self {
        self.header_length = Some(header_length);
        self
    }

    /// Sets the compatible feature bit 0: reference counts may be written late.
    pub fn lazy_refcounts(mut self, lazy_refcounts: bool) -> Self {
        self.lazy_refcounts = lazy_refcounts;
        self
    }

    /// Sets the incompatible feature bit 0: as after a crash with lazy refcounts. The reference
    /// counts are right nevertheless.
    pub fn dirty(mut self, dirty: bool) -> Self {
        self.dirty = dirty;
        self
    }

    /// The compression type: 0 for deflate, 1 for zstd, which also sets the incompatible feature
    /// bit 3. Which clusters are compressed, [`compressed`](Self::compressed) says.
    pub fn compression_type(mut self, compression_type: u8) -> Self {
        self.compression_type = compression_type;
        self
    }

    /// Sets the incompatible feature bit 4: an L2 entry has 128 bits and describes 32 subclusters.
    pub fn extended_l2(mut self, extended_l2: bool) -> Self {
        self.extended_l2 = extended_l2;
        self
    }

    /// Whether there is a feature name table. By default version 3 images with clusters of more
    /// than 4096 bytes have one, unless the first cluster is too full for it.
    pub fn feature_name_table(mut self, feature_name_table: bool) -> Self {
        self.feature_name_table = Some(feature_name_table);
        self
    }

    /// The name of the backing file, 1 to 1023 bytes, and perhaps its format.
    pub fn backing_file(mut self, name: impl Into<String>, format: Option<&str>) -> Self {
        let format = format.map(str::to_owned);
        self.backing_file = Some(BackingFile { name: name.into(), format });
        self
    }

    /// Keeps the guest's data in an external file, whose contents [`build_raw`](Self::build_raw)
    /// has. With `raw`, that file is a raw image in itself. An empty name leaves the header
    /// extension out.
    pub fn data_file(mut self, name: impl Into<String>, raw: bool) -> Self {
        self.data_file = Some(DataFile { name: name.into(), raw });
        self
    }

    /// Adds a header extension, behind the known ones and in the order of the calls. The type may
    /// be anything but 0, and may be repeated.
    pub fn extension(mut self, extension_type: u32, data: impl Into<Vec<u8>>) -> Self {
        self.extensions.push((extension_type, data.into()));
        self
    }

    /// Adds a persistent bitmap.
    pub fn bitmap(mut self, bitmap: Bitmap) -> Self {
        self.bitmaps.push(bitmap);
        self
    }

    /// Encrypts the image with LUKS, as far as the header goes: see [`Luks`].
    pub fn luks(mut self, luks: Luks) -> Self {
        self.luks = Some(luks);
        self
    }

    /// The order of L2 tables and data in the file. "In order" is that in which they are written:
    /// first what the first snapshot has, then what the next one does not share with it, and so on.
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Adds an internal snapshot of the contents that the calls before this one describe. What
    /// later calls do not touch is shared: they write new clusters and new L2 tables, and leave
    /// the others in use by all.
    ///
    /// ```
    /// use vdisk_format::generate::{Qcow2, Snapshot};
    ///
    /// let shared = Qcow2::new(1 << 20).data(0, b"old").snapshot(Snapshot::new("1", "one"));
    /// assert_eq!(shared.build()?.len(), 8 << 16);
    /// // One more cluster of data, and one more L2 table.
    /// assert_eq!(shared.data(0, b"new").build()?.len(), 10 << 16);
    /// # Ok::<(), vdisk_format::generate::GenerateError>(())
    /// ```
    pub fn snapshot(mut self, snapshot: Snapshot) -> Self {
        self.snapshots.push((self.contents.len(), snapshot));
        self
    }

    /// The guest's bytes from `offset` on are `bytes`. Allocates the clusters (with extended L2
    /// entries: the subclusters) that it touches; the rest of those reads as zeros.
    pub fn data(mut self, offset: u64, bytes: impl Into<Vec<u8>>) -> Self {
        self.contents.push(Operation::Data { offset, bytes: bytes.into() });
        self
    }

    /// As [`data`](Self::data), but in compressed clusters, packed one behind another. It must begin
    /// at the start of a cluster, and end with one or with the disk.
    ///
    /// Only runs of equal bytes become shorter. A cluster that does not become shorter, or of which
    /// a later call touches a part, is not compressed.
    pub fn compressed(mut self, offset: u64, bytes: impl Into<Vec<u8>>) -> Self {
        self.contents.push(Operation::Compressed { offset, bytes: bytes.into() });
        self
    }

    /// Allocates the clusters that the range touches, without data: they read as zeros from a
    /// hole of the file, as with preallocated metadata. This is how to get a large, full disk.
    pub fn allocate(mut self, range: Range<u64>) -> Self {
        self.contents.push(Operation::Allocate(range));
        self
    }

    /// Zero clusters (with extended L2 entries: subclusters) without a place in the file. The
    /// range must be aligned to them, but may end with the disk. Needs version 3.
    pub fn zero(mut self, range: Range<u64>) -> Self {
        self.contents.push(Operation::Zero { range, preallocated: false });
        self
    }

    /// As [`zero`](Self::zero), but the clusters have a place in the file, for a later write.
    pub fn zero_preallocated(mut self, range: Range<u64>) -> Self {
        self.contents.push(Operation::Zero { range, preallocated: true });
        self
    }

    /// The image as bytes. Large images are better written to a file: see
    /// [`write_to`](Self::write_to).
    ///
    /// # Errors
    /// When there is no such image, or when it does not fit in memory.
    pub fn build(&self) -> Result<Vec<u8>, GenerateError> {
        let layout = Layout::plan(self)?;
        let mut out = Cursor::new(buffer(layout.file_length())?);
        write::image(self, &layout, &mut out)?;
        Ok(out.into_inner())
    }

    /// Writes the image to `out`, from its offset 0 on, and returns the length of the image in
    /// bytes. What is zero is not written, so `out` must be empty: a new file stays sparse.
    ///
    /// # Errors
    /// When there is no such image (nothing is written then), or when writing fails.
    pub fn write_to<W: Write + Seek>(&self, out: &mut W) -> Result<u64, GenerateError> {
        let layout = Layout::plan(self)?;
        write::image(self, &layout, out)
    }

    /// The guest's disk as a raw image: what belongs in the external data file, and what reading
    /// an image without a backing file gives.
    ///
    /// ```
    /// use vdisk_format::generate::Qcow2;
    ///
    /// let disk = Qcow2::new(8).data(2, b"abc").build_raw()?;
    /// assert_eq!(disk, b"\0\0abc\0\0\0");
    /// # Ok::<(), vdisk_format::generate::GenerateError>(())
    /// ```
    ///
    /// # Errors
    /// When there is no such image, or when the disk does not fit in memory.
    pub fn build_raw(&self) -> Result<Vec<u8>, GenerateError> {
        let mut out = Cursor::new(buffer(self.size)?);
        self.write_raw_to(&mut out)?;
        Ok(out.into_inner())
    }

    /// Writes what [`build_raw`](Self::build_raw) gives to `out`, which must be empty, and returns
    /// the virtual size in bytes.
    ///
    /// # Errors
    /// When there is no such image (nothing is written then), or when writing fails.
    pub fn write_raw_to<W: Write + Seek>(&self, out: &mut W) -> Result<u64, GenerateError> {
        let layout = Layout::plan(self)?;
        write::raw(self, &layout, out)
    }

    /// The contents in steps, each with the snapshot that follows it. None follows the last one.
    pub(super) fn steps(&self) -> impl Iterator<Item = (&[Operation], Option<&Snapshot>)> {
        let snapshots = self.snapshots.iter().map(|(at, snapshot)| (*at, Some(snapshot)));
        let mut start = 0;
        snapshots.chain([(self.contents.len(), None)]).map(move |(end, snapshot)| {
            let step = self.contents.get(start..end).unwrap_or_default();
            start = end;
            (step, snapshot)
        })
    }
}
