//! `scrub OUT`, also `copy-metadata`.

use std::io::Write;
use std::path::Path;

use serde::Serialize;
use tool_support::image::{IfExists, OpenArgs, OutFile, with_progress};
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
    let if_exists = if args.force { IfExists::Replace } else { IfExists::Refuse };
    let out = OutFile::create(path, &args.out, open, ".scrub-", if_exists)?;
    let options = Options::default().keep_names(args.keep_names).keep_bitmap_data(args.keep_bitmap_data);
    let scrubbed = with_progress("copying", &image, |view| scrub_to(view, options, out.file()))?;
    let (audit, differences) = audited(&image, out.path(), &scrubbed)?;
    out.persist()?;
    tell(path, &args.out, json, &scrubbed, audit, differences)
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

/// Reads the copy again: accounts for every byte, and checks it. A copy with a byte too many is not given a name.
fn audited(image: &Image, copy: &Path, scrubbed: &Scrubbed) -> Outcome<(Audit, Vec<Difference>)> {
    let copy = Image::options().lock(false).open(copy)?;
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
