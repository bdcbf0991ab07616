//! A check, beside one that counts entry for entry.

use std::collections::BTreeMap;

use vdisk_format::check::{Check, Verdict};
use vdisk_format::limits::MAX_FINDINGS;
use vdisk_format::qed::check::{check, header};
use vdisk_format::qed::header::KNOWN_FEATURES;
use vdisk_format::qed::{Header, Tables};
use vdisk_format::report::Severity;
use vdisk_format::{Image, View};

use super::model::{Met, Model};
use crate::input::Input;

/// Checks an image that the input chooses, and the input itself.
///
/// # Panics
/// Where a count is not what `qemu-img check` counts, the verdict contradicts the counts or the findings, or there are
/// more findings than anybody wants.
pub fn qed_check(input: &[u8]) {
    one(input);
    one(&super::image(&mut Input::new(input)));
}

fn one(image: &[u8]) {
    let Ok(found) = check(image) else {
        assert!(Header::parse(image).is_err(), "an image with a header was not checked");
        return;
    };
    let counts = Counts::plainly(image);
    assert_eq!(Counts::of(&found), counts);
    assert_eq!((found.check_errors, found.compressed_clusters), (0, 0));
    verdict(image, &found);
    findings(&found);
    // However the bytes come: by themselves, as an image, or read for something else before.
    let owned = Image::from_bytes(image.to_vec());
    assert_eq!(check(&owned).as_ref().ok(), Some(&found));
    if let Ok(tables) = Tables::new(image) {
        assert_eq!(check(View::from(tables.view())).as_ref().ok(), Some(&found));
    }
}

/// The counts that `qemu-img check` makes, too.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    corruptions: u64,
    leaks: u64,
    total: u64,
    allocated: u64,
    fragmented: u64,
}

impl Counts {
    fn of(check: &Check) -> Self {
        Self {
            corruptions: check.corruptions,
            leaks: check.leaks,
            total: check.total_clusters,
            allocated: check.allocated_clusters,
            fragmented: check.fragmented_clusters,
        }
    }

    /// A wrong entry is a corruption, and so is every cluster that is claimed once more. An entry that names a cluster is
    /// allocated, even wrongly, and fragmented if the entry before it in the table, of those that name one, does not
    /// name the cluster before. A cluster behind the header's that nothing claims is leaked.
    fn plainly(image: &[u8]) -> Self {
        let Some(model) = Model::new(image) else { return Self::default() };
        let (met, claimed) = model.walk();
        let mut counts = Self { total: model.guest_clusters(), ..Self::default() };
        for met in met {
            match met {
                Met::NoTable(..) => counts.corruptions += 1,
                Met::Overlap(_, _, clusters, _) => counts.corruptions += clusters,
                Met::Table(table) => {
                    let mut last: Option<u64> = None;
                    for (_, value, wrong) in table.entries {
                        counts.allocated += 1;
                        counts.corruptions += u64::from(wrong.is_some());
                        let follows = |last: u64| last.wrapping_add(model.cluster_size) == value;
                        counts.fragmented += u64::from(last.is_some_and(|last| !follows(last)));
                        last = Some(value);
                    }
                    counts.corruptions += table.again.len() as u64;
                }
            }
        }
        let clusters = model.header_end / model.cluster_size..model.file_end / model.cluster_size;
        counts.leaks = clusters.filter(|cluster| !claimed.contains(cluster)).count() as u64;
        counts
    }
}

fn verdict(image: &[u8], found: &Check) {
    let header_errors = Header::parse(image).map_or(0, |read| {
        let report = header(&read);
        report.findings().iter().filter(|finding| finding.severity == Severity::Error).count()
    });
    assert_eq!(found.extra_corruptions, header_errors as u64);
    let unknown = Header::parse(image).is_ok_and(|header| header.fields.features & !KNOWN_FEATURES != 0);
    assert_eq!(found.unsupported, unknown);
    let is_corrupt = found.corruptions > 0 || header_errors > 0;
    assert_eq!(found.is_corrupt(), is_corrupt);
    let expected = match (unknown, is_corrupt, found.leaks) {
        (true, _, _) => Verdict::Unsupported,
        (_, true, _) => Verdict::Corrupt,
        (_, _, 0) => Verdict::Clean,
        _ => Verdict::Leaks,
    };
    assert_eq!(found.verdict(), expected);
}

fn findings(found: &Check) {
    let mut by_code = BTreeMap::new();
    let mut errors = 0;
    for finding in found.report.findings() {
        *by_code.entry(finding.code).or_insert(0) += 1;
        errors += u64::from(finding.severity == Severity::Error);
        assert_eq!(finding.code == "leak", finding.expected == "an entry that refers to it", "{finding}");
    }
    assert!(by_code.values().all(|&count| count <= MAX_FINDINGS), "{by_code:?}");
    assert!(found.omitted_findings == 0 || by_code.values().any(|&count| count == MAX_FINDINGS));
    assert_eq!(errors > 0, found.is_corrupt(), "what is corrupt is told");
    assert_eq!(errors > found.extra_corruptions, found.corruptions > 0, "what is corrupt is told");
    assert_eq!(by_code.contains_key("leak"), found.leaks > 0, "what is leaked is told");
}
