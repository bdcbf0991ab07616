//! `copy_metadata OUT`.

use std::fs::{self, Permissions};
use std::io;
use std::path::Path;

use tool_support::image::{OpenArgs, same_file, with_progress};
use tool_support::{Failure, Out, Outcome};
use vdisk_format::{Image, qed};

use super::expect_qed_unless;
use crate::documents::CopyDocument;

pub(super) fn run(path: &Path, open: OpenArgs, json: bool, out: &Path, force: bool) -> Outcome {
    let image = open.read(path)?;
    expect_qed_unless(force, path, image.bytes())?;
    let existing = may_be_replaced(path, out)?;
    let failed = |error: io::Error| {
        // What the system says, without the name of the file that is written first.
        let error = error.raw_os_error().map_or(error, io::Error::from_raw_os_error);
        Failure::failed(format!("cannot write {}: {error}", out.display()))
    };
    // What a link names is replaced, not the link.
    let target = fs::canonicalize(out).unwrap_or_else(|_| out.to_owned());
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
    if let Ok(old) = fs::metadata(&target) {
        file.as_file().set_permissions(old.permissions()).map_err(failed)?;
    }
    file.persist(&target).map_err(|error| failed(error.error))?;
    drop(existing);
    if json {
        let mut stdout = Out::stdout();
        stdout.json(&CopyDocument::new(path, out, scrubbed))?;
        stdout.finish()?;
    }
    Ok(())
}

/// Refuses to replace the image itself, what is no file, and an image that something uses. Returns its locks.
fn may_be_replaced(image: &Path, out: &Path) -> Outcome<Option<Image>> {
    let Ok(metadata) = fs::metadata(out) else { return Ok(None) };
    if same_file(image, out) {
        return Err(Failure::failed(format!("{}: OUT is the image itself", out.display())));
    }
    if !metadata.is_file() {
        return Err(Failure::failed(format!("{}: OUT exists, and is no file", out.display())));
    }
    Ok(Some(Image::options().write(true).open(out)?))
}
