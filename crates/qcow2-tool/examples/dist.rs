//! Writes the man pages and the shell completions of `qcow2` to a folder, from the definition that the binary parses
//! its arguments with: `cargo run -p qcow2-tool --example dist -- DIR`.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap_complete::Shell;

const SHELLS: [Shell; 5] = [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell, Shell::Elvish];

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args_os().nth(1).map(PathBuf::from).ok_or("usage: dist DIR")?;
    write(&dir)?;
    Ok(())
}

/// Writes `man/qcow2.1`, `man/qcow2-dump-header.1`, … and `completions/qcow2.bash`, `completions/_qcow2`, …
fn write(dir: &Path) -> io::Result<()> {
    let (man, completions) = (dir.join("man"), dir.join("completions"));
    for dir in [&man, &completions] {
        fs::create_dir_all(dir)?;
    }
    let mut command = qcow2_tool::command();
    for shell in SHELLS {
        clap_complete::generate_to(shell, &mut command, "qcow2", &completions)?;
    }
    clap_mangen::generate_to(command, &man)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(dir: &Path) -> Vec<(String, String)> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        let mut files: Vec<_> = entries
            .map(|entry| {
                (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())
            })
            .collect();
        files.sort();
        files
    }

    #[test]
    fn every_subcommand_has_a_page_and_every_shell_knows_it() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path()).unwrap();
        let (pages, completions) = (files(&dir.path().join("man")), files(&dir.path().join("completions")));
        assert_eq!(completions.len(), SHELLS.len());
        let command = qcow2_tool::command();
        assert_eq!(pages.len(), 1 + command.get_subcommands().count());
        let (_, main) = pages.iter().find(|(name, _)| name == "qcow2.1").unwrap();
        for subcommand in command.get_subcommands() {
            let name = subcommand.get_name();
            let page = format!("qcow2-{name}.1");
            assert!(pages.iter().any(|(file, _)| *file == page), "{page}");
            // roff writes a hyphen as \-
            assert!(main.contains(&page.replace(".1", "(1)").replace('-', "\\-")), "{name} in qcow2.1");
            for (file, text) in &completions {
                assert!(text.contains(name), "{name} in {file}");
            }
        }
        for (name, page) in &pages {
            assert!(page.contains("64"), "{name} states the exit status of wrong usage");
        }
    }
}
