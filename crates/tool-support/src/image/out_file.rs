//! [`OutFile`]: a file that gets its name when it is whole.

use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use vdisk_format::Image;

use super::{OpenArgs, same_file};
use crate::{Failure, Outcome};

/// The copy that a command makes of an image: whatever happens, OUT is what it was, or the whole copy.
#[derive(Debug)]
pub struct OutFile {
    out: PathBuf,
    /// What is replaced: where OUT is a link, what it names.
    target: PathBuf,
    file: NamedTempFile,
    existing: Option<Existing>,
}

/// What is to happen with a file that OUT names already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfExists {
    /// It is replaced.
    Replace,
    /// It stays, and the command fails.
    Refuse,
}

/// The file that OUT names already, its locks held.
#[derive(Debug)]
struct Existing {
    metadata: Metadata,
    _locked: Image,
}

impl OutFile {
    /// A new file beside `out`, named `prefix` and something, for a copy of `image`.
    ///
    /// # Errors
    /// Where OUT is the image itself, no file, a link to nothing, an image that something uses, or there and not to be
    /// replaced; and where no file can be made.
    pub fn create(
        image: &Path,
        out: &Path,
        open: OpenArgs,
        prefix: &str,
        if_exists: IfExists,
    ) -> Outcome<Self> {
        let existing = Existing::find(image, out, open, if_exists)?;
        let failed = |error| cannot_write(out, error);
        let target = if existing.is_some() { fs::canonicalize(out).map_err(failed)? } else { out.to_owned() };
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut builder = tempfile::Builder::new();
        builder.prefix(prefix);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(Permissions::from_mode(0o666)); // less the umask
        }
        let file = builder.tempfile_in(folder.unwrap_or(Path::new("."))).map_err(failed)?;
        Ok(Self { out: out.to_owned(), target, file, existing })
    }

    /// To write to.
    #[must_use]
    pub fn file(&self) -> &File {
        self.file.as_file()
    }

    /// Where it is as long as it has not got its name.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Gives the copy its name, in place of the file that was found there, and of no other.
    ///
    /// # Errors
    /// Where that cannot be done, or somebody put another file there meanwhile.
    pub fn persist(self) -> Outcome {
        let Self { out, target, file, existing } = self;
        let kept = || {
            if let Some(existing) = &existing {
                file.as_file().set_permissions(existing.metadata.permissions())?;
            }
            // A name that outlives a power failure and bytes that do not would be no copy.
            file.as_file().sync_all()
        };
        kept().map_err(|error| cannot_write(&out, error))?;
        replace(file, &target, existing).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                let what = "another file was put there meanwhile, and is left as it is";
                Failure::failed(format!("{}: {what}", out.display()))
            }
            _ => cannot_write(&out, error),
        })
    }
}

/// What the system says, without the name of the file that is written first.
fn cannot_write(out: &Path, error: io::Error) -> Failure {
    let error = error.raw_os_error().map_or(error, io::Error::from_raw_os_error);
    Failure::failed(format!("cannot write {}: {error}", out.display()))
}

fn replace(file: NamedTempFile, target: &Path, existing: Option<Existing>) -> io::Result<()> {
    let Some(existing) = existing else {
        file.persist_noclobber(target)?;
        return Ok(());
    };
    // Who has removed it has no use for it; who has put another there may have.
    if fs::metadata(target).is_ok_and(|now| !is_same(&existing.metadata, &now)) {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    // The locks are held until it is replaced.
    file.persist(target)?;
    Ok(())
}

impl Existing {
    fn find(image: &Path, out: &Path, open: OpenArgs, if_exists: IfExists) -> Outcome<Option<Self>> {
        let refused = |what: &str| Failure::failed(format!("{}: OUT {what}", out.display()));
        let Ok(metadata) = fs::metadata(out) else {
            let is_link = fs::symlink_metadata(out).is_ok_and(|metadata| metadata.is_symlink());
            return if is_link { Err(refused("is a symbolic link to nothing")) } else { Ok(None) };
        };
        if same_file(image, out) {
            return Err(refused("is the image itself"));
        }
        if !metadata.is_file() {
            return Err(refused("exists, and is no file"));
        }
        if if_exists == IfExists::Refuse {
            return Err(refused("exists").with_hint("to replace it, use --force"));
        }
        let locked = Image::options().write(true).lock(!open.no_lock).open(out)?;
        Ok(Some(Self { metadata, _locked: locked }))
    }
}

#[cfg(unix)]
fn is_same(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// The system does not replace a file that is open.
#[cfg(not(unix))]
fn is_same(_a: &Metadata, _b: &Metadata) -> bool {
    true
}
