//! `copy_metadata OUT`: everything that a check looks at, and no byte of what the guest stored.

use crate::support::bytes::{Bytes, at};
use crate::support::images::{SMALL, SMALLEST, Shape, backed, by_hand, for_each, shapes, small};
use crate::support::mutate::{Kind, damaged, sources};
use crate::support::program::{QED, json, qed};
use crate::support::qemu;
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;
use test_support::process::run_within;
use test_support::random::{Random, seed};
use test_support::scratch::{Snapshot, scratch, text};
use test_support::threads;
use test_support::tracer::{self, Outcome, disturbed};

/// Copies, and fails unless both checks find in the copy what they find in the image.
#[track_caller]
fn copied(image: &Path) -> PathBuf {
    let out = image.with_extension("copy");
    let before = fs::read(image).unwrap();
    QED.edit(image, &["copy_metadata", text(&out)]);
    assert!(fs::read(image).unwrap() == before, "the image is only read");
    same_check(image, &out);
    out
}

#[track_caller]
fn same_check(image: &Path, out: &Path) {
    let check = |file: &Path| {
        let (status, mut document) = json(file, &["check"]);
        document["filename"].take();
        (status, document)
    };
    assert_eq!(check(out), check(image));
    match (qemu::try_check(image), qemu::try_check(out)) {
        (Ok(theirs), Ok(of_copy)) => assert_eq!(of_copy, theirs, "qemu-img check"),
        (Err(_), Err(_)) => {}
        (of_image, of_copy) => panic!("QEMU opens one of the two: {of_image:?} {of_copy:?}"),
    }
}

/// How many words of the file are what the guest wrote.
fn canaries(out: &Path, canary: u8) -> usize {
    let bytes = fs::read(out).unwrap();
    // Nearly all of a copy is zero.
    let blocks = bytes.chunks(4096).filter(|block| block.contains(&canary));
    let words = blocks.flat_map(|block| block.chunks(4));
    words.filter(|word| word.iter().filter(|&&byte| byte == canary).count() >= 3).count()
}

#[test]
fn every_shape() {
    for_each(&shapes(), |_, image| {
        let before = Bytes::read(image);
        let out = copied(image);
        let copy = Bytes::read(&out);
        // The tables and the header are copied; everything else is zero, and a hole.
        let mut expected = Bytes(vec![0; before.0.len()]);
        let mut keep = |at: usize, length: usize| expected.put(at, &before.0[at..at + length]);
        keep(0, 64);
        for table in [vec![before.l1()], before.l2_tables()].concat() {
            keep(table, before.table_bytes());
        }
        assert!(copy == expected);
        let du = fs::metadata(&out).unwrap().blocks() * 512;
        let used = 1 + before.used_entries(before.l1()).len() as u64 + 12;
        assert!(du <= used * 4096, "{du} bytes are holes where there is nothing");
        qemu::assert_clean(&out);
        assert_eq!(qed(&out, &["fragcheck"]).expect(0).out(), qed(image, &["fragcheck"]).expect(0).out());
    });
}

const CANARY: u8 = 0xc5;

/// A disk that is full of canaries, to its last cluster.
fn full(folder: &Path, shape: Shape) -> PathBuf {
    let image = folder.join("full");
    let size = 24 * shape.cluster_size;
    shape.create(&image, "", shape.span() + size);
    qemu::io(
        &image,
        &[&format!("write -P {CANARY} 0 {size}"), &format!("write -P {CANARY} {} {size}", shape.span())],
    );
    assert!(canaries(&image, CANARY) > 100);
    image
}

