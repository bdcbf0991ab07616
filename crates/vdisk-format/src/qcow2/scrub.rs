//! [`scrub`]: a copy of an image's metadata without a byte of what the guest stored, for bug reports.

mod areas;
mod audit;
mod copy;
mod differences;
mod endings;
mod facts;
mod fixed;
mod luks;
mod records;
mod refcounts;
mod snapshots;

use std::fs::File;
use std::io;
use std::ops::Range;

use crate::error::{Error, Result};
use crate::qcow2::header::Header;
use crate::qcow2::tables::Tables;
use crate::view::View;
pub use audit::{Audit, StructureBytes, audit};
use copy::Copy;
pub use differences::{Difference, differences};
use fixed::Fixed;
use records::Records;

/// What is copied that might be private.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Options {
    /// Keep the names of backing file, data file, snapshots and bitmaps, and of features that are not known.
    pub keep_names: bool,
    /// Keep the data of bitmaps, which say where the guest wrote: of clusters that nothing else claims, if the header says
    /// that the bitmaps are consistent.
    pub keep_bitmap_data: bool,
}

impl Options {
    /// Whether names are kept.
    #[must_use]
    pub const fn keep_names(self, keep_names: bool) -> Self {
        Self { keep_names, ..self }
    }

    /// Whether the data of bitmaps are kept.
    #[must_use]
    pub const fn keep_bitmap_data(self, keep_bitmap_data: bool) -> Self {
        Self { keep_bitmap_data, ..self }
    }
}

/// A part of the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Structure {
    /// The header's fields.
    Header,
    /// Header extensions.
    Extension,
    /// The backing file's name, or what stands in for it.
    BackingName,
    /// The active L1 table.
    L1Table,
    /// The L1 tables of snapshots.
    SnapshotL1Table,
    /// L2 tables.
    L2Table,
    /// The refcount table.
    RefcountTable,
    /// Refcount blocks.
    RefcountBlock,
    /// The snapshot table.
    SnapshotTable,
    /// The bitmap directory.
    BitmapDirectory,
    /// The tables of bitmaps.
    BitmapTable,
    /// The data of bitmaps.
    BitmapData,
    /// The LUKS header, without salts and digests.
    LuksHeader,
    /// Leaked clusters that read as tables, or must not.
    LeakedCluster,
}

impl Structure {
    /// What people call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Extension => "header extensions",
            Self::BackingName => "backing file name",
            Self::L1Table => "L1 table",
            Self::SnapshotL1Table => "L1 tables of snapshots",
            Self::L2Table => "L2 tables",
            Self::RefcountTable => "refcount table",
            Self::RefcountBlock => "refcount blocks",
            Self::SnapshotTable => "snapshot table",
            Self::BitmapDirectory => "bitmap directory",
            Self::BitmapTable => "bitmap tables",
            Self::BitmapData => "bitmap data",
            Self::LuksHeader => "LUKS header",
            Self::LeakedCluster => "leaked clusters",
        }
    }
}

/// What was not copied although its structure was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Redacted {
    /// Names that were replaced by others of the same length.
    pub names: u64,
    /// Extensions, fields and entries whose contents were left out, for nobody knows them, or they are secret.
    pub blanked: u64,
    /// Entries of tables, and refcounts, that were replaced, for they might be bytes of a guest that something took for a table.
    pub replaced: u64,
    /// Words for which nothing could be found that is wrong in the same way in all that claim them, or that would have said too
    /// much: what a check finds may differ there.
    pub unsettled: u64,
}

/// What was copied.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Scrubbed {
    /// Length in bytes that the copy must have: that of the image.
    pub length: u64,
    /// L2 tables that were copied, in whole or in part.
    pub tables: u64,
    /// What was left out of what was copied.
    pub redacted: Redacted,
    /// Where something was written that may be other than zero: sorted, and in no two of these. The first are those of tables.
    tables_at: Vec<(Range<u64>, Structure)>,
    /// And those of fields and names, which may lie in tables.
    fields_at: Vec<(Range<u64>, Structure)>,
}

