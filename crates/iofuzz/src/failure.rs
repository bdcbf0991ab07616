//! Exit status, and what could not be run.

use std::path::Path;

use guest_fuzz::Error;
use tool_support::Failure;

/// 1: something was found, or the machine died.
pub(crate) const FOUND: u8 = 1;
/// 3: it could not be run.
pub(crate) const COULD_NOT_RUN: u8 = 3;

/// A failure with exit status [`COULD_NOT_RUN`].
pub(crate) fn could_not_run(message: impl Into<String>) -> Failure {
    Failure::Error { status: COULD_NOT_RUN, message: message.into(), names_the_image: true }
}

/// What the library says could not be done.
#[expect(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
pub(crate) fn of_library(error: Error) -> Failure {
    could_not_run(error.to_string())
}

/// What the library says of an option's value.
pub(crate) fn of_option(error: Error) -> Failure {
    match error {
        Error::Syntax { ref what, .. } | Error::Unsupported { ref what, .. } if what.starts_with("--") => {
            Failure::usage(error.to_string())
        }
        // What is wrong with a file that an option names is no wrong command line.
        error => of_library(error),
    }
}

/// What the system says of a file.
pub(crate) fn of_file(path: &Path) -> impl FnOnce(std::io::Error) -> Failure {
    move |error| could_not_run(format!("{}: {error}", path.display()))
}
