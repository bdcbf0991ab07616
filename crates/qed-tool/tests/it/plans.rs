//! Every command that changes an image is a plan: shown, saved and applied, committed, undone.

use crate::support::bytes::Bytes;
use crate::support::images::{SMALL, for_each};
use crate::support::program::{QED, qed};
use std::fs;
use std::path::Path;
use test_support::plan;
use test_support::scratch::{Snapshot, names, scratch, text};

const EDITS: [&[&str]; 11] = [
    &["duplicate", "l1", "--seed", "3"],
    &["duplicate", "l2", "--seed", "4"],
    &["invalidate", "l1", "--seed", "5"],
    &["invalidate", "l2", "--seed", "6"],
    &["need_check", "on"],
    &["zerocluster", "0", "9"],
    &["zero-cluster", "5"],
    &["set-header", "image_size", "0x100000"],
    &["set-feature-bit", "autoclear", "63"],
    &["clear-feature-bit", "compatible", "0"],
    &["repair", "--commit"],
];

/// Damage for `repair`, and a bit for `clear-feature-bit`.
fn prepare(image: &Path) {
    qed(image, &["invalidate", "l2", "--seed", "9", "--no-undo"]).expect(0);
    qed(image, &["set-feature-bit", "compatible", "0", "--no-undo"]).expect(0);
}

#[test]
fn shown_saved_applied_and_undone() {
    for_each(&SMALL, |_, image| {
        prepare(image);
        let elsewhere = scratch();
        let saved = elsewhere.path().join("plan");
        for args in EDITS {
            let before = Snapshot::of(image);
            let shown: Vec<&str> = args.iter().copied().filter(|&arg| arg != "--commit").collect();
            let writes = plan::of(QED, image, &shown);
            assert!(!writes.is_empty(), "{args:?}");
            let expected = plan::applied(before.bytes(), &writes);
            let run = qed(image, &[&shown[..], &["--dry-run"]].concat()).expect(0);
            assert!(!run.stdout.is_empty(), "{run}");
            let run = qed(image, &[&shown[..], &["--save-plan", text(&saved)]].concat()).expect(0);
            before.unchanged(image, &run);

            let run = qed(image, args).expect(0);
            assert!(fs::read(image).unwrap() == expected, "as it was shown: {run}");
            qed(image, &["undo"]).expect(0);
            assert!(fs::read(image).unwrap() == before.bytes(), "undone: {run}");
            assert_eq!(names(image.parent().unwrap()).len(), 1, "no record is left: {run}");

            qed(image, &["apply", text(&saved)]).expect(0);
            assert!(fs::read(image).unwrap() == expected, "as it was saved: {run}");
            qed(image, &["undo"]).expect(0);
            assert!(fs::read(image).unwrap() == before.bytes(), "undone: {run}");
        }
    });
}

/// All of them one after the other, and back.
#[test]
fn a_row_of_edits_is_undone_to_the_last_byte() {
    for_each(&SMALL, |_, image| {
        let before = Bytes::read(image);
        let lines = EDITS.iter().filter(|args| args[0] != "clear-feature-bit");
        let mut states = Vec::new();
        for args in lines {
            let state = Bytes::read(image);
            let status = qed(image, args).status.code();
            assert!(status == Some(0) || args[0] == "repair", "{args:?}");
            if Bytes::read(image) != state {
                states.push(state);
            }
        }
        assert!(states.len() >= 8);
        for state in states.iter().rev() {
            qed(image, &["undo"]).expect(0);
            assert!(Bytes::read(image) == *state);
        }
        assert!(Bytes::read(image) == before);
        qed(image, &["undo"]).expect(1);
    });
}
