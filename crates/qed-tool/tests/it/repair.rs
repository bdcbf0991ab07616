//! `repair` beside `qemu-img check -r all`: never worse, and the guest reads the same.

use crate::support::bytes::{Bytes, at};
use crate::support::images::small;
use crate::support::mutate::{Kind, damaged, sources};
use crate::support::program::{json, qed};
use crate::support::qemu;
use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use test_support::random::{Random, seed, setting};
use test_support::scratch::{Snapshot, scratch, text};
use test_support::threads;

fn corruptions(image: &std::path::Path) -> u64 {
    json(image, &["check"]).1["corruptions"].as_u64().unwrap()
}

/// What the guest reads, by its cluster: bytes of the file, zeroes, or nothing but an error.
fn guest(image: &Bytes) -> BTreeMap<u64, Cluster<'_>> {
    let size = image.cluster_size();
    let (clusters, entries) = (image.0.len().div_ceil(512) * 512 / size, image.table_bytes() / 8);
    let header_end = image.u32(at::HEADER_SIZE) as usize * size;
    let names = |value: u64, count: usize| {
        let first = usize::try_from(value).unwrap() / size;
        let right = value.is_multiple_of(size as u64) && value as usize >= header_end && first <= clusters;
        right && clusters - first >= count
    };
    let mut read = BTreeMap::new();
    for (l1_at, table) in image.used_entries(image.l1()) {
        let first = ((l1_at - image.l1()) / 8 * entries) as u64;
        if !names(table, image.table_bytes() / size) {
            read.insert(first, Cluster::Error);
            continue;
        }
        let table = table as usize;
        for (at, value) in image.used_entries(table) {
            let cluster = first + ((at - table) / 8) as u64;
            let content = match value {
                1 => Cluster::Zero,
                value if names(value, 1) => {
                    Cluster::Data(&image.0[value as usize..(value as usize + size).min(image.0.len())])
                }
                _ => Cluster::Error,
            };
            read.insert(cluster, content);
        }
    }
    read
}

#[derive(Debug, PartialEq, Eq)]
enum Cluster<'i> {
    Zero,
    Data(&'i [u8]),
    Error,
}

#[test]
fn beside_qemu_img() {
    let seed = seed();
    let sources = sources();
    let (repaired, better) = (AtomicU64::new(0), AtomicU64::new(0));
    threads::each(setting("VDISK_QED_REPAIRS", 200), |number| {
        let because = format!("VDISK_SEED={seed}, image {number}");
        let folder = scratch();
        let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
        let kind = if number % 4 == 0 { Kind::Any } else { Kind::Tables };
        let bytes = damaged(&sources, &mut Random::new(seed ^ (number << 20)), kind);
        bytes.write(&theirs);
        let opened = qemu::try_img(&["check", "-q", "-f", "qed", "-r", "all", text(&theirs)]);
        let after_theirs = Bytes::read(&theirs);
        bytes.write(&ours);
        let before = Snapshot::of(&ours);

        let shown = qed(&ours, &["repair"]);
        before.unchanged(&ours, &shown);
        let run = qed(&ours, &["repair", "--commit"]);
        assert_eq!(shown.status, run.status, "{because}: {run}");
        if run.status.code() == Some(1) {
            // A header that is wrong: nothing is repaired under it.
            before.unchanged(&ours, &run);
            return;
        }
        assert!(matches!(run.status.code(), Some(0 | 2)), "{because}: {run}");
        let after = Bytes::read(&ours);
        let left = corruptions(&ours);
        let checked = qed(&ours, &["check"]);
        assert_eq!(
            run.status.code() == Some(2),
            checked.status.code() == Some(2),
            "{because}: {run}{checked}"
        );
        if qemu::opens(&theirs) {
            repaired.fetch_add(1, Ordering::Relaxed);
            let theirs_left = corruptions(&theirs);
            assert!(left <= theirs_left, "{because}: {left}, QEMU {theirs_left}: {run}{opened}");
            better.fetch_add(u64::from(left < theirs_left), Ordering::Relaxed);
            let line = ["compare", "-f", "qed", "-F", "qed", text(&ours), text(&theirs)];
            let compared = qemu::try_img(&line);
            // With an overlap left, QEMU may not tell what is allocated: then the tables have to.
            let same = match compared.status.code() {
                Some(0) => true,
                Some(1) => false,
                _ => left > 0 && guest(&after) == guest(&after_theirs),
            };
            assert!(same, "{because}: the guest reads the same: {compared}{run}{opened}");
            let autoclear = |image: &Bytes| image.u64(at::AUTOCLEAR_FEATURES);
            assert_eq!(autoclear(&after), autoclear(&after_theirs), "{because}: {run}{opened}");
            assert_eq!(
                after.u64(at::FEATURES) & 2 == 0,
                left == 0 || bytes.u64(at::FEATURES) & 2 == 0,
                "{because}"
            );
        }
        if after.0 != before.bytes() {
            qed(&ours, &["undo"]).expect(0);
            assert!(fs::read(&ours).unwrap() == before.bytes(), "{because}: undone");
        }
    });
    println!("{repaired:?} repaired by both, {better:?} better than QEMU's");
    assert!(repaired.into_inner() > setting("VDISK_QED_REPAIRS", 200) / 2);
}

