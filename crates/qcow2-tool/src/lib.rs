//! The command line of `qcow2`, as a library for the one binary and for the makers of man pages and completions.
//!
//! Top down: [`main`] reads the arguments ([`args`]), then runs one file of `command/`. What the original qcow2.py
//! prints is in `original/`, and nowhere else.

pub mod args;
mod bitmaps;
mod command;
mod document;
mod original;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::CommandFactory;

/// Runs the command that `argv` asks for, and returns the exit status.
#[must_use]
pub fn main(argv: Vec<OsString>) -> ExitCode {
    tool_support::cli::main(argv, &args::COMMANDS, |cli: &args::Cli| &cli.file, command::run)
}

/// The definition of the command line, from which man pages and completions are made.
#[must_use]
pub fn command() -> clap::Command {
    args::Cli::command()
}
