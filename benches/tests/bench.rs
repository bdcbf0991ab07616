//! A short run of the benchmark itself. Times are not judged: tests run on busy machines, in debug builds.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::path::Path;
use std::process::Command;

/// Runs the benchmark on what `wanted` names, and returns what it prints.
fn bench(runs: &str, wanted: &str) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_vdisk-benches"));
    assert!(Path::new(env!("CARGO_BIN_EXE_empty-process")).is_file());
    let bin_dir = program.parent().unwrap();
    // Cargo builds the programs of this package for its tests, and no other package's.
    let mut build = Command::new(env!("CARGO"));
    build
        .args(["build", "-p", "qcow2-tool", "-p", "qed-tool", "-p", "iofuzz", "--bins", "--target-dir"])
        .arg(bin_dir.parent().unwrap());
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    assert!(build.status().unwrap().success());

    let mut bench = Command::new(program);
    let output = bench.args(["--runs", runs, "--image", wanted, "--bin-dir"]).arg(bin_dir).output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    out
}

#[test]
fn every_row_is_there_and_its_answer_right() {
    let out = bench("3", "plain");
    for row in ["empty process", "qcow2 dump-header", "qcow2 dump-header -j", "qcow2 dump-header --json"] {
        assert!(out.contains(&format!("\n| {row} | ")), "{row}:\n{out}");
    }
    for row in ["qcow2 set-feature-bit compatible 0", "qcow2 set-feature-bit compatible 0 --no-undo"] {
        let line = out.lines().find(|line| line.starts_with(&format!("| {row} | "))).unwrap();
        assert!(line.contains("| compatible_features = 0x1 |"), "{line}");
    }
    assert!(!out.contains("FAILED"), "{out}");
    assert!(out.contains("Goal: dump-header within 2× of an empty process"), "{out}");
    assert!(!out.contains("iofuzz"), "{out}");
}

#[test]
fn iofuzz_is_measured_row_by_row() {
    let out = bench("2", "iofuzz: qtest, pipelined");
    assert!(out.contains("\n| qtest, pipelined | ") && out.contains(" | all done |"), "{out}");
    assert!(!out.contains("micro guest") && !out.contains("qcow2"), "{out}");
    let out = bench("1", "iofuzz: iofuzz shrink, five steps");
    let row = out.lines().find(|line| line.starts_with("| iofuzz shrink, five steps in the Sim | ")).unwrap();
    assert!(row.contains(" | from 6000 to 5 operations in ") && row.contains(" | ≤ 10.0 s: "), "{row}");
}
