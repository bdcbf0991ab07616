//! Reading what the guest stored: [`Disk`], through compressed clusters, subclusters, snapshots and backing files.
//!
//! Nothing that is named inside an image is opened: a [`Disk`] is made of images that the caller has. Who wants QEMU's way
//! calls [`open_chain`]. What is wrong in an image is an error that names the entry and where it stands, never bytes that
//! nobody stored.

mod chain;
pub(crate) mod decompress;
mod qcow2_layer;
mod qed_layer;

use crate::error::{Error, Reason, Result};
use crate::units::HostOffset;
use crate::view::{SECTOR, View};

pub use chain::{Chain, ChainImage, Format, open_chain, open_chain_partly};
pub use qcow2_layer::Qcow2Layer;
pub use qed_layer::QedLayer;

/// A virtual disk: an image, and those it is backed by.
///
/// ```
/// # #[cfg(feature = "generate")] {
/// use vdisk_format::generate::Qcow2;
/// use vdisk_format::qcow2::read::{Disk, Layer, Qcow2Layer};
/// let base = Qcow2::new(1 << 20).data(0, b"base").build()?;
/// let overlay = Qcow2::new(2 << 20).backing_file("base.qcow2", Some("qcow2")).data(1 << 20, b"new").build()?;
/// let disk = Disk::new(Qcow2Layer::new(&overlay)?).backed_by(Qcow2Layer::new(&base)?);
/// let mut buffer = [0; 4];
/// disk.read_at(0, &mut buffer)?;
/// assert_eq!(&buffer, b"base");
/// disk.read_at(1 << 20, &mut buffer)?;
/// assert_eq!(&buffer, b"new\0");
/// let error = disk.read_at(2 << 20, &mut buffer).unwrap_err();
/// assert_eq!(error.to_string(), "reading 4 bytes at guest offset 0x200000: expected a disk of 2097156 bytes, found 2097152");
/// // Without the image that it is backed by, the overlay tells only what it knows itself.
/// assert!(Disk::new(Qcow2Layer::new(&overlay)?).read_at(0, &mut buffer).is_err());
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Disk<'a> {
    top: Layer<'a>,
    backing: Vec<Layer<'a>>,
}

/// One image of a [`Disk`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Layer<'a> {
    /// A qcow2 image, or one of its snapshots.
    Qcow2(Box<Qcow2Layer<'a>>),
    /// A QED image.
    Qed(Box<QedLayer<'a>>),
    /// A raw image: the disk's bytes. Its last sector is whole.
    Raw(View<'a>),
}

impl<'a> From<Qcow2Layer<'a>> for Layer<'a> {
    fn from(layer: Qcow2Layer<'a>) -> Self {
        Self::Qcow2(Box::new(layer))
    }
}

impl<'a> From<QedLayer<'a>> for Layer<'a> {
    fn from(layer: QedLayer<'a>) -> Self {
        Self::Qed(Box::new(layer))
    }
}

impl<'a> From<View<'a>> for Layer<'a> {
    fn from(view: View<'a>) -> Self {
        Self::Raw(view)
    }
}

/// Where the bytes of a piece of the disk are.
enum Source<'l, 'a> {
    /// They are zeroes.
    Zero,
    /// In the next layer.
    Backing,
    /// At this offset of a file; behind its end they are zeroes.
    Host(&'l View<'a>, u64),
    /// In a compressed cluster of the layer, from this byte of the cluster on.
    Compressed(&'l Qcow2Layer<'a>, qcow2_layer::CompressedCluster, u64),
}

impl<'a> Layer<'a> {
    /// Size of the layer's disk in bytes. Behind it, the layers above read zeroes.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::Qcow2(layer) => layer.size(),
            Self::Qed(layer) => layer.size(),
            Self::Raw(view) => view.length().next_multiple_of(SECTOR),
        }
    }

    /// Whether the image names a backing file.
    #[must_use]
    pub fn has_backing_file(&self) -> bool {
        match self {
            Self::Qcow2(layer) => layer.tables().header().backing_file_name().is_some(),
            Self::Qed(layer) => layer.tables().header().backing_file_name().is_some(),
            Self::Raw(_) => false,
        }
    }

    /// Where the bytes at `guest` are, and for how many from there on: 1 or more, whether the caller wants so many or not.
    fn piece(&self, guest: u64) -> Result<(u64, Source<'_, 'a>)> {
        match self {
            Self::Qcow2(layer) => layer.piece(guest),
            Self::Qed(layer) => layer.piece(guest),
            Self::Raw(view) => Ok((u64::MAX - guest, Source::Host(view, guest))),
        }
    }

    /// What was read can go.
    fn was_read(&self) {
        match self {
            Self::Qcow2(layer) => layer.tables().view().was_read(),
            Self::Qed(layer) => layer.tables().view().was_read(),
            Self::Raw(view) => view.was_read(),
        }
    }
}