#[test]
fn what_is_sound_needs_no_repair() {
    let folder = scratch();
    let image = small(folder.path(), "image");
    let before = Snapshot::of(&image);
    for args in [&["repair"][..], &["repair", "--commit"], &["repair", "--json"]] {
        let run = qed(&image, args).expect(0);
        assert!(run.err().contains("nothing to repair"), "{run}");
        before.unchanged(&image, &run);
    }
}

#[test]
fn the_need_check_bit_goes_with_the_last_corruption() {
    let folder = scratch();
    let image = small(folder.path(), "image");
    let mut bytes = Bytes::read(&image);
    let entry = bytes.l2_entry(0);
    bytes.put_u64(at::FEATURES, 2);
    bytes.put_u64(entry, 0x3001);
    bytes.write(&image);
    let shown = qed(&image, &["repair"]).expect(0);
    assert!(shown.err().contains("--commit"), "{shown}");
    qed(&image, &["repair", "--commit"]).expect(0);
    let mut expected = bytes.clone();
    expected.put_u64(at::FEATURES, 0);
    expected.put_u64(entry, 0);
    assert!(Bytes::read(&image) == expected);
    // Where a cluster has two owners, it stays.
    bytes.put_u64(entry + 8, bytes.u64(entry + 16));
    bytes.write(&image);
    qed(&image, &["repair", "--commit", "--no-undo"]).expect(2);
    assert_eq!(Bytes::read(&image).u64(at::FEATURES), 2);
    assert_eq!(corruptions(&image), 1);
}

/// Whoever opens an image for writing clears the autoclear bits that it does not know. A check alone does not.
#[test]
fn autoclear_bits_go_as_with_qemu_img() {
    let folder = scratch();
    let (image, theirs) = (small(folder.path(), "image"), folder.path().join("theirs"));
    let sound = Bytes::read(&image);
    for corrupt in [false, true] {
        let mut bytes = sound.clone();
        bytes.put_u64(at::AUTOCLEAR_FEATURES, 0x8000_0000_0000_0009);
        bytes.put_u64(at::COMPAT_FEATURES, 5);
        if corrupt {
            bytes.put_u64(bytes.l2_entry(0), 0x3001);
        }
        bytes.write(&image);
        bytes.write(&theirs);
        let opened = qemu::try_img(&["check", "-q", "-f", "qed", "-r", "all", text(&theirs)]);
        let shown = qed(&image, &["repair"]).expect(0);
        assert!(shown.out().contains("clear autoclear bits that are not known here"), "{shown}");
        assert!(Bytes::read(&image) == bytes, "{shown}");
        let run = qed(&image, &["repair", "--commit", "--no-undo"]).expect(0);
        let after = Bytes::read(&image);
        assert_eq!((after.u64(at::AUTOCLEAR_FEATURES), after.u64(at::COMPAT_FEATURES)), (0, 5), "{run}");
        assert!(after == Bytes::read(&theirs), "as qemu-img: {run}{opened}");
    }
}
