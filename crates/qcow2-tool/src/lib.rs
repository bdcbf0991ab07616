//! The command line of `qcow2`, as a library for the one binary and for the makers of man pages and completions.
//!
//! Top down: [`main`] reads the arguments ([`args`]), then runs one file of `command/`. What the original qcow2.py
//! prints is in `original/`, and nowhere else.

pub mod args;
mod command;
mod document;
mod number;
mod original;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser};
use tool_support::status::USAGE;

/// Runs the command that `argv` asks for, and returns the exit status.
#[must_use]
pub fn main(argv: Vec<OsString>) -> ExitCode {
    match args::Cli::try_parse_from(args::normalized(argv)) {
        Ok(cli) => match command::run(cli) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => failure.report(),
        },
        Err(error) => usage(&error),
    }
}

/// Help and version go to standard output; what is wrong to standard error, but for an unknown command, which
/// the original names on standard output.
fn usage(error: &clap::Error) -> ExitCode {
    if error.kind() == ErrorKind::InvalidSubcommand
        && let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidSubcommand)
    {
        let message = original::unknown_command(name);
        return tool_support::Failure::Original { status: USAGE, message }.report();
    }
    // Whoever closed our output does not want the text.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
}

/// The definition of the command line, from which man pages and completions are made.
#[must_use]
pub fn command() -> clap::Command {
    args::Cli::command()
}
