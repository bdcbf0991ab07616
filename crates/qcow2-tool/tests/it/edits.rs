//! Every edit does what the original does on a healthy image, and nothing besides.

mod numbers;

use crate::support::bytes::{Bytes, assert_same, at};
use crate::support::images::{self, Image};
use crate::support::original::Original;
use crate::support::program::{command, edit, qcow2};
use crate::support::qemu;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use test_support::process::run;
use test_support::scratch::{Snapshot, scratch, text};

/// One edit, and what it reads from standard input.
type Edit = (&'static [&'static str], &'static [u8]);

/// Edits that both tools carry out in the same way on every image without bitmaps.
const EDITS: [Edit; 13] = [
    (&["add-header-ext", "0x12345678", "This is a test header extension"], b""),
    (&["add-header-ext", "1", ""], b""),
    (&["add-header-ext", "0xffffffff", "eight by"], b""),
    (&["add-header-ext-stdio", "0x12345678"], b"from\0stdin\n"),
    (&["add-header-ext-stdio", "0o17"], b"1"),
    (&["set-header", "size", "0x200000"], b""),
    (&["set-header", "nb_snapshots", "7"], b""),
    (&["set-header", "crypt_method", "0"], b""),
    (&["set-header", "l1_table_offset", "0x1_0000"], b""),
    (&["set-header", "refcount_table_clusters", "0b11"], b""),
    (&["set-header", "snapshot_offset", "0xfffffffffffff000"], b""),
    (&["set-header", "version", "7"], b""),
    (&["set-header", "magic", "0"], b""),
];

/// Edits that need version 3.
const V3_EDITS: [Edit; 8] = [
    (&["set-feature-bit", "incompatible", "63"], b""),
    (&["set-feature-bit", "incompatible", "0"], b""),
    (&["set-feature-bit", "compatible", "42"], b""),
    (&["set-feature-bit", "autoclear", "0x3f"], b""),
    (&["set-header", "autoclear_features", "0x8000000000000001"], b""),
    (&["set-header", "incompatible_features", "0x8000000000000000"], b""),
    (&["set-header", "compatible_features", "3"], b""),
    (&["set-header", "refcount_order", "5"], b""),
];

/// Some of the images, each of another kind.
fn some_images(folder: &Path) -> Vec<Image> {
    let mut images = images::without_bitmaps(folder);
    images.retain(|image| {
        let name = image.name.as_str();
        // The smallest first cluster is full of the feature names that qemu-img writes.
        let sized = name.starts_with('v')
            && !["-1024", "-4096-backed", "-65536", "-65536-backed"].iter().any(|end| name.ends_with(end));
        !sized && !name.starts_with("refcount-")
    });
    images
}

#[test]
fn both_leave_the_same_header() {
    let folder = scratch();
    let mut original = Original::start();
    for image in some_images(folder.path()) {
        let v2 = Bytes::read(&image.path).version() == 2;
        let edits = EDITS.iter().chain(if v2 { &[][..] } else { &V3_EDITS[..] });
        for &(args, input) in edits {
            let [theirs, ours] = ["theirs", "ours"].map(|name| copied(&image.path, name));
            original.edit(&theirs, args, input);
            let run = run(command().arg(&ours).args(args), input).expect(0);
            assert!(run.stdout.is_empty() && run.stderr.is_empty(), "an edit says nothing: {run}");
            assert_eq!(original.dump(&ours), original.dump(&theirs), "{}: {args:?}", image.name);
            assert_eq!(qemu::check(&ours), qemu::check(&theirs), "{}: {args:?}", image.name);
        }
    }
}

#[test]
fn both_delete_what_is_there_and_say_when_nothing_is() {
    let folder = scratch();
    let mut original = Original::start();
    for image in some_images(folder.path()) {
        for magic in ["0xe2792aca", "0x6803f857", "0x0537be77", "0x44415441", "0x12345678"] {
            let [theirs, ours] = ["theirs", "ours"].map(|name| copied(&image.path, name));
            let args = ["del-header-ext", magic];
            let answer = &original.run(&theirs, &[&args], b"")[0];
            let run = qcow2(&ours, &args);
            assert_eq!(answer.stdout(), Some(run.out().as_str()), "{}: {run}", image.name);
            assert_eq!(run.status.code(), Some(i32::from(!run.stdout.is_empty())), "{run}");
            assert_eq!(original.dump(&ours), original.dump(&theirs), "{}: {args:?}", image.name);
            assert_eq!(qemu::check(&ours), qemu::check(&theirs), "{}: {args:?}", image.name);
        }
    }
}

