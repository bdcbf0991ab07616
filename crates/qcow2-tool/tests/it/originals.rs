//! Where the original crashes, corrupts or lies, ours does what was meant: one test each.

use crate::support::bytes::{Bytes, assert_same, at, extension, magic};
use crate::support::images::{self, made};
use crate::support::original::{Answer, Original};
use crate::support::program::{command, edit, edit_from, qcow2};
use crate::support::qemu;
use std::fs;
use std::path::{Path, PathBuf};
use test_support::process::run;
use test_support::scratch::{Snapshot, scratch, text};

/// The four bytes of `header_length` end the header, and the original never writes the last.
#[test]
fn the_last_byte_of_the_header_is_written() {
    let folder = scratch();
    let image = made(folder.path(), "image", "").path;
    edit(&image, &["set-header", "header_length", "0x01020378"]);
    assert_eq!(Bytes::read(&image).u32(at::HEADER_LENGTH), 0x0102_0378);

    let image = made(folder.path(), "v2", "compat=0.10").path;
    edit(&image, &["set-header", "snapshot_offset", "0x0102030405060708"]);
    assert_eq!(Bytes::read(&image).u64(64), 0x0102_0304_0506_0708);
}

/// The original writes the whole header and area again, and so loses what it does not know.
#[test]
fn bytes_that_nobody_knows_survive_an_edit_of_a_field() {
    let folder = scratch();
    let image = made(folder.path(), "image", "").path;
    let area = extension(magic::UNKNOWN, b"five!")
        .iter()
        .map(|&b| if b == 0 { 0xee } else { b })
        .collect::<Vec<_>>();
    let strange = Bytes::read(&image).with(105, &[1, 2, 3, 4, 5, 6, 7]).with(2000, &area);
    strange.write(&image);
    edit(&image, &["set-header", "size", "0x123456"]);
    assert!(Bytes::read(&image) == strange.with_u64(at::SIZE, 0x12_3456));
}

#[test]
fn additional_header_fields_survive_an_added_extension() {
    let folder = scratch();
    let image = made(folder.path(), "image", "compression_type=zstd").path;
    let before = Bytes::read(&image);
    edit(&image, &["add-header-ext", "5", "five"]);
    assert_eq!(Bytes::read(&image).0[..112], before.0[..112]);
    assert_eq!(qemu::check(&image).status, Some(0));
}

/// The original overwrites this field with the place where it puts the name.
#[test]
fn the_place_of_the_backing_file_name_can_be_set() {
    let folder = scratch();
    let image = backed(folder.path());
    edit(&image, &["set-header", "backing_file_offset", "0x1234"]);
    assert_eq!(Bytes::read(&image).u64(at::BACKING_FILE_OFFSET), 0x1234);
}

#[test]
fn new_data_is_padded_with_zeros_and_the_name_moves_behind_it() {
    let folder = scratch();
    let image = backed(folder.path());
    for length in 0..=9 {
        edit(&image, &["add-header-ext", "0x1000", &"x".repeat(length)]);
        let bytes = Bytes::read(&image);
        let data = bytes.extension(0x1000).unwrap();
        assert_eq!(data.len(), length);
        assert!(bytes.0[data.end..data.end.next_multiple_of(8)].iter().all(|&byte| byte == 0));
        assert_eq!(qemu::check(&image).status, Some(0), "{length} bytes");
        edit(&image, &["del-header-ext", "0x1000"]);
    }
}

/// The original prints a TypeError after it began to write.
#[test]
fn an_image_with_bitmaps_can_be_edited() {
    let folder = scratch();
    let image = images::one_bitmap(folder.path(), "image");
    let theirs = folder.path().join("theirs");
    fs::copy(&image, &theirs).unwrap();
    let args: [&[&str]; 3] = [
        &["add-header-ext", "0x12345678", "beside the bitmaps"],
        &["set-feature-bit", "compatible", "5"],
        &["set-header", "size", "0x300000"],
    ];
    let mut original = Original::start();
    assert!(matches!(original.run(&theirs, &args[..1], b"")[..], [Answer::Failed(_)]), "the fault");
    let before = original.run(&image, &[&["dump-header-exts"]], b"");
    for args in &args[..2] {
        edit(&image, args);
        assert_eq!(qemu::check(&image).status, Some(0), "{args:?}");
    }
    let info = qemu::img(&["info", text(&image)]).out();
    assert!(info.contains("name: b0"), "the bitmap is still there:\n{info}");
    edit(&image, &["del-header-ext", "0x12345678"]);
    assert_eq!(original.run(&image, &[&["dump-header-exts"]], b""), before);
    edit(&image, args[2]);
}

