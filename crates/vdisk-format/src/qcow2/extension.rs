//! Header extensions: the walk over them, and what the known ones mean. Specification: "Header extensions".

use std::fmt;

use crate::bytes::{clipped, exactly, round_up_8};
use crate::error::{Error, Result};
use crate::feature::FeatureGroup;
use crate::limits::MAX_EXTENSIONS;
use crate::qcow2::bitmap::BitmapsExtension;
use crate::qcow2::header::Header;
use crate::record::record;
use crate::units::HostOffset;

/// The type of a header extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(transparent))]
pub struct Magic(pub u32);

impl Magic {
    /// End of the header extension area.
    pub const END: Self = Self(0);
    /// Backing file format name string.
    pub const BACKING_FORMAT: Self = Self(0xe279_2aca);
    /// Feature name table.
    pub const FEATURE_NAME_TABLE: Self = Self(0x6803_f857);
    /// Bitmaps extension.
    pub const BITMAPS: Self = Self(0x2385_2875);
    /// Full disk encryption header pointer.
    pub const CRYPTO_HEADER: Self = Self(0x0537_be77);
    /// External data file name string.
    pub const DATA_FILE: Self = Self(0x4441_5441);

    /// What the specification calls it; `None` for an unknown type.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::BACKING_FORMAT => "backing file format name",
            Self::FEATURE_NAME_TABLE => "feature name table",
            Self::BITMAPS => "bitmaps extension",
            Self::CRYPTO_HEADER => "full disk encryption header pointer",
            Self::DATA_FILE => "external data file name",
            _ => return None,
        })
    }
}

impl fmt::Display for Magic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)?;
        self.name().map_or(Ok(()), |name| write!(f, " ({name})"))
    }
}

record! {
    /// The 8 bytes before an extension's data.
    pub struct ExtensionHeader: big, at 0, called "header extension" {
        /// The extension's type, a [`Magic`].
        magic: u32, Hex;
        /// Length of the data in bytes, without the padding to a multiple of 8.
        length: u32, Dec;
    }
}

record! {
    /// Where the LUKS header of an image with `crypt_method` 2 is. Specification: "Full disk encryption header pointer".
    pub struct CryptoHeaderPointer: big, at 0, called "full disk encryption header pointer" {
        /// Offset of the encryption header, a multiple of the cluster size.
        offset: u64, Hex;
        /// Its length in bytes.
        length: u64, Dec;
    }
}

/// One header extension.
#[derive(Debug, Clone, Copy)]
pub struct Extension<'a> {
    /// Where its type and length stand.
    pub offset: HostOffset,
    /// Its type.
    pub magic: Magic,
    /// The length that it claims for its data.
    pub length: u32,
    /// Its data, cut at the end of the file.
    pub data: &'a [u8],
    /// Where the walk goes on. That is the padded end of the data, but for the bitmaps extension, of which 24 bytes
    /// are read whatever its length says.
    pub next: HostOffset,
}

impl<'a> Extension<'a> {
    /// Where the data starts.
    #[must_use]
    pub fn data_offset(&self) -> HostOffset {
        HostOffset(self.offset.0 + ExtensionHeader::SIZE)
    }

    /// What the data mean.
    ///
    /// # Errors
    /// [`Error::Truncated`] where the data of a known type are too short for it.
    pub fn content(&self) -> Result<Content<'a>> {
        let record = |have: u64, need| {
            let at = self.data_offset();
            let what = "header extension data";
            if have < need { Err(Error::Truncated { what, at, need, have }) } else { Ok(()) }
        };
        let have = self.data.len() as u64;
        Ok(match self.magic {
            Magic::BACKING_FORMAT => Content::BackingFormat(self.data),
            Magic::DATA_FILE => Content::DataFile(self.data),
            Magic::FEATURE_NAME_TABLE => Content::FeatureNames(FeatureNames { data: self.data }),
            Magic::CRYPTO_HEADER => {
                record(have, CryptoHeaderPointer::SIZE)?;
                Content::CryptoHeader(CryptoHeaderPointer::parse(self.data, 0)?)
            }
            Magic::BITMAPS => {
                record(have, BitmapsExtension::SIZE)?;
                Content::Bitmaps(BitmapsExtension::parse(self.data, 0)?)
            }
            _ => Content::Unknown(self.data),
        })
    }
}

