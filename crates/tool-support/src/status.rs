//! Exit status, and how a command that fails says so.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::output::Out;

/// 1: it could not be done, and the file is as it was.
pub const FAILED: u8 = 1;
/// 64: the command line is wrong.
pub const USAGE: u8 = 64;
/// 70: a commit ended half-way, and `undo` is needed.
pub const HALF_WAY: u8 = 70;

/// The part of every help that explains the exit status.
pub const EXIT_STATUS_HELP: &str = "\
Exit status:
  0   done (a plan that was asked for and shown is done)
  1   it could not be done, and the file is as it was
  64  the command line is wrong
  70  a commit ended half-way, and `undo` is needed";

/// What a command returns.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Why a command did not succeed, and how that is said.
#[derive(Debug)]
pub enum Failure {
    /// A message on standard error, behind `error: `.
    Error {
        /// Exit status.
        status: u8,
        /// What happened, in one line.
        message: String,
        /// Whether the message says which image it is about.
        names_the_image: bool,
    },
    /// A message of the original tool, in its words and at its place: standard output.
    Original {
        /// Exit status.
        status: u8,
        /// The original's line.
        message: String,
    },
    /// Whoever read our output went away. That is no error, and nothing is said.
    BrokenPipe,
}

impl Failure {
    /// A failure with exit status [`FAILED`].
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Error { status: FAILED, message: message.into(), names_the_image: true }
    }

    /// A failure with exit status [`USAGE`].
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Error { status: USAGE, message: message.into(), names_the_image: true }
    }

    /// What the original tool says of a wrong command line, with exit status [`USAGE`].
    pub fn original(message: impl Into<String>) -> Self {
        Self::Original { status: USAGE, message: message.into() }
    }

    /// The same, with advice behind it.
    #[must_use]
    pub fn with_hint(self, hint: &str) -> Self {
        match self {
            Self::Error { status, message, names_the_image } => {
                Self::Error { status, message: format!("{message}; {hint}"), names_the_image }
            }
            other => other,
        }
    }

    /// The same, naming the file that it is about, unless it does.
    #[must_use]
    pub fn about(self, file: &Path) -> Self {
        match self {
            Self::Error { status, message, names_the_image: false } => Self::Error {
                status,
                message: format!("{}: {message}", file.display()),
                names_the_image: true,
            },
            other => other,
        }
    }

    /// What is said, where something is.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        match self {
            Self::Error { message, .. } | Self::Original { message, .. } => Some(message),
            Self::BrokenPipe => None,
        }
    }

    /// Says it, and returns the exit status.
    #[must_use]
    pub fn report(self) -> ExitCode {
        match self {
            Self::Error { status, message, .. } => {
                say("error", RED, &message);
                ExitCode::from(status)
            }
            Self::Original { status, message } => {
                let mut out = Out::stdout();
                // Where standard output is gone there is nobody to tell.
                let _ = out.untrusted(format!("{message}\n").as_bytes()).and_then(|()| out.finish());
                ExitCode::from(status)
            }
            Self::BrokenPipe => ExitCode::SUCCESS,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::failed(format!("cannot write to standard output: {error}")),
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        io::Error::from(error).into()
    }
}

#[cfg(feature = "image")]
impl From<vdisk_format::Error> for Failure {
    fn from(error: vdisk_format::Error) -> Self {
        use vdisk_format::Error;
        use vdisk_format::error::Reason;
        use vdisk_format::lock::Access;
        let status = match &error {
            Error::HalfWay { .. } => HALF_WAY,
            error if error.reason() == Some(Reason::OutOfRange) => USAGE,
            _ => FAILED,
        };
        let hint = match &error {
            Error::InUse { access: Some(Access::Read), .. } => {
                "; to read it all the same, use --force-share (-U)"
            }
            Error::InUse { .. } => "; stop what uses it first",
            Error::NoLocks { .. } => "; to go on without locks, use --no-lock",
            Error::HalfWay { undo: Some(_), .. } => ": use undo",
            error if error.reason() == Some(Reason::DoesNotFit) => {
                "; the image was changed since: to overwrite it all the same, use --force"
            }
            _ => "",
        };
        // The others name their file themselves.
        let names_the_image = !matches!(
            error,
            Error::Truncated { .. } | Error::Refused(_) | Error::InBackingFile { .. } | Error::HalfWay { .. }
        );
        Self::Error { status, message: format!("{error}{hint}"), names_the_image }
    }
}

/// A line on standard error that does not end the command.
pub fn warn(message: &str) {
    say("warning", YELLOW, message);
}

/// A line on standard error that is no complaint.
pub fn note(message: &str) {
    let _ = writeln!(anstream::stderr(), "{}", crate::output::escaped(message.as_bytes()));
}

/// Colours go where `anstream` lets them: to terminals, unless `NO_COLOR` is set.
fn say(kind: &str, colour: &str, message: &str) {
    let message = crate::output::escaped(message.as_bytes());
    let _ = writeln!(anstream::stderr(), "{colour}{kind}:\x1b[0m {message}");
}

const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[1;33m";
