//! The binary under test.

use super::process::{Run, run};
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

pub(crate) const QCOW2: &str = env!("CARGO_BIN_EXE_qcow2");

/// A command for `qcow2` with none of the caller's settings in its environment.
pub(crate) fn command() -> Command {
    let mut command = Command::new(QCOW2);
    for setting in ["VDISK_UNDO_DIR", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "RUST_BACKTRACE"] {
        command.env_remove(setting);
    }
    command
}

/// Runs `qcow2 FILE ARGS…`.
#[track_caller]
pub(crate) fn qcow2<A: AsRef<OsStr>>(file: &Path, args: &[A]) -> Run {
    run(command().arg(file).args(args), b"")
}

/// Runs an edit that has to succeed without a word.
#[track_caller]
pub(crate) fn edit<A: AsRef<OsStr>>(file: &Path, args: &[A]) {
    quiet(qcow2(file, args));
}

/// Runs an edit with data on standard input, as [`edit`] does.
#[track_caller]
pub(crate) fn edit_from(file: &Path, args: &[&str], input: &[u8]) {
    quiet(run(command().arg(file).args(args), input));
}

#[track_caller]
fn quiet(run: Run) {
    let run = run.expect(0);
    assert!(run.stdout.is_empty() && run.stderr.is_empty(), "an edit says nothing: {run}");
}
