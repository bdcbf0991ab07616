//! [`Image`]: the bytes of an image file, mapped into memory or owned; and `LockedFile`, the same file without a map.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::{Mmap, MmapOptions};

use crate::error::{Error, Result};
use crate::lock::{self, Access};

/// How to open an [`Image`].
#[derive(Debug, Clone, Copy)]
pub struct ImageOptions {
    write: bool,
    lock: bool,
}

impl ImageOptions {
    /// Opens for writing, with a writer's locks: for whoever will commit a plan.
    #[must_use]
    pub fn write(mut self, write: bool) -> Self {
        self.write = write;
        self
    }

    /// Whether to take locks, and to respect those of others. Without them, an image in use is read as it happens to
    /// be (`qemu-img --force-share`), and written with nothing to stop anybody else.
    #[must_use]
    pub fn lock(mut self, lock: bool) -> Self {
        self.lock = lock;
        self
    }

    /// Opens the image at `path`, a regular file or a block device; symbolic links are followed.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::InUse`], and [`Error::Unsupported`] for what is no image file or cannot be locked.
    pub fn open(self, path: &Path) -> Result<Image> {
        Image::from_locked(LockedFile::open(path, self)?)
    }
}

/// An image's file, its locks held, and no memory map over it: what a commit writes to.
#[derive(Debug)]
pub(crate) struct LockedFile {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    pub(crate) writable: bool,
    pub(crate) is_device: bool,
}

impl LockedFile {
    fn open(path: &Path, options: ImageOptions) -> Result<Self> {
        let what = || format!("cannot open {}", path.display());
        let mut open = File::options();
        open.read(true).write(options.write);
        #[cfg(unix)]
        {
            // Whoever opens a FIFO waits for its other end, but for this flag; it means nothing to files.
            use std::os::unix::fs::OpenOptionsExt;
            open.custom_flags(nix::libc::O_NONBLOCK);
        }
        let file = open.open(path).map_err(Error::io(what()))?;
        let kind = file.metadata().map_err(Error::io(what()))?.file_type();
        let is_device = is_block_device(kind);
        if !kind.is_file() && !is_device {
            let why = format!("it is {}, not a file or a block device", kind_name(kind));
            return Err(Error::Unsupported { what: what(), why });
        }
        let access = if options.write { Access::Write } else { Access::Read };
        if options.lock {
            lock::acquire(&file, access, path)?;
            refuse_replaced(&file, path)?;
        }
        Ok(Self { file, path: path.to_owned(), writable: options.write, is_device })
    }

    /// Length in bytes, of a block device as well.
    pub(crate) fn length(&self) -> Result<u64> {
        let what = || format!("cannot find the length of {}", self.path.display());
        if self.is_device {
            use std::io::{Seek, SeekFrom};
            return (&self.file).seek(SeekFrom::End(0)).map_err(Error::io(what()));
        }
        Ok(self.file.metadata().map_err(Error::io(what()))?.len())
    }

    /// The part of `at .. at + length` that the file has.
    pub(crate) fn read_clipped(&self, at: u64, length: u64) -> Result<Vec<u8>> {
        let length = length.min(self.length()?.saturating_sub(at));
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        read_exact_at(&self.file, &mut bytes, at)
            .map_err(Error::io(format!("cannot read {} at offset {at:#x}", self.path.display())))?;
        Ok(bytes)
    }

    pub(crate) fn write_all_at(&self, bytes: &[u8], at: u64) -> Result<()> {
        write_all_at(&self.file, bytes, at)
            .map_err(Error::io(format!("cannot write {} at offset {at:#x}", self.path.display())))
    }
}

/// The bytes of an image.
///
/// A mapped image is the file's page cache. **The file must not be cut short meanwhile**: touching a page that is
/// no longer there raises SIGBUS, which Rust code cannot catch; the binaries install a handler that says so. The locks
/// keep away every program that respects QEMU's.
#[derive(Debug)]
pub struct Image {
    data: Data,
    source: Option<LockedFile>,
}

