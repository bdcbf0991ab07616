//! From a command line to an exit status.

use std::ffi::OsString;
use std::path::Path;
use std::process::{ExitCode, Termination};

use clap::Parser;

use crate::argv::{meant, normalized, unknown_command};
use crate::status::{Failure, Outcome, USAGE};

/// Runs the command that `argv` asks for, and returns the exit status.
///
/// `commands` are the names of all commands (see [`argv`](crate::argv)), `file` is the image that a failure is about.
/// What `run` returns where it does not fail is its exit status: nothing for 0, or an [`ExitCode`].
#[must_use]
pub fn main<Cli: Parser, T: Termination>(
    argv: Vec<OsString>,
    commands: &[&str],
    file: fn(&Cli) -> &Path,
    run: fn(Cli) -> Outcome<T>,
) -> ExitCode {
    let argv = normalized(argv, commands);
    let outcome = match Cli::try_parse_from(&argv) {
        Ok(cli) => {
            let file = file(&cli).to_owned();
            run(cli).map_err(|failure| failure.about(&file))
        }
        Err(error) if error.use_stderr() => match unknown_command(&argv, commands) {
            Some(name) => {
                let hint = meant(&argv, commands)
                    .map_or(String::new(), |line| format!("; the image comes first: {line}"));
                Err(Failure::original(format!("Unknown command '{name}'{hint}")))
            }
            None => return usage(&error),
        },
        Err(error) => return usage(&error),
    };
    outcome.map_or_else(Failure::report, Termination::report)
}

/// Help and version, on standard output; or what is wrong with the command line, on standard error.
fn usage(error: &clap::Error) -> ExitCode {
    // Whoever closed our output does not want the text.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        file: PathBuf,
        status: u8,
    }

    fn run(cli: Cli) -> Outcome<ExitCode> {
        let Cli { file, status } = cli;
        drop(file);
        Ok(ExitCode::from(status))
    }

    #[test]
    fn the_status_is_the_commands_own() {
        for status in [0, 3, 63] {
            let argv = ["name", "f", &status.to_string()].map(OsString::from).to_vec();
            assert_eq!(main(argv, &[], |cli: &Cli| &cli.file, run), ExitCode::from(status));
        }
    }
}