/// The original notices after it has overwritten what follows the cluster.
#[test]
fn an_overfull_first_cluster_is_refused_before_anything_is_written() {
    let folder = scratch();
    let image = made(folder.path(), "image", "cluster_size=512").path;
    let fits = |length: usize| {
        qcow2(&image, &["add-header-ext", "7", &"x".repeat(length), "--dry-run"]).status.success()
    };
    assert!(!fits(500), "more than there is room for");
    let most = (0..500).rev().find(|&length| fits(length)).unwrap();
    let before = Snapshot::of(&image);
    let run = qcow2(&image, &["add-header-ext", "7", &"x".repeat(most + 1)]).expect(1);
    assert!(!run.stderr.is_empty(), "{run}");
    before.unchanged(&image, &run);
    let run =
        self::run(command().arg(&image).args(["add-header-ext-stdio", "7"]), &vec![b'x'; 5 << 20]).expect(1);
    before.unchanged(&image, &run);

    edit(&image, &["add-header-ext", "7", &"x".repeat(most)]);
    assert_eq!(qemu::check(&image).status, Some(0), "filled to the brim");
}

/// With no end marker, the original's edit makes extensions of whatever follows.
#[test]
fn a_missing_end_marker_swallows_nothing() {
    let folder = scratch();
    let image = made(folder.path(), "image", "cluster_size=512").path;
    let bytes = Bytes::read(&image);
    let room = 512 - bytes.header_length();
    let bytes = bytes.clone().with_area(&extension(magic::UNKNOWN, &vec![b'x'; room - 8]));
    bytes.write(&image);
    let before = Snapshot::of(&image);
    let run = qcow2(&image, &["add-header-ext", "7", "more"]).expect(1);
    before.unchanged(&image, &run);
    edit(&image, &["del-header-ext", "0x12345678"]);
    assert!(Bytes::read(&image) == bytes.with_area(&[]), "only the area was cleared");
    assert_eq!(qemu::check(&image).status, Some(0));
}

/// An extension whose length reaches past the area is no reason to move other people's bytes.
#[test]
fn an_extension_that_overruns_the_cluster_is_not_rewritten() {
    let folder = scratch();
    let image = made(folder.path(), "image", "cluster_size=512").path;
    let area = [magic::UNKNOWN.to_be_bytes(), u32::to_be_bytes(5000)].concat();
    Bytes::read(&image).with_area(&area).write(&image);
    let before = Snapshot::of(&image);
    let run = qcow2(&image, &["add-header-ext", "7", "more"]).expect(1);
    before.unchanged(&image, &run);
}

/// The original deletes every other one.
#[test]
fn a_repeated_extension_is_deleted_every_time() {
    let folder = scratch();
    let image = made(folder.path(), "image", "").path;
    let before = Bytes::read(&image);
    for data in ["one", "two", "three", "four", "five"] {
        edit(&image, &["add-header-ext", "0x77", data]);
    }
    edit(&image, &["del-header-ext", "0x77"]);
    assert_same(&Bytes::read(&image), &before, "all are deleted");
}

/// The original crashes after it has rewritten the extensions.
#[test]
fn values_out_of_range_are_refused() {
    let folder = scratch();
    let image = made(folder.path(), "image", "").path;
    let before = Snapshot::of(&image);
    for (name, value) in [
        ("version", "0x100000000"),
        ("size", "0x10000000000000000"),
        ("size", "-1"),
        ("header_length", "-5"),
        ("cluster_bits", "99999999999999999999999"),
    ] {
        let run = qcow2(&image, &["set-header", name, value]).expect(64);
        before.unchanged(&image, &run);
    }
    for magic in ["0x100000000", "-1", "0"] {
        for args in [
            &["add-header-ext", magic, "x"][..],
            &["del-header-ext", magic],
            &["add-header-ext-stdio", magic],
        ] {
            let run = qcow2(&image, args).expect(64);
            assert_eq!(run.out(), format!("'{magic}' is not a valid magic number\n"), "{run}");
            before.unchanged(&image, &run);
        }
    }
}

/// The original says nothing and does nothing.
#[test]
fn a_field_that_the_version_does_not_have_is_refused() {
    let folder = scratch();
    let image = made(folder.path(), "image", "compat=0.10").path;
    let before = Snapshot::of(&image);
    let lines: [&[&str]; 7] = [
        &["set-header", "incompatible_features", "1"],
        &["set-header", "compatible_features", "1"],
        &["set-header", "autoclear_features", "1"],
        &["set-header", "refcount_order", "5"],
        &["set-header", "header_length", "104"],
        &["set-feature-bit", "compatible", "0"],
        &["clear-feature-bit", "incompatible", "0"],
    ];
    for args in lines {
        let run = qcow2(&image, args).expect(1);
        assert!(run.err().contains("version"), "{run}");
        before.unchanged(&image, &run);
    }
}

