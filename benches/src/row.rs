//! One command that is measured.

use std::ffi::OsString;
use std::process::Command;

/// What a row's answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Its standard output.
    Output,
    /// The part of it that says how much is allocated, as `qemu-img check` words it.
    Allocated,
    /// The field of the image that it changed: `compatible_features` of qcow2.
    CompatibleFeatures,
    /// The length of the file `out` that it wrote, and the space it takes.
    Copy,
}

/// One command.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) label: &'static str,
    pub(crate) words: Vec<OsString>,
    pub(crate) answer: Answer,
    /// The exit statuses that are no failure.
    pub(crate) statuses: &'static [i32],
    /// The row of a peer that does the same, for the ratio.
    pub(crate) peer: Option<&'static str>,
    /// The row that must give the same answer, byte for byte.
    pub(crate) answers_like: Option<&'static str>,
    /// Whether the program is of this workspace.
    pub(crate) is_ours: bool,
}

impl Row {
    pub(crate) fn new(label: &'static str, words: impl IntoIterator<Item = OsString>) -> Self {
        let (answer, statuses) = (Answer::Output, &[0][..]);
        let words = words.into_iter().collect();
        Self { label, words, answer, statuses, peer: None, answers_like: None, is_ours: false }
    }

    /// The command, under `prefix` (a program that counts its instructions, say) where there is one.
    pub(crate) fn command(&self, prefix: &[OsString]) -> Command {
        let words: Vec<&OsString> = prefix.iter().chain(&self.words).collect();
        let mut command = Command::new(words.first().copied().cloned().unwrap_or_default());
        command.args(words.iter().skip(1)).env_remove("VDISK_UNDO_DIR");
        command
    }
}