#[test]
fn set_header_changes_the_bytes_of_the_field_and_no_others() {
    let folder = scratch();
    let fields = [
        ("magic", 0, 4),
        ("version", 4, 4),
        ("backing_file_offset", 8, 8),
        ("backing_file_size", 16, 4),
        ("cluster_bits", 20, 4),
        ("size", 24, 8),
        ("crypt_method", 32, 4),
        ("l1_size", 36, 4),
        ("l1_table_offset", 40, 8),
        ("refcount_table_offset", 48, 8),
        ("refcount_table_clusters", 56, 4),
        ("nb_snapshots", 60, 4),
        ("snapshot_offset", 64, 8),
        ("incompatible_features", 72, 8),
        ("compatible_features", 80, 8),
        ("autoclear_features", 88, 8),
        ("refcount_order", 96, 4),
        ("header_length", 100, 4),
    ];
    let images = [images::one_bitmap(folder.path(), "bitmap"), backed(folder.path())];
    for image in images {
        let before = Bytes::read(&image);
        for (name, offset, width) in fields {
            for value in [0, 1, 0x89ab_cdef_u64, u64::MAX >> (64 - 8 * width)] {
                let file = copied(&image, "edited");
                edit(&file, &["set-header", name, &value.to_string()]);
                let expected = before.clone().with(offset, &value.to_be_bytes()[8 - width..]);
                assert_same(&Bytes::read(&file), &expected, &format!("set-header {name} {value:#x}"));
            }
        }
    }
}

#[test]
fn a_feature_bit_is_one_bit() {
    let folder = scratch();
    let image = images::one_bitmap(folder.path(), "bitmap");
    let before = Bytes::read(&image);
    for (group, offset) in [("incompatible", 72), ("compatible", 80), ("autoclear", 88)] {
        for bit in [0, 7, 8, 31, 32, 62, 63] {
            let number = bit.to_string();
            let set = before.clone().with_u64(offset, before.u64(offset) | (1 << bit));
            let clear = before.clone().with_u64(offset, before.u64(offset) & !(1 << bit));
            edit(&image, &["set-feature-bit", group, &number]);
            assert!(Bytes::read(&image) == set, "set {group} {bit}");
            edit(&image, &["clear-feature-bit", group, &number]);
            assert!(Bytes::read(&image) == clear, "clear {group} {bit}");
            before.write(&image);
        }
    }
}

#[test]
fn undo_brings_every_byte_back_one_edit_at_a_time() {
    let folder = scratch();
    for image in some_images(folder.path()) {
        let name = text(&image.path);
        let start = Snapshot::of(&image.path);
        let mut states = vec![fs::read(&image.path).unwrap()];
        let edits: [&[&str]; 3] = [
            &["add-header-ext", "5", "five"],
            &["set-header", "size", "99"],
            &["add-header-ext", "6", "six"],
        ];
        for (number, args) in edits.iter().enumerate() {
            edit(&image.path, args);
            states.push(fs::read(&image.path).unwrap());
            let record = format!("{name}.undo-{}", number + 1);
            assert!(Path::new(&record).is_file(), "{record}");
        }
        let list = qcow2(&image.path, &["undo", "--list"]).expect(0).out();
        assert!(list.contains("size"), "the list says what each edit was:\n{list}");
        while let Some(state) = states.pop() {
            assert!(fs::read(&image.path).unwrap() == state, "{name}: state {}", states.len());
            if !states.is_empty() {
                qcow2(&image.path, &["undo"]).expect(0);
            }
        }
        qcow2(&image.path, &["undo"]).expect(1);
        assert_eq!(Snapshot::of(&image.path).bytes(), start.bytes(), "{name}");
        assert!(!Path::new(&format!("{name}.undo-1")).exists(), "the records are used up");
    }
}

#[test]
fn undo_refuses_an_image_that_was_used_since_unless_forced() {
    let folder = scratch();
    let image = images::made(folder.path(), "image", "").path;
    let before = fs::read(&image).unwrap();
    edit(&image, &["set-feature-bit", "compatible", "9"]);
    qemu::io(&image, &["write -P 1 0 64k"]);
    let used = Snapshot::of(&image);
    let run = qcow2(&image, &["undo"]).expect(1);
    assert!(!run.stderr.is_empty(), "{run}");
    used.unchanged(&image, &run);
    qcow2(&image, &["undo", "--force"]).expect(0);
    let header = Bytes(before).u64(80);
    assert_eq!(Bytes::read(&image).u64(80), header, "the bit is gone");
    assert!(qemu::opens(&image));
}

#[test]
fn undo_shows_what_it_would_do() {
    let folder = scratch();
    let image = images::made(folder.path(), "image", "").path;
    edit(&image, &["add-header-ext", "5", "five"]);
    let edited = Snapshot::of(&image);
    let run = qcow2(&image, &["undo", "--dry-run"]).expect(0);
    assert!(!run.stdout.is_empty(), "{run}");
    edited.unchanged(&image, &run);
}

