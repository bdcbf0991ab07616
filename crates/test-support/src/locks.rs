//! No write to an image that something else has open, and no read while something else writes.

use crate::binary::Binary;
use crate::holder::Holder;
use crate::process::{Run, run};
use crate::scratch::{Snapshot, scratch, text};
use std::path::{Path, PathBuf};

/// Makes a test of every check: `locks!(BINARY)` with a [`Binary`].
#[macro_export]
macro_rules! locks {
    ($binary:expr) => {
        $crate::locks! { $binary;
            open_for_writing_in_qemu_io
            open_for_reading_in_qemu_io
            open_in_a_storage_daemon
            undo_and_apply_respect_locks_too
            locks_on_the_whole_file
            a_lock_on_the_first_byte
            whoever_knows_better_takes_no_locks
        }
    };
    ($binary:expr; $($check:ident)+) => { $(
        #[test]
        fn $check() {
            $crate::locks::$check(&$binary);
        }
    )+ };
}

/// Fails unless the command said that the image is in use, and nothing else.
#[track_caller]
pub fn refused(run: Run) {
    let run = run.expect(1);
    assert!(run.stdout.is_empty(), "{run}");
    assert!(["in use", "lock"].iter().any(|word| run.err().contains(word)), "it says why: {run}");
}

/// Fails unless every edit is refused, also with `-U`.
#[track_caller]
pub fn no_edit_works(binary: &Binary, image: &Path) {
    let before = Snapshot::of(image);
    for &args in binary.editing {
        refused(binary.program.run(image, args));
        refused(binary.program.run(image, &[args, &["-U"]].concat()));
    }
    before.unchanged(image, "edits of an image in use");
}

/// Fails unless the image can be read.
#[track_caller]
pub fn reading_works(binary: &Binary, image: &Path) {
    for args in reading(binary) {
        binary.program.run(image, &args).expect(0);
    }
}

/// Fails unless the image can be read with `-U`, and only so.
#[track_caller]
pub fn reading_needs_force_share(binary: &Binary, image: &Path) {
    for args in reading(binary) {
        refused(binary.program.run(image, &args));
        for flag in ["-U", "--force-share"] {
            binary.program.run(image, &[&args[..], &[flag]].concat()).expect(0);
            run(binary.program.command().arg(flag).arg(image).args(&args), b"").expect(0);
        }
    }
}

/// Fails unless the image can be read, edited, and the edit undone.
#[track_caller]
pub fn free(binary: &Binary, image: &Path) {
    reading_works(binary, image);
    binary.program.edit(image, binary.editing[0]);
    binary.program.run(image, &["undo"]).expect(0);
}

/// The command lines that only read, and an edit that is only shown.
fn reading(binary: &Binary) -> Vec<Vec<&'static str>> {
    let mut lines: Vec<_> = binary.reading.iter().map(|line| line.to_vec()).collect();
    lines.push([binary.editing[0], &["--dry-run"]].concat());
    lines
}

fn good(binary: &Binary, folder: &Path) -> PathBuf {
    let image = folder.join("image");
    (binary.good)(&image);
    image
}

/// A guest has the image.
pub fn open_for_writing_in_qemu_io(binary: &Binary) {
    let folder = scratch();
    let image = good(binary, folder.path());
    let holder = Holder::qemu_io(binary.format, &image, &[]);
    no_edit_works(binary, &image);
    reading_needs_force_share(binary, &image);
    drop(holder);
    free(binary, &image);
}

/// A reader has the image.
pub fn open_for_reading_in_qemu_io(binary: &Binary) {
    let folder = scratch();
    let image = good(binary, folder.path());
    let holder = Holder::qemu_io(binary.format, &image, &["-r"]);
    no_edit_works(binary, &image);
    reading_works(binary, &image);
    drop(holder);
    free(binary, &image);
}

/// A storage daemon has the image.
pub fn open_in_a_storage_daemon(binary: &Binary) {
    let folder = scratch();
    let image = good(binary, folder.path());
    let holder = Holder::storage_daemon(binary.format, &image);
    no_edit_works(binary, &image);
    reading_needs_force_share(binary, &image);
    drop(holder);
    free(binary, &image);
}

/// The commands that write without being edits.
pub fn undo_and_apply_respect_locks_too(binary: &Binary) {
    let Binary { program, format, editing, .. } = *binary;
    let folder = scratch();
    let image = good(binary, folder.path());
    let plan = folder.path().join("plan");
    program.edit(&image, editing[1]);
    program.run(&image, &[editing[0], &["--save-plan", text(&plan)]].concat()).expect(0);
    let holder = Holder::qemu_io(format, &image, &["-r"]);
    let before = Snapshot::of(&image);
    refused(program.run(&image, &["undo"]));
    refused(program.run(&image, &["apply", text(&plan)]));
    before.unchanged(&image, "undo and apply in use");
    drop(holder);
    program.run(&image, &["apply", text(&plan)]).expect(0);
}

/// Locks that QEMU does not take, but others may.
pub fn locks_on_the_whole_file(binary: &Binary) {
    let folder = scratch();
    let image = good(binary, folder.path());
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
        no_edit_works(binary, &image);
        if may_read {
            reading_works(binary, &image);
        } else {
            reading_needs_force_share(binary, &image);
        }
        drop(holder);
        free(binary, &image);
    }
}

/// A lock on what nearly every edit writes.
pub fn a_lock_on_the_first_byte(binary: &Binary) {
    let folder = scratch();
    let image = good(binary, folder.path());
    let holder = Holder::python(&image, "first-byte");
    no_edit_works(binary, &image);
    drop(holder);
    free(binary, &image);
}

/// `--no-lock`.
pub fn whoever_knows_better_takes_no_locks(binary: &Binary) {
    let folder = scratch();
    let image = good(binary, folder.path());
    let _holder = Holder::qemu_io(binary.format, &image, &[]);
    for line in [binary.reading[0], binary.editing[0]] {
        binary.program.run(&image, &[line, &["--no-lock"]].concat()).expect(0);
    }
}
