//! What a check of an image found, in either format: counts as `qemu-img check` makes them, and findings.

use std::path::Path;

use crate::limits::MAX_FINDINGS;
use crate::report::{Finding, Report, Severity};

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct Check {
    /// Corruptions, as `qemu-img check` counts them.
    pub corruptions: u64,
    /// Clusters that nothing refers to.
    pub leaks: u64,
    /// Clusters whose refcounts cannot be read, as `qemu-img check` counts them: the refcount table says that their block is
    /// where no block can be. Always 0 where the format has no refcounts.
    pub check_errors: u64,
    /// What `qemu-img check` does not look for, or refuses to open the image for, and which makes the image unsound.
    pub extra_corruptions: u64,
    /// Leaks that look like what a lost table has left behind: freed, they take the guest's data with them.
    pub lost_mappings: u64,
    /// Clusters of the virtual disk.
    pub total_clusters: u64,
    /// Clusters of the virtual disk that have one of the file.
    pub allocated_clusters: u64,
    /// Of these, those that do not follow the one before.
    pub fragmented_clusters: u64,
    /// Of these, those that are compressed.
    pub compressed_clusters: u64,
    /// Where the last cluster ends that is referred to, or has a refcount; `None` where the format has no refcounts.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub image_end_offset: Option<u64>,
    /// Where in the external data file the last cluster begins that the tables refer to; `None` without such a file.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub last_in_data_file: Option<u64>,
    /// Whether the image uses a feature that is not known here: what was found may be wrong then.
    pub unsupported: bool,
    /// The snapshots that findings name by their places: the first 256, as far as the snapshot table can be read.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub snapshots: Vec<Named>,
    /// The bitmaps that findings name by their places: the first 256, as far as the directory can be read.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub bitmaps: Vec<Named>,
    /// What was found, in detail. No more than [`MAX_FINDINGS`] of each code.
    #[cfg_attr(feature = "serde", serde(rename = "findings"))]
    pub report: Report,
    /// Findings beyond that number.
    pub omitted_findings: u64,
}

/// A snapshot or bitmap that findings concern.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Named {
    /// Its place in the snapshot table or the bitmap directory, from 0.
    pub index: u32,
    /// A snapshot's ID: up to 128 characters of it, U+FFFD in place of those that are no UTF-8.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub id: Option<String>,
    /// The name, like the ID.
    pub name: String,
}

/// A check in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Nothing that matters was found.
    Clean,
    /// Space is lost, and nothing else.
    Leaks,
    /// The image is damaged.
    Corrupt,
    /// The image uses a feature that is not known here.
    Unsupported,
}

impl Check {
    /// The verdict.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if self.unsupported {
            Verdict::Unsupported
        } else if self.is_corrupt() {
            Verdict::Corrupt
        } else if self.leaks > 0 {
            Verdict::Leaks
        } else {
            Verdict::Clean
        }
    }

    /// Adds a finding if the external data file at `path`, of `length` bytes, ends before the last cluster that the
    /// tables refer to.
    pub fn compare_data_file(&mut self, path: &Path, length: u64) {
        if let Some(last) = self.last_in_data_file.filter(|&last| length <= last) {
            let place = format!("external data file {}", path.display());
            let (expected, found) = (format!("more than {last:#x} bytes"), format!("{length:#x}"));
            self.extra_corruptions += 1;
            self.report.add(Severity::Error, "data-file-length", place, length, expected, found);
        }
    }

    /// Whether anything is damaged.
    #[must_use]
    pub fn is_corrupt(&self) -> bool {
        self.corruptions > 0 || self.check_errors > 0 || self.extra_corruptions > 0 || self.lost_mappings > 0
    }
}

/// A report that a hostile image cannot make large.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    report: Report,
    /// How many there were with each code, of which there are few.
    by_code: Vec<(&'static str, usize)>,
    omitted: u64,
}

impl Findings {
    /// Begins with those of `report`.
    pub(crate) fn new(report: Report) -> Self {
        Self { report, ..Self::default() }
    }

    /// Whether another finding with this code would be kept; counts it as omitted where not.
    pub(crate) fn admits(&mut self, code: &'static str) -> bool {
        let count = match self.by_code.iter_mut().find(|(known, _)| *known == code) {
            Some((_, count)) => {
                *count += 1;
                *count
            }
            None => {
                self.by_code.push((code, 1));
                1
            }
        };
        let admitted = count <= MAX_FINDINGS;
        self.omitted += u64::from(!admitted);
        admitted
    }

    /// Adds a finding that was admitted.
    pub(crate) fn push(&mut self, finding: Finding) {
        self.report.push(finding);
    }

    /// What has been found so far.
    pub(crate) fn report(&self) -> &Report {
        &self.report
    }

    /// Adds a finding that was admitted.
    pub(crate) fn add(
        &mut self,
        severity: Severity,
        code: &'static str,
        place: impl Into<String>,
        offset: u64,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) {
        self.report.add(severity, code, place, offset, expected, found);
    }

    /// The report, and how many findings are not in it.
    pub(crate) fn finish(self) -> (Report, u64) {
        (self.report, self.omitted)
    }
}
