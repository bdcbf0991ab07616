//! Every chore of this workspace, by name: `cargo xtask` lists them.
//!
//! One file per chore. A chore echoes each command on stderr before it runs it, so that a
//! person can do by hand what it did, and its error says what to do next.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

mod apt;
mod bench;
mod ci;
mod console;
mod demo;
mod deps;
mod dist;
mod failure;
mod fuzz;
mod iotests;
mod lexer;
mod linux_guest;
mod qemu_source;
mod readme;
mod run;
mod scratch;
mod style;
mod test;
mod workspace;

use failure::Failure;

/// The chores of the vdisk-tools workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    chore: Option<Chore>,
}

/// What can be done; the first line of each is its line in the list.
#[derive(Subcommand)]
enum Chore {
    /// Install what the tests need: QEMU's programs, strace, Python, and QEMU's own test sources
    Deps,
    /// Run every test: the workspace's, the fuzz targets' smoke tests, the README and QEMU's iotests
    Test,
    /// Everything that must pass before a change goes in, with a table of steps and seconds
    Ci,
    /// The story of this project on a real image: look, edit, check, undo, byte for byte
    Demo,
    /// Run README.md: each `console` block's commands must print what it shows
    Readme {
        /// Rewrite the expected output with what was printed
        #[arg(long)]
        bless: bool,
    },
    /// Run QEMU's own tests with our `qcow2` in the place of qcow2.py, or beside `qemu-img check`
    Iotests {
        /// Use QEMU's qcow2.py itself: shows what this machine's QEMU can pass at all
        #[arg(long)]
        original: bool,
        /// Whenever a test calls `qemu-img check`, ask ours too, and compare the answers
        #[arg(long, conflicts_with = "original")]
        check: bool,
        /// With --check: all of QEMU's tests, and images of all kinds; takes an hour
        #[arg(long, requires = "check")]
        all: bool,
    },
    /// Check the house rules: file sizes, leftovers, `unsafe` against ARCHITECTURE.md
    Style,
    /// Measure the release binaries; ARGS go to the benchmark program
    Bench {
        /// Arguments for the benchmark program
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run one fuzz target with cargo-fuzz, or without a target all their smoke tests
    Fuzz {
        /// The fuzz target; `cargo fuzz list` names them
        target: Option<String>,
        /// Arguments for cargo-fuzz
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Write the man pages and the shell completions
    Dist {
        /// The folder to write to [default: target/dist]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let Some(chore) = Cli::parse().chore else {
        return match Cli::command().print_help() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    };
    match perform(chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn perform(chore: Chore) -> Result<(), Failure> {
    match chore {
        Chore::Deps => deps::deps(),
        Chore::Test => test::test(),
        Chore::Ci => ci::ci(),
        Chore::Demo => demo::demo(),
        Chore::Readme { bless } => readme::readme(bless),
        Chore::Iotests { check: true, all, .. } => iotests::check::check(all),
        Chore::Iotests { original, .. } => iotests::iotests(original),
        Chore::Style => style::style(),
        Chore::Bench { args } => bench::bench(&args),
        Chore::Fuzz { target, args } => fuzz::fuzz(target.as_deref(), &args),
        Chore::Dist { out } => dist::dist(out.as_deref()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_chore_has_its_line_in_the_list() {
        for chore in Cli::command().get_subcommands() {
            assert!(chore.get_about().is_some(), "{} has no line", chore.get_name());
        }
    }
}
