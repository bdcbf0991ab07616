//! [`Report`]: what is wrong with an image, as findings that do not stop the reading of it.

use std::fmt;
use std::ops::Range;

use crate::units::HostOffset;

/// Most parts of a disk that a finding's text names.
const MAX_SHOWN: usize = 8;

/// How bad a [`Finding`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Severity {
    /// Worth knowing; a reader who knows more than this library may find it in order (an unknown feature bit).
    Note,
    /// Fields that are readable, each for itself, contradict each other.
    Warning,
    /// A field or structure is not what the specification allows, or cannot be read.
    Error,
}

/// One thing that is wrong, or worth knowing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Finding {
    /// A stable name of the kind of finding: scripts may compare it.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The structure or field concerned.
    #[cfg_attr(feature = "serde", serde(rename = "where"))]
    pub place: String,
    /// Where in the file it starts.
    pub offset: HostOffset,
    /// What the specification wants there.
    pub expected: String,
    /// What is there.
    pub found: String,
    /// Who claims the clusters concerned, where more than one does, or somebody who should not; whose an L2 table is.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub owners: Vec<String>,
    /// Places in the snapshot table, from 0, of the snapshots that are concerned: up to four of each owner.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub snapshots: Vec<u32>,
    /// Places in the bitmap directory, from 0, of the bitmaps that are concerned.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub bitmaps: Vec<u32>,
    /// The parts of the virtual disk that are concerned, in bytes and in order: all of a faulty entry's, else those of the
    /// `owners`. Of a table that many L1 entries name, those of the first four; no more than 256. None where it is not known
    /// which they are, as of a table that was lost.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub guest: Vec<Range<u64>>,
}

impl Finding {
    pub(crate) fn new(
        severity: Severity,
        code: &'static str,
        place: impl Into<String>,
        offset: u64,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self {
            code,
            severity,
            place: place.into(),
            offset: HostOffset(offset),
            expected: expected.into(),
            found: found.into(),
            owners: Vec::new(),
            snapshots: Vec::new(),
            bitmaps: Vec::new(),
            guest: Vec::new(),
        }
    }
}

/// Most parts of a disk that a finding has.
const MOST_PARTS: usize = 256;

/// Parts of a disk in order, those that touch as one; the first of them, where they are many.
pub(crate) fn joined(parts: impl IntoIterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut parts: Vec<_> = parts.into_iter().collect();
    parts.sort_unstable_by_key(|part| (part.start, part.end));
    parts.dedup_by(|next, last| {
        let touches = next.start <= last.end;
        if touches {
            last.end = last.end.max(next.end);
        }
        touches
    });
    parts.truncate(MOST_PARTS);
    parts
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, place, offset, expected, found, .. } = self;
        write!(f, "{place} at offset {offset}: expected {expected}, found {found}")?;
        for (number, part) in self.guest.iter().take(MAX_SHOWN).enumerate() {
            let before = if number == 0 { "; disk " } else { ", " };
            write!(f, "{before}{:#x}-{:#x}", part.start, part.end)?;
        }
        if self.guest.len() > MAX_SHOWN {
            write!(f, " and {} more", self.guest.len() - MAX_SHOWN)?;
        }
        if !self.owners.is_empty() {
            write!(f, "; owners: {}", self.owners.join("; "))?;
        }
        write!(f, " [{code}]")
    }
}

/// Findings in the order of their discovery.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(transparent))]
pub struct Report {
    findings: Vec<Finding>,
}

impl Report {
    /// The findings.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Whether a finding has this code.
    #[must_use]
    pub fn has(&self, code: &str) -> bool {
        self.findings.iter().any(|finding| finding.code == code)
    }

    /// Whether no finding is an [`Error`](Severity::Error).
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity < Severity::Error)
    }

    pub(crate) fn push(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Makes findings with these codes as bad as `severity`, or leaves them worse.
    pub(crate) fn raise(&mut self, codes: &[&str], severity: Severity) {
        for finding in self.findings.iter_mut().filter(|finding| codes.contains(&finding.code)) {
            finding.severity = finding.severity.max(severity);
        }
    }

    pub(crate) fn add(
        &mut self,
        severity: Severity,
        code: &'static str,
        place: impl Into<String>,
        offset: u64,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) {
        self.push(Finding::new(severity, code, place, offset, expected, found));
    }
}

#[cfg(test)]
mod tests {
    use super::joined;

    #[test]
    fn parts_that_touch_are_one() {
        assert_eq!(joined([8..9, 0..4, 2..3, 4..6, 8..9, 1..2]), [0..6, 8..9]);
        assert_eq!(joined([]), []);
    }
}