#[test]
fn dry_run_and_save_plan_write_nothing_and_apply_does() {
    let folder = scratch();
    let image = images::made(folder.path(), "image", "").path;
    let plan = scratch();
    let plan = plan.path().join("plan");
    let before = Snapshot::of(&image);
    let args = ["add-header-ext", "5", "five"];
    let run = qcow2(&image, &[&args[..], &["--dry-run"]].concat()).expect(0);
    assert!(!run.stdout.is_empty(), "a plan on stdout: {run}");
    before.unchanged(&image, &run);
    let run = qcow2(&image, &[&args[..], &["--save-plan", text(&plan)]].concat()).expect(0);
    before.unchanged(&image, &run);

    let direct = copied(&image, "direct");
    edit(&direct, &args);
    qcow2(&image, &["apply", text(&plan)]).expect(0);
    assert!(fs::read(&image).unwrap() == fs::read(&direct).unwrap(), "apply is the edit");
    qcow2(&image, &["undo"]).expect(0);
    assert_eq!(Snapshot::of(&image).bytes(), before.bytes());

    edit(&image, &["add-header-ext", "6", "in between"]);
    let other = Snapshot::of(&image);
    let run = qcow2(&image, &["apply", text(&plan)]).expect(1);
    other.unchanged(&image, format!("a stale plan: {run}"));
}

#[test]
fn records_go_where_the_user_says() {
    let folder = scratch();
    let image = images::made(folder.path(), "image", "").path;
    let before = fs::read(&image).unwrap();
    let names = || test_support::scratch::names(folder.path());
    let alone = names();

    let records = scratch();
    edit(&image, &["set-header", "size", "1", "--undo-dir", text(records.path())]);
    assert_eq!(names(), alone, "--undo-dir");
    assert_eq!(test_support::scratch::names(records.path()).len(), 1);
    qcow2(&image, &["undo", "--undo-dir", text(records.path())]).expect(0);
    assert!(fs::read(&image).unwrap() == before);

    let with_variable = |args: &[&str]| {
        run(command().env("VDISK_UNDO_DIR", records.path()).arg(&image).args(args), b"").expect(0)
    };
    with_variable(&["set-header", "size", "2"]);
    assert_eq!(names(), alone, "VDISK_UNDO_DIR");
    with_variable(&["undo"]);
    assert!(fs::read(&image).unwrap() == before);
    assert!(test_support::scratch::names(records.path()).is_empty(), "no record is left");

    edit(&image, &["set-header", "size", "3", "--no-undo"]);
    assert_eq!(names(), alone, "--no-undo");
    qcow2(&image, &["undo"]).expect(1);
}

#[test]
fn verbose_edits_tell_stderr_and_not_stdout() {
    let folder = scratch();
    let image = images::made(folder.path(), "image", "").path;
    let run = qcow2(&image, &["set-header", "size", "1048576", "-v"]).expect(0);
    assert!(run.stdout.is_empty() && run.err().contains("size"), "{run}");
}

#[test]
fn an_edit_works_while_a_plain_open_holds_the_file() {
    let folder = scratch();
    let image = images::made(folder.path(), "image", "").path;
    let held = fs::File::options().read(true).write(true).open(&image).unwrap();
    edit(&image, &["set-feature-bit", "autoclear", "63"]);
    drop(held);
}

#[test]
fn data_need_not_be_text() {
    use std::os::unix::ffi::OsStrExt;
    let folder = scratch();
    let image = images::made(folder.path(), "image", "").path;
    let data = b"\xff\xfe raw \x80";
    edit(&image, &[OsStr::new("add-header-ext"), OsStr::new("0x12345678"), OsStr::from_bytes(data)]);
    let bytes = Bytes::read(&image);
    assert_eq!(bytes.0[bytes.extension(0x1234_5678).unwrap()], *data);
}

/// A fresh copy of an image, beside it in a folder of its own.
fn copied(image: &Path, name: &str) -> PathBuf {
    let folder = image.parent().unwrap().join("copies");
    drop(fs::remove_file(folder.join(format!("{name}.undo-1"))));
    fs::create_dir_all(&folder).unwrap();
    let copy = folder.join(name);
    fs::copy(image, &copy).unwrap();
    copy
}

fn backed(folder: &Path) -> PathBuf {
    let base = images::made(folder, "base", "").path;
    let options = format!("backing_file={},backing_fmt=qcow2", text(&base));
    let image = images::made(folder, "overlay", &options).path;
    assert_ne!(Bytes::read(&image).u64(at::BACKING_FILE_OFFSET), 0);
    image
}

#[test]
fn an_empty_variable_names_no_undo_folder() {
    let folder = scratch();
    let image = images::made(folder.path(), "image", "").path;
    run(command().arg(&image).args(["set-feature-bit", "compatible", "0"]).env("VDISK_UNDO_DIR", ""), b"")
        .expect(0);
    assert!(folder.path().join("image.qcow2.undo-1").is_file());
}
