//! Runs a command and prints the most memory that it had resident, in KiB, on standard error.

use std::process::{Command, ExitCode, Stdio};

use nix::sys::resource::{UsageWho, getrusage};

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let Some((program, args)) = words.split_first() else {
        eprintln!("usage: peak COMMAND [ARGS]");
        return ExitCode::FAILURE;
    };
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let usage = command.status().map(|_| getrusage(UsageWho::RUSAGE_CHILDREN));
    match usage {
        Ok(Ok(usage)) => {
            eprintln!("{}", usage.max_rss());
            ExitCode::SUCCESS
        }
        Ok(Err(error)) => fail(&error),
        Err(error) => fail(&error),
    }
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("peak: {error}");
    ExitCode::FAILURE
}
