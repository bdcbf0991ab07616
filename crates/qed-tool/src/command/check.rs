//! `check`.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use tool_support::image::map::percent;
use tool_support::image::{OpenArgs, with_progress};
use tool_support::{Failure, Out, Outcome};
use vdisk_format::check::{Check, Verdict};
use vdisk_format::qed;

use super::expect_qed_unless;
use crate::documents::CheckDocument;

/// Most findings that the text shows.
const MAX_SHOWN: usize = 40;

pub(super) fn run(path: &Path, open: OpenArgs, json: bool, force: bool) -> Outcome<ExitCode> {
    let image = open.read(path)?;
    expect_qed_unless(force, path, image.bytes())?;
    let check = with_progress("checking", &image, |view| qed::check::check(view))?;
    match print(path, json, &check) {
        // Whoever reads the first lines only wants the verdict all the same.
        Err(Failure::BrokenPipe) => {}
        printed => printed?,
    }
    Ok(ExitCode::from(status(check.verdict())))
}

fn print(path: &Path, json: bool, check: &Check) -> Outcome {
    let mut out = Out::stdout();
    if json {
        out.json(&CheckDocument::new(path, check))?;
    } else {
        text(&mut out, path, check)?;
    }
    Ok(out.finish()?)
}

/// The exit status of `qemu-img check`.
fn status(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Clean => 0,
        Verdict::Leaks => 3,
        Verdict::Unsupported => 63,
        _ => 2,
    }
}

/// The verdict and what to do next; then what it rests on.
fn text(out: &mut Out, path: &Path, check: &Check) -> Outcome {
    let name = path.display().to_string();
    let (verdict, next) = match check.verdict() {
        Verdict::Clean => ("clean", None),
        Verdict::Leaks => ("sound, but clusters are leaked", Some("they waste space and do no harm")),
        Verdict::Unsupported => (
            "not supported: it has a feature that is not known here",
            Some("what is told below may be wrong"),
        ),
        _ => (
            "corrupt",
            Some("`repair` shows what can be repaired; `copy_metadata` makes a copy for a bug report"),
        ),
    };
    out.untrusted(format!("{name}: {verdict}\n").as_bytes())?;
    if let Some(next) = next {
        writeln!(out, "  {next}")?;
    }
    for (count, what) in [
        (check.corruptions, "corruptions"),
        (check.extra_corruptions, "faults that qemu-img does not look for, or does not open the image for"),
        (check.leaks, "leaked clusters"),
    ] {
        if count > 0 {
            writeln!(out, "  {what}: {count}")?;
        }
    }
    let allocated = check.allocated_clusters;
    writeln!(
        out,
        "{allocated}/{} = {:.2}% allocated, {:.2}% fragmented",
        check.total_clusters,
        percent(allocated, check.total_clusters),
        percent(check.fragmented_clusters, allocated),
    )?;
    let findings = check.report.findings();
    if !findings.is_empty() {
        writeln!(out)?;
    }
    for finding in findings.iter().take(MAX_SHOWN) {
        out.untrusted(format!("{finding}\n").as_bytes())?;
    }
    let more = findings.len().saturating_sub(MAX_SHOWN) as u64 + check.omitted_findings;
    if more > 0 {
        writeln!(out, "… and {more} more; --json shows 1000 of each kind")?;
    }
    Ok(())
}
