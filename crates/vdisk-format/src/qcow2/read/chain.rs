//! [`open_chain`]: opens the files that images name, for who wants that.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::bytes::up_to_zero;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::limits::{MAX_BACKING_FILE_NAME, MAX_CHAIN, MAX_QED_BACKING_FILE_NAME};
use crate::qcow2::extension::Magic;
use crate::qcow2::geometry::INCOMPATIBLE_DATA_FILE;
use crate::qcow2::header::{self, Header};
use crate::qcow2::read::{Disk, Layer, Qcow2Layer, QedLayer};
use crate::qed;
use crate::view::View;

/// An image and the files that it is backed by, open for reading, with a reader's locks.
#[derive(Debug)]
pub struct Chain {
    top: ChainImage,
    backing: Vec<ChainImage>,
}

/// One image of a [`Chain`].
#[derive(Debug)]
#[non_exhaustive]
pub struct ChainImage {
    /// The file.
    pub path: PathBuf,
    /// Its format, as the image above it says, or as it looks.
    pub format: Format,
    /// Its bytes.
    pub image: Image,
    /// Its external data file.
    pub data_file: Option<(PathBuf, Image)>,
}

/// The formats that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Format {
    /// qcow2, versions 2 and 3.
    Qcow2,
    /// QED.
    Qed,
    /// The disk's bytes, and nothing else.
    Raw,
}

