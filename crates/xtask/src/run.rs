//! One external command: echoed on stderr, then run from the top of the checkout.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::failure::Failure;
use crate::workspace;

/// A command to be run. Its stdin is empty: no chore may wait for an answer.
pub(crate) struct Run {
    command: Command,
    shown: Vec<OsString>,
    settings: Vec<(OsString, OsString)>,
    silent: bool,
}

/// What a captured command printed, and whether it succeeded.
pub(crate) struct Output {
    /// The process ended with status 0.
    pub(crate) success: bool,
    /// Its exit status, where it was not ended by a signal.
    pub(crate) code: Option<i32>,
    /// What it wrote to stdout, undecodable bytes replaced.
    pub(crate) stdout: String,
    /// What it wrote to stderr, where that was captured.
    pub(crate) stderr: String,
}

impl Run {
    /// The command `program args…`.
    pub(crate) fn new<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: impl IntoIterator<Item = A>) -> Run {
        let program = program.as_ref();
        let mut command = Command::new(program);
        command.current_dir(workspace::root()).stdin(Stdio::null());
        Run { command, shown: vec![program.to_owned()], settings: Vec::new(), silent: false }.args(args)
    }

    /// `cargo args…`, with the cargo that runs this chore.
    pub(crate) fn cargo<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Run {
        let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut run = Run::new(program, args);
        if let Some(first) = run.shown.first_mut() {
            *first = "cargo".into();
        }
        run
    }

    /// Adds arguments.
    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Run {
        for arg in args {
            self.command.arg(arg.as_ref());
            self.shown.push(arg.as_ref().to_owned());
        }
        self
    }

    /// Sets an environment variable, which is echoed too.
    pub(crate) fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Run {
        self.command.env(name.as_ref(), value.as_ref());
        self.settings.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable too long to be worth showing.
    pub(crate) fn quiet_env(mut self, name: &str, value: impl AsRef<OsStr>) -> Run {
        self.command.env(name, value);
        self
    }

    /// Leaves the echo to the caller.
    pub(crate) fn silent(mut self) -> Run {
        self.silent = true;
        self
    }

    /// The program and its arguments, undecodable bytes replaced.
    pub(crate) fn words(&self) -> Vec<String> {
        self.shown.iter().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    /// Runs it in `dir` instead of the top of the checkout.
    pub(crate) fn dir(mut self, dir: &Path) -> Run {
        self.command.current_dir(dir);
        self
    }

    /// The line a person would type.
    pub(crate) fn line(&self) -> String {
        let settings = self
            .settings
            .iter()
            .map(|(name, value)| format!("{}={}", name.to_string_lossy(), quote(&value.to_string_lossy())));
        let words = self.shown.iter().map(|word| quote(&word.to_string_lossy()));
        settings.chain(words).collect::<Vec<_>>().join(" ")
    }

    /// Runs it with our stdout and stderr; any end but status 0 is a failure.
    pub(crate) fn status(mut self) -> Result<(), Failure> {
        self.echo();
        let status = self.command.status().map_err(|error| self.cannot_start(&error))?;
        if status.success() { Ok(()) } else { Err(Failure::new(format!("{status}: {}", self.line()))) }
    }

    /// Runs it, stdout and stderr captured; a bad status is the caller's to judge.
    pub(crate) fn output(mut self) -> Result<Output, Failure> {
        self.echo();
        let output = self.command.output().map_err(|error| self.cannot_start(&error))?;
        Ok(Output {
            success: output.status.success(),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs it, stdout captured; any end but status 0 is a failure that shows its stderr.
    pub(crate) fn stdout(self) -> Result<String, Failure> {
        let line = self.line();
        let output = self.output()?;
        if output.success {
            return Ok(output.stdout);
        }
        Err(Failure::new(format!("failed: {line}\n{}{}", output.stdout, output.stderr)))
    }

    fn echo(&self) {
        if !self.silent {
            eprintln!("+ {}", self.line());
        }
    }

    fn cannot_start(&self, error: &io::Error) -> Failure {
        Failure::new(format!("cannot start `{}`: {error}", self.line()))
    }
}

/// `word` as a POSIX shell needs it.
pub(crate) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%^".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_echoed_line_can_be_typed() {
        let run = Run::new("tool", ["plain", "two words", "it's", ""]).env("A", "b c");
        assert_eq!(run.line(), r"A='b c' tool plain 'two words' 'it'\''s' ''");
    }

    #[test]
    fn cargo_is_shown_by_its_name() {
        assert_eq!(Run::cargo(["build"]).line(), "cargo build");
    }

    #[test]
    fn a_bad_status_is_a_failure_that_names_the_command() {
        let failure = Run::new("false", ["x"]).status().unwrap_err().to_string();
        assert!(failure.contains("false x"), "{failure}");
        let failure = Run::new("sh", ["-c", "echo why >&2; exit 3"]).stdout().unwrap_err().to_string();
        assert!(failure.contains("why"), "{failure}");
    }

    #[test]
    fn a_missing_program_is_a_failure() {
        assert!(Run::new("no-such-program-here", [""; 0]).output().is_err());
    }
}
