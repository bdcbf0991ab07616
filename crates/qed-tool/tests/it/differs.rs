//! Where `check` and `qemu-img check` differ: a test for each row of `CHECK.md`.

use crate::support::bytes::{Bytes, at};
use crate::support::images::{SMALLEST, Shape, by_hand, small};
use crate::support::program::{json, qed};
use crate::support::qemu::{self, Counts};
use std::path::Path;
use test_support::scratch::{scratch, text};

fn ours(image: &Path) -> (Counts, u64) {
    let (status, document) = json(image, &["check"]);
    (Counts::of(status, &document), document["extra-corruptions"].as_u64().unwrap())
}

/// The number that QEMU gives to the cluster at `index`.
fn qemu_number(index: usize, cluster_size: usize) -> usize {
    index * cluster_size / (cluster_size - 1)
}

/// The leaks that QEMU counts in an image without any other fault: the numbers that nothing has.
fn qemu_leaks(image: &Bytes) -> u64 {
    let size = image.cluster_size();
    let number = |offset: usize| qemu_number(offset / size, size);
    let mut used = vec![false; number(image.0.len())];
    let mut mark = |first: usize, count: usize| used[first..first + count].fill(true);
    let table_size = image.table_bytes() / size;
    mark(0, image.u32(at::HEADER_SIZE) as usize);
    mark(number(image.l1()), table_size);
    for table in image.l2_tables() {
        mark(number(table), table_size);
        for (_, offset) in image.used_entries(table) {
            mark(number(usize::try_from(offset).unwrap()), 1);
        }
    }
    used.iter().filter(|&&used| !used).count() as u64
}

/// 4 KiB clusters, more than 4095 of them.
#[test]
fn clusters_are_numbered_rightly() {
    let folder = scratch();
    let image = folder.path().join("image");
    SMALLEST.create(&image, "", 64 << 20);
    for (megabytes, expected) in [(15, 0), (17, 1), (31, 1), (33, 2)] {
        qemu::io(&image, &[&format!("write -P 1 0 {megabytes}M")]);
        let (ours, extra) = ours(&image);
        assert_eq!((ours.status, ours.leaks, extra), (Some(0), 0, 0), "{megabytes} MiB");
        let theirs = qemu::check(&image);
        let bytes = Bytes::read(&image);
        assert_eq!((theirs.leaks, theirs.corruptions), (expected, 0), "{megabytes} MiB");
        assert_eq!(theirs.leaks, ours.leaks + qemu_leaks(&bytes), "the model of QEMU's numbers");
        let clusters = bytes.0.len() / 4096;
        assert_eq!(theirs.leaks, (qemu_number(clusters, 4096) - clusters) as u64, "the numbers left out");
        assert_eq!(theirs.status, Some(if expected == 0 { 0 } else { 3 }));
        // Whatever is left out, it is the only difference.
        assert_eq!(Counts { leaks: 0, status: Some(0), ..theirs }, ours);
    }
}

#[test]
fn an_overlap_behind_a_left_out_number_is_found() {
    let folder = scratch();
    let image = folder.path().join("image");
    let shape = Shape::new(4096, 16);
    shape.create(&image, "", 2 * shape.span());
    // Header, L1 table, data, L2 table, and two clusters of data, so that the second L2 table begins a little before
    // cluster 4095.
    let data = 4090 - 35;
    qemu::io(&image, &[&format!("write -P 1 0 {}", data * 4096), &format!("write -P 2 {} 8k", shape.span())]);
    let mut bytes = Bytes::read(&image);
    let table = bytes.l2_tables()[1];
    assert_eq!(table / 4096, 4090);
    assert_eq!(qemu::check(&image).leaks, qemu_leaks(&bytes));
    assert_eq!(ours(&image).0.status, Some(0));
    // The table's last cluster is data, too; the cluster that was data there is leaked.
    let entry = bytes.l2_entry(shape.span() + 4096);
    bytes.put_u64(entry, (4090 + 15) * 4096);
    bytes.write(&image);
    let (ours, theirs) = (ours(&image).0, qemu::check(&image));
    assert_eq!((ours.corruptions, ours.leaks, ours.status), (1, 1, Some(2)));
    assert_eq!((theirs.corruptions, theirs.leaks, theirs.status), (0, qemu_leaks(&bytes), Some(3)));
}

