//! The tool `qed`, as a library: for its binary, and for whoever makes man pages and completions from [`command`].
//!
//! `args.rs` is the command line; each command is one file of `command/`.

pub mod args;
mod command;
mod documents;
mod seed;

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
