//! What can be wrong with an entry of a table, looked at by itself.

use std::fmt;

use crate::qcow2::geometry::Geometry;
use crate::qcow2::l1::L1Entry;
use crate::qcow2::l2::{L2Entry, L2Format, Mapping};
use crate::qcow2::refcount::RefcountTableEntry;
use crate::units::HostOffset;

/// What is wrong with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(tag = "code", rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum EntryProblem {
    /// Bits that must be 0 are not.
    Reserved {
        /// These bits.
        bits: u64,
    },
    /// The offset is no multiple of the cluster size.
    Unaligned,
    /// The offset lies at or behind the end of the file.
    PastEnd,
    /// Compressed data go on behind the end of the file.
    CutShort,
    /// Subclusters are allocated, and there is no cluster.
    NoCluster,
    /// Subclusters are allocated and read as zeroes.
    Contradiction {
        /// These subclusters, a bit each.
        subclusters: u32,
    },
    /// An entry with compressed data has bit 63.
    CompressedCopied,
    /// An entry with compressed data has subclusters.
    CompressedSubclusters,
    /// There are compressed data, and the image has an external data file.
    CompressedWithDataFile,
    /// An entry of a bitmap's table has a cluster, and says that all bits are 1.
    Both,
    /// Bit 63 says something else than the refcount.
    Copied {
        /// The refcount.
        refcount: u64,
    },
    /// A refcount is not the number of references.
    Refcount {
        /// The cluster.
        cluster: u64,
        /// Its refcount.
        refcount: u64,
        /// How many refer to it.
        references: u64,
    },
}

impl EntryProblem {
    /// What is wrong with an entry of an L1 table, whatever the refcounts say.
    pub fn of_l1(entry: L1Entry, geometry: &Geometry) -> impl Iterator<Item = Self> + use<> {
        let place = entry.is_allocated().then(|| Self::of_offset(entry.l2_table(), geometry));
        Self::reserved(entry.reserved()).chain(place.into_iter().flatten())
    }

    /// What is wrong with an entry of the refcount table.
    pub fn of_refcount_table(
        entry: RefcountTableEntry,
        geometry: &Geometry,
    ) -> impl Iterator<Item = Self> + use<> {
        let place = (entry.block().0 != 0).then(|| Self::of_offset(entry.block(), geometry));
        Self::reserved(entry.reserved()).chain(place.into_iter().flatten())
    }

    /// What is wrong with an entry of an L2 table, whatever the refcounts say.
    pub fn of_l2(entry: L2Entry, geometry: &Geometry) -> impl Iterator<Item = Self> + use<> {
        let format = L2Format::new(geometry);
        let is_compressed = entry.is_compressed();
        let host = entry.host_cluster(&format).filter(|_| !is_compressed);
        let mut found = [None; 6];
        if let Mapping::Compressed(data) = entry.mapping(&format) {
            let end = data.offset.0.saturating_add(data.length);
            // The last sector may be one that the file does not have in full.
            let there = geometry.file_length().next_multiple_of(512);
            found = [
                entry.copied().then_some(Self::CompressedCopied),
                (entry.bitmap.0 != 0).then_some(Self::CompressedSubclusters),
                geometry.data_file().then_some(Self::CompressedWithDataFile),
                (data.offset.0 >= geometry.file_length()).then_some(Self::PastEnd),
                (data.offset.0 < geometry.file_length() && end > there).then_some(Self::CutShort),
                None,
            ];
        } else if format.extended() {
            let subclusters = entry.bitmap.invalid();
            let is_homeless = host.is_none() && entry.bitmap.allocated() != 0;
            (found[0], found[1]) = (
                is_homeless.then_some(Self::NoCluster),
                (subclusters != 0).then_some(Self::Contradiction { subclusters }),
            );
        }
        let place = host.map(|host| {
            // What the external data file has is not known here.
            let past_end = !geometry.data_file() && host.0 >= geometry.file_length();
            let unaligned = !geometry.is_aligned(host.0);
            [unaligned.then_some(Self::Unaligned), past_end.then_some(Self::PastEnd)]
        });
        Self::reserved(entry.reserved(&format))
            .chain(found.into_iter().flatten())
            .chain(place.into_iter().flatten().flatten())
    }

    fn reserved(bits: u64) -> impl Iterator<Item = Self> + use<> {
        (bits != 0).then_some(Self::Reserved { bits }).into_iter()
    }

    pub(super) fn of_offset(offset: HostOffset, geometry: &Geometry) -> impl Iterator<Item = Self> + use<> {
        let unaligned = !geometry.is_aligned(offset.0);
        let past_end = offset.0 >= geometry.file_length();
        let found = [unaligned.then_some(Self::Unaligned), past_end.then_some(Self::PastEnd)];
        found.into_iter().flatten()
    }
}

impl fmt::Display for EntryProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reserved { bits } => {
                write!(f, "reserved bits are set: {}", bit_names(*bits))
            }
            Self::Unaligned => f.write_str("the offset is no multiple of the cluster size"),
            Self::PastEnd => f.write_str("the offset is past the end of the file"),
            Self::CutShort => f.write_str("the data go on past the end of the file"),
            Self::NoCluster => f.write_str("subclusters are allocated, and there is no cluster"),
            Self::Contradiction { subclusters } => {
                write!(f, "subclusters {subclusters:#x} are allocated, and read as zeroes")
            }
            Self::CompressedCopied => f.write_str("bit 63 is set, and the cluster is compressed"),
            Self::CompressedSubclusters => {
                f.write_str("there are subclusters, and the cluster is compressed")
            }
            Self::CompressedWithDataFile => {
                f.write_str("the cluster is compressed, and the image has an external data file")
            }
            Self::Both => f.write_str("there is a cluster, and bit 0 says that all bits are 1"),
            Self::Copied { refcount: 1 } => f.write_str("bit 63 is not set, and the refcount is 1"),
            Self::Copied { refcount } => write!(f, "bit 63 is set, and the refcount is {refcount}, not 1"),
            Self::Refcount { cluster, refcount, references } => {
                write!(f, "cluster {cluster}: refcount {refcount}, references {references}")?;
                f.write_str(match (refcount > references, references) {
                    (true, 0) => ": a leak",
                    (true, _) => ": too high, a leak",
                    _ => ": too low, a corruption",
                })
            }
        }
    }
}

/// `bit-0, bit-3 to bit-8`.
fn bit_names(bits: u64) -> String {
    let mut names = Vec::new();
    let mut rest = bits;
    while rest != 0 {
        let first = rest.trailing_zeros();
        let count = (rest >> first).trailing_ones();
        names.push(match count {
            1 => format!("bit-{first}"),
            _ => format!("bit-{first} to bit-{}", first + count - 1),
        });
        rest = u64::MAX.checked_shl(first + count).map_or(0, |mask| rest & mask);
    }
    names.join(", ")
}
