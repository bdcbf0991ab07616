//! No write to an image that something else has open, no read while something else writes, and
//! nobody gets in while we write.

mod holder;

use crate::support::images::{self, made};
use crate::support::process::{Run, run, run_within};
use crate::support::program::{command, edit, qcow2};
use crate::support::qemu;
use crate::support::scratch::{Snapshot, scratch, text};
use crate::support::tracer;
use holder::Holder;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

const EDITS: [&[&str]; 4] = [
    &["set-header", "size", "0x100000"],
    &["add-header-ext", "0x12345678", "data"],
    &["set-feature-bit", "compatible", "7"],
    &["del-header-ext", "0x6803f857"],
];

#[track_caller]
fn refused(run: Run) {
    let run = run.expect(1);
    assert!(run.stdout.is_empty(), "{run}");
    assert!(["in use", "lock"].iter().any(|word| run.err().contains(word)), "it says why: {run}");
}

#[track_caller]
fn no_edit_works(image: &Path) {
    let before = Snapshot::of(image);
    for args in EDITS {
        refused(qcow2(image, args));
        refused(qcow2(image, &[args, &["-U"]].concat()));
    }
    before.unchanged(image, "edits of an image in use");
}

#[track_caller]
fn reading_works(image: &Path) {
    qcow2(image, &["dump-header"]).expect(0);
    qcow2(image, &["set-header", "size", "5", "--dry-run"]).expect(0);
}

#[track_caller]
fn reading_needs_force_share(image: &Path) {
    for args in [&["dump-header"][..], &["dump-header-exts", "-j"], &["set-header", "size", "5", "--dry-run"]]
    {
        refused(qcow2(image, args));
        for flag in ["-U", "--force-share"] {
            qcow2(image, &[args, &[flag]].concat()).expect(0);
            run(command().arg(flag).arg(image).args(args), b"").expect(0);
        }
    }
}

#[track_caller]
fn free(image: &Path) {
    reading_works(image);
    edit(image, EDITS[0]);
    qcow2(image, &["undo"]).expect(0);
}

#[test]
fn open_for_writing_in_qemu_io() {
    let folder = scratch();
    let image = made(folder.path(), "image", "").path;
    let holder = Holder::qemu_io(&image, &[]);
    no_edit_works(&image);
    reading_needs_force_share(&image);
    drop(holder);
    free(&image);
}

#[test]
fn open_for_reading_in_qemu_io() {
    let folder = scratch();
    let image = made(folder.path(), "image", "").path;
    let holder = Holder::qemu_io(&image, &["-r"]);
    no_edit_works(&image);
    reading_works(&image);
    drop(holder);
    free(&image);
}

#[test]
fn open_in_a_storage_daemon() {
    let folder = scratch();
    let image = made(folder.path(), "image", "").path;
    let holder = Holder::storage_daemon(&image);
    no_edit_works(&image);
    reading_needs_force_share(&image);
    drop(holder);
    free(&image);
}

#[test]
fn the_base_of_a_running_overlay() {
    let folder = scratch();
    let (base, overlay) = overlay(folder.path());
    let holder = Holder::qemu_io(&overlay, &[]);
    no_edit_works(&base);
    reading_works(&base);
    no_edit_works(&overlay);
    reading_needs_force_share(&overlay);
    drop(holder);
    free(&base);
}

#[test]
fn undo_and_apply_respect_locks_too() {
    let folder = scratch();
    let image = made(folder.path(), "image", "").path;
    let plan = folder.path().join("plan");
    edit(&image, EDITS[2]);
    qcow2(&image, &[EDITS[0], &["--save-plan", text(&plan)]].concat()).expect(0);
    let holder = Holder::qemu_io(&image, &["-r"]);
    let before = Snapshot::of(&image);
    refused(qcow2(&image, &["undo"]));
    refused(qcow2(&image, &["apply", text(&plan)]));
    before.unchanged(&image, "undo and apply in use");
    drop(holder);
    qcow2(&image, &["apply", text(&plan)]).expect(0);
}

#[test]
fn locks_on_the_whole_file() {
    let folder = scratch();
    let image = made(folder.path(), "image", "").path;
    for (kind, may_read) in [
        ("ofd-write", false),
        ("ofd-read", true),
        ("posix-write", false),
        ("posix-read", true),
        ("flock-exclusive", false),
        ("flock-shared", true),
    ] {
        println!("{kind}");
        let holder = Holder::python(&image, kind);
        no_edit_works(&image);
        if may_read {
            reading_works(&image);
        } else {
            reading_needs_force_share(&image);
        }
        drop(holder);
        free(&image);
    }
}

