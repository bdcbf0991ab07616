//! `zerocluster POS [N]`: all of the clusters, or none.

use crate::support::bytes::{Bytes, at};
use crate::support::images::{SMALL, SMALLEST, backed, for_each, shapes, small};
use crate::support::program::{QED, json, qed};
use crate::support::qemu;
use std::path::Path;
use test_support::plan;
use test_support::scratch::{Snapshot, scratch};

/// Fails unless the command is refused with these words, and nothing is touched.
#[track_caller]
fn refused(image: &Path, args: &[&str], words: &[&str]) {
    let before = Snapshot::of(image);
    let run = qed(image, args).expect(1);
    for word in words {
        assert!(run.err().contains(word), "it says why, '{word}': {run}");
    }
    before.unchanged(image, &run);
}

#[test]
fn every_shape() {
    for_each(&shapes(), |shape, image| {
        let size = shape.cluster_size;
        let before = Bytes::read(image);
        // From the last clusters of the first L2 table into the second: data, unallocated, data, data.
        let (start, count) = (shape.span() - size, 6);
        let args = ["zerocluster", &(start + 7).to_string(), &count.to_string(), "--no-undo"];
        let run = qed(image, &args).expect(0);
        assert!(
            run.stdout.is_empty() && run.err().contains("leaked clusters, which held the data: 4"),
            "{run}"
        );
        let after = Bytes::read(image);
        let entries: Vec<usize> = (0..count).map(|i| before.l2_entry(start + i * size)).collect();
        let mut expected = before.clone();
        for &entry in &entries {
            expected.put_u64(entry, 1);
        }
        assert!(after == expected, "the entries, and nothing else");

        let theirs = qemu::check(image);
        assert_eq!((theirs.status, theirs.corruptions, theirs.leaks), (Some(3), 0, 4));
        let mut reads: Vec<String> = shape
            .contents()
            .iter()
            .filter(|part| part.start < start || part.start >= start + count * size)
            .map(|part| part.command("read"))
            .collect();
        reads.push(format!("read -P 0 {start} {}", count * size));
        qemu::io(image, &reads.iter().map(String::as_str).collect::<Vec<_>>());

        // What has no L2 table: the clusters before it stay as they are.
        if before.l2_tables().len() == 2 {
            let at = (2 * shape.span() - size).to_string();
            refused(image, &["zerocluster", &at, "2"], &["no L2 table is allocated", "L1 entry 2"]);
        }
        // The disk's last cluster is not whole; behind it there is none.
        let last = shape.size() / size;
        refused(
            image,
            &["zerocluster", &((last + 1) * size).to_string()],
            &["clusters of the disk", "which has"],
        );
        let many = (last + 2).to_string();
        refused(image, &["zerocluster", "0", &many], &["clusters of the disk"]);
    });
}

#[test]
fn an_unallocated_l2_table_is_refused_before_anything_is_written() {
    let folder = scratch();
    let image = folder.path().join("image");
    SMALLEST.create(&image, "", 3 * SMALLEST.span());
    refused(&image, &["zerocluster", "0"], &["no L2 table is allocated"]);
    let span = SMALLEST.span();
    qemu::io(&image, &["write -P 1 0 4k", &format!("write -P 2 {} 4k", 2 * span)]);
    // The first cluster could be zeroed, the second could not.
    let last = (span - 4096).to_string();
    refused(&image, &["zerocluster", &last, "2"], &["no L2 table is allocated", "L1 entry 1"]);
    // Nor from the first table over a hole to the third.
    refused(&image, &["zerocluster", "0", &(2 * span / 4096 + 1).to_string()], &["L1 entry 1"]);
    QED.edit(&image, &["zerocluster", &last]);
}

#[test]
fn an_l1_entry_that_names_no_table_is_refused() {
    let folder = scratch();
    for value in [0x3001, 1 << 40, 0x1000_0000_0000_0000] {
        let image = small(folder.path(), "image");
        let mut bytes = Bytes::read(&image);
        bytes.put_u64(bytes.l1() + 8, value);
        bytes.write(&image);
        let at = SMALLEST.span().to_string();
        refused(&image, &["zerocluster", &at], &["L1 entry 1", "expected an L2 table"]);
        refused(&image, &["zerocluster", "0", "0x401"], &["L1 entry 1"]);
    }
}

#[test]
fn what_is_zero_already_is_left_alone() {
    let folder = scratch();
    let image = small(folder.path(), "image");
    QED.edit(&image, &["zerocluster", "0x7000", "2"]);
    assert_eq!(plan::of(QED, &image, &["zerocluster", "0x7000", "2"]).len(), 0);
    let before = Snapshot::of(&image);
    QED.edit(&image, &["zerocluster", "0x7000", "2", "--no-undo"]);
    before.unchanged(&image, "zerocluster of zero clusters");
}

