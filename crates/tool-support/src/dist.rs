//! Man pages and shell completions, from the definition that a binary parses its arguments with.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap_complete::Shell;

/// The shells that there are completions for.
pub const SHELLS: [Shell; 5] = [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell, Shell::Elvish];

/// The whole of a program `dist DIR`.
///
/// # Errors
/// Where there is no DIR on the command line, and as [`write()`].
pub fn main(command: clap::Command) -> Result<(), Box<dyn Error>> {
    let dir = std::env::args_os().nth(1).map(PathBuf::from).ok_or("usage: dist DIR")?;
    write(command, &dir)?;
    Ok(())
}

/// Writes `man/NAME.1`, `man/NAME-COMMAND.1`, … and `completions/NAME.bash`, `completions/_NAME`, … of `command` below
/// `dir`.
///
/// # Errors
/// As [`fs::create_dir_all`] and [`fs::write`].
pub fn write(mut command: clap::Command, dir: &Path) -> io::Result<()> {
    let (man, completions) = (dir.join("man"), dir.join("completions"));
    for dir in [&man, &completions] {
        fs::create_dir_all(dir)?;
    }
    let name = command.get_name().to_owned();
    for shell in SHELLS {
        clap_complete::generate_to(shell, &mut command, &name, &completions)?;
    }
    clap_mangen::generate_to(command, &man)
}
