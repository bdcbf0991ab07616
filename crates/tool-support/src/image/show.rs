//! A plan as people and programs read it.

use std::fmt;
use std::path::Path;

use serde::Serialize;
use vdisk_format::error::Reason;
use vdisk_format::plan::Write;
use vdisk_format::report::{Finding, Report};
use vdisk_format::{Image, Plan};

use super::Format;
use crate::output::Out;
use crate::status::{Outcome, note};

/// Bytes that a line of a hex dump shows.
const LINE: usize = 16;
/// Most changed lines of a write that the text shows.
const MAX_LINES: usize = 16;

/// A plan, and what its preview says of the image after it. Its JSON is a document of its own.
#[derive(Serialize)]
pub(super) struct Shown<'a> {
    schema: u32,
    image: String,
    #[serde(flatten)]
    plan: &'a Plan,
    /// Findings that the plan removes.
    mends: Vec<Finding>,
    /// Findings that are there only after it.
    breaks: Vec<Finding>,
}

impl<'a> Shown<'a> {
    pub(super) fn new(format: Format, path: &Path, image: &Image, plan: &'a Plan) -> Outcome<Self> {
        let before = (format.check)(&image.into());
        let after = match image.preview(plan) {
            Ok(preview) => (format.check)(&(&preview).into()),
            // The plan is carried out already, wholly or in part: there is nothing to compare.
            Err(error) if error.reason() == Some(Reason::Stale) => before.clone(),
            Err(error) => return Err(error.into()),
        };
        let only = |a: &Report, b: &Report| {
            a.findings().iter().filter(|finding| !b.findings().contains(finding)).cloned().collect()
        };
        let (mends, breaks) = (only(&before, &after), only(&after, &before));
        Ok(Self { schema: 1, image: path.display().to_string(), plan, mends, breaks })
    }

    /// On standard output.
    pub(super) fn print(&self, json: bool) -> Outcome {
        let mut out = Out::stdout();
        if json {
            out.json(self)?;
        } else {
            out.untrusted(self.to_string().as_bytes())?;
        }
        Ok(out.finish()?)
    }

    /// On standard error, where standard output is the command's own.
    pub(super) fn note(&self) {
        note(self.to_string().trim_end());
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let writes = self.plan.writes();
        let bytes: usize = writes.iter().map(|write| write.new.len()).sum();
        let (plural, name) = (if writes.len() == 1 { "" } else { "s" }, &self.image);
        write!(f, "Plan for {name}: {} write{plural}, {bytes} bytes", writes.len())?;
        if self.plan.new_length() != self.plan.length() {
            write!(f, ", length {} to {}", self.plan.length(), self.plan.new_length())?;
        }
        writeln!(f)?;
        for write in writes {
            writeln!(f, "\n{}  {}", write.offset, write.why)?;
            changes(f, write)?;
        }
        for (what, findings) in [("It mends", &self.mends), ("After it", &self.breaks)] {
            if !findings.is_empty() {
                writeln!(f, "\n{what}:")?;
                findings.iter().try_for_each(|finding| writeln!(f, "  {finding}"))?;
            }
        }
        Ok(())
    }
}

/// The lines of a write that change, 16 bytes each, as a hex dump shows them.
fn changes(f: &mut fmt::Formatter<'_>, write: &Write) -> fmt::Result {
    let (mut old, mut new) = (write.old.chunks(LINE), write.new.chunks(LINE));
    let mut at = write.offset.0;
    let mut left = MAX_LINES;
    loop {
        let (before, after) = (old.next(), new.next());
        if before.is_none() && after.is_none() {
            return Ok(());
        }
        if before != after {
            if left == 0 {
                return writeln!(f, "  …  --json shows all of it");
            }
            left -= 1;
            before.map_or(Ok(()), |bytes| line(f, '-', at, bytes))?;
            after.map_or(Ok(()), |bytes| line(f, '+', at, bytes))?;
        }
        at += LINE as u64;
    }
}

fn line(f: &mut fmt::Formatter<'_>, sign: char, at: u64, bytes: &[u8]) -> fmt::Result {
    let hex: String = bytes.iter().map(|byte| format!(" {byte:02x}")).collect();
    let visible = |&byte: &u8| if matches!(byte, b' '..=b'~') { char::from(byte) } else { '.' };
    let text: String = bytes.iter().map(visible).collect();
    writeln!(f, "  {sign} {at:#010x} {hex:<48}  |{text}|")
}
