//! Repairs, beside the plain clearing of what names nothing.

use vdisk_format::error::Reason;
use vdisk_format::qed::check::check;
use vdisk_format::qed::header::KNOWN_FEATURES;
use vdisk_format::qed::repair::repair;
use vdisk_format::qed::{Header, Tables, check::header};
use vdisk_format::report::{Finding, Severity};

use super::image::put;
use super::model::{Met, Model};
use crate::input::Input;
use crate::promise;

/// Repairs an image that the input chooses.
///
/// # Panics
/// Where the plan breaks a promise, clears anything but entries that name nothing in the file, or leaves another
/// corruption than those that it says it leaves; where it repairs what it does not understand.
pub fn qed_repair(input: &[u8]) {
    let mut input = Input::new(input);
    let image = super::image(&mut input);
    let (Ok(tables), Ok(read)) = (Tables::new(&image), Header::parse(&image)) else { return };
    let harmless = ["header-size", "backing-filename-over-header", "backing-filename-outside-file"];
    let report = header(&read);
    let wrong = |finding: &Finding| finding.severity == Severity::Error && !harmless.contains(&finding.code);
    let sound = !report.findings().iter().any(wrong) && read.fields.features & !KNOWN_FEATURES == 0;
    let repair = match repair(&tables) {
        Ok(repair) => repair,
        Err(error) => {
            assert_eq!(error.reason(), Some(Reason::UnsoundHeader));
            assert!(!sound, "{error}");
            return;
        }
    };
    assert!(sound, "a repair under a header that is wrong");
    let after = promise::kept(&repair.plan, &image);
    promise::undoable(&repair.plan, &image, input.below(4), input.below(256));

    let (mut expected, mut cleared, mut left) = (image.clone(), 0, 0);
    let Some(model) = Model::new(&image) else { return };
    for met in model.walk().0 {
        match met {
            Met::NoTable(l1_index, _) => {
                put(&mut expected, model.l1_at + l1_index * 8, &[0; 8]);
                cleared += 1;
            }
            Met::Overlap(_, _, clusters, _) => left += clusters,
            Met::Table(table) => {
                for (index, ..) in table.entries.iter().filter(|(.., wrong)| wrong.is_some()) {
                    put(&mut expected, table.at + index * 8, &[0; 8]);
                    cleared += 1;
                }
                left += table.again.len() as u64;
            }
        }
    }
    put(&mut expected, 32, &[0; 8]);
    if left == 0 {
        put(&mut expected, 16, &(read.fields.features & !2).to_le_bytes());
    }
    assert!(after == expected, "something else was changed than what names nothing");
    assert_eq!((repair.cleared, repair.left), (cleared, left));

    let (Ok(before), Ok(checked)) = (check(&image), check(&after)) else { return };
    assert_eq!(checked.corruptions, left, "before: {before:?}");
    assert_eq!(checked.extra_corruptions, before.extra_corruptions);
    assert!(checked.corruptions <= before.corruptions && checked.leaks >= before.leaks);
    let again = Tables::new(&after).and_then(|tables| vdisk_format::qed::repair::repair(&tables));
    assert!(again.is_ok_and(|again| again.plan.is_empty()), "a repair that needs another");
}