/// Copies metadata, and hands what is not zero to `write(offset, bytes)`, perhaps a part of it twice. Everything else of
/// the copy has to be zero.
///
/// Whatever claims to be a table may be a guest's data, if the image is damaged. So no word of a table is copied but offsets
/// of clusters of the file, with their flags, and numbers of references that clusters have. Any other word is replaced by one
/// that is wrong in the same way: what is wrong with the image is then wrong with the copy, and
/// [`check`](crate::qcow2::check::check) finds the same: the same codes, in the same places, as often; whether it does,
/// [`differences`] says. Data, compressed or
/// not, VM states, bitmap data, key material, salts and digests, unknown extensions and fields, and whatever lies between
/// structures or behind them, is zero. Names are replaced by others of the same length, as [`Options`] say.
///
/// It finds something else in two cases. Where structures lie over one another, there may be no word that is wrong in the same
/// way in each. And where refcounts are up to four bits wide, each bit of what claims to be a block of them may be a finding, and a
/// guest's: of a word of which more than three bytes would tell something, none is copied. A [deep](crate::qcow2::check::check_with)
/// check decodes compressed data, of which the copy has none.
///
/// ```
/// use vdisk_format::{generate::Qcow2, qcow2::{self, check::check, scrub::{Options, audit, scrub}}};
/// let image = Qcow2::new(1 << 20).data(0, b"secret").backing_file("/home/me", None).build()?;
/// let mut copy = vec![0; image.len()];
/// let scrubbed = scrub(&image, Options::default(), |at, bytes| {
///     copy[at as usize..][..bytes.len()].copy_from_slice(bytes);
///     Ok(())
/// })?;
/// assert_eq!(check(&copy)?, check(&image)?);
/// assert!(!copy.windows(6).any(|bytes| bytes == b"secret"));
/// assert_eq!(qcow2::Header::parse(&copy)?.backing_file(), Some(b"xxxxxxxx".as_slice()));
/// assert!(audit(&copy, &scrubbed).is_sound());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Truncated`] where there is no header; [`Error::Io`] where `write` fails.
pub fn scrub<'a>(
    image: impl Into<View<'a>>,
    options: Options,
    mut write: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> Result<Scrubbed> {
    let view = image.into();
    let length = view.length();
    let header = Header::parse(view.bytes())?;
    let mut put = |at: u64, bytes: &[u8]| write(at, bytes).map_err(Error::io("cannot write the copy"));
    let mut fixed = Fixed::default();
    let mut records = Records { fixed: &mut fixed, options, redacted: Redacted::default() };
    records.header(&header);
    let mut scrubbed = Scrubbed { length, redacted: records.redacted, ..Scrubbed::default() };
    match Tables::new(view) {
        Ok(tables) => Copy::new(&tables, &mut fixed, options, &mut put).all(&mut scrubbed)?,
        Err(Error::Refused { .. }) => {
            // No cluster size: there are no tables.
            let mut records = Records { fixed: &mut fixed, options, redacted: scrubbed.redacted };
            records.bitmaps(&header);
            scrubbed.redacted = records.redacted;
        }
        Err(error) => return Err(error),
    }
    for (at, mut bytes, structure) in fixed.ranges() {
        bytes.truncate(usize::try_from(length.saturating_sub(at)).unwrap_or(usize::MAX));
        if !bytes.is_empty() {
            put(at, &bytes)?;
            scrubbed.fields_at.push((at..at + bytes.len() as u64, structure));
        }
    }
    Ok(scrubbed)
}

/// As [`scrub`], into an empty file.
///
/// # Errors
/// As [`scrub`]; [`Error::Io`] also where the file cannot be made as long as the image.
pub fn scrub_to<'a>(image: impl Into<View<'a>>, options: Options, out: &File) -> Result<Scrubbed> {
    let scrubbed = scrub(image, options, |at, bytes| crate::image::write_all_at(out, bytes, at))?;
    out.set_len(scrubbed.length).map_err(Error::io("cannot give the copy its length"))?;
    Ok(scrubbed)
}