impl Format {
    /// QEMU's name of the format.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Qed => "qed",
            Self::Raw => "raw",
        }
    }

    /// The format that bytes look like: raw where they look like no other.
    #[must_use]
    pub fn probe(bytes: &[u8]) -> Self {
        match bytes.first_chunk() {
            Some(magic) if u32::from_be_bytes(*magic) == header::MAGIC => Self::Qcow2,
            Some(magic) if u32::from_le_bytes(*magic) == qed::header::MAGIC => Self::Qed,
            _ => Self::Raw,
        }
    }

    fn named(name: &[u8]) -> Option<Self> {
        [Self::Qcow2, Self::Qed, Self::Raw].into_iter().find(|format| format.name().as_bytes() == name)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Opens an image, and **every file that it and its backing files name**: whoever wrote them chooses which files of this
/// machine are read. Names are taken as relative to the folder of the image that they are in, and those that begin with
/// `file:` as relative to the current folder. Where an image does not say
/// what its backing file's format is, that is guessed from its first bytes, as QEMU does, which whoever writes to a raw disk
/// can make into anything.
///
/// # Errors
/// As [`Image::open`]; [`Error::Unsupported`] for names with another protocol, `json:` included, for formats and headers that
/// cannot be read, for a file that is in the chain already, and for chains of more than [`MAX_CHAIN`] images.
pub fn open_chain(path: impl AsRef<Path>) -> Result<Chain> {
    match open_chain_partly(path)? {
        (chain, None) => Ok(chain),
        (_, Some(error)) => Err(error),
    }
}

/// As [`open_chain`], as far as it goes: the images that could be opened, and why the next one could not.
///
/// # Errors
/// As [`open_chain`], where it is the image itself that cannot be opened, or its external data file.
pub fn open_chain_partly(path: impl AsRef<Path>) -> Result<(Chain, Option<Error>)> {
    let mut seen = Vec::new();
    let top = open(path.as_ref().to_owned(), None, &mut seen)?;
    let mut chain = Chain { top, backing: Vec::new() };
    loop {
        match chain.next(&mut seen) {
            Ok(Some(image)) => chain.backing.push(image),
            Ok(None) => return Ok((chain, None)),
            Err(error) => return Ok((chain, Some(error))),
        }
    }
}

fn open(path: PathBuf, format: Option<Format>, seen: &mut Vec<Identity>) -> Result<ChainImage> {
    let image = open_once(&path, seen)?;
    let format = format.unwrap_or_else(|| Format::probe(image.bytes()));
    let mut opened = ChainImage { path, format, image, data_file: None };
    if let Some(name) = opened.data_file_name()? {
        let path = opened.resolve(&name)?;
        let image = open_once(&path, seen)?;
        opened.data_file = Some((path, image));
    }
    Ok(opened)
}

fn open_once(path: &Path, seen: &mut Vec<Identity>) -> Result<Image> {
    let image = Image::open(path)?;
    let identity = identity(&image, path)?;
    if seen.contains(&identity) {
        return Err(unsupported(path, "it is in the chain already".to_owned()));
    }
    seen.push(identity);
    Ok(image)
}

/// What two names of one file have in common.
#[cfg(unix)]
type Identity = (u64, u64);
#[cfg(not(unix))]
type Identity = PathBuf;

#[cfg(unix)]
fn identity(image: &Image, path: &Path) -> Result<Identity> {
    use std::os::unix::fs::MetadataExt;
    let metadata = match image.source() {
        Some(source) => source.file.metadata(),
        None => std::fs::metadata(path),
    };
    let metadata = metadata.map_err(Error::io(format!("cannot look at {}", path.display())))?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn identity(_image: &Image, path: &Path) -> Result<Identity> {
    path.canonicalize().map_err(Error::io(format!("cannot look at {}", path.display())))
}

impl Chain {
    /// The images, that which was asked for first.
    pub fn images(&self) -> impl Iterator<Item = &ChainImage> {
        std::iter::once(&self.top).chain(&self.backing)
    }

    /// Opens the backing file of the last image, where that names one.
    fn next(&self, seen: &mut Vec<Identity>) -> Result<Option<ChainImage>> {
        let last = self.backing.last().unwrap_or(&self.top);
        let Some((path, format)) = last.backing_file()? else { return Ok(None) };
        if self.backing.len() + 1 >= MAX_CHAIN {
            return Err(unsupported(&path, format!("there are {MAX_CHAIN} images before it")));
        }
        open(path, format, seen).map(Some)
    }

    /// The virtual disk that they make together.
    ///
    /// # Errors
    /// As [`Qcow2Layer::new`] and [`QedLayer::new`].
    pub fn disk(&self) -> Result<Disk<'_>> {
        let mut disk = Disk::new(self.top.layer()?);
        for image in &self.backing {
            disk = disk.backed_by(image.layer()?);
        }
        Ok(disk)
    }
}

impl ChainImage {
    /// The image as a layer of a disk: its active state.
    ///
    /// # Errors
    /// As [`Qcow2Layer::new`] and [`QedLayer::new`].
    pub fn layer(&self) -> Result<Layer<'_>> {
        Ok(match self.format {
            Format::Qcow2 => {
                let layer = Qcow2Layer::new(&self.image)?;
                match &self.data_file {
                    Some((_, data_file)) => layer.with_data_file(data_file).into(),
                    None => layer.into(),
                }
            }
            Format::Qed => QedLayer::new(&self.image)?.into(),
            Format::Raw => View::from(&self.image).into(),
        })
    }

    /// The backing file that the image names, and its format if it says so.
    fn backing_file(&self) -> Result<Option<(PathBuf, Option<Format>)>> {
        let (name, size, most, format) = match self.format {
            Format::Raw => return Ok(None),
            Format::Qed => {
                let header =
                    qed::Header::parse(self.image.bytes()).map_err(|error| self.unreadable(&error))?;
                let raw = header.fields.features & qed::header::FEATURE_BACKING_FORMAT_NO_PROBE != 0;
                let format = raw.then_some(Format::Raw);
                let size = header.fields.backing_filename_size;
                (header.backing_file_name(), size, MAX_QED_BACKING_FILE_NAME, format)
            }
            Format::Qcow2 => {
                let header = self.header()?;
                let name = header.backing_file_name();
                // Without a backing file, nobody asks for its format.
                let format = if name.is_some() { self.backing_format(&header)? } else { None };
                (name, header.v2.backing_file_size, MAX_BACKING_FILE_NAME, format)
            }
        };
        let Some(name) = name else { return Ok(None) };
        if size > most {
            return Err(unsupported(&self.path, format!("the name of its backing file has {size} bytes")));
        }
        Ok(Some((self.resolve(name)?, format)))
    }

    /// The format that a qcow2 image says its backing file has.
    fn backing_format(&self, header: &Header<'_>) -> Result<Option<Format>> {
        let name = self.string(header, Magic::BACKING_FORMAT)?;
        let Some(name) = name.as_deref().and_then(up_to_zero) else { return Ok(None) };
        let format = Format::named(name).ok_or_else(|| {
            let name = String::from_utf8_lossy(name);
            unsupported(&self.path, format!("its backing file's format is {name:?}"))
        });
        format.map(Some)
    }

    fn data_file_name(&self) -> Result<Option<Vec<u8>>> {
        if self.format != Format::Qcow2 {
            return Ok(None);
        }
        let header = self.header()?;
        if header.v3.incompatible_features & INCOMPATIBLE_DATA_FILE == 0 {
            return Ok(None);
        }
        let name = self.string(&header, Magic::DATA_FILE)?;
        name.map(Some)
            .ok_or_else(|| unsupported(&self.path, "it does not name its external data file".to_owned()))
    }

    fn header(&self) -> Result<Header<'_>> {
        Header::parse(self.image.bytes()).map_err(|error| self.unreadable(&error))
    }

    /// The string of the first header extension of a type.
    fn string(&self, header: &Header<'_>, magic: Magic) -> Result<Option<Vec<u8>>> {
        for extension in header.extensions() {
            let extension = extension.map_err(|error| self.unreadable(&error))?;
            if extension.magic == magic {
                return Ok(Some(extension.data.to_vec()));
            }
        }
        Ok(None)
    }

    /// What is wrong in the header, and in which file.
    fn unreadable(&self, error: &Error) -> Error {
        unsupported(&self.path, error.to_string())
    }

    /// The file that a name in this image means.
    fn resolve(&self, name: &[u8]) -> Result<PathBuf> {
        // As for QEMU, such a name is not one in the folder.
        if let Some(file) = name.strip_prefix(b"file:").and_then(path_of) {
            return Ok(file.to_owned());
        }
        let has_protocol = name.iter().find(|&&byte| byte == b':' || byte == b'/') == Some(&b':');
        let file = if has_protocol { None } else { path_of(name) };
        let Some(file) = file else {
            let name = String::from_utf8_lossy(name);
            return Err(unsupported(
                &self.path,
                format!("it names {name:?}, which is not the name of a file"),
            ));
        };
        // An absolute path replaces the folder.
        Ok(self.path.parent().unwrap_or(Path::new("")).join(file))
    }
}

#[cfg(unix)]
fn path_of(name: &[u8]) -> Option<&Path> {
    use std::os::unix::ffi::OsStrExt;
    Some(Path::new(std::ffi::OsStr::from_bytes(name)))
}

#[cfg(not(unix))]
fn path_of(name: &[u8]) -> Option<&Path> {
    std::str::from_utf8(name).ok().map(Path::new)
}

fn unsupported(path: &Path, why: String) -> Error {
    Error::Unsupported { what: format!("cannot open the chain at {}", path.display()), why }
}