#[derive(Debug)]
enum Data {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Image {
    /// Opens an image for reading, with a reader's locks.
    ///
    /// # Errors
    /// As [`ImageOptions::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::options().open(path.as_ref())
    }

    /// The options: for reading, with locks.
    #[must_use]
    pub fn options() -> ImageOptions {
        ImageOptions { write: false, lock: true }
    }

    /// An image in memory: for tests and fuzzing. It cannot be committed to.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self { data: Data::Owned(bytes), source: None }
    }

    /// Maps a file that is open and locked already.
    ///
    /// # Errors
    /// [`Error::Io`] where the system cannot map it, for want of address space perhaps.
    pub(crate) fn from_locked(source: LockedFile) -> Result<Self> {
        let length = source.length()?;
        let data = if length == 0 { Data::Owned(Vec::new()) } else { Data::Mapped(map(&source, length)?) };
        Ok(Self { data, source: Some(source) })
    }

    /// All of it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match &self.data {
            Data::Mapped(map) => map,
            Data::Owned(bytes) => bytes,
        }
    }

    /// Unmaps the file and hands it over, still locked: no write happens under a live map.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for an image in memory.
    pub(crate) fn into_file(self) -> Result<LockedFile> {
        self.source.ok_or_else(|| Error::Unsupported {
            what: "writing an image".to_owned(),
            why: "it is in memory, not in a file".to_owned(),
        })
    }

    pub(crate) fn source(&self) -> Option<&LockedFile> {
        self.source.as_ref()
    }

    /// Fills `buffer` from the file, where there is one and it has the bytes.
    pub(crate) fn read_at(&self, at: u64, buffer: &mut [u8]) -> bool {
        self.source.as_ref().is_some_and(|source| read_exact_at(&source.file, buffer, at).is_ok())
    }

    /// Gives the pages of a range back to the system: they are read again from the file when they are touched. Bounds
    /// the memory of a walk over tables larger than the memory; never more than a hint.
    pub fn release(&self, at: u64, length: u64) {
        #[cfg(unix)]
        if let Data::Mapped(map) = &self.data {
            let end = at.saturating_add(length).min(map.len() as u64);
            if let (Ok(at), Ok(length)) = (usize::try_from(at), usize::try_from(end.saturating_sub(at))) {
                release_pages(map, at, length);
            }
        }
        #[cfg(not(unix))]
        let _ = (at, length);
    }
}

impl Image {
    /// Bytes that the file takes on its file system, holes left out: the length, where nobody can tell. 0 for a device.
    #[must_use]
    pub fn allocated(&self) -> u64 {
        #[cfg(unix)]
        if let Some(metadata) = self.source.as_ref().and_then(|source| source.file.metadata().ok()) {
            use std::os::unix::fs::MetadataExt;
            return metadata.blocks().saturating_mul(512);
        }
        self.bytes().len() as u64
    }

    /// The piece of data of the file at `at`, or the next one behind it: what is before it is a hole and reads as
    /// zeroes. `None` where there is none up to the end. All is data where the system cannot tell.
    #[must_use]
    pub fn next_data(&self, at: u64) -> Option<Range<u64>> {
        let length = self.bytes().len() as u64;
        if at >= length {
            return None;
        }
        #[cfg(target_os = "linux")]
        if let Some(source) = self.source.as_ref().filter(|source| !source.is_device) {
            return match next_data(&source.file, at) {
                // Somebody may have punched a hole between the two questions.
                Ok(Some(data)) if data.end <= data.start => Some(at..length),
                Ok(found) => found.map(|data| data.start..data.end.min(length)),
                Err(_) => Some(at..length),
            };
        }
        Some(at..length)
    }
}

