//! The binary under test.

use std::ffi::OsStr;
use std::path::Path;
use test_support::process::Run;
use test_support::program::Program;

pub(crate) const QED: Program = Program::new(env!("CARGO_BIN_EXE_qed"));

/// As [`Program::run`].
#[track_caller]
pub(crate) fn qed<A: AsRef<OsStr>>(file: &Path, args: &[A]) -> Run {
    QED.run(file, args)
}

/// The document that `args --json` prints; the exit status may be any.
#[track_caller]
pub(crate) fn json(file: &Path, args: &[&str]) -> (Option<i32>, serde_json::Value) {
    let run = qed(file, &[args, &["--json"]].concat());
    let document = serde_json::from_slice(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run}"));
    (run.status.code(), document)
}