#[test]
fn no_canary_survives() {
    for shape in SMALL {
        let folder = scratch();
        let image = full(folder.path(), shape);
        let sound = Bytes::read(&image);
        assert_eq!(canaries(&copied(&image), CANARY), 0);
        for command in ["duplicate", "invalidate"] {
            for level in ["l1", "l2"] {
                qed(&image, &[command, level, "--no-undo"]).expect(0);
                assert_eq!(canaries(&copied(&image), CANARY), 0, "{command} {level}");
                sound.write(&image);
            }
        }
        // L1 entries that claim tables where the guest's data are, and elsewhere.
        let data = sound.u64(sound.l2_entry(0));
        let end = sound.0.len() as u64;
        let size = shape.cluster_size;
        let values = [
            data,
            data + size,
            data + 8,
            data + 1,
            0x8,
            size,
            0,
            end,
            end - size,
            end - 1,
            1 << 60,
            sound.l1() as u64,
        ];
        for value in values {
            for index in [0, 1, 7] {
                let mut bytes = sound.clone();
                bytes.put_u64(sound.l1() + index * 8, value);
                bytes.write(&image);
                assert_eq!(canaries(&copied(&image), CANARY), 0, "L1 entry {index}: {value:#x}");
            }
        }
        // The header says that the L1 table is there.
        for value in [data, data + 8, end - size] {
            let mut bytes = sound.clone();
            bytes.put_u64(at::L1_TABLE_OFFSET, value);
            bytes.write(&image);
            assert_eq!(canaries(&copied(&image), CANARY), 0, "L1 table at {value:#x}");
        }
        // And that everything is the header's.
        for (field, value) in [
            (at::HEADER_SIZE, 1000),
            (at::HEADER_SIZE, 0),
            (at::CLUSTER_SIZE, 5),
            (at::TABLE_SIZE, 1),
            (at::CLUSTER_SIZE, 4096 << 3),
        ] {
            let mut bytes = sound.clone();
            bytes.put_u32(field, value);
            bytes.write(&image);
            assert_eq!(canaries(&copied(&image), CANARY), 0, "{value} at {field}");
        }
        // A backing file's name that is the guest's data.
        let mut bytes = sound.clone();
        bytes.put_u64(at::FEATURES, 1);
        bytes.put_u32(at::BACKING_FILENAME_OFFSET, u32::try_from(data).unwrap());
        bytes.put_u32(at::BACKING_FILENAME_SIZE, 1000);
        bytes.write(&image);
        let out = image.with_extension("copy");
        qed(&image, &["copy_metadata", text(&out)]).expect(0);
        assert_eq!(canaries(&out, CANARY), 0, "a name in the data");
    }
}

/// A guest may store what looks like a table: offsets of clusters of this file say nothing that the tables do not.
#[test]
fn data_that_something_takes_for_a_table_is_replaced() {
    let folder = scratch();
    let image = full(folder.path(), SMALLEST);
    let mut bytes = Bytes::read(&image);
    let data = usize::try_from(bytes.u64(bytes.l2_entry(4 * 4096))).unwrap();
    let mut random = Random::new(seed());
    let noise = random.bytes(bytes.table_bytes());
    bytes.put(data, &noise);
    bytes.put_u64(bytes.l1() + 80, data as u64);
    bytes.write(&image);
    // A table says that it is data: it is not looked into.
    let (_, document) = json(&image, &["copy_metadata", text(&image.with_extension("named"))]);
    assert_eq!(document["replaced"], 0, "{document:#}");
    let keys: Vec<&String> = document.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["copy", "image", "length", "replaced", "schema", "tables"]);
    assert_eq!(bytes.u64(bytes.l2_entry(5 * 4096)), (data + bytes.table_bytes() / 2) as u64);
    (4..6).for_each(|index| bytes.put_u64(bytes.l2_entry(index * 4096), 0));
    bytes.write(&image);
    let (_, document) = {
        let out = image.with_extension("json");
        json(&image, &["copy_metadata", text(&out)])
    };
    assert!(document["replaced"].as_u64().unwrap() > 500, "{document:#}");
    let copy = fs::read(copied(&image)).unwrap();
    let guests: HashSet<&[u8]> = noise.chunks(8).collect();
    assert!(copy.windows(8).all(|window| !guests.contains(window)), "no word of the guest's is in the copy");
}

