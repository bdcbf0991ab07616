//! The text of a plan: what `--save-plan` writes, what `apply` reads, and the body of every undo record.
//!
//! A line each, bytes in hexadecimal, so that a plan can be read, mailed and reviewed:
//!
//! ```text
//! vdisk-plan 1
//! length 196624
//! new-length 196624
//! write 0x48
//! why set incompatible_features from 0x0 to 0x1
//! old 00
//! new 01
//! end 1f0c9e7a55d0b3c2
//! ```
//!
//! The number behind `end` is the XXH3 digest of everything above it: a plan that was cut short is no plan.

use std::fmt::Write as _;

use twox_hash::XxHash3_64;

use super::{Plan, Write};
use crate::bytes::{Hex, from_hex};
use crate::error::{Error, Result};
use crate::units::HostOffset;

const FIRST_LINE: &str = "vdisk-plan 1";

impl Plan {
    /// The plan as text: see the module's documentation.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("{FIRST_LINE}\nlength {}\nnew-length {}\n", self.length, self.new_length);
        for Write { offset, old, new, why } in &self.writes {
            let why: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            let (old, new) = (Hex(old), Hex(new));
            // Writing to a String does not fail.
            let _ = write!(text, "write {offset}\nwhy {why}\nold {old}\nnew {new}\n");
        }
        let digest = digest(&text);
        let _ = writeln!(text, "end {digest}");
        text
    }

    /// Reads a plan back from its text. `name` is what errors call it.
    ///
    /// ```
    /// use vdisk_format::Plan;
    /// let plan = Plan::new(b"image");
    /// assert_eq!(Plan::from_text(&plan.to_text(), "example")?, plan);
    /// # Ok::<(), vdisk_format::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Syntax`] naming the line; [`Reason::BadPlan`](crate::error::Reason::BadPlan) where writes overlap.
    pub fn from_text(text: &str, name: &str) -> Result<Self> {
        let (plan, rest) = Self::from_text_prefix(text, name)?;
        if !rest.is_empty() {
            let line = text.lines().count() - rest.lines().count() + 1;
            return Err(syntax(name, line, "the end of the plan", rest));
        }
        Ok(plan)
    }

    /// Reads a plan from the start of `text`, and returns what follows it.
    pub(crate) fn from_text_prefix<'t>(text: &'t str, name: &str) -> Result<(Self, &'t str)> {
        let mut lines = Lines { name, text, line: 0, consumed: 0 };
        lines.exactly(FIRST_LINE)?;
        let length = lines.number("length ")?;
        let new_length = lines.number("new-length ")?;
        let mut plan = Self::with_lengths(length, new_length);
        loop {
            let before = lines.consumed;
            let line = lines.next("write OFFSET or end DIGEST")?;
            if let Some(found) = line.strip_prefix("end ") {
                let expected = digest(text.get(..before).unwrap_or_default());
                if found != expected {
                    return Err(syntax(name, lines.line, "the digest of the lines above", found));
                }
                plan.check_lengths()?;
                let (this, rest) = text.split_at_checked(lines.consumed).unwrap_or_default();
                if plan.to_text() != this {
                    return Err(syntax(
                        name,
                        lines.line,
                        "a plan as --save-plan writes it",
                        "another spelling",
                    ));
                }
                return Ok((plan, rest));
            }
            let Some(offset) = line.strip_prefix("write ").and_then(hex_number) else {
                return Err(syntax(name, lines.line, "write OFFSET or end DIGEST", line));
            };
            let why = lines.after("why ")?.to_owned();
            let old = lines.hex("old ")?;
            let new = lines.hex("new ")?;
            plan.push_checked(Write { offset: HostOffset(offset), old, new, why })?;
        }
    }

    /// A plan changes the length of its file only by the writes that reach past its end, or past its new end.
    fn check_lengths(&self) -> Result<()> {
        let (shorter, longer) = (self.length.min(self.new_length), self.length.max(self.new_length));
        let end = self.writes.iter().map(Write::end).max().unwrap_or(0);
        if longer == shorter.max(end) {
            return Ok(());
        }
        let (expected, found) = (format!("{} bytes", shorter.max(end)), format!("{longer} bytes"));
        Err(Error::refused(crate::error::Reason::BadPlan, "length of the file", None, expected, found))
    }

    /// Adds a write that did not come from [`set`](Plan::set), if it is one that could have.
    fn push_checked(&mut self, write: Write) -> Result<()> {
        let side = |length: u64, bytes: &[u8]| {
            let room = length.saturating_sub(write.offset.0);
            bytes.len() as u64 == room.min(write.old.len().max(write.new.len()) as u64)
        };
        let inside = write.end() <= i64::MAX as u64 && write.end() <= self.length.max(self.new_length);
        if inside && side(self.length, &write.old) && side(self.new_length, &write.new) {
            return self.push(write);
        }
        Err(Error::refused(
            crate::error::Reason::BadPlan,
            write.why.as_str(),
            Some(write.offset),
            format!("old bytes inside {} and new bytes inside {}", self.length, self.new_length),
            format!("{} old and {} new bytes", write.old.len(), write.new.len()),
        ))
    }
}

