//! `scrub OUT`: everything that a check looks at, and no byte of what the guest stored.

use crate::support::images;
use crate::support::program::qcow2;
use crate::support::qemu;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use test_support::scratch::{Snapshot, scratch, text};
use vdisk_format::qcow2::check::check;

/// What the guest stores in these tests, and what a VM state consists of.
const CANARY: u8 = 0xc5;

/// How often three canaries follow one another.
fn canaries(file: &Path) -> usize {
    fs::read(file).unwrap().windows(3).filter(|window| *window == [CANARY; 3]).count()
}

/// Scrubs `image`, and fails unless QEMU and we find the same in both.
#[track_caller]
fn scrubbed(image: &Path, options: &[&str]) -> (PathBuf, Value) {
    let out = image.with_extension("copy");
    let before = fs::read(image).unwrap();
    let run = qcow2(image, &[&["scrub", text(&out), "--json", "--force"], options].concat()).expect(0);
    assert!(fs::read(image).unwrap() == before, "the image is only read");
    let document: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(document["same_findings"], true, "{document:#}");
    assert_eq!(document["unsettled"], 0, "{document:#}");
    assert_eq!(document["audit"]["stray_bytes"], 0, "{document:#}");
    let (bytes, copy) = (fs::read(image).unwrap(), fs::read(&out).unwrap());
    assert_eq!(bytes.len(), copy.len());
    assert_eq!(check(&copy).unwrap(), check(&bytes).unwrap());
    let structures = document["audit"]["structures"].as_array().unwrap();
    let total: u64 = structures.iter().map(|part| part["bytes"].as_u64().unwrap()).sum();
    assert_eq!(total, copy.iter().filter(|&&byte| byte != 0).count() as u64);
    (out, document)
}

/// Guest's bytes in every way that QEMU stores them.
#[test]
fn no_canary_survives() {
    for options in ["", "cluster_size=512", "extended_l2=on", "compression_type=zstd", "refcount_bits=1"] {
        let folder = scratch();
        let image = images::made(folder.path(), "full", options).path;
        let write = format!("write -P {CANARY} 0 300k");
        let compressed = format!("write -c -P {CANARY} 1M 256k");
        qemu::io(&image, &[&write, &compressed, "write -z 2M 64k"]);
        if !options.contains("refcount_bits=1") {
            qemu::img(&["snapshot", "-c", "private", text(&image)]);
            qemu::io(&image, &[&write]);
        }
        assert!(canaries(&image) > 1000);
        let (out, _) = scrubbed(&image, &[]);
        assert_eq!(canaries(&out), 0, "{options}");
        qemu::check(&out);
        let used = fs::metadata(&out).unwrap().blocks() * 512;
        assert!(used < fs::metadata(&image).unwrap().blocks() * 512, "{used} bytes are no holes");
    }
}

#[test]
fn every_kind_of_image() {
    let folder = scratch();
    // All of them are scrubbed in some minutes; these are of each cluster size and version.
    for image in images::all(folder.path()).into_iter().step_by(3) {
        let (out, _) = scrubbed(&image.path, &[]);
        fs::remove_file(out).unwrap();
    }
}

#[test]
fn names_are_replaced_unless_they_are_wanted() {
    let folder = scratch();
    let image = images::one_bitmap(folder.path(), "names");
    qemu::img(&["snapshot", "-c", "private", text(&image)]);
    let has = |file: &Path, name: &[u8]| fs::read(file).unwrap().windows(name.len()).any(|part| part == name);
    let (out, document) = scrubbed(&image, &[]);
    assert!(!has(&out, b"private") && has(&out, b"xxxxxxx"), "{document:#}");
    assert_eq!(document["names"], 2, "{document:#}");
    let (out, document) = scrubbed(&image, &["--keep-names"]);
    assert!(has(&out, b"private"), "{document:#}");
}

#[test]
fn nothing_of_a_key_is_copied() {
    let folder = scratch();
    let luks =
        images::without_bitmaps(folder.path()).into_iter().filter(|image| image.name.starts_with("luks"));
    for image in luks {
        let (out, _) = scrubbed(&image.path, &[]);
        let (before, copy) = (fs::read(&image.path).unwrap(), fs::read(&out).unwrap());
        let at = before.windows(6).position(|part| part == b"LUKS\xba\xbe").unwrap();
        // Names are there; digest, salts and all key material are not.
        assert_eq!(copy[at..at + 112], before[at..at + 112]);
        assert!(copy[at + 112..at + 164].iter().all(|&byte| byte == 0));
        assert!(copy[at + 592..at + 4096].iter().all(|&byte| byte == 0));
        assert_eq!(copy[at + 208..at + 216], before[at + 208..at + 216]);
        assert!(copy[at + 216..at + 248].iter().all(|&byte| byte == 0), "{}", image.name);
    }
}