#[cfg(target_os = "linux")]
fn next_data(file: &File, at: u64) -> nix::Result<Option<Range<u64>>> {
    use nix::errno::Errno;
    use nix::unistd::{Whence, lseek};
    let seek = |at: u64, whence| {
        let at = at.try_into().map_err(|_| Errno::EOVERFLOW)?;
        lseek(file, at, whence).map(i64::unsigned_abs)
    };
    let start = match seek(at, Whence::SeekData) {
        Err(Errno::ENXIO) => return Ok(None), // nothing but a hole up to the end
        start => start?,
    };
    Ok(Some(start..seek(start, Whence::SeekHole)?))
}

#[expect(unsafe_code, reason = "the one place that maps files for reading")]
fn map(source: &LockedFile, length: u64) -> Result<Mmap> {
    let what = format!("cannot map the {length} bytes of {}", source.path.display());
    let Ok(length) = usize::try_from(length) else {
        return Err(Error::Unsupported { what, why: "larger than the address space".to_owned() });
    };
    // SAFETY: the map is read-only and shared. Its bytes change when another process writes to the file: every value is
    // read through checked slices of plain bytes, for which any value is valid. A truncation raises SIGBUS, as the
    // type's contract says.
    unsafe { MmapOptions::new().len(length).map(&source.file) }.map_err(Error::io(what))
}

#[cfg(unix)]
#[expect(unsafe_code, reason = "MADV_DONTNEED")]
fn release_pages(map: &Mmap, at: usize, length: usize) {
    // SAFETY: the map is shared, read-only and backed by a file. Dropping its pages loses nothing: the next touch reads
    // the same bytes from the page cache. A failure changes nothing.
    let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, at, length) };
}

#[cfg(unix)]
fn is_block_device(kind: std::fs::FileType) -> bool {
    use std::os::unix::fs::FileTypeExt;
    kind.is_block_device()
}

#[cfg(not(unix))]
fn is_block_device(_kind: std::fs::FileType) -> bool {
    false
}

fn kind_name(kind: std::fs::FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return "a FIFO";
        }
        if kind.is_char_device() {
            return "a character device";
        }
    }
    if kind.is_dir() { "a directory" } else { "something else" }
}

/// Locks say nothing of a file that was renamed over this one between the opening and the locking.
#[cfg(unix)]
fn refuse_replaced(file: &File, path: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let what = || format!("cannot find {}", path.display());
    let opened = file.metadata().map_err(Error::io(what()))?;
    let named = std::fs::metadata(path).map_err(Error::io(what()))?;
    if (opened.dev(), opened.ino()) == (named.dev(), named.ino()) {
        return Ok(());
    }
    Err(Error::InUse {
        path: path.to_owned(),
        what: "it was replaced while it was opened".to_owned(),
        access: None,
    })
}

#[cfg(not(unix))]
fn refuse_replaced(_file: &File, _path: &Path) -> Result<()> {
    Ok(())
}

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], at: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, at)
}

#[cfg(unix)]
pub(crate) fn write_all_at(file: &File, bytes: &[u8], at: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}

#[cfg(not(unix))]
fn read_exact_at(mut file: &File, bytes: &mut [u8], at: u64) -> std::io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(bytes)
}

#[cfg(not(unix))]
pub(crate) fn write_all_at(mut file: &File, bytes: &[u8], at: u64) -> std::io::Result<()> {
    use std::io::{Seek, SeekFrom, Write};
    file.seek(SeekFrom::Start(at))?;
    file.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_an_empty_image() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(Image::open(file.path()).unwrap().bytes(), b"");
    }

    #[test]
    fn a_directory_is_no_image() {
        let dir = tempfile::tempdir().unwrap();
        let error = Image::open(dir.path()).unwrap_err().to_string();
        assert!(error.ends_with("it is a directory, not a file or a block device"), "{error}");
    }

    #[test]
    fn released_pages_are_read_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![7; 1 << 16]).unwrap();
        let image = Image::open(file.path()).unwrap();
        image.release(100, u64::MAX);
        assert!(image.bytes().iter().all(|&byte| byte == 7));
    }
}
