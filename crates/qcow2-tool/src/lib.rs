//! The command line of `qcow2`, as a library for the one binary and for the makers of man pages and completions.
//!
//! Top down: [`main`] reads the arguments ([`args`]), then runs one file of `command/`. What the original qcow2.py
//! prints is in `original/`, and nowhere else.

pub mod args;
mod bitmaps;
mod command;
mod document;
mod number;
mod original;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use tool_support::Failure;
use tool_support::status::USAGE;

/// Runs the command that `argv` asks for, and returns the exit status.
#[must_use]
pub fn main(argv: Vec<OsString>) -> ExitCode {
    let argv = args::normalized(argv);
    let outcome = match args::Cli::try_parse_from(&argv) {
        Ok(cli) => {
            let file = cli.file.clone();
            command::run(cli).map_err(|failure| failure.about(&file))
        }
        Err(error) if error.use_stderr() => match args::unknown_command(&argv) {
            Some(name) => Err(Failure::Original { status: USAGE, message: original::unknown_command(&name) }),
            None => return usage(&error),
        },
        Err(error) => return usage(&error),
    };
    outcome.map_or_else(Failure::report, |()| ExitCode::SUCCESS)
}

/// Help and version, on standard output; or what is wrong with the command line, on standard error.
fn usage(error: &clap::Error) -> ExitCode {
    // Whoever closed our output does not want the text.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
}

/// The definition of the command line, from which man pages and completions are made.
#[must_use]
pub fn command() -> clap::Command {
    args::Cli::command()
}