/// The original encodes as ASCII, and dies otherwise.
#[test]
fn data_on_the_command_line_may_be_any_text() {
    let folder = scratch();
    let image = made(folder.path(), "image", "").path;
    edit(&image, &["add-header-ext", "0x12345678", "größer ☃"]);
    let bytes = Bytes::read(&image);
    assert_eq!(bytes.0[bytes.extension(magic::UNKNOWN).unwrap()], *"größer ☃".as_bytes());
}

/// The original reads text: it changes line ends, and dies of anything but ASCII.
#[test]
fn data_from_standard_input_stays_as_it_is() {
    let folder = scratch();
    let image = made(folder.path(), "image", "").path;
    let all: Vec<u8> = (0..=255).collect();
    for data in [&b"\r\n\r\0\n"[..], &all, b"\xff", b"\0", b""] {
        edit_from(&image, &["add-header-ext-stdio", "0x12345678"], data);
        let bytes = Bytes::read(&image);
        assert_eq!(bytes.0[bytes.extension(magic::UNKNOWN).unwrap()], *data);
        edit(&image, &["del-header-ext", "0x12345678"]);
    }
}

#[test]
fn bitmaps_that_are_deleted_take_their_feature_bit_along() {
    let folder = scratch();
    let image = images::one_bitmap(folder.path(), "image");
    assert_eq!(Bytes::read(&image).u64(at::AUTOCLEAR_FEATURES) & 1, 1);
    edit(&image, &["del-header-ext", "0x23852875"]);
    let bytes = Bytes::read(&image);
    assert_eq!(bytes.u64(at::AUTOCLEAR_FEATURES) & 1, 0);
    assert_eq!(bytes.extension(magic::BITMAPS), None);
    assert!(qemu::opens(&image));
}

#[test]
fn an_image_with_a_broken_bitmap_directory_opens_again() {
    let folder = scratch();
    let broken: [fn(Bytes) -> Bytes; 6] = [
        |bytes| {
            let data = bytes.extension(magic::BITMAPS).unwrap().start;
            bytes.with_u64(data + 16, 0x7fff_ffff_0000)
        },
        |bytes| {
            let data = bytes.extension(magic::BITMAPS).unwrap().start;
            bytes.with_u32(data, 0xffff)
        },
        |bytes| {
            let data = bytes.extension(magic::BITMAPS).unwrap().start;
            bytes.with_u64(data + 8, 3)
        },
        |bytes| {
            let entry = bytes.bitmap_directory();
            bytes.with(entry, &[0xff; 24])
        },
        |bytes| {
            let entry = bytes.bitmap_directory();
            bytes.with(entry + 18, &[0xff, 0xff])
        },
        |bytes| {
            let entry = bytes.bitmap_directory();
            bytes.with_u64(entry, 0x1001)
        },
    ];
    for (number, damage) in broken.iter().enumerate() {
        let image = images::one_bitmap(folder.path(), &format!("broken-{number}"));
        damage(Bytes::read(&image)).write(&image);
        let before = Bytes::read(&image);
        assert!(!qemu::opens(&image), "damage {number} keeps QEMU out");
        edit(&image, &["del-header-ext", "0x23852875"]);
        assert!(qemu::opens(&image), "damage {number}: QEMU opens it again");
        qemu::io(&image, &["read -P 5 0 300k", "write -P 6 1M 64k"]);
        drop(qcow2(&image, &["undo", "--force"]).expect(0));
        assert_eq!(Bytes::read(&image).extension(magic::BITMAPS), before.extension(magic::BITMAPS));
    }
}

/// The original says so, and exits 0.
#[test]
fn no_such_extension_is_a_failure() {
    let folder = scratch();
    let image = made(folder.path(), "image", "").path;
    let before = Snapshot::of(&image);
    let run = qcow2(&image, &["del-header-ext", "0x12345678"]).expect(1);
    assert_eq!(run.out(), "No such header extension\n");
    before.unchanged(&image, &run);
}

/// `-j` must print two documents, and without compression_type; `--json` prints one with all.
#[test]
fn json_is_one_document_with_every_field() {
    let folder = scratch();
    let image = made(folder.path(), "image", "compression_type=zstd").path;
    edit(&image, &["add-header-ext", "0x12345678", "x"]);
    let run = qcow2(&image, &["dump-header", "--json"]).expect(0);
    let document: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(document["schema"], 1);
    assert_eq!(document["header"]["compression_type"], 1, "{run}");
    assert_eq!(document["header"]["size"], 4 << 20, "{run}");
    assert!(document["extensions"].as_array().unwrap().len() >= 2, "{run}");
    assert!(document["findings"].is_array(), "{run}");
}

fn backed(folder: &Path) -> PathBuf {
    let base = made(folder, "base", "").path;
    let options = format!("backing_file={},backing_fmt=qcow2", text(&base));
    made(folder, "overlay", &options).path
}