/// A change of a sound image, and what both say of it.
fn patched(change: impl Fn(&mut Bytes)) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = scratch();
    let image = small(folder.path(), "image");
    let mut bytes = Bytes::read(&image);
    change(&mut bytes);
    bytes.write(&image);
    (folder, image)
}

#[test]
fn what_qemu_opens_and_calls_clean() {
    type Change = (&'static str, fn(&mut Bytes));
    let changes: [Change; 2] = [
        ("header-size", |bytes| bytes.put_u32(at::HEADER_SIZE, 0)),
        ("backing-filename-over-header", |bytes| {
            bytes.put_u64(at::FEATURES, 1);
            // Zeroes, so that QEMU takes the name for none.
            bytes.put_u32(at::BACKING_FILENAME_OFFSET, 24);
            bytes.put_u32(at::BACKING_FILENAME_SIZE, 4);
        }),
    ];
    for (code, change) in changes {
        let (_folder, image) = patched(change);
        let theirs = qemu::check(&image);
        let ((ours, extra), (_, document)) = (ours(&image), json(&image, &["check"]));
        println!("{code}: QEMU {theirs:?}, ours {ours:?}");
        assert_eq!(theirs.corruptions, 0, "{code}");
        assert!(extra > 0 && ours.status == Some(2), "{code}: {document:#}");
        let findings = document["findings"].as_array().unwrap();
        assert!(
            findings.iter().any(|finding| finding["code"] == code && finding["severity"] == "error"),
            "{document:#}"
        );
    }
}

#[test]
fn what_qemu_does_not_open() {
    type Row = (&'static str, i32, fn(&mut Bytes));
    let rows: [Row; 23] = [
        ("no byte", 1, |bytes| bytes.0.clear()),
        ("less than a header", 1, |bytes| bytes.0.truncate(63)),
        ("magic", 1, |bytes| bytes.put(at::MAGIC, b"QED\x01")),
        ("features", 63, |bytes| bytes.put_u64(at::FEATURES, 8)),
        ("features", 63, |bytes| bytes.put_u64(at::FEATURES, 1 << 63)),
        ("features beside damage", 63, |bytes| {
            bytes.put_u64(at::FEATURES, 1 << 40);
            bytes.put_u64(bytes.l1(), 3);
        }),
        ("cluster_size", 2, |bytes| bytes.put_u32(at::CLUSTER_SIZE, 0)),
        ("cluster_size", 2, |bytes| bytes.put_u32(at::CLUSTER_SIZE, 2048)),
        ("cluster_size", 2, |bytes| bytes.put_u32(at::CLUSTER_SIZE, 4097)),
        ("cluster_size", 2, |bytes| bytes.put_u32(at::CLUSTER_SIZE, 128 << 20)),
        ("table_size", 2, |bytes| bytes.put_u32(at::TABLE_SIZE, 0)),
        ("table_size", 2, |bytes| bytes.put_u32(at::TABLE_SIZE, 3)),
        ("table_size", 2, |bytes| bytes.put_u32(at::TABLE_SIZE, 32)),
        ("image_size", 2, |bytes| bytes.put_u64(at::IMAGE_SIZE, 511)),
        ("image_size", 2, |bytes| bytes.put_u64(at::IMAGE_SIZE, 1024 * SMALLEST.span() + 512)),
        ("l1_table_offset", 2, |bytes| bytes.put_u64(at::L1_TABLE_OFFSET, 0x1008)),
        ("l1_table_offset", 2, |bytes| bytes.put_u64(at::L1_TABLE_OFFSET, 0)),
        ("l1_table_offset", 2, |bytes| bytes.put_u32(at::HEADER_SIZE, 2)),
        ("header_size", 2, |bytes| bytes.put_u32(at::HEADER_SIZE, (1 << 20) + 1)),
        ("l1_table_offset", 2, |bytes| bytes.put_u64(at::L1_TABLE_OFFSET, 1 << 40)),
        ("l1_table_offset", 2, |bytes| bytes.put_u64(at::L1_TABLE_OFFSET, bytes.0.len() as u64 - 4096)),
        ("l1_table_offset", 2, |bytes| bytes.0.truncate(0x2000)),
        ("backing_filename_offset", 2, |bytes| {
            bytes.put_u64(at::FEATURES, 1);
            bytes.put_u32(at::BACKING_FILENAME_OFFSET, 4090);
            bytes.put_u32(at::BACKING_FILENAME_SIZE, 7);
        }),
    ];
    for (what, status, change) in rows {
        let (_folder, image) = patched(change);
        assert!(qemu::try_check(&image).is_err(), "{what}: QEMU does not open it");
        let run = qed(&image, &["check"]);
        assert_eq!(run.status.code(), Some(status), "{what}: {run}");
        if status == 1 {
            assert!(!run.stderr.is_empty(), "{run}");
        } else {
            assert!(run.out().contains(what.split(' ').next().unwrap()), "{what}: {run}");
        }
        if what == "magic" {
            qed(&image, &["check", "--force"]).expect(2);
        }
    }
}

#[test]
fn what_qemu_does_not_open_and_is_sound() {
    let folder = scratch();
    let image = folder.path().join("image");
    for shape in [Shape::new(4096, 1), Shape::new(65536, 1), Shape::new(4 << 20, 1)] {
        by_hand(shape, shape.span(), 2).write(&image);
        assert!(qemu::try_check(&image).is_err(), "{shape:?}");
        assert_eq!(ours(&image).0.status, Some(0), "{shape:?}");
    }
    let options =
        format!("cluster_size=4096,table_size=1,backing_file={},backing_fmt=raw", "/nonexistent/base");
    qemu::img(&[
        "create",
        "-q",
        "-u",
        "-f",
        "qed",
        "-o",
        &options.replace("table_size=1", "table_size=2"),
        text(&image),
        "1M",
    ]);
    let refused = qemu::try_check(&image).unwrap_err();
    assert!(refused.err().contains("Could not open backing file"), "{refused}");
    assert_eq!(ours(&image).0.status, Some(0));
}

/// Fails unless both say the same, and this.
#[track_caller]
fn both(image: &Path, status: i32, corruptions: u64, leaks: u64) {
    let (ours, theirs) = (ours(image).0, qemu::check(image));
    assert_eq!(ours, theirs);
    assert_eq!((ours.status, ours.corruptions, ours.leaks), (Some(status), corruptions, leaks));
}

#[test]
fn what_is_the_same_in_both() {
    // The last cluster is data; an entry names it.
    let cut = |bytes: &mut Bytes, length: usize| {
        let end = bytes.0.len();
        bytes.0.truncate(end - length);
    };
    let (_folder, image) = patched(|bytes| cut(bytes, 511));
    both(&image, 0, 0, 0);
    let (_folder, image) = patched(|bytes| cut(bytes, 512));
    both(&image, 2, 1, 0);
    let (_folder, image) = patched(|bytes| bytes.0.extend([5; 3584]));
    both(&image, 0, 0, 0);
    let (_folder, image) = patched(|bytes| bytes.0.extend([5; 3585]));
    both(&image, 3, 0, 1);

    for (field, code) in [
        (at::FEATURES, "need-check"),
        (at::COMPAT_FEATURES, "unknown-feature"),
        (at::AUTOCLEAR_FEATURES, "unknown-feature"),
    ] {
        let (_folder, image) = patched(|bytes| bytes.put_u64(field, 2));
        both(&image, 0, 0, 0);
        let (_, document) = json(&image, &["check"]);
        assert_eq!(
            (&document["findings"][0]["code"], &document["findings"][0]["severity"]),
            (&code.into(), &"note".into())
        );
    }

    // The third table begins with what does not follow the second table's last cluster.
    let (_folder, image) = patched(|_| {});
    let check = ours(&image).0.fragmented;
    let fragcheck = json(&image, &["fragcheck"]).1["fragmented_clusters"].as_u64().unwrap();
    assert_eq!(fragcheck, check + 1, "a break between two tables");

    // A table that begins in the last cluster of another: its entries are not looked at.
    let (_folder, image) = patched(|bytes| {
        let (l1, table) = (bytes.l1(), bytes.u64(bytes.l1()));
        bytes.put_u64(l1 + 80, table + 4096);
        bytes.put_u64(l1 + 88, table);
    });
    let (ours, theirs) = (ours(&image).0, qemu::check(&image));
    assert_eq!(ours, theirs);
    assert!(ours.corruptions >= 3, "{ours:?}");
}