impl<'a> Disk<'a> {
    /// The disk of an image that has no backing file, or whose backing file is not wanted: what is in there is then an
    /// error.
    #[must_use]
    pub fn new(top: impl Into<Layer<'a>>) -> Self {
        Self { top: top.into(), backing: Vec::new() }
    }

    /// Puts the disk onto another image: what no image has so far is read from there. Nobody asks whether it is the one
    /// that the image names.
    #[must_use]
    pub fn backed_by(mut self, layer: impl Into<Layer<'a>>) -> Self {
        self.backing.push(layer.into());
        self
    }

    /// Size of the disk in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.top.size()
    }

    /// Fills `buffer` with the disk's bytes at `offset`, as the guest would read them.
    ///
    /// # Errors
    /// [`Reason::PastDisk`] where that reaches over the end of the disk, [`Reason::InvalidEntry`] where a table says what
    /// cannot be, [`Reason::Undecodable`] where compressed data are none, [`Error::Truncated`] where the file ends inside a
    /// table, [`Error::Unsupported`] for what is in a file that the caller did not give, or compressed where this library
    /// was built without the feature `decompress`; [`Error::InBackingFile`] around these where they are about another layer
    /// than the first. What `buffer` holds then means nothing.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let length = buffer.len() as u64;
        if length > self.size().saturating_sub(offset) {
            return Err(Error::refused(
                Reason::PastDisk,
                format!("reading {length} bytes at guest offset {offset:#x}"),
                None,
                format!("a disk of {} bytes", u128::from(offset) + u128::from(length)),
                self.size().to_string(),
            ));
        }
        self.read_layer(0, offset, buffer)
    }

    fn layer(&self, depth: usize) -> Option<&Layer<'a>> {
        if depth == 0 { Some(&self.top) } else { self.backing.get(depth - 1) }
    }

    /// Reads layer `depth`, the image itself being 0. As deep in the stack as there are layers.
    fn read_layer(&self, depth: usize, mut at: u64, buffer: &mut [u8]) -> Result<()> {
        let Some(layer) = self.layer(depth) else {
            buffer.fill(0);
            return Ok(());
        };
        let there = layer.size().saturating_sub(at).min(buffer.len() as u64);
        let (mut left, behind) = buffer.split_at_mut(usize::try_from(there).unwrap_or(usize::MAX));
        behind.fill(0);
        while !left.is_empty() {
            let (length, source) = layer.piece(at).map_err(|error| in_layer(error, depth))?;
            let length = usize::try_from(length).unwrap_or(usize::MAX).min(left.len());
            let (piece, rest) = left.split_at_mut(length);
            match source {
                Source::Zero => piece.fill(0),
                Source::Backing if self.layer(depth + 1).is_none() && layer.has_backing_file() => {
                    let what = format!("reading guest offset {at:#x}");
                    let why = "it is in the backing file, which was not opened".to_owned();
                    return Err(in_layer(Error::Unsupported { what, why }, depth));
                }
                Source::Backing => self.read_layer(depth + 1, at, piece)?,
                Source::Host(view, offset) => {
                    let there = view.read(offset, piece).len();
                    piece.iter_mut().skip(there).for_each(|byte| *byte = 0);
                }
                Source::Compressed(layer, cluster, from) => {
                    layer.read_compressed(cluster, from, piece).map_err(|error| in_layer(error, depth))?;
                }
            }
            at += length as u64;
            left = rest;
        }
        layer.was_read();
        Ok(())
    }
}

/// Says which image of a chain an error is about.
fn in_layer(error: Error, depth: usize) -> Error {
    if depth == 0 { error } else { Error::InBackingFile { depth, source: Box::new(error) } }
}

/// An entry that says what cannot be.
fn invalid_entry(
    what: String,
    at: HostOffset,
    expected: impl Into<String>,
    found: impl Into<String>,
) -> Error {
    Error::refused(Reason::InvalidEntry, what, Some(at), expected, found)
}

#[cfg(test)]
mod tests;
