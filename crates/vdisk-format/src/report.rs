//! [`Report`]: what is wrong with an image, as findings that do not stop the reading of it.

use std::fmt;
use std::ops::Range;

use crate::units::HostOffset;

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
    /// The part of the virtual disk that is concerned, in bytes; where there are several, the first of them.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub guest: Option<Range<u64>>,
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
            guest: None,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, place, offset, expected, found, .. } = self;
        write!(f, "{place} at offset {offset}: expected {expected}, found {found}")?;
        if let Some(guest) = &self.guest {
            write!(f, "; disk {:#x}-{:#x}", guest.start, guest.end)?;
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
