//! The binary under test.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use crate::process::{Run, run};

/// A binary of the form `NAME FILE COMMAND [ARGS]`, by its path: `env!("CARGO_BIN_EXE_…")` of its tests.
#[derive(Debug, Clone, Copy)]
pub struct Program(&'static str);

impl Program {
    /// The binary at `path`.
    #[must_use]
    pub const fn new(path: &'static str) -> Self {
        Self(path)
    }

    /// Where it is.
    #[must_use]
    pub const fn path(self) -> &'static str {
        self.0
    }

    /// A command for it with none of the caller's settings in its environment.
    #[must_use]
    pub fn command(self) -> Command {
        let mut command = Command::new(self.0);
        for setting in ["VDISK_UNDO_DIR", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "RUST_BACKTRACE"] {
            command.env_remove(setting);
        }
        command
    }

    /// Runs it with `FILE ARGS…`.
    #[track_caller]
    pub fn run<A: AsRef<OsStr>>(self, file: &Path, args: &[A]) -> Run {
        run(self.command().arg(file).args(args), b"")
    }

    /// Runs an edit that has to succeed without a word.
    #[track_caller]
    pub fn edit<A: AsRef<OsStr>>(self, file: &Path, args: &[A]) {
        quiet(self.run(file, args));
    }

    /// Runs an edit with data on standard input, as [`edit`](Self::edit) does.
    #[track_caller]
    pub fn edit_from(self, file: &Path, args: &[&str], input: &[u8]) {
        quiet(run(self.command().arg(file).args(args), input));
    }
}

#[track_caller]
fn quiet(run: Run) {
    let run = run.expect(0);
    assert!(run.stdout.is_empty() && run.stderr.is_empty(), "an edit says nothing: {run}");
}
