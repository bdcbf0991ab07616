//! `copy_metadata OUT`.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::path::Path;

use tempfile::NamedTempFile;
use tool_support::image::{OpenArgs, same_file, with_progress};
use tool_support::{Failure, Out, Outcome};
use vdisk_format::{Image, qed};

use super::expect_qed_unless;
use crate::documents::CopyDocument;

pub(super) fn run(path: &Path, open: OpenArgs, json: bool, out: &Path, force: bool) -> Outcome {
    let image = open.read(path)?;
    expect_qed_unless(force, path, image.bytes())?;
    let existing = Existing::find(path, open, out)?;
    let failed = |error: io::Error| {
        // What the system says, without the name of the file that is written first.
        let error = error.raw_os_error().map_or(error, io::Error::from_raw_os_error);
        Failure::failed(format!("cannot write {}: {error}", out.display()))
    };
    // What a link names is replaced, not the link.
    let target = if existing.is_some() { fs::canonicalize(out).map_err(failed)? } else { out.to_owned() };
    // Into a new file first: whatever happens, OUT is what it was, or the whole copy.
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".copy_metadata-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(Permissions::from_mode(0o666)); // less the umask
    }
    let file = builder.tempfile_in(folder).map_err(failed)?;
    let scrubbed = with_progress("copying", &image, |view| qed::scrub::scrub_to(view, file.as_file()))?;
    if let Some(existing) = &existing {
        file.as_file().set_permissions(existing.metadata.permissions()).map_err(failed)?;
        // A name that outlives a power failure and bytes that do not would be neither the old file nor the new one.
        file.as_file().sync_all().map_err(failed)?;
    }
    persist(file, &target, existing).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            let what = "another file was put there meanwhile, and is left as it is";
            Failure::failed(format!("{}: {what}", out.display()))
        }
        _ => failed(error),
    })?;
    if json {
        let mut stdout = Out::stdout();
        stdout.json(&CopyDocument::new(path, out, scrubbed))?;
        stdout.finish()?;
    }
    Ok(())
}

/// Gives the copy its name, in place of the file that was found there, and of no other.
fn persist(file: NamedTempFile, target: &Path, existing: Option<Existing>) -> io::Result<()> {
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

/// The file that OUT names already, its locks held.
struct Existing {
    metadata: Metadata,
    _locked: Image,
}

impl Existing {
    /// Refuses to replace the image itself, what is no file, and an image that something uses.
    fn find(image: &Path, open: OpenArgs, out: &Path) -> Outcome<Option<Self>> {
        let Ok(metadata) = fs::metadata(out) else {
            let is_link = fs::symlink_metadata(out).is_ok_and(|metadata| metadata.is_symlink());
            return if is_link {
                Err(Failure::failed(format!("{}: OUT is a symbolic link to nothing", out.display())))
            } else {
                Ok(None)
            };
        };
        if same_file(image, out) {
            return Err(Failure::failed(format!("{}: OUT is the image itself", out.display())));
        }
        if !metadata.is_file() {
            return Err(Failure::failed(format!("{}: OUT exists, and is no file", out.display())));
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
