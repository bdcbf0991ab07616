//! A check of qcow2 images, beside one that counts as plainly as can be.

mod damage;
mod image;
mod lost;
mod model;

use vdisk_format::check::{Check, Verdict};
use vdisk_format::qcow2::{self, Header};
use vdisk_format::report::{Finding, Severity};

use crate::healthy;
use crate::input::Input;
use crate::mutate::mutate;
use damage::damage;
use image::Image;
use model::{Found, Model};

/// What a header says that is a fault of the image, though not of a header alone.
const FATAL: [&str; 7] = [
    "dirty",
    "corrupt",
    "compression-type",
    "raw-external-bit",
    "crypto-header-missing",
    "crypto-header-unexpected",
    "extended-l2-cluster",
];

/// Checks the input; an image of a shape that it chooses; and that image, damaged as it chooses.
///
/// # Panics
/// Where a count is another than in the plain model, the verdict does not follow from the counts, the findings say another
/// thing than the counts, or there is a fault in the image before it was damaged.
pub fn qcow2_check(input: &[u8]) {
    one(input);
    let mut input = Input::new(input);
    let mut image = healthy::any_shape(&mut input);
    if let Some(check) = one(&image) {
        assert_eq!(check.verdict(), Verdict::Clean, "{}", told(&check));
    }
    damage(&mut image, &mut input);
    if input.below(4) == 1 {
        mutate(&mut image, &mut input);
    }
    one(&image);
}

fn one(bytes: &[u8]) -> Option<Check> {
    let check = qcow2::check::check(bytes);
    let Some(image) = Image::new(bytes) else {
        assert!(check.is_err(), "there is no header");
        return None;
    };
    assert!(check.is_ok(), "there is a header: {check:?}");
    let check = check.ok()?;
    let has_cluster_size = (9..=21).contains(&image.cluster_bits);
    let expected = if has_cluster_size { Model::of(image) } else { Some(Found::default()) };
    if let Some(expected) = expected {
        assert_eq!(found(&check, bytes), expected, "{}", told(&check));
    }
    consistent(&check, &image);
    Some(check)
}

/// The counts, without what the header's findings and those of LUKS add.
fn found(check: &Check, bytes: &[u8]) -> Found {
    let header = Header::parse(bytes).map(|header| qcow2::check::header(&header)).unwrap_or_default();
    let is_fault = |finding: &&Finding| finding.severity == Severity::Error || FATAL.contains(&finding.code);
    let of_header = header.findings().iter().filter(is_fault).count() as u64;
    // Nor what its own tests say of a LUKS header that can be read.
    let is_luks =
        |code: &str| code == "crypto-header-unaligned" || code.starts_with("luks-") && code != "luks-header";
    let of_luks = check.report.findings().iter().filter(|finding| is_luks(finding.code)).count() as u64;
    assert!(check.extra_corruptions >= of_header + of_luks, "a finding of the header that does not count");
    Found {
        corruptions: check.corruptions,
        leaks: check.leaks,
        check_errors: check.check_errors,
        extra_corruptions: check.extra_corruptions - of_header - of_luks,
        lost_mappings: check.lost_mappings,
        total_clusters: check.total_clusters,
        allocated_clusters: check.allocated_clusters,
        fragmented_clusters: check.fragmented_clusters,
        compressed_clusters: check.compressed_clusters,
        image_end_offset: check.image_end_offset,
        last_in_data_file: check.last_in_data_file,
    }
}

/// Verdict and findings follow from the counts.
fn consistent(check: &Check, image: &Image<'_>) {
    let faults = check.corruptions + check.extra_corruptions + check.lost_mappings;
    let verdict = match check {
        _ if image.incompatible_features >> 5 != 0 => Verdict::Unsupported,
        _ if faults + check.check_errors > 0 => Verdict::Corrupt,
        _ if check.leaks > 0 => Verdict::Leaks,
        _ => Verdict::Clean,
    };
    assert_eq!(check.verdict(), verdict, "{}", told(check));
    let has = |severity| check.report.findings().iter().any(|finding| finding.severity == severity);
    assert_eq!(has(Severity::Error), faults > 0, "{}", told(check));
    assert!(has(Severity::Warning) || check.leaks == 0, "{}", told(check));
}

/// The findings, a line each.
fn told(check: &Check) -> String {
    check.report.findings().iter().map(|finding| format!("{finding}\n")).collect()
}
