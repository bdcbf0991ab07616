//! [`differences`]: whether a check finds the same in an image and in its copy.

use std::collections::BTreeMap;

use crate::check::Check;
use crate::report::{Finding, Severity};

/// Something that a check finds in one of both, or more often in one than in the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Difference {
    /// The code of the findings, or the name of the count.
    pub code: &'static str,
    /// Findings of the image that are not in the copy; of a count, what it is in the image.
    pub image: u64,
    /// Findings of the copy that are not in the image; of a count, what it is in the copy.
    pub copy: u64,
}

/// How the checks of an image and of its [copy](super::scrub) differ; not at all, as a rule.
///
/// Two findings are the same if they have the same code, severity, place, parts of the disk and owners. Their words for what was
/// expected and found may differ: they name values, and the copy has others that are wrong in the same way. So may
/// [`last_in_data_file`](Check::last_in_data_file), if it is behind the end of the disk.
///
/// ```
/// use vdisk_format::{generate::Qcow2, qcow2::{check::check, scrub::differences}};
/// let mut image = Qcow2::new(1 << 20).data(0, b"data").build()?;
/// let before = check(&image)?;
/// assert!(differences(&before, &before).is_empty());
/// image[7] = 9; // the version
/// let found = differences(&before, &check(&image)?);
/// assert!(found.iter().any(|difference| difference.code == "version" && difference.copy == 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn differences(image: &Check, copy: &Check) -> Vec<Difference> {
    let counts = counts(image).into_iter().zip(counts(copy));
    let mut all: Vec<Difference> = counts
        .filter(|((_, image), (_, copy))| image != copy)
        .map(|((code, image), (_, copy))| Difference { code, image, copy })
        .collect();
    let mut findings: BTreeMap<Identity<'_>, i64> = BTreeMap::new();
    for (check, sign) in [(image, 1), (copy, -1)] {
        for finding in check.report.findings() {
            *findings.entry(identity(finding)).or_default() += sign;
        }
    }
    let mut by_code: BTreeMap<&'static str, Difference> = BTreeMap::new();
    for ((code, ..), more) in findings.into_iter().filter(|(_, more)| *more != 0) {
        let known = by_code.entry(code).or_insert(Difference { code, image: 0, copy: 0 });
        *if more > 0 { &mut known.image } else { &mut known.copy } += more.unsigned_abs();
    }
    all.extend(by_code.into_values());
    all
}

fn counts(check: &Check) -> [(&'static str, u64); 11] {
    [
        ("corruptions", check.corruptions),
        ("leaks", check.leaks),
        ("check-errors", check.check_errors),
        ("extra-corruptions", check.extra_corruptions),
        ("lost-mappings", check.lost_mappings),
        ("total-clusters", check.total_clusters),
        ("allocated-clusters", check.allocated_clusters),
        ("fragmented-clusters", check.fragmented_clusters),
        ("compressed-clusters", check.compressed_clusters),
        ("image-end-offset", check.image_end_offset.unwrap_or(0)),
        ("omitted-findings", check.omitted_findings),
    ]
}

/// What makes a finding the one that it is.
type Identity<'c> = (&'static str, Severity, &'c str, Vec<(u64, u64)>, &'c [String]);

fn identity(finding: &Finding) -> Identity<'_> {
    let guest = finding.guest.iter().map(|part| (part.start, part.end)).collect();
    (finding.code, finding.severity, &finding.place, guest, &finding.owners)
}
