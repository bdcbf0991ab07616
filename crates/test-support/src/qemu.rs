//! qemu-img and qemu-io.

use crate::process::{Run, installed, run_within};
use crate::scratch::text;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A QEMU program that speaks English.
#[must_use]
pub fn program(name: &str) -> Command {
    let mut command = installed(name);
    command.env("LC_ALL", "C");
    command
}

/// `qemu-img ARGS…`, whatever comes of it.
#[track_caller]
pub fn try_img(args: &[&str]) -> Run {
    run_within(program("qemu-img").args(args), b"", Duration::from_secs(60))
}

/// `qemu-img ARGS…`, which has to succeed.
#[track_caller]
pub fn img(args: &[&str]) -> Run {
    try_img(args).expect(0)
}

/// `qemu-img create -f FORMAT -o OPTIONS FILE SIZE`.
#[track_caller]
pub fn create(format: &str, file: &Path, options: &str, size: &str) {
    let line = ["create", "-q", "-f", format, "-o", options, text(file), size];
    let line = if options.is_empty() { [&line[..4], &line[6..]].concat() } else { line.to_vec() };
    img(&line);
}

/// `qemu-io -f FORMAT -c COMMAND… FILE`, which has to succeed.
#[track_caller]
pub fn io(format: &str, file: &Path, commands: &[&str]) {
    let mut qemu_io = program("qemu-io");
    qemu_io.args(["-f", format]);
    for command in commands {
        qemu_io.args(["-c", command]);
    }
    let run = run_within(qemu_io.arg(file), b"", Duration::from_secs(60)).expect(0);
    assert!(!run.out().contains("failed"), "{run}");
}

/// What `qemu-img check` says: its status and its words, without the file's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Its exit status.
    pub status: Option<i32>,
    words: String,
}

/// `qemu-img check -f FORMAT FILE`, whatever comes of it.
#[track_caller]
pub fn check(format: &str, file: &Path) -> Checked {
    let run = try_img(&["check", "-f", format, text(file)]);
    let words = format!("{}{}", run.out(), run.err()).replace(text(file), "FILE");
    Checked { status: run.status.code(), words }
}

/// Whether QEMU opens the image at all.
#[must_use]
pub fn opens(format: &str, file: &Path) -> bool {
    try_img(&["info", "-f", format, text(file)]).status.success()
}
