//! Why an image of the wanted shape cannot be written.

use std::io;

/// Why an image of the wanted shape cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// A header field was given a value outside of its valid range.
    #[error("{field} is {value}, but must be {valid}")]
    Field {
        /// The specification's name of the field.
        field: &'static str,
        /// The value that was asked for.
        value: u64,
        /// The valid values, in words.
        valid: &'static str,
    },
    /// Version 2 images do not have this feature.
    #[error("{feature} needs version 3, but this image is version 2")]
    NeedsVersion3 {
        /// The feature that was asked for.
        feature: &'static str,
    },
    /// Two features that exclude each other were asked for.
    #[error("{one} cannot be combined with {other}")]
    Conflict {
        /// The one feature.
        one: &'static str,
        /// The other feature.
        other: &'static str,
    },
    /// The header, its extensions and the backing file's name must fit in the first cluster.
    #[error("header, extensions and backing file name take {need} bytes, but a cluster has {have}")]
    HeaderTooLong {
        /// What they need, in bytes.
        need: u64,
        /// The size of a cluster, in bytes.
        have: u64,
    },
    /// A range of the guest's disk ends before it begins, or ends behind the end of the disk.
    #[error("{what}: the range {start:#x}..{end:#x} does not lie within the disk of {size:#x} bytes")]
    OutOfRange {
        /// What the range is for.
        what: &'static str,
        /// Where the range begins, in bytes.
        start: u64,
        /// Where the range ends, in bytes, exclusive.
        end: u64,
        /// The virtual size of the disk, in bytes.
        size: u64,
    },
    /// A range of zeros does not begin and end at a boundary that an L2 entry can express.
    #[error("the range of zeros {start:#x}..{end:#x} is not aligned to {alignment:#x} bytes")]
    Unaligned {
        /// Where the range begins, in bytes.
        start: u64,
        /// Where the range ends, in bytes, exclusive.
        end: u64,
        /// The size of a cluster, or of a subcluster with extended L2 entries, in bytes.
        alignment: u64,
    },
    /// A string or a block of bytes is empty or longer than its length field can say.
    #[error("{what} has {length} bytes, but must have {min} to {max}")]
    Length {
        /// What it is.
        what: &'static str,
        /// Its length in bytes.
        length: u64,
        /// The smallest valid length in bytes.
        min: u64,
        /// The greatest valid length in bytes.
        max: u64,
    },
    /// Two bitmaps, or two snapshots, have the same name or ID.
    #[error("two {what} are called {name:?}")]
    Duplicate {
        /// What there are two of.
        what: &'static str,
        /// What they are called.
        name: String,
    },
    /// A table would have more entries than its size field can say.
    #[error("{what} would have {entries} entries, but its size field ends at {max}")]
    TableTooLong {
        /// The table.
        what: &'static str,
        /// The entries it would need.
        entries: u64,
        /// The greatest number of entries.
        max: u64,
    },
    /// Clusters would be in use more often than a refcount of this width can say.
    #[error("{refcount} references to a cluster do not fit in a refcount of {bits} bits")]
    RefcountTooLarge {
        /// The reference count that is needed.
        refcount: u64,
        /// The width of a reference count, in bits.
        bits: u32,
    },
    /// The image file, or the external data file, would reach beyond the host offsets.
    #[error("the file would have {clusters} clusters, beyond the host offsets of {bits} bits")]
    FileTooLarge {
        /// The clusters that the file would have.
        clusters: u64,
        /// The width of a host offset, in bits: 56 in qcow2.
        bits: u32,
    },
    /// The image does not fit in memory: write it to a file.
    #[error("an image of {bytes} bytes does not fit in memory: use write_to")]
    OutOfMemory {
        /// The length of the image file in bytes.
        bytes: u64,
    },
    /// The image could not be written.
    #[error("the image could not be written: {0}")]
    Io(#[from] io::Error),
}

/// Refuses a value of a field, unless it is `ok`.
pub(super) fn field(
    field: &'static str,
    value: u64,
    ok: bool,
    valid: &'static str,
) -> Result<(), GenerateError> {
    if ok { Ok(()) } else { Err(GenerateError::Field { field, value, valid }) }
}