/// The digest that closes a plan's text, and each line that is later added to an undo record.
pub(crate) fn digest(text: &str) -> String {
    format!("{:016x}", XxHash3_64::oneshot(text.as_bytes()))
}

fn hex_number(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

fn syntax(name: &str, line: usize, expected: &'static str, found: &str) -> Error {
    let found = found.lines().next().unwrap_or_default();
    let mut shown: String = found.chars().take(40).collect();
    if shown.len() < found.len() {
        shown.push('…');
    }
    Error::Syntax { what: name.to_owned(), line, expected, found: format!("{shown:?}") }
}

struct Lines<'t> {
    name: &'t str,
    text: &'t str,
    line: usize,
    consumed: usize,
}

impl<'t> Lines<'t> {
    /// The next line, which must be complete: a text cut short shows by its last line.
    fn next(&mut self, expected: &'static str) -> Result<&'t str> {
        self.line += 1;
        let rest = self.text.get(self.consumed..).unwrap_or_default();
        let Some((line, _)) = rest.split_once('\n') else {
            return Err(syntax(self.name, self.line, expected, rest));
        };
        self.consumed += line.len() + 1;
        Ok(line)
    }

    fn after(&mut self, key: &'static str) -> Result<&'t str> {
        let line = self.next(key)?;
        line.strip_prefix(key).ok_or_else(|| syntax(self.name, self.line, key, line))
    }

    fn exactly(&mut self, expected: &'static str) -> Result<()> {
        let line = self.next(expected)?;
        if line == expected { Ok(()) } else { Err(syntax(self.name, self.line, expected, line)) }
    }

    fn number(&mut self, key: &'static str) -> Result<u64> {
        let value = self.after(key)?;
        value.parse().map_err(|_| syntax(self.name, self.line, "a number of bytes", value))
    }

    fn hex(&mut self, key: &'static str) -> Result<Vec<u8>> {
        let value = self.after(key)?;
        from_hex(value).ok_or_else(|| syntax(self.name, self.line, "bytes in hexadecimal", value))
    }
}

#[cfg(test)]
mod tests {
    use super::super::any_plan;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_round_trips((_, plan) in any_plan()) {
            let text = plan.to_text();
            prop_assert_eq!(&Plan::from_text(&text, "test").unwrap(), &plan);
            let inverse = plan.inverse();
            prop_assert_eq!(Plan::from_text(&inverse.to_text(), "test").unwrap(), inverse);
        }

        #[test]
        fn a_plan_cut_short_or_changed_is_refused((_, plan) in any_plan(), at: proptest::sample::Index, to: u8) {
            let text = plan.to_text();
            let at = at.index(text.len());
            prop_assert!(Plan::from_text(text.get(..at).unwrap(), "test").is_err());
            let mut bytes = text.clone().into_bytes();
            bytes[at] = to % 128;
            let changed = String::from_utf8(bytes).unwrap();
            if changed != text {
                prop_assert!(Plan::from_text(&changed, "test").is_err());
            }
        }

        #[test]
        fn overlapping_or_empty_writes_are_refused(first in 0..40u64, second in 0..40u64, sizes in (0..9usize, 0..9usize)) {
            let write = |at: u64, size| {
                let (old, new) = ("00".repeat(size), "01".repeat(size));
                format!("write {at:#x}\nwhy x\nold {old}\nnew {new}\n")
            };
            let (one, two) = (sizes.0, sizes.1);
            let text = format!("{FIRST_LINE}\nlength 64\nnew-length 64\n{}{}", write(first, one), write(second, two));
            let text = format!("{text}end {}\n", digest(&text));
            let disjoint = first + one as u64 <= second || second + two as u64 <= first;
            let sound = one > 0 && two > 0 && disjoint;
            prop_assert_eq!(Plan::from_text(&text, "test").is_ok(), sound);
        }

        #[test]
        fn any_text_gives_an_answer(text: String) {
            let _ = Plan::from_text(&format!("{FIRST_LINE}\n{text}"), "test");
        }
    }
}
