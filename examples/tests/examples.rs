//! Runs each example as its reader would.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

use std::env::consts::EXE_SUFFIX;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use vdisk_format::generate::Qcow2;
use vdisk_format::qed::header::{HeaderFields, MAGIC};

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

/// A QED image of 1 MiB: header, L1 table, L2 table, and two clusters of data, of which the guest wrote `secret`.
fn qed(l2: [u64; 4]) -> Vec<u8> {
    let fields = HeaderFields {
        magic: MAGIC,
        cluster_size: 4096,
        table_size: 2,
        header_size: 1,
        l1_table_offset: 0x1000,
        image_size: 1 << 20,
        ..HeaderFields::default()
    };
    let mut bytes = fields.to_bytes();
    bytes.resize(0x5000, 0);
    bytes.extend(b"secret".repeat(2048).into_iter().take(0x2000));
    for (at, entry) in [(0x1000, 0x3000)].into_iter().chain((0x3000..).step_by(8).zip(l2)) {
        bytes[at..at + 8].copy_from_slice(&u64::to_le_bytes(entry));
    }
    bytes
}

#[test]
fn a_qed_image_is_checked() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("disk.qed");
    fs::write(&file, qed([0x5000, 0x6000, 1, 0])).unwrap();
    assert_eq!(run("check_qed", &file), "Clean: 0 corruptions, 0 leaks\n");
    fs::write(&file, qed([0x5000, 0x5000, 0x5001, 0])).unwrap();
    let out = run("check_qed", &file);
    assert!(
        out.contains("Error: L2 table at 0x3000, entry 1 (guest offset 0x1000) at offset 0x3008:"),
        "{out}"
    );
    assert!(out.ends_with("Corrupt: 2 corruptions, 1 leaks\n"), "{out}");
}

#[test]
fn a_qed_image_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("disk.qed");
    assert_eq!(run("make_qed", &file), "262144 bytes\n");
    assert_eq!(run("check_qed", &file), "Clean: 0 corruptions, 0 leaks\n");
}

#[test]
fn a_qed_image_is_mapped() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("disk.qed");
    fs::write(&file, qed([0x5000, 0x6000, 1, 0])).unwrap();
    assert_eq!(
        run("map_qed", &file),
        "0x0 8192 Data { offset: HostOffset(20480) }\n0x2000 4096 Zero\n0x3000 1036288 Unallocated\n"
    );
}

#[test]
fn a_qed_image_is_scrubbed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("disk.qed");
    let bytes = qed([0x5000, 0x6000, 1, 0x5001]);
    fs::write(&file, &bytes).unwrap();
    assert_eq!(run("scrub_qed", &file), "1 L2 tables, 1 entries replaced\n");
    let copy = fs::read(dir.path().join("disk.qed.scrubbed")).unwrap();
    assert_eq!(copy.len(), bytes.len());
    assert_eq!(copy[..0x3018], bytes[..0x3018]);
    assert!(copy[0x3020..].iter().all(|&byte| byte == 0));
}

#[test]
fn ports_are_fuzzed() {
    let out = run("fuzz_ports", Path::new("7"));
    let abort =
        "crash, SIGABRT: sim: test-device.c:N: test_abort_write: Assertion `!\"reached\"' failed., Some(1)";
    assert!(out.contains(abort), "{out}");
    assert!(!out.contains("exit"), "an orderly end is no finding:\n{out}");
    assert!(out.ends_with(" operations, seed 7\n"), "{out}");
}

#[test]
fn a_list_is_executed_and_its_reads_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("list.txt");
    fs::write(&list, "outb 0x81 0x5a # a page register\ninb 0x81\npci_readl 00:00.0 0\n").unwrap();
    assert_eq!(run("replay_program", &list), "inb 0x81: 0x5a\npci_readl 00:00.0 0x0: 0x12378086\n");
    fs::write(&list, "outb 0x81 1\nfrob 0x81\n").unwrap();
    let output = Command::new(program("replay_program")).arg(&list).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("line: 2"), "{output:?}");
}

#[test]
fn ports_are_listed() {
    let out = run("list_ports", Path::new("pc"));
    for line in ["Port 0x20-0x21 pic", "Port 0x3f8-0x3ff serial", "Memory 0x"] {
        assert!(out.contains(line), "{line}:\n{out}");
    }
    assert!(out.contains("left alone: 0xcf9-0xcf9, power: "), "{out}");
}

#[test]
fn without_a_file_they_say_how_to_be_called() {
    for name in [
        "make_image",
        "read_header",
        "edit_header",
        "make_qed",
        "check_qed",
        "map_qed",
        "scrub_qed",
        "fuzz_ports",
        "replay_program",
        "list_ports",
    ] {
        let output = Command::new(program(name)).output().unwrap();
        assert!(!output.status.success());
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(err.contains(&format!("usage: {name} ")), "{err}");
    }
}
