//! A binary as the shared tests see it.

use crate::process::Run;
use crate::program::Program;
use std::path::Path;

/// One command line without the FILE in front.
pub type Line = &'static [&'static str];

/// A binary of the form `NAME FILE COMMAND [ARGS]`.
#[derive(Debug, Clone, Copy)]
pub struct Binary {
    /// What `--version` calls it.
    pub name: &'static str,
    /// Where it is.
    pub program: Program,
    /// QEMU's name for the format of its images.
    pub format: &'static str,
    /// Makes an image that every command line in `reading` and `editing` succeeds on.
    pub good: fn(&Path),
    /// Makes an image with control characters in its texts that every line in `reading` shows.
    pub hostile: fn(&Path),
    /// Every form of every command that only reads.
    pub reading: &'static [Line],
    /// Every command that changes the image.
    pub editing: &'static [Line],
    /// Every other command.
    pub others: &'static [Line],
    /// Commands whose exit statuses are not 0, 1, 64 and 70, with those that their help explains.
    pub statuses: &'static [(&'static str, &'static [&'static str])],
    /// Command lines that fail on a good image.
    pub bad: &'static [Bad],
}

/// A command line that fails.
#[derive(Debug, Clone, Copy)]
pub struct Bad {
    /// The exit status.
    pub status: i32,
    /// The line.
    pub args: Line,
    /// The original's words on standard output, or `None`: ours, on standard error.
    pub says: Option<&'static str>,
}

/// The exit statuses of most commands.
pub const STATUSES: &[&str] = &["0", "1", "64", "70"];

/// A line that fails in the original's words.
#[must_use]
pub const fn original(status: i32, args: Line, says: &'static str) -> Bad {
    Bad { status, args, says: Some(says) }
}

/// A line that fails in our words.
#[must_use]
pub const fn ours(status: i32, args: Line) -> Bad {
    Bad { status, args, says: None }
}

impl Binary {
    /// The exit statuses that the help of `command` explains.
    #[must_use]
    pub fn statuses_of(&self, command: &str) -> &'static [&'static str] {
        let own = self.statuses.iter().find(|(name, _)| *name == command);
        own.map_or(STATUSES, |(_, statuses)| statuses)
    }

    /// Every command line that a good image is good for.
    pub fn working(&self) -> impl Iterator<Item = Line> {
        self.reading.iter().chain(self.editing).copied()
    }

    /// Every command line that there is.
    pub fn lines(&self) -> impl Iterator<Item = Line> {
        self.working().chain(self.others.iter().copied())
    }
}

/// Fails unless the process refused in good order: no crash, in time, with a reason on standard
/// error that is neither empty nor about our source.
#[track_caller]
pub fn assert_refused(run: &Run, status: i32) {
    assert_eq!(run.status.code(), Some(status), "exit status of {run}");
    assert!(run.err().trim().len() > 5, "a reason on standard error: {run}");
    assert_orderly(run);
}

/// Fails where the process died, panicked or was too slow.
#[track_caller]
pub fn assert_orderly(run: &Run) {
    assert!(!run.too_slow(), "too slow: {run}");
    assert!(!run.crashed(), "crashed: {run}");
    for word in ["panicked", "RUST_BACKTRACE", "src/", ".rs:"] {
        assert!(!run.err().contains(word), "{word} on standard error: {run}");
    }
}
