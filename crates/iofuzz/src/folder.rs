//! The folder that a run leaves: `report.json`, and a folder for each finding. No other run's folder is written to.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use guest_fuzz::instruction::Instruction;
use guest_fuzz::journal::{Journal, Operations};
use guest_fuzz::report::{Finding, Report};
use tool_support::{Failure, Outcome};

use crate::failure::{could_not_run, of_file};
use crate::screen::named;

/// The folder's name where none is asked for; the next ones have `-2`, `-3`, ... behind it.
const NAME: &str = "iofuzz-out";
/// How many names are tried.
const MAX_NAMES: u32 = 10_000;

/// A folder of this run's own.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    findings: AtomicU32,
}

impl Folder {
    /// `asked`, which must be empty or not there; else a new one in the current folder.
    pub(crate) fn new(asked: Option<&Path>) -> Outcome<Self> {
        let path = match asked {
            Some(path) => empty(path)?,
            None => fresh()?,
        };
        // Journals are to be found from anywhere.
        let path = path.canonicalize().map_err(of_file(&path))?;
        Ok(Self { path, findings: AtomicU32::new(0) })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes what is needed to see a finding again, and returns the path of its journal.
    pub(crate) fn keep(
        &self,
        finding: &Finding,
        journal: &Journal,
        shrunk: Option<&[Instruction]>,
        confirmed: bool,
    ) -> Result<PathBuf, Failure> {
        let number = self.findings.fetch_add(1, Ordering::Relaxed) + 1;
        let doubt = if confirmed { "" } else { "-unconfirmed" };
        let folder = self.path.join(format!("{number:03}-{}{doubt}", finding.verdict));
        fs::create_dir(&folder).map_err(of_file(&folder))?;
        let file = folder.join("journal.json");
        write(&file, &journal.to_json())?;
        if let Some(instructions) = shrunk {
            write(&folder.join("shrunk.txt"), &listing(journal, instructions))?;
            write(&folder.join("shrunk.json"), &of_shrunk(journal, instructions).to_json())?;
        }
        if !finding.stderr.is_empty() {
            write(&folder.join("stderr.txt"), &finding.stderr)?;
        }
        Ok(file)
    }

    /// Writes `journal.json`: a run's own, whatever came of it.
    pub(crate) fn journal(&self, journal: &Journal) -> Result<PathBuf, Failure> {
        let file = self.path.join("journal.json");
        write(&file, &journal.to_json())?;
        Ok(file)
    }

    /// Writes `report.json`.
    pub(crate) fn report(&self, report: &Report) -> Outcome {
        let mut json = serde_json::to_string_pretty(report)?;
        json.push('\n');
        write(&self.path.join("report.json"), &json)
    }
}

/// The journal of a program that was made short: it knows its machine, as a list does not.
fn of_shrunk(journal: &Journal, instructions: &[Instruction]) -> Journal {
    let mut short = Journal::new(Operations::Instructions(instructions.to_vec()));
    short.target.clone_from(&journal.target);
    short.regions.clone_from(&journal.regions);
    short.verdict.clone_from(&journal.verdict);
    short.signal = journal.signal;
    short.signature.clone_from(&journal.signature);
    short
}

/// A list of operations, and on top of it what is needed to use it.
pub(crate) fn listing(journal: &Journal, instructions: &[Instruction]) -> String {
    let one_line =
        |text: &str| text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    let mut text = format!("# {}\n", one_line(&named(&journal.verdict, &journal.signature)));
    if !journal.target.version.is_empty() {
        text.push_str(&format!("# QEMU {}\n", one_line(&journal.target.version)));
    }
    if !journal.target.command.is_empty() {
        let words: Vec<String> = journal.target.command.iter().map(|word| quoted(word)).collect();
        text.push_str(&format!("# {}\n", one_line(&words.join(" "))));
    }
    if !journal.target.arguments.is_empty() {
        let words: Vec<String> = journal.target.arguments.iter().map(|word| quoted(word)).collect();
        text.push_str(&format!("# iofuzz replay THIS-FILE -- {}\n", one_line(&words.join(" "))));
    }
    if !journal.regions.prologue.is_empty() {
        text.push_str(
            "# Before them, the PCI functions are set up, as firmware does; iofuzz does so by itself:\n",
        );
        for line in &journal.regions.prologue {
            text.push_str(&format!("#   {}\n", one_line(line)));
        }
    }
    instructions.iter().for_each(|instruction| text.push_str(&format!("{instruction}\n")));
    text
}

/// A word as a shell takes it.
pub(crate) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=+,.:/@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

fn write(path: &Path, text: &str) -> Outcome {
    fs::write(path, text).map_err(of_file(path))
}

fn empty(path: &Path) -> Outcome<PathBuf> {
    fs::create_dir_all(path).map_err(of_file(path))?;
    let mut entries = fs::read_dir(path).map_err(of_file(path))?;
    match entries.next() {
        None => Ok(path.to_owned()),
        Some(_) => Err(could_not_run(format!("{}: the folder is not empty", path.display()))),
    }
}

fn fresh() -> Outcome<PathBuf> {
    for number in 1..=MAX_NAMES {
        let path = PathBuf::from(if number == 1 { NAME.to_owned() } else { format!("{NAME}-{number}") });
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(of_file(&path)(error)),
        }
    }
    Err(could_not_run(format!("there are {MAX_NAMES} folders {NAME}-N: remove some, or use --out")))
}

#[cfg(test)]
mod tests {
    use guest_fuzz::program::Program;

    use super::*;

    #[test]
    fn a_listing_is_a_program_whatever_is_in_the_header() {
        let instruction: Instruction = "outb 0x2014 0".parse().unwrap();
        let mut journal = Journal::new(Operations::Instructions(vec![instruction.clone()]));
        journal.signature = "line\nreset".to_owned();
        journal.target.version = "10\nreset".to_owned();
        journal.target.command = vec!["qemu".to_owned(), "a\nreset".to_owned()];
        journal.target.arguments = vec!["\rreset".to_owned()];
        journal.regions.prologue = vec!["pci_writeb 00:01.0 0x4 0x7\nreset".to_owned()];
        let text = listing(&journal, std::slice::from_ref(&instruction));
        assert_eq!(Program::parse(&text, "listing").unwrap().instructions, [instruction], "{text}");
    }

    #[test]
    fn words_for_a_shell() {
        assert_eq!(quoted("if=none,id=d"), "if=none,id=d");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
