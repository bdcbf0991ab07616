//! Runs each example as its reader would.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::env::consts::EXE_SUFFIX;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use vdisk_format::generate::Qcow2;

/// The built example: cargo puts it in the folder `examples`, beside the `deps` that this test is in.
fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().with_file_name("examples").join(format!("{name}{EXE_SUFFIX}"));
    assert!(
        program.is_file(),
        "{} is not built: cargo build -p vdisk-examples --examples",
        program.display()
    );
    program
}

/// Runs an example, which must succeed, and returns what it printed.
fn run(name: &str, file: &Path) -> String {
    let output = Command::new(program(name)).arg(file).output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}: {}\n{out}{err}", output.status);
    out
}

#[test]
fn an_image_is_made_and_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("disk.qcow2");
    assert_eq!(run("make_image", &file), format!("{} bytes\n", file.metadata().unwrap().len()));
    let out = run("read_header", &file);
    assert!(out.starts_with("version 3\ncluster size 65536\n"), "{out}");
    assert!(out.contains("extension 0x23852875 (bitmaps extension) at 0x"), "{out}");
    assert!(out.contains("extension 0x6803f857 (feature name table) at 0x"), "{out}");
    assert!(!out.contains("expected"), "a new image is sound:\n{out}");
}

#[test]
fn a_broken_header_is_read_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("broken.qcow2");
    let mut bytes = Qcow2::new(1 << 20).build().unwrap();
    bytes[23] = 99;
    fs::write(&file, bytes).unwrap();
    let out = run("read_header", &file);
    assert!(out.contains("cluster size 1 << 99\n"), "{out}");
    assert!(out.contains("Error: cluster_bits at offset 0x14: expected 9 to 21, found 99"), "{out}");
}

#[test]
fn a_header_is_edited_and_the_edit_undone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("disk.qcow2");
    let bytes = Qcow2::new(1 << 20).build().unwrap();
    fs::write(&file, &bytes).unwrap();
    assert_eq!(
        run("edit_header", &file),
        "0x50: [00, 00, 00, 00, 00, 00, 00, 00] -> [80, 00, 00, 00, 00, 00, 00, 00] \
         (set compatible_features from 0x0 to 0x8000000000000000)\n\
         preview: 0x8000000000000000\n\
         committed: 0x8000000000000000\n\
         undone: 0x0\n"
    );
    assert_eq!(fs::read(&file).unwrap(), bytes);
    let names: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["disk.qcow2"], "the undo record is gone");
}

#[test]
fn without_a_file_they_say_how_to_be_called() {
    for name in ["make_image", "read_header", "edit_header"] {
        let output = Command::new(program(name)).output().unwrap();
        assert!(!output.status.success());
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(err.contains(&format!("usage: {name} ")), "{err}");
    }
}
