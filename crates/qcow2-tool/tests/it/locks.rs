//! No write to an image that something else has open, no read while something else writes, and
//! nobody gets in while we write.

use crate::conformance::BINARY;
use crate::support::images::{self, made};
use crate::support::program::{QCOW2, edit, qcow2};
use crate::support::qemu;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};
use test_support::binary::Line;
use test_support::holder::Holder;
use test_support::locks::{free, no_edit_works, reading_needs_force_share, reading_works, refused};
use test_support::process::{run, run_within};
use test_support::scratch::{scratch, text};
use test_support::tracer;

const EDITS: [Line; 3] = [
    &["set-header", "size", "0x100000"],
    &["add-header-ext", "0x12345678", "data"],
    &["set-feature-bit", "compatible", "7"],
];

test_support::locks!(BINARY);

#[test]
fn the_base_of_a_running_overlay() {
    let folder = scratch();
    let (base, overlay) = overlay(folder.path());
    let holder = Holder::qemu_io(BINARY.format, &overlay, &[]);
    no_edit_works(&BINARY, &base);
    reading_works(&BINARY, &base);
    no_edit_works(&BINARY, &overlay);
    reading_needs_force_share(&BINARY, &overlay);
    drop(holder);
    free(&BINARY, &base);
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
            let mut command = tracer::command(QCOW2, "pwrite64", "delay_enter=3000000", &image, EDITS[1]);
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

    let holder = Holder::qemu_io(BINARY.format, &image, &["-r"]);
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
            let mut command = tracer::command(QCOW2, "mmap", "delay_exit=1500000", &image, args);
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
