//! The tool `iofuzz`, as a library: for its binary, and for whoever makes man pages and completions from [`command`].
//!
//! `args.rs` is the command line; each command is one file of `command/`. What runs is `machine.rs`'s: from options to
//! machines that can be started, and to the map of where they can be reached.

pub mod args;
mod command;
mod document;
mod failure;
mod folder;
mod interrupt;
mod machine;
mod qemu_arguments;
mod screen;
mod value;
mod verdicts;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use tool_support::status::{Failure, USAGE};

/// Runs the command that `argv` asks for, and returns the exit status.
#[must_use]
pub fn main(argv: Vec<OsString>) -> ExitCode {
    match args::Cli::try_parse_from(argv) {
        Ok(cli) => command::run(cli).unwrap_or_else(Failure::report),
        Err(error) => {
            // Whoever closed our output does not want the text.
            let _ = error.print();
            if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
        }
    }
}

/// The definition of the command line, from which man pages and completions are made.
#[must_use]
pub fn command() -> clap::Command {
    args::Cli::command()
}
