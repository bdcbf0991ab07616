//! The result of a check, for people and as `qemu-img check --output=json` has it.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;
use vdisk_format::check::{Check, Named, Verdict};
use vdisk_format::report::Severity;

use super::map::percent;
use crate::status::FAILED;
use crate::{Failure, Out, Outcome};

/// Most findings that the text shows.
const MAX_SHOWN: usize = 40;

/// An image that was checked.
#[derive(Debug, Clone, Copy)]
pub struct Checked<'c> {
    /// Where it is.
    pub path: &'c Path,
    /// QEMU's name of its format.
    pub format: &'static str,
    /// What was found.
    pub check: &'c Check,
    /// What to do with it if it is corrupt.
    pub next: &'static str,
}

/// The document of `check --json`: the keys of `qemu-img check --output=json`, and more.
#[derive(Serialize)]
struct Document<'c> {
    schema: u32,
    #[serde(flatten)]
    image: ImageObject<'c>,
    /// The images that it is backed by, the nearest first, where they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    chain: Vec<ImageObject<'c>>,
    /// Why the chain could not be followed to its end.
    #[serde(rename = "chain-error", skip_serializing_if = "Option::is_none")]
    chain_error: Option<&'c str>,
}

#[derive(Serialize)]
struct ImageObject<'c> {
    filename: String,
    format: &'static str,
    verdict: &'static str,
    #[serde(flatten)]
    check: &'c Check,
}

impl<'c> ImageObject<'c> {
    fn new(checked: &Checked<'c>) -> Self {
        let Checked { path, format, check, .. } = *checked;
        let verdict = match check.verdict() {
            Verdict::Clean => "clean",
            Verdict::Leaks => "leaks",
            Verdict::Unsupported => "unsupported",
            _ => "corrupt",
        };
        Self { filename: path.display().to_string(), format, verdict, check }
    }
}

/// Prints the result of a check of `image` and of those behind it, and returns the exit status of `qemu-img check`: the
/// worst one. `chain_error` is why there may be more behind it: part of the document, and for the caller to report.
///
/// # Errors
/// Where standard output takes no more, for another reason than that nobody reads it.
pub fn print_check(
    image: Checked<'_>,
    chain: &[Checked<'_>],
    chain_error: Option<&Failure>,
    json: bool,
) -> Outcome<ExitCode> {
    let mut out = Out::stdout();
    let all = || std::iter::once(&image).chain(chain);
    let printed = if json {
        let chain = chain.iter().map(ImageObject::new).collect();
        let chain_error = chain_error.and_then(Failure::message);
        let document = Document { schema: 1, image: ImageObject::new(&image), chain, chain_error };
        out.json(&document).map_err(Failure::from)
    } else {
        all().try_for_each(|checked| text(&mut out, checked))
    };
    match printed.and_then(|()| Ok(out.finish()?)) {
        // Whoever reads the first lines only wants the verdict all the same.
        Err(Failure::BrokenPipe) | Ok(()) => {
            let verdicts = all().map(|checked| status(checked.check.verdict()));
            let worst = verdicts.chain(chain_error.map(|_| FAILED)).max_by_key(|&status| badness(status));
            Ok(ExitCode::from(worst.unwrap_or(0)))
        }
        Err(failure) => Err(failure),
    }
}

/// How bad an exit status is: what was found is worse than what could not be looked at.
fn badness(status: u8) -> u8 {
    match status {
        0 => 0,
        3 => 1,
        63 => 2,
        FAILED => 3,
        _ => 4,
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
fn text(out: &mut Out, checked: &Checked<'_>) -> Outcome {
    let Checked { path, check, next: corrupt, .. } = *checked;
    let name = path.display().to_string();
    let (verdict, next) = match check.verdict() {
        Verdict::Clean => ("clean", None),
        Verdict::Leaks if check.report.has("unlinked-clusters") => (
            "sound, but clusters are leaked",
            Some(
                "some may be what lost entries named, and not only writes that were not finished: see below",
            ),
        ),
        Verdict::Leaks => {
            ("sound, but clusters are leaked", Some("they waste space; as a rule, nothing is lost with them"))
        }
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
        (check.lost_mappings, "tables, or parts of tables, that seem to be lost"),
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
        out.name(finding.to_string().as_bytes())?;
        writeln!(out)?;
    }
    let more = findings.len().saturating_sub(MAX_SHOWN) as u64 + check.omitted_findings;
    if more > 0 {
        writeln!(out, "… and {more} more; --json shows 1000 of each kind")?;
    }
    for (kind, named) in [("snapshot", &check.snapshots), ("bitmap", &check.bitmaps)] {
        for Named { index, id, name, .. } in named.iter().take(MAX_SHOWN) {
            write!(out, "{kind} {index}: ")?;
            if let Some(id) = id {
                out.write_all(b"ID ")?;
                out.name(id.as_bytes())?;
                out.write_all(b", ")?;
            }
            out.write_all(b"name '")?;
            out.name(name.as_bytes())?;
            out.write_all(b"'\n")?;
        }
        if named.len() > MAX_SHOWN {
            writeln!(out, "… and more {kind}s; --json names up to 256")?;
        }
    }
    Ok(())
}
