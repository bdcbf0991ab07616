//! The result of a check, for people and as `qemu-img check --output=json` has it.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;
use vdisk_format::check::{Check, Verdict};
use vdisk_format::report::Severity;

use crate::{Failure, Out, Outcome};

/// Most findings that the text shows.
const MAX_SHOWN: usize = 40;

/// The document of `check --json`: the keys of `qemu-img check --output=json`, and more.
#[derive(Serialize)]
struct Document<'c> {
    schema: u32,
    filename: String,
    format: &'static str,
    verdict: &'static str,
    #[serde(flatten)]
    check: &'c Check,
}

/// Prints the result of a check of the image at `path`, which is of `format`, and returns the exit status of
/// `qemu-img check`. `next` is what to do with an image that is corrupt.
///
/// # Errors
/// Where standard output takes no more, for another reason than that nobody reads it.
pub fn print_check(
    path: &Path,
    format: &'static str,
    json: bool,
    check: &Check,
    next: &'static str,
) -> Outcome<ExitCode> {
    let mut out = Out::stdout();
    let printed = if json {
        let verdict = match check.verdict() {
            Verdict::Clean => "clean",
            Verdict::Leaks => "leaks",
            Verdict::Unsupported => "unsupported",
            _ => "corrupt",
        };
        let filename = path.display().to_string();
        out.json(&Document { schema: 1, filename, format, verdict, check }).map_err(Failure::from)
    } else {
        text(&mut out, path, check, next)
    };
    match printed.and_then(|()| Ok(out.finish()?)) {
        // Whoever reads the first lines only wants the verdict all the same.
        Err(Failure::BrokenPipe) | Ok(()) => Ok(ExitCode::from(status(check.verdict()))),
        Err(failure) => Err(failure),
    }
}

fn status(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Clean => 0,
        Verdict::Leaks => 3,
        Verdict::Unsupported => 63,
        _ => 2,
    }
}

/// The verdict and what to do next; then what it rests on, the worst first.
fn text(out: &mut Out, path: &Path, check: &Check, corrupt: &'static str) -> Outcome {
    let name = path.display().to_string();
    let (verdict, next) = match check.verdict() {
        Verdict::Clean => ("clean", None),
        Verdict::Leaks => ("sound, but clusters are leaked", Some("they waste space and do no harm")),
        Verdict::Unsupported => (
            "not supported: it has a feature that is not known here",
            Some("what is told below may be wrong"),
        ),
        _ if check.lost_mappings > 0 => (
            "corrupt: tables seem to be lost, and what they mapped to be what is leaked",
            Some("do not free the leaks, as `qemu-img check -r` does: they may be the guest's data"),
        ),
        _ => ("corrupt", Some(corrupt)),
    };
    out.untrusted(format!("{name}: {verdict}\n").as_bytes())?;
    if let Some(next) = next {
        writeln!(out, "  {next}")?;
    }
    for (count, what) in [
        (check.corruptions, "corruptions"),
        (check.extra_corruptions, "faults that qemu-img does not look for, or does not open the image for"),
        (check.lost_mappings, "tables that seem to be lost"),
        (check.check_errors, "clusters whose refcounts cannot be read"),
        (check.leaks, "leaked clusters"),
    ] {
        if count > 0 {
            writeln!(out, "  {what}: {count}")?;
        }
    }
    let (allocated, total) = (check.allocated_clusters, check.total_clusters);
    write!(out, "{allocated}/{total} = {:.2}% allocated, ", percent(allocated, total))?;
    write!(out, "{:.2}% fragmented", percent(check.fragmented_clusters, allocated))?;
    if check.compressed_clusters > 0 {
        write!(out, ", {:.2}% compressed clusters", percent(check.compressed_clusters, allocated))?;
    }
    writeln!(out)?;
    let mut findings: Vec<_> = check.report.findings().iter().collect();
    // Stable: those that are as bad stay in order.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity.max(Severity::Warning)));
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

/// `part` of `whole` in percent; nothing of nothing is 0.
#[must_use]
pub fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}
