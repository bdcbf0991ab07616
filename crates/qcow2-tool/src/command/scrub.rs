//! `scrub OUT`, also `copy-metadata`.

use std::fs::{self, Metadata, Permissions};
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use tempfile::NamedTempFile;
use tool_support::image::{OpenArgs, same_file, with_progress};
use tool_support::status::warn;
use tool_support::{Failure, Out, Outcome};
use vdisk_format::Image;
use vdisk_format::qcow2::check::check;
use vdisk_format::qcow2::header::{Header, MAGIC};
use vdisk_format::qcow2::scrub::{
    Audit, Difference, Options, Redacted, Scrubbed, audit, differences, scrub_to,
};

use crate::args::ScrubArgs;

/// The document of `scrub`.
#[derive(Serialize)]
struct ScrubDocument {
    schema: u32,
    image: String,
    copy: String,
    length: u64,
    l2_tables: u64,
    #[serde(flatten)]
    redacted: Redacted,
    /// Every byte of the copy that is not zero, by what it belongs to.
    audit: Audit,
    /// Whether a check finds the same in both.
    same_findings: bool,
    /// What it does not.
    differences: Vec<Difference>,
}

pub(super) fn run(path: &Path, open: OpenArgs, json: bool, args: &ScrubArgs) -> Outcome {
    let image = open.read(path)?;
    expect_qcow2_unless(args.force, path, &image)?;
    let out = &args.out;
    let existing = Existing::find(path, open, args)?;
    let failed = |error: io::Error| {
        // What the system says, without the name of the file that is written first.
        let error = error.raw_os_error().map_or(error, io::Error::from_raw_os_error);
        Failure::failed(format!("cannot write {}: {error}", out.display()))
    };
    // What a link names is replaced, not the link.
    let target = if existing.is_some() { fs::canonicalize(out).map_err(failed)? } else { out.clone() };
    let file = temporary(&target).map_err(failed)?;
    let options = Options::default().keep_names(args.keep_names).keep_bitmap_data(args.keep_bitmap_data);
    let scrubbed = with_progress("copying", &image, |view| scrub_to(view, options, file.as_file()))?;
    let (audit, differences) = audited(&image, &file, &scrubbed)?;
    if let Some(existing) = &existing {
        file.as_file().set_permissions(existing.metadata.permissions()).map_err(failed)?;
    }
    // A name that outlives a power failure and bytes that do not would be no copy.
    file.as_file().sync_all().map_err(failed)?;
    persist(file, &target, existing).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            let what = "another file was put there meanwhile, and is left as it is";
            Failure::failed(format!("{}: {what}", out.display()))
        }
        _ => failed(error),
    })?;
    tell(path, out, json, &scrubbed, audit, differences)
}

fn expect_qcow2_unless(force: bool, path: &Path, image: &Image) -> Outcome {
    let magic = Header::parse(image.bytes())?.v2.magic;
    if force || magic == MAGIC {
        return Ok(());
    }
    let path = path.display();
    let message =
        format!("{path}: magic at offset 0x0: expected {MAGIC:#x}, found {magic:#x}: no qcow2 image");
    Err(Failure::failed(message).with_hint("to go on, use --force"))
}

/// Into a new file first: whatever happens, OUT is what it was, or the whole copy.
fn temporary(target: &Path) -> io::Result<NamedTempFile> {
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut builder = tempfile::Builder::new();
    builder.prefix(".scrub-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(Permissions::from_mode(0o666)); // less the umask
    }
    builder.tempfile_in(folder.unwrap_or(Path::new(".")))
}

/// Reads the copy again: accounts for every byte, and checks it. A copy with a byte too many is not given a name.
fn audited(image: &Image, file: &NamedTempFile, scrubbed: &Scrubbed) -> Outcome<(Audit, Vec<Difference>)> {
    let copy = Image::options().lock(false).open(file.path())?;
    let audit = audit(&copy, scrubbed);
    if !audit.is_sound() {
        let at = audit.first_stray.map_or(0, |at| at.0);
        let what = format!("{} bytes are in the copy that nobody copied", audit.stray_bytes);
        return Err(Failure::failed(format!("the audit failed: {what}, the first at {at:#x}")));
    }
    let (before, after) = (check(image)?, check(&copy)?);
    Ok((audit, differences(&before, &after)))
}

fn tell(
    path: &Path,
    out: &Path,
    json: bool,
    scrubbed: &Scrubbed,
    audit: Audit,
    differences: Vec<Difference>,
) -> Outcome {
    if !differences.is_empty() {
        warn(&format!(
            "a check of the copy does not find what it finds in {}: {}",
            path.display(),
            listed(&differences)
        ));
    }
    let mut stdout = Out::stdout();
    if json {
        stdout.json(&ScrubDocument {
            schema: 1,
            image: path.display().to_string(),
            copy: out.display().to_string(),
            length: scrubbed.length,
            l2_tables: scrubbed.tables,
            redacted: scrubbed.redacted,
            audit,
            same_findings: differences.is_empty(),
            differences,
        })?;
        return Ok(stdout.finish()?);
    }
    let Redacted { names, blanked, replaced, .. } = scrubbed.redacted;
    let verdict = if differences.is_empty() {
        "and a check finds the same in it"
    } else {
        "but a check finds something else in it: send its output with the copy"
    };
    writeln!(stdout, "{} bytes of metadata were copied, {verdict}.", audit.bytes())?;
    for part in &audit.structures {
        writeln!(stdout, "{:>12} {}", part.bytes, part.structure.name())?;
    }
    writeln!(
        stdout,
        "Names replaced: {names}. Contents left out: {blanked}. Words of tables replaced: {replaced}."
    )?;
    Ok(stdout.finish()?)
}

/// Each difference in a few words.
fn listed(differences: &[Difference]) -> String {
    let each = differences
        .iter()
        .map(|Difference { code, image, copy, .. }| format!("{code} {image}, in the copy {copy}"));
    each.collect::<Vec<_>>().join("; ")
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
    /// Refuses to replace the image itself, what is no file, an image that something uses, and without --force anything.
    fn find(image: &Path, open: OpenArgs, args: &ScrubArgs) -> Outcome<Option<Self>> {
        let out = &args.out;
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
        if !args.force {
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