/// The decoded data of an extension.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Content<'a> {
    /// The backing file's format, such as `qcow2`.
    BackingFormat(&'a [u8]),
    /// Names for feature bits.
    FeatureNames(FeatureNames<'a>),
    /// The bitmaps extension; [`directory`](BitmapsExtension::directory) leads on.
    Bitmaps(BitmapsExtension),
    /// Where the encryption header is.
    CryptoHeader(CryptoHeaderPointer),
    /// The external data file's name.
    DataFile(&'a [u8]),
    /// Data of a type that this library does not know.
    Unknown(&'a [u8]),
}

/// The feature name table: 48-byte entries.
#[derive(Debug, Clone, Copy)]
pub struct FeatureNames<'a> {
    data: &'a [u8],
}

impl<'a> FeatureNames<'a> {
    /// Size of an entry in bytes.
    pub const ENTRY: usize = 48;

    /// The complete entries.
    pub fn entries(self) -> impl Iterator<Item = FeatureName<'a>> {
        self.data.as_chunks::<48>().0.iter().map(|[kind, bit, name @ ..]| {
            let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
            FeatureName { kind: *kind, bit: *bit, name }
        })
    }
}

/// One entry of the feature name table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeatureName<'a> {
    /// 0 incompatible, 1 compatible, 2 autoclear; others are undefined.
    pub kind: u8,
    /// Bit number, 0 to 63.
    pub bit: u8,
    /// The feature's name, up to the first null byte.
    pub name: &'a [u8],
}

impl FeatureName<'_> {
    /// The group that [`kind`](Self::kind) stands for.
    #[must_use]
    pub fn group(&self) -> Option<FeatureGroup> {
        FeatureGroup::ALL.get(usize::from(self.kind)).copied()
    }
}

/// How a walk over the extensions ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AreaEnd {
    /// It goes on.
    NotYet,
    /// At an end-of-extensions marker at this offset.
    Marker(HostOffset),
    /// Without a marker, because the area's bound was reached: this is where the last extension ended.
    Bound(HostOffset),
    /// Inside a structure that the file cuts short.
    Truncated(HostOffset),
    /// After [`MAX_EXTENSIONS`] extensions.
    TooMany(HostOffset),
}

/// The walk over the header extensions.
///
/// It starts at `header_length`, and ends at an extension of type 0, or where `backing_file_offset` (if it is not
/// 0) or the first cluster ends the area. An extension that starts inside the area is read to its own end, even
/// where that lies outside: this is how qcow2.py reads, and what it shows of a broken image, this shows.
#[derive(Debug, Clone)]
pub struct Extensions<'a> {
    image: &'a [u8],
    at: u64,
    bound: u64,
    left: u64,
    end: AreaEnd,
}

impl<'a> Extensions<'a> {
    pub(crate) fn new(header: &Header<'a>) -> Self {
        let cluster = header.cluster_size().unwrap_or(u64::MAX);
        let bound = match header.v2.backing_file_offset {
            0 => cluster,
            name => name.min(cluster),
        };
        let at = u64::from(header.v3.header_length);
        Self { image: header.image(), at, bound, left: MAX_EXTENSIONS, end: AreaEnd::NotYet }
    }

    /// Where the area ends at the latest: extensions start before this offset.
    #[must_use]
    pub fn bound(&self) -> HostOffset {
        HostOffset(self.bound)
    }

    /// How the walk ended; [`AreaEnd::NotYet`] until `next` has returned `None`.
    #[must_use]
    pub fn end(&self) -> AreaEnd {
        self.end
    }

    fn read(&mut self) -> Result<Option<Extension<'a>>> {
        let at = HostOffset(self.at);
        if self.at >= self.bound {
            self.end = AreaEnd::Bound(at);
            return Ok(None);
        }
        let header = ExtensionHeader::parse(self.image, self.at)?;
        let (magic, length) = (Magic(header.magic), header.length);
        if magic == Magic::END {
            self.end = AreaEnd::Marker(at);
            return Ok(None);
        }
        if self.left == 0 {
            self.end = AreaEnd::TooMany(at);
            return Ok(None);
        }
        self.left -= 1;
        let start = self.at + ExtensionHeader::SIZE;
        let (data, size) = if magic == Magic::BITMAPS {
            let size = BitmapsExtension::SIZE;
            (exactly(self.image, start, size, "bitmaps extension")?, size)
        } else {
            (clipped(self.image, start, length.into()), round_up_8(length.into()))
        };
        self.at = start + size;
        Ok(Some(Extension { offset: at, magic, length, data, next: HostOffset(self.at) }))
    }
}

impl<'a> Iterator for Extensions<'a> {
    type Item = Result<Extension<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.end != AreaEnd::NotYet {
            return None;
        }
        let item = self.read();
        if item.is_err() {
            self.end = AreaEnd::Truncated(HostOffset(self.at));
        }
        item.transpose()
    }
}
