//! The binary under test.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use test_support::process::Run;
use test_support::program::Program;

pub(crate) const QCOW2: Program = Program::new(env!("CARGO_BIN_EXE_qcow2"));

/// As [`Program::command`].
pub(crate) fn command() -> Command {
    QCOW2.command()
}

/// As [`Program::run`].
#[track_caller]
pub(crate) fn qcow2<A: AsRef<OsStr>>(file: &Path, args: &[A]) -> Run {
    QCOW2.run(file, args)
}

/// As [`Program::edit`].
#[track_caller]
pub(crate) fn edit<A: AsRef<OsStr>>(file: &Path, args: &[A]) {
    QCOW2.edit(file, args);
}

/// As [`Program::edit_from`].
#[track_caller]
pub(crate) fn edit_from(file: &Path, args: &[&str], input: &[u8]) {
    QCOW2.edit_from(file, args, input);
}

/// The document that `args --json` prints; the exit status may be any.
#[track_caller]
pub(crate) fn json(file: &Path, args: &[&str]) -> (Option<i32>, serde_json::Value) {
    let run = qcow2(file, &[args, &["--json"]].concat());
    let document = serde_json::from_slice(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run}"));
    (run.status.code(), document)
}