/// No two bitmaps may have one name: QEMU opens the copy, too.
#[test]
fn names_of_bitmaps_differ_as_they_did() {
    let folder = scratch();
    let image = folder.path().join("image");
    qemu::create(&image, "cluster_size=4k", "1M");
    let names: Vec<String> = (10..80).map(|number| format!("secret{number}")).collect();
    for name in names.iter().map(String::as_str).chain(["b1", "b2"]) {
        qemu::img(&["bitmap", "--add", text(&image), name]);
    }
    let (copy, document) = scrubbed(&image, &[]);
    assert_eq!(document["differences"], Value::Array(vec![]), "{document:#}");
    assert!(qemu::opens(&copy));
    let bytes = fs::read(&copy).unwrap();
    let before = fs::read(&image).unwrap();
    let places = |name: &[u8]| {
        let found = before.windows(name.len()).enumerate().filter(|(_, part)| *part == name);
        found.map(|(at, _)| at).collect::<Vec<_>>()
    };
    for name in names.iter().map(String::as_bytes).chain([b"b1".as_slice(), b"b2"]) {
        for at in places(name) {
            let kept = name.iter().zip(&bytes[at..]).filter(|(old, new)| old == new).count();
            assert_eq!(kept, 0, "{}", name.escape_ascii());
        }
    }
}

#[test]
fn a_file_that_exists_is_left_as_it_is() {
    let folder = scratch();
    let image = images::made(folder.path(), "image", "").path;
    let out = folder.path().join("out");
    fs::write(&out, "somebody's").unwrap();
    for (target, force) in [(&out, false), (&image, false), (&image, true), (&folder.path().to_owned(), true)]
    {
        let before = Snapshot::of(&image);
        let mut args = vec!["scrub", text(target)];
        args.extend(force.then_some("--force"));
        let run = qcow2(&image, &args).expect(1);
        before.unchanged(&image, &run);
    }
    assert_eq!(fs::read_to_string(&out).unwrap(), "somebody's");
    let run = qcow2(&image, &["copy-metadata", text(&out), "--force"]).expect(0);
    assert!(run.out().contains("a check finds the same in it"), "{run}");
    assert!(fs::read(&out).unwrap().starts_with(b"QFI\xfb"));
}

#[test]
fn what_is_no_qcow2_image_is_copied_only_by_force() {
    let folder = scratch();
    let image = folder.path().join("image");
    fs::write(&image, vec![CANARY; 1 << 20]).unwrap();
    let out = folder.path().join("out");
    let run = qcow2(&image, &["scrub", text(&out)]).expect(1);
    assert!(run.err().contains("--force") && !out.exists(), "{run}");
    qcow2(&image, &["scrub", text(&out), "--force"]).expect(0);
    assert!(fs::read(&out).unwrap()[112..].windows(6).all(|part| part != [CANARY; 6]));
}

/// Writes a number of the header or of a table.
fn put(image: &Path, at: u64, number: u64) {
    use std::os::unix::fs::FileExt;
    let file = fs::File::options().write(true).open(image).unwrap();
    file.write_all_at(&number.to_be_bytes(), at).unwrap();
}

fn number(image: &Path, at: u64) -> u64 {
    let bytes = fs::read(image).unwrap();
    u64::from_be_bytes(bytes[at as usize..][..8].try_into().unwrap())
}

#[test]
fn a_table_that_is_lost_is_lost_in_the_copy() {
    let folder = scratch();
    let image = images::made(folder.path(), "lost", "").path;
    qemu::io(&image, &[&format!("write -P {CANARY} 0 2M")]);
    put(&image, number(&image, 40), 0); // the L1 entry
    let (out, document) = scrubbed(&image, &[]);
    assert_eq!(canaries(&out), 0);
    let bytes = fs::read(&out).unwrap();
    assert_eq!(check(&bytes).unwrap().lost_mappings, 1, "{document:#}");
}

/// Each bit of what claims to be a refcount block is a finding, and a bit of the guest's.
#[test]
fn where_findings_would_be_data_they_differ_and_that_is_said() {
    let folder = scratch();
    let image = images::made(folder.path(), "narrow", "refcount_bits=1,cluster_size=512").path;
    qemu::io(&image, &[&format!("write -P {CANARY} 0 300k")]);
    let refcount_table = number(&image, 48);
    let bytes = fs::read(&image).unwrap();
    let data = bytes.chunks(512).position(|cluster| cluster == [CANARY; 512]).unwrap() as u64 * 512;
    put(&image, refcount_table, data);
    let out = folder.path().join("out");
    let run = qcow2(&image, &["scrub", text(&out), "--json"]).expect(0);
    assert!(run.err().contains("a check of the copy does not find what it finds in"), "{run}");
    let document: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(document["same_findings"], false, "{document:#}");
    assert!(document["differences"].as_array().unwrap().iter().any(|one| one["code"] == "leaks"));
    assert_eq!(canaries(&out), 0);
}

#[test]
fn a_copy_that_cannot_be_written_leaves_nothing() {
    let folder = scratch();
    let image = images::made(folder.path(), "image", "").path;
    let there = || fs::read_dir(folder.path()).unwrap().count();
    let before = there();
    let run = qcow2(&image, &["scrub", text(&folder.path().join("none/out"))]).expect(1);
    assert!(run.err().contains("cannot write"), "{run}");
    let full = Path::new("/dev/full");
    qcow2(&image, &["scrub", text(full), "--force"]).expect(1);
    assert_eq!(there(), before);
}
