//! Our binary under strace, which kills it, lets calls fail or slows them down.

use crate::process::{Run, installed, run_within};
use crate::program::Program;
use crate::scratch::text;
use std::ffi::OsStr;
use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The calls that change files, and opening them.
pub const CALLS: [&str; 14] = [
    "pwrite64",
    "write",
    "writev",
    "fsync",
    "fdatasync",
    "ftruncate",
    "rename",
    "renameat",
    "renameat2",
    "linkat",
    "unlink",
    "unlinkat",
    "openat",
    "flock",
];

/// `PROGRAM FILE ARGS…` under strace, with `what` done to `call`; calls unknown to this machine
/// never happen.
pub fn command<A: AsRef<OsStr>>(
    program: Program,
    call: &str,
    what: &str,
    file: &Path,
    args: &[A],
) -> Command {
    let mut strace = installed("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null"]);
    strace.args(["-e", &format!("trace=?{call}"), "-e", &format!("inject=?{call}:{what}")]);
    strace.arg("--").arg(program.path()).arg(file).args(args).env_remove("VDISK_UNDO_DIR");
    strace
}

/// What became of a command that was disturbed.
#[derive(Debug)]
pub enum Outcome {
    /// It died of the signal, or strace did with it.
    Killed,
    /// It ended by itself, disturbed or not.
    Ended(Run),
}

/// Runs to the end, with `what` done to the `nth` occurrence of `call`.
#[track_caller]
pub fn disturbed<A: AsRef<OsStr>>(
    program: Program,
    call: &str,
    what: &str,
    nth: usize,
    file: &Path,
    args: &[A],
) -> Outcome {
    let mut command = command(program, call, &format!("{what}:when={nth}"), file, args);
    let run = run_within(&mut command, b"", Duration::from_secs(30));
    match run.status.code() {
        // strace dies as its child does.
        None | Some(137) => Outcome::Killed,
        Some(_) => {
            assert!(!run.err().contains("strace:"), "strace cannot work here: {run}");
            Outcome::Ended(run)
        }
    }
}

/// Which occurrences of `call` the undisturbed command has, from the first that is about the
/// image's folder on: what the loader opens before is not ours.
#[track_caller]
pub fn occurrences(program: Program, call: &str, file: &Path, args: &[&str]) -> RangeInclusive<usize> {
    let folder = file.parent().unwrap();
    let log = folder.with_file_name("log");
    let mut strace = installed("strace");
    strace.args(["-f", "-qq", "-y", "-s", "0", "-e", "signal=none", "-e", &format!("trace=?{call}"), "-o"]);
    strace.arg(&log).arg("--").arg(program.path()).arg(file).args(args).env_remove("VDISK_UNDO_DIR");
    run_within(&mut strace, b"", Duration::from_secs(30)).expect(0);
    let log = fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(&format!(" {call}("))).collect();
    let first = lines.iter().position(|line| line.contains(text(folder)));
    first.unwrap_or(lines.len()) + 1..=lines.len()
}
