//! `check` beside `qemu-img check` on damaged images.

use crate::support::bytes::{Bytes, at};
use crate::support::images::{SMALLEST, shapes};
use crate::support::mutate::{Kind, damaged, sources};
use crate::support::program::{json, qed};
use crate::support::qemu::{self, Counts};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use test_support::process::Run;
use test_support::random::{Random, seed, setting};
use test_support::scratch::{scratch, text};
use test_support::threads;

/// What ours counts, and its document.
fn ours(file: &Path) -> (Counts, Value) {
    Counts::ours(&qed(file, &["check", "--json"]))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Clean,
    Leaks,
    Corrupt,
    OnlyOursSaysCorrupt,
    NotOpened,
}

/// Compares the two on an image, and returns what came of it. `because` says which it is.
fn compare(file: &Path, because: &str) -> Outcome {
    let (ours, document) = ours(file);
    match qemu::try_check(file) {
        Err(run) => {
            if !refuses_what_is_right(file, &run) {
                assert!(!matches!(ours.status, Some(0 | 3)), "{because}: QEMU: {run}, ours: {document:#}");
            }
            assert!(matches!(ours.status, Some(0 | 1 | 2 | 3 | 63)), "{because}: {ours:?}");
            Outcome::NotOpened
        }
        Ok(theirs) => {
            let extra = document["extra-corruptions"].as_u64();
            let explained = Counts { status: theirs.status, ..ours.clone() };
            assert_eq!(explained, theirs, "{because}: {document:#}");
            if ours.status == theirs.status {
                return match ours.status {
                    Some(0) => Outcome::Clean,
                    Some(3) => Outcome::Leaks,
                    _ => Outcome::Corrupt,
                };
            }
            assert!(
                ours.status == Some(2) && extra > Some(0),
                "{because}: QEMU {theirs:?}, ours {ours:?}: {document:#}"
            );
            Outcome::OnlyOursSaysCorrupt
        }
    }
}

/// Whether QEMU does not open the image for a reason that is no fault of the image: what the specification allows and
/// QEMU does not, or which files are there for a backing file's name.
fn refuses_what_is_right(file: &Path, run: &Run) -> bool {
    run.err().contains("Could not open backing file")
        || run.err().contains("table offset is invalid") && Bytes::read(file).u32(at::TABLE_SIZE) == 1
}

#[test]
fn on_damaged_images() {
    let seed = seed();
    let sources = sources();
    let folder = scratch();
    let outcomes = Mutex::new(BTreeMap::<Outcome, u64>::new());
    let count = setting("VDISK_QED_IMAGES", 1200);
    threads::each(count, |number| {
        let mut random = Random::new(seed ^ (number << 20));
        let kind = if number % 3 == 0 { Kind::Tables } else { Kind::Any };
        let path = folder.path().join(format!("image-{number}"));
        damaged(&sources, &mut random, kind).write(&path);
        let outcome = compare(&path, &format!("VDISK_SEED={seed}, image {number}"));
        *outcomes.lock().unwrap().entry(outcome).or_default() += 1;
        std::fs::remove_file(&path).unwrap();
    });
    let outcomes = outcomes.into_inner().unwrap();
    println!("{outcomes:?}");
    if count >= 1000 {
        for outcome in [
            Outcome::Clean,
            Outcome::Leaks,
            Outcome::Corrupt,
            Outcome::OnlyOursSaysCorrupt,
            Outcome::NotOpened,
        ] {
            assert!(outcomes.get(&outcome) > Some(&5), "{outcome:?} is tested: {outcomes:?}");
        }
    }
}

/// What qemu-img and qemu-io make is clean, in every shape.
#[test]
fn on_sound_images() {
    let folder = scratch();
    for shape in shapes() {
        let path = folder.path().join("image");
        shape.filled(&path);
        assert_eq!(compare(&path, &format!("{shape:?}")), Outcome::Clean);
        let (_, document) = json(&path, &["check"]);
        assert_eq!(document["verdict"], "clean", "{document:#}");
        assert_eq!(document["findings"].as_array().unwrap().len(), 0, "{document:#}");
        assert_eq!(document["filename"], text(&path));
        std::fs::remove_file(&path).unwrap();
    }
}

/// Each kind of finding has its code, its place, and what is expected and found there.
#[test]
fn findings_name_their_places() {
    let folder = scratch();
    let path = folder.path().join("image");
    SMALLEST.filled(&path);
    let sound = Bytes::read(&path);
    let entry = sound.l2_entry(0);
    let (l1, file_end) = (sound.l1(), sound.0.len() as u64);
    type Damage = (&'static str, usize, u64);
    let damages: [Damage; 9] = [
        ("l2-entry-unaligned", entry, 0x3001),
        ("l2-entry-past-end", entry, file_end),
        ("l2-entry-duplicate", entry + 8, sound.u64(entry)),
        ("l1-entry-unaligned", l1 + 80, 0x3001),
        ("l1-entry-past-end", l1 + 80, 1 << 40),
        ("l2-table-cut-short", l1 + 80, file_end - 4096),
        ("l2-table-overlap", l1 + 80, sound.u64(l1)),
        ("leak", entry, 0),
        ("need-check", at::FEATURES, 2),
    ];
    for (code, at, value) in damages {
        let mut bytes = sound.clone();
        bytes.put_u64(at, value);
        bytes.write(&path);
        let (_, document) = json(&path, &["check"]);
        let findings = document["findings"].as_array().unwrap();
        let finding = findings.iter().find(|finding| finding["code"] == code);
        let finding = finding.unwrap_or_else(|| panic!("{code}: {document:#}"));
        if code != "leak" {
            assert_eq!(finding["offset"], at, "{code}: {document:#}");
        } else {
            assert_eq!(finding["offset"], sound.u64(entry), "{code}: {document:#}");
        }
        for key in ["where", "expected", "found", "severity"] {
            assert!(!finding[key].as_str().unwrap().is_empty(), "{code}: {document:#}");
        }
        compare(&path, code);
    }
}

/// As qemu-img spells it.
#[test]
fn output_is_another_name_for_json() {
    let folder = scratch();
    let path = folder.path().join("image");
    SMALLEST.filled(&path);
    let mut bytes = Bytes::read(&path);
    bytes.put_u64(bytes.l2_entry(0), 0x3001);
    for (damage, status) in [(false, 0), (true, 2)] {
        if damage {
            bytes.write(&path);
        }
        let check = |args: &[&str]| qed(&path, &[&["check"], args].concat()).expect(status).out();
        assert_eq!(check(&["--output=json"]), check(&["--json"]));
        assert_eq!(check(&["--output", "json"]), check(&["-j"]));
        assert_eq!(check(&["--output=human"]), check(&[]));
        assert_ne!(check(&["--output=human"]), check(&["--output=json"]));
    }
}
