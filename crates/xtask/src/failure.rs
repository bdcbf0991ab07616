//! Why a chore could not be done, in words for the person who typed it.

use std::fmt;
use std::io;
use std::path::Path;

/// A chore's error: one message, complete with what to do next where that is known.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    /// A failure with this message.
    pub(crate) fn new(message: impl Into<String>) -> Failure {
        Failure(message.into())
    }

    /// For `map_err`: what the system said, about `path`.
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Failure {
        move |error| Failure(format!("{}: {error}", path.display()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