/// Zero clusters hide what the backing file has.
#[test]
fn a_backing_file_does_not_shine_through() {
    let folder = scratch();
    let image = backed(folder.path(), "image");
    // Data, data, data, unallocated, zero, zero, unallocated.
    qemu::io(
        &image,
        &["read -P 0x11 0 12k", "read -P 0xbb 12k 4k", "read -P 0 16k 8k", "read -P 0xbb 24k 4k"],
    );
    qed(&image, &["zerocluster", "0x2000", "5"]).expect(0);
    qemu::io(&image, &["read -P 0x11 0 8k", "read -P 0 8k 20k", "read -P 0xbb 28k 4k"]);
    let theirs = qemu::check(&image);
    assert_eq!((theirs.corruptions, theirs.leaks), (0, 1));
    // What is zeroed can be written again.
    qemu::io(&image, &["write -P 7 8k 4k", "read -P 7 8k 4k", "read -P 0 12k 16k"]);
}

#[test]
fn numbers_are_pythons() {
    let folder = scratch();
    let image = small(folder.path(), "image");
    let expected =
        plan::applied(&Bytes::read(&image).0, &plan::of(QED, &image, &["zerocluster", "8192", "2"]));
    for (pos, n) in
        [("0x2000", "0x2"), ("0b10000000000000", "0b10"), ("0o20000", "2"), ("8_192", "+2"), ("12287", "2")]
    {
        let plan = plan::of(QED, &image, &["zerocluster", pos, n]);
        assert!(plan::applied(&Bytes::read(&image).0, &plan) == expected, "{pos} {n}");
    }
    let (_, document) = json(&image, &["zerocluster", "8192", "2", "--dry-run"]);
    assert_eq!(document["writes"].as_array().unwrap().len(), 1, "neighbours are written together");
}

/// Two L1 entries with one table: their clusters have one entry.
#[test]
fn a_table_that_two_entries_name() {
    for_each(&SMALL, |shape, image| {
        let mut bytes = Bytes::read(image);
        let (l1, table) = (bytes.l1(), bytes.u64(bytes.l1()));
        bytes.put_u64(l1 + 8, table);
        bytes.write(image);
        let entries = (shape.span() / shape.cluster_size * 2).to_string();
        qed(image, &["zerocluster", "0", &entries]).expect(0);
        let after = Bytes::read(image);
        let table = usize::try_from(table).unwrap();
        assert!(after.used_entries(table).iter().all(|&(_, value)| value == 1));
        assert_eq!(after.used_entries(table).len(), bytes.table_bytes() / 8);
    });
}

#[test]
fn a_disk_of_any_size_ends_where_it_ends() {
    let folder = scratch();
    let image = small(folder.path(), "image");
    let mut bytes = Bytes::read(&image);
    for (size, fits) in [(0, 0), (512, 1), (4096, 1), (4608, 2), (1 << 20, 256)] {
        bytes.put_u64(at::IMAGE_SIZE, size);
        bytes.write(&image);
        if fits > 0 {
            qed(&image, &["zerocluster", "0", &fits.to_string(), "--dry-run"]).expect(0);
        }
        refused(&image, &["zerocluster", "0", &(fits + 1).to_string()], &["which has"]);
    }
}

/// An L1 entry that names a guest's data: what is no table is not written to, not even by chance.
#[test]
fn a_guests_data_are_not_taken_for_a_table() {
    for_each(&SMALL, |shape, image| {
        let sound = Bytes::read(image);
        let data = sound.u64(sound.l2_entry(0));
        let mut bytes = sound.clone();
        bytes.put_u64(bytes.l1() + 5 * 8, data);
        bytes.put_u64(at::IMAGE_SIZE, 6 * shape.span());
        bytes.write(image);
        let words = ["L1 entry 5", "clusters that nothing else has", "another entry names as well"];
        refused(image, &["zerocluster", &(5 * shape.span()).to_string()], &words);
        refused(image, &["invalidate", "l2", "--at", "5:0"], &words);
        refused(image, &["duplicate", "l2", "--at", "5:0"], &words);
        for seed in 0..20 {
            for writes in ["invalidate", "duplicate"]
                .map(|command| plan::of(QED, image, &[command, "l2", "--seed", &seed.to_string()]))
            {
                let at = bytes.differences(&Bytes(plan::applied(&bytes.0, &writes)))[0];
                assert!(
                    sound.l2_tables().iter().any(|&table| (table..table + sound.table_bytes()).contains(&at))
                );
            }
        }
        // Data that are a table: a guest's write there is one to the table.
        let mut bytes = sound.clone();
        bytes.put_u64(bytes.l2_entry(0), sound.u64(sound.l1() + 8));
        bytes.write(image);
        refused(image, &["zerocluster", &shape.span().to_string()], &["L1 entry 1"]);
        qed(image, &["zerocluster", "0", "--dry-run"]).expect(0);
    });
}
