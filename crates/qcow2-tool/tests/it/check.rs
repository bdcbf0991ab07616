//! `check` beside `qemu-img check` on damaged images.

use crate::support::bytes::Bytes;
use crate::support::mutate::{Damage, damaged};
use crate::support::program::qcow2;
use crate::support::qemu::{self, Counts};
use crate::support::shapes::{data_file, generated, of_qemu};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use test_support::process::Run;
use test_support::random::{Random, seed, setting};
use test_support::scratch::scratch;
use test_support::threads;
use vdisk_format::generate::Qcow2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Clean,
    Leaks,
    Corrupt,
    OnlyOursSaysCorrupt,
    NotOpened,
}

/// Compares the two on an image: what came of it, or how they disagree.
fn compare(file: &Path) -> Result<Outcome, String> {
    let (ours, document) = Counts::ours(&qcow2(file, &["check", "--json"]));
    match qemu::try_check(file) {
        Err(run) => {
            let is_told = match ours.status {
                Some(0 | 3) => refuses_what_is_right(&run),
                status => matches!(status, Some(1 | 2 | 63)),
            };
            is_told.then_some(Outcome::NotOpened).ok_or(format!("QEMU: {run}, ours: {document:#}"))
        }
        Ok(theirs) => {
            let extra = ["extra-corruptions", "lost-mappings"].map(|key| document[key].as_u64().unwrap_or(0));
            // Where refcounts cannot be read, QEMU says that the check failed.
            let status = if theirs.check_errors > 0 { Some(2) } else { theirs.status };
            let theirs = Counts { status, ..theirs };
            let explained = Counts { status, ..ours.clone() };
            match ours.status {
                _ if explained != theirs => {}
                Some(0) if ours == theirs => return Ok(Outcome::Clean),
                Some(3) if ours == theirs => return Ok(Outcome::Leaks),
                Some(_) if ours == theirs => return Ok(Outcome::Corrupt),
                Some(2) if extra != [0, 0] => return Ok(Outcome::OnlyOursSaysCorrupt),
                _ => {}
            }
            Err(format!("QEMU {theirs:?},\nours {ours:?}: {document:#}"))
        }
    }
}

/// Whether QEMU does not open the image for a reason that is no fault of the image.
fn refuses_what_is_right(run: &Run) -> bool {
    let known =
        ["No such file or directory", "Could not open backing file", "'encrypt.key-secret' is required"];
    known.iter().any(|known| run.err().contains(known))
}

/// Whatever is behind it, the image that was asked about is checked, and those up to where the chain ends.
#[test]
fn a_chain_that_cannot_be_followed() {
    let folder = scratch();
    let [top, middle] = ["top", "middle"].map(|name| folder.path().join(name));
    let leaking = || {
        let bytes = Bytes(Qcow2::new(1 << 20).backing_file("middle", Some("qcow2")).build().unwrap());
        let end = bytes.0.len();
        bytes.with(end, &[1; 1 << 16]).with_refcount(end, 1)
    };
    let document = |status| {
        let run = qcow2(&top, &["check", "--chain", "--json"]).expect(status);
        let document: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
        let why = document["chain-error"].as_str().unwrap().to_owned();
        assert_eq!(run.err(), format!("error: {why}\n"));
        (document, why)
    };
    leaking().write(&top);
    let (found, why) = document(1);
    assert!(found["verdict"] == "leaks" && why.contains("middle: No such file"), "{found:#}");
    let run = qcow2(&top, &["check", "--chain"]).expect(1);
    assert!(run.out().contains("sound, but clusters are leaked") && run.err().contains(&why), "{run}");
    qcow2(&top, &["check"]).expect(3);
    // The next one can be opened, and names what cannot.
    Bytes(Qcow2::new(1 << 20).backing_file("base", Some("vmdk")).build().unwrap()).write(&middle);
    let (found, why) = document(1);
    assert_eq!((&found["verdict"], &found["chain"][0]["verdict"]), (&"leaks".into(), &"clean".into()));
    assert!(why.contains("its backing file's format is \"vmdk\""), "{why}");
    // It can be opened, and is too short for a header.
    Bytes(b"QFI\xfb".to_vec()).write(&middle);
    let (found, why) = document(1);
    assert!(
        found["verdict"] == "leaks" && why.contains("middle: qcow2 header at offset 0x0: needs 72"),
        "{found:#}"
    );
    // What was found is worse than what could not be looked at.
    let bytes = leaking();
    let l1 = bytes.l1();
    bytes.with_u64(l1, 3).write(&top);
    document(2);
    // The external data file is not there.
    let image = Qcow2::new(1 << 20).data_file("nowhere", false).build().unwrap();
    Bytes(image).write(&top);
    let (found, why) = document(1);
    assert!(found["verdict"] == "clean" && why.contains("nowhere: No such file"), "{found:#}");
}

#[test]
fn on_damaged_images() {
    let seed = seed();
    let folder = scratch();
    let data_file = data_file(folder.path());
    let mut sources = of_qemu(folder.path());
    let mut random = Random::new(seed);
    // As many again for each of QEMU's.
    sources.extend((0..10 * sources.len()).map(|_| generated(&mut random, &data_file)));
    let outcomes = Mutex::new(BTreeMap::<Outcome, u64>::new());
    let disagreements = Mutex::new(Vec::new());
    let count = setting("VDISK_QCOW2_IMAGES", 600);
    threads::each(count, |number| {
        let mut random = Random::new(seed ^ (number << 20));
        let sound = random.pick(&sources);
        let damage = if number % 3 == 0 { Damage::Any } else { Damage::Tables };
        let path = folder.path().join(format!("image-{number}"));
        damaged(&sound.bytes, &mut random, damage).write(&path);
        match compare(&path) {
            Ok(outcome) => *outcomes.lock().unwrap().entry(outcome).or_default() += 1,
            Err(how) => {
                let what = format!("VDISK_SEED={seed}, image {number}, {damage:?}, {}", sound.what);
                disagreements.lock().unwrap().push(format!("{what}\n{how}"));
            }
        }
        std::fs::remove_file(&path).unwrap();
    });
    let disagreements = disagreements.into_inner().unwrap();
    let few: Vec<_> = disagreements
        .iter()
        .take(usize::try_from(setting("VDISK_SHOW", 5)).unwrap())
        .map(String::as_str)
        .collect();
    assert!(few.is_empty(), "{} disagree: {}", disagreements.len(), few.join("\n\n"));
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
