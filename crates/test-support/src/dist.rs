//! What `dist` writes.

use std::fs;
use std::path::Path;

use tool_support::dist::{SHELLS, write};

/// Every command of a binary has its man page, and every shell knows it.
pub fn every_subcommand_has_a_page_and_every_shell_knows_it(command: &clap::Command) {
    let dir = tempfile::tempdir().unwrap();
    write(command.clone(), dir.path()).unwrap();
    let (pages, completions) = (files(&dir.path().join("man")), files(&dir.path().join("completions")));
    assert_eq!(completions.len(), SHELLS.len());
    assert_eq!(pages.len(), 1 + command.get_subcommands().count());
    let whole = command.get_name();
    let (_, main) = pages.iter().find(|(name, _)| *name == format!("{whole}.1")).unwrap();
    for subcommand in command.get_subcommands() {
        let name = subcommand.get_name();
        let page = format!("{whole}-{name}.1");
        assert!(pages.iter().any(|(file, _)| *file == page), "{page}");
        // roff writes a hyphen as \-
        assert!(main.contains(&page.replace(".1", "(1)").replace('-', "\\-")), "{name} in {whole}.1");
        for (file, text) in &completions {
            assert!(text.contains(name), "{name} in {file}");
        }
    }
    for (name, page) in &pages {
        assert!(page.contains("64"), "{name} states the exit status of wrong usage");
    }
}

fn files(dir: &Path) -> Vec<(String, String)> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let mut files: Vec<_> = entries
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}