#[test]
fn a_lock_on_the_first_byte() {
    let folder = scratch();
    let image = made(folder.path(), "image", "").path;
    let holder = Holder::python(&image, "first-byte");
    no_edit_works(&image);
    drop(holder);
    free(&image);
}

#[test]
fn whoever_knows_better_takes_no_locks() {
    let folder = scratch();
    let image = made(folder.path(), "image", "").path;
    let _holder = Holder::qemu_io(&image, &[]);
    qcow2(&image, &["dump-header", "--no-lock"]).expect(0);
    qcow2(&image, &[EDITS[2], &["--no-lock"]].concat()).expect(0);
}

#[test]
fn nobody_gets_in_while_we_write() {
    let folder = scratch();
    let (image, overlay) = overlay(folder.path());
    let expected = {
        let copy = folder.path().join("copy");
        fs::copy(&image, &copy).unwrap();
        edit(&copy, EDITS[1]);
        fs::read(&copy).unwrap()
    };
    let slow = {
        let image = image.clone();
        thread::spawn(move || {
            let mut command = tracer::command("pwrite64", "delay_enter=3000000", &image, EDITS[1]);
            run_within(&mut command, b"", Duration::from_secs(60))
        })
    };
    let record = image.with_file_name("base.qcow2.undo-1");
    let start = Instant::now();
    while !record.exists() {
        assert!(start.elapsed() < Duration::from_secs(20), "no record appears");
        thread::sleep(Duration::from_millis(5));
    }
    for (file, flags) in [(&image, &[][..]), (&image, &["-r"][..]), (&overlay, &[][..])] {
        let mut qemu_io = qemu::program("qemu-io");
        qemu_io.args(["-f", "qcow2", "-c", "length"]).args(flags).arg(file);
        let run = run(&mut qemu_io, b"");
        assert!(format!("{}{}", run.out(), run.err()).contains("lock"), "QEMU refuses: {run}");
    }
    refused(qcow2(&image, EDITS[2]));
    refused(qcow2(&image, &["dump-header"]));
    let run = slow.join().unwrap().expect(0);
    assert!(fs::read(&image).unwrap() == expected, "{run}");
    qemu::io(&overlay, &["read 0 64k"]);
}

#[test]
fn a_symbolic_link_stands_for_its_image() {
    let folder = scratch();
    let target = folder.path().join("target");
    fs::create_dir(&target).unwrap();
    let image = made(&target, "image", "").path;
    let before = fs::read(&image).unwrap();
    let link = folder.path().join("link");
    symlink("target/image.qcow2", &link).unwrap();

    let holder = Holder::qemu_io(&image, &["-r"]);
    refused(qcow2(&link, EDITS[1]));
    drop(holder);

    edit(&link, EDITS[1]);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink(), "it is still a link");
    assert!(fs::read(&image).unwrap() != before);
    assert!(target.join("image.qcow2.undo-1").is_file(), "the record is beside the image");
    qcow2(&image, &["undo"]).expect(0);
    assert!(fs::read(&image).unwrap() == before);
    edit(&image, EDITS[1]);
    qcow2(&link, &["undo"]).expect(0);
    assert!(fs::read(&image).unwrap() == before);
}

/// The file shrinks between the moment we map it and the moment we read the map.
#[test]
fn a_file_that_is_cut_short_meanwhile_is_an_error_and_no_signal() {
    let folder = scratch();
    for args in [&["dump-header"][..], &["dump-header", "--json"], EDITS[0], EDITS[1]] {
        let image = images::one_bitmap(folder.path(), "image");
        let slow = {
            let image = image.clone();
            let mut command = tracer::command("mmap", "delay_exit=1500000", &image, args);
            // Only the map of the image is slow.
            let program = command.get_program().to_owned();
            let words: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
            command = std::process::Command::new(program);
            command.arg("-P").arg(&image).args(words);
            thread::spawn(move || run_within(&mut command, b"", Duration::from_secs(30)))
        };
        thread::sleep(Duration::from_millis(700));
        fs::File::options().write(true).open(&image).unwrap().set_len(0).unwrap();
        let run = slow.join().unwrap().expect(1);
        assert!(run.err().contains(text(&image)), "the message names the file: {run}");
        drop(fs::remove_file(&image));
    }
}

fn overlay(folder: &Path) -> (PathBuf, PathBuf) {
    let base = made(folder, "base", "").path;
    let options = format!("backing_file={},backing_fmt=qcow2", text(&base));
    let overlay = made(folder, "overlay", &options).path;
    (base, overlay)
}
