//! Random sequences of edits: an image that was clean stays clean, each edit is exactly its
//! plan, and undoing all of them gives the identical file.

use crate::support::images;
use crate::support::program::{edit, qcow2};
use crate::support::qemu;
use std::fs;
use std::path::Path;
use test_support::plan;
use test_support::random::{Random, seed, setting};
use test_support::scratch::{names, scratch};

/// Edits that a reader of the specification may make without harm.
fn harmless(random: &mut Random) -> Vec<String> {
    let magic = format!("{:#x}", 0x1000 + random.below(4));
    let bit = (8 + random.below(56)).to_string();
    let group = *random.pick(&["compatible", "autoclear"]);
    let length = random.below(40);
    let data: String = (0..length).map(|i| char::from(b'a' + u8::try_from(i % 26).unwrap())).collect();
    match random.below(6) {
        0..=2 => line(&["add-header-ext", &magic, &data]),
        3 => line(&["del-header-ext", &magic]),
        4 => line(&["set-feature-bit", group, &bit]),
        _ => line(&["clear-feature-bit", group, &bit]),
    }
}

/// Edits of any kind, whatever the image is then worth.
fn wild(random: &mut Random) -> Vec<String> {
    let field = *random.pick(&[
        "magic",
        "version",
        "backing_file_offset",
        "backing_file_size",
        "cluster_bits",
        "size",
        "crypt_method",
        "l1_size",
        "l1_table_offset",
        "refcount_table_offset",
        "nb_snapshots",
        "snapshot_offset",
        "incompatible_features",
        "autoclear_features",
        "refcount_order",
        "header_length",
    ]);
    let value = match random.below(3) {
        0 => random.below(130).to_string(),
        1 => format!("{:#x}", 1u64 << random.below(32)),
        _ => format!("{:#x}", random.number() >> 32),
    };
    let known = *random.pick(&["0xe2792aca", "0x6803f857", "0x23852875", "0x44415441"]);
    match random.below(8) {
        0 | 1 => line(&["set-header", field, &value]),
        2 => line(&["del-header-ext", known]),
        3 => line(&["add-header-ext", known, "raw"]),
        4 => line(&["set-feature-bit", "incompatible", &random.below(64).to_string()]),
        _ => harmless(random),
    }
}

fn line(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// One edit: exactly its plan, or a refusal that changes nothing. Returns whether it was done.
fn step(image: &Path, args: &[String], because: &str) -> bool {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let before = fs::read(image).unwrap();
    let shown = qcow2(image, &[&args[..], &["--dry-run", "--json"]].concat());
    assert!(!shown.crashed(), "{because}: {shown}");
    if shown.status.code() != Some(0) {
        let run = qcow2(image, &args);
        assert_eq!(run.status.code(), shown.status.code(), "{because}: {run}");
        assert!(fs::read(image).unwrap() == before, "{because}: {args:?} failed and changed the image");
        return false;
    }
    assert!(fs::read(image).unwrap() == before, "{because}: a dry run of {args:?} changed the image");
    let writes = plan::parse(&shown);
    edit(image, &args);
    let after = fs::read(image).unwrap();
    assert!(after == plan::applied(&before, &writes), "{because}: {args:?} is not its plan");
    !writes.is_empty()
}

fn sequence(image: &Path, random: &mut Random, kind: fn(&mut Random) -> Vec<String>, because: &str) {
    let before = fs::read(image).unwrap();
    let files = names(image.parent().unwrap());
    let mut done = 0;
    for _ in 0..1 + random.below(12) {
        done += usize::from(step(image, &kind(random), because));
        if random.below(5) == 0 && done > 0 {
            qcow2(image, &["undo"]).expect(0);
            done -= 1;
        }
    }
    if std::ptr::fn_addr_eq(kind, harmless as fn(&mut Random) -> Vec<String>) {
        assert_eq!(qemu::check(image).status, Some(0), "{because}: still clean");
    }
    for left in (0..done).rev() {
        let run = qcow2(image, &["undo"]);
        assert_eq!(run.status.code(), Some(0), "{because}, with {left} more to undo: {run}");
    }
    assert!(fs::read(image).unwrap() == before, "{because}: everything undone, and not the same");
    assert_eq!(names(image.parent().unwrap()), files, "{because}: no record is left");
}

#[track_caller]
fn sequences(kind: fn(&mut Random) -> Vec<String>) {
    let seed = seed();
    let source = scratch();
    let small = |image: &images::Image| fs::metadata(&image.path).unwrap().len() < 1 << 20;
    let mut images: Vec<_> = images::all(source.path()).into_iter().filter(small).collect();
    // What qemu-img itself finds a fault with proves nothing.
    images.retain(|image| !image.name.starts_with("luks") && qemu::check(&image.path).status == Some(0));
    assert!(images.len() > 20, "only {} images", images.len());
    for number in 0..setting("VDISK_SEQUENCES", 150) / 2 {
        let mut random = Random::new(seed ^ (number << 32));
        let image = random.pick(&images);
        let folder = scratch();
        let copy = folder.path().join("image.qcow2");
        fs::copy(&image.path, &copy).unwrap();
        sequence(&copy, &mut random, kind, &format!("VDISK_SEED={seed}, sequence {number}, {}", image.name));
    }
}

#[test]
fn harmless_edits() {
    sequences(harmless);
}

#[test]
fn wild_edits() {
    sequences(wild);
}