#[test]
fn damaged_images() {
    let seed = seed();
    let sources = sources();
    threads::each(150, |number| {
        let folder = scratch();
        let image = folder.path().join("image");
        let kind = if number % 2 == 0 { Kind::Tables } else { Kind::Any };
        let bytes = damaged(&sources, &mut Random::new(seed ^ (number << 20)), kind);
        bytes.write(&image);
        println!("VDISK_SEED={seed}, image {number}");
        let out = image.with_extension("copy");
        if qed(&image, &["check", "--json"]).status.code() == Some(1) {
            let run = qed(&image, &["copy_metadata", text(&out)]).expect(1);
            assert!(!out.exists(), "{run}");
            return;
        }
        let out = copied(&image);
        assert_eq!(fs::metadata(&out).unwrap().len(), bytes.0.len() as u64);
        for canary in [0x11, 0x22, 0x33, 0x44, 0x55, 0x66] {
            assert_eq!(canaries(&out, canary), 0, "VDISK_SEED={seed}, image {number}: {canary:#x}");
        }
    });
}

#[test]
fn the_backing_files_name_is_copied() {
    let folder = scratch();
    let image = backed(folder.path(), "image");
    let out = copied(&image);
    let name = format!("backing file: {}", text(&folder.path().join("image.base")));
    assert!(qemu::img(&["info", "-f", "qed", text(&out)]).out().contains(&name));
    // What the backing file has is read where the image has nothing; its own data are gone.
    qemu::io(&out, &["read -P 0 0 12k", "read -P 0xbb 12k 4k", "read -P 0 16k 8k"]);
}

#[test]
fn its_own_source_is_refused() {
    let folder = scratch();
    let image = small(folder.path(), "image");
    let [link, hard] = ["link", "hard"].map(|name| folder.path().join(name));
    symlink("image", &link).unwrap();
    fs::hard_link(&image, &hard).unwrap();
    let before = Snapshot::of(&image);
    let detour = folder.path().join("../").join(folder.path().file_name().unwrap()).join("image");
    for out in [&image, &link, &hard, &detour] {
        let run = qed(&image, &["copy_metadata", text(out)]).expect(1);
        assert!(run.err().contains("OUT is the image itself"), "{run}");
        before.unchanged(&image, &run);
        let run = qed(&link, &["copy-metadata", text(out)]).expect(1);
        before.unchanged(&image, &run);
    }
}

/// What a link names is replaced, and the link stays; where it names nothing, so it does.
#[test]
fn a_link_stays_a_link() {
    let folder = scratch();
    let image = small(folder.path(), "image");
    let [out, link, dangling] = ["out", "link", "dangling"].map(|name| folder.path().join(name));
    fs::write(&out, "so far").unwrap();
    symlink("out", &link).unwrap();
    QED.edit(&image, &["copy_metadata", text(&link)]);
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("out"));
    same_check(&image, &out);

    symlink("nowhere", &dangling).unwrap();
    let run = qed(&image, &["copy_metadata", text(&dangling)]).expect(1);
    assert!(run.err().contains("OUT is a symbolic link to nothing"), "{run}");
    assert_eq!(fs::read_link(&dangling).unwrap(), Path::new("nowhere"));
    assert!(!folder.path().join("nowhere").exists());
}

/// Where the bytes may not outlive a power failure, OUT is what it was.
#[test]
fn a_copy_that_cannot_be_synced_replaces_nothing() {
    let folder = scratch();
    let image = small(folder.path(), "image");
    let out = folder.path().join("out");
    let so_far = "so far";
    fs::write(&out, so_far).unwrap();
    let files = || fs::read_dir(folder.path()).unwrap().count();
    let before = files();
    let outcome = disturbed(QED, "fsync", "error=EIO", 1, &image, &["copy_metadata", text(&out)]);
    let Outcome::Ended(run) = outcome else { panic!("it ends: {outcome:?}") };
    let run = run.expect(1);
    assert!(run.err().contains("cannot write") && run.err().contains("Input/output error"), "{run}");
    assert_eq!(fs::read_to_string(&out).unwrap(), so_far, "{run}");
    assert_eq!(files(), before, "nothing is left behind: {run}");
}

