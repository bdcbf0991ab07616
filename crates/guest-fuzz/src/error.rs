//! [`Error`]: why something could not be done. What a machine under test does wrong is a
//! [`Verdict`](crate::verdict::Verdict) instead.

use std::io;

/// A `Result` whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, with the path where there is one.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A text is not what it should be.
    #[error("{what}, line {line}: expected {expected}, found {found}")]
    Syntax {
        /// Which kind of text, or which file.
        what: String,
        /// Line number, from 1.
        line: usize,
        /// What should stand there.
        expected: String,
        /// What stands there, shortened.
        found: String,
    },
    /// Bytes are not what they should be.
    #[error("{what} at offset {at}: expected {expected}, found {found}")]
    Binary {
        /// Which structure.
        what: &'static str,
        /// Offset of the byte.
        at: usize,
        /// What should stand there.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// A machine did not start.
    #[error("{what} did not start: {why}")]
    Start {
        /// What was started.
        what: String,
        /// What it said, or what it was waited for in vain.
        why: String,
    },
    /// A machine's answer is none, or makes no sense.
    #[error("{what}: {why}")]
    Protocol {
        /// What was asked.
        what: String,
        /// What is wrong with the answer.
        why: String,
    },
    /// There was no answer in time.
    #[error("{what}: no answer")]
    NoAnswer {
        /// What was asked.
        what: String,
    },
    /// This target, or this system, cannot do it.
    #[error("{what}: {why}")]
    Unsupported {
        /// What was asked.
        what: String,
        /// What stands against it.
        why: String,
    },
    /// The machine under test is no more. [`Target::condition`](crate::target::Target::condition) says how it ended.
    #[error("the machine is dead")]
    Dead,
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    pub(crate) fn protocol(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Protocol { what: what.into(), why: why.into() }
    }
}
