//! A binary as the shared tests see it.

use crate::support::process::Run;
use std::path::Path;
use std::process::Command;

/// One command line without the FILE in front.
pub(crate) type Line = &'static [&'static str];

/// A binary of the form `NAME FILE COMMAND [ARGS]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Binary {
    pub(crate) name: &'static str,
    pub(crate) path: &'static str,
    /// Makes an image that every command line in `reading` and `editing` succeeds on.
    pub(crate) good: fn(&Path),
    /// Makes an image with control characters in its texts that every line in `reading` shows.
    pub(crate) hostile: fn(&Path),
    /// Every form of every command that only reads.
    pub(crate) reading: &'static [Line],
    /// Every command that changes the image.
    pub(crate) editing: &'static [Line],
    /// Every other command.
    pub(crate) others: &'static [Line],
    /// Command lines that fail on a good image.
    pub(crate) bad: &'static [Bad],
}

/// A command line that fails.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bad {
    pub(crate) status: i32,
    pub(crate) args: Line,
    /// The original's words on standard output, or `None`: ours, on standard error.
    pub(crate) says: Option<&'static str>,
}

impl Binary {
    /// Itself, with none of the caller's settings.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(self.path);
        for setting in ["VDISK_UNDO_DIR", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "RUST_BACKTRACE"] {
            command.env_remove(setting);
        }
        command
    }

    /// Every command line that a good image is good for.
    pub(crate) fn working(&self) -> impl Iterator<Item = Line> {
        self.reading.iter().chain(self.editing).copied()
    }

    /// Every command line that there is.
    pub(crate) fn lines(&self) -> impl Iterator<Item = Line> {
        self.working().chain(self.others.iter().copied())
    }
}

/// Fails unless the process refused in good order: no crash, in time, with a reason on standard
/// error that is neither empty nor about our source.
#[track_caller]
pub(crate) fn assert_refused(run: &Run, status: i32) {
    assert_eq!(run.status.code(), Some(status), "exit status of {run}");
    assert!(run.err().trim().len() > 5, "a reason on standard error: {run}");
    assert_orderly(run);
}

/// Fails where the process died, panicked or was too slow.
#[track_caller]
pub(crate) fn assert_orderly(run: &Run) {
    assert!(!run.too_slow(), "too slow: {run}");
    assert!(!run.crashed(), "crashed: {run}");
    for word in ["panicked", "RUST_BACKTRACE", "src/", ".rs:"] {
        assert!(!run.err().contains(word), "{word} on standard error: {run}");
    }
}