/// Whoever puts a file at OUT while the copy is made keeps it.
#[test]
fn a_file_that_was_put_there_meanwhile_stays() {
    let folder = scratch();
    let image = small(folder.path(), "image");
    let [out, new] = ["out", "new"].map(|name| folder.path().join(name));
    for is_there_before in [false, true] {
        drop(fs::remove_file(&out));
        if is_there_before {
            fs::write(&out, "so far").unwrap();
        }
        // It is written, and about to be synced or to get its name, for two seconds.
        let args = ["copy_metadata", text(&out)];
        let mut slow = tracer::command(QED, "fsync,link,linkat,renameat2", "delay_enter=2s", &image, &args);
        let run = std::thread::scope(|scope| {
            let run = scope.spawn(|| run_within(&mut slow, b"", Duration::from_secs(30)));
            let copy_is_there = || {
                fs::read_dir(folder.path()).unwrap().any(|entry| {
                    let entry = entry.unwrap();
                    let is_copy = text(&entry.path()).contains("/.copy_metadata-");
                    is_copy && entry.metadata().is_ok_and(|metadata| metadata.len() > 0)
                })
            };
            while !copy_is_there() && !run.is_finished() {
                std::thread::sleep(Duration::from_millis(5));
            }
            fs::write(&new, "somebody's").unwrap();
            fs::rename(&new, &out).unwrap();
            run.join().unwrap()
        });
        let run = run.expect(1);
        assert!(run.err().contains("another file was put there meanwhile"), "{run}");
        assert_eq!(fs::read_to_string(&out).unwrap(), "somebody's", "{run}");
    }
}

#[test]
fn what_is_no_file_is_not_replaced() {
    let folder = scratch();
    let image = small(folder.path(), "image");
    fs::create_dir(folder.path().join("folder")).unwrap();
    let before = Snapshot::of(&image);
    for out in ["/dev/null", "/dev/full", text(&folder.path().join("folder")), text(folder.path()), ""] {
        let run = qed(&image, &["copy_metadata", out]);
        assert!(matches!(run.status.code(), Some(1 | 64)), "{run}");
        assert!(!run.stderr.is_empty(), "{run}");
        before.unchanged(&image, &run);
    }
}

#[test]
fn a_file_that_exists_is_replaced_by_the_whole_copy() {
    let folder = scratch();
    let image = small(folder.path(), "image");
    let expected = fs::read(copied(&image)).unwrap();
    let out = folder.path().join("out");
    fs::write(&out, vec![CANARY; 1 << 20]).unwrap();
    QED.edit(&image, &["copy_metadata", text(&out)]);
    assert!(fs::read(&out).unwrap() == expected);
    // A copy of the copy is the same.
    assert!(fs::read(copied(&out)).unwrap() == expected);
}

#[test]
fn what_is_no_qed_image_is_copied_only_by_force() {
    let folder = scratch();
    let image = folder.path().join("image");
    fs::write(&image, vec![CANARY; 1 << 20]).unwrap();
    let out = folder.path().join("out");
    let run = qed(&image, &["copy_metadata", text(&out)]).expect(1);
    assert!(run.err().contains("--force") && !out.exists(), "{run}");
    qed(&image, &["copy_metadata", text(&out), "--force"]).expect(0);
    let copy = fs::read(&out).unwrap();
    assert_eq!(copy.len(), 1 << 20);
    assert!(copy[64..].iter().all(|&byte| byte == 0));
}

#[test]
fn shapes_that_qemu_does_not_open() {
    for shape in [Shape::new(4096, 1), Shape::new(65536, 1), Shape::new(1 << 20, 1)] {
        let folder = scratch();
        let image = folder.path().join("image");
        let mut bytes = by_hand(shape, shape.span(), 3);
        for index in 0..3 {
            let at = usize::try_from(bytes.u64(bytes.l2_entry(index * shape.cluster_size))).unwrap();
            bytes.put(at, &vec![CANARY; shape.cluster_size as usize]);
        }
        bytes.write(&image);
        let out = copied(&image);
        assert_eq!(canaries(&out, CANARY), 0);
        assert_eq!(qed(&out, &["check"]).status.code(), Some(0));
    }
}
