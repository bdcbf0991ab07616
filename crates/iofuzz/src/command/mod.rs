//! One file per command.

mod classic;
mod ports;
mod replay;
mod run;
mod shrink;

use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use guest_fuzz::journal::{Journal, MAX_JOURNAL, Operations, Replayable};
use guest_fuzz::region::RegionMap;
use guest_fuzz::replay::Recording;
use serde::Serialize;
use tool_support::{Out, Outcome};

use crate::args::{Cli, Command, MachineArgs};
use crate::failure::{FOUND, could_not_run, of_file, of_library};
use crate::machine::Machine;

/// The longest file that is replayed: a program's text is longer than a journal.
const MAX_FILE: u64 = 4 * MAX_JOURNAL as u64;

/// Runs the command.
pub(crate) fn run(cli: Cli) -> Outcome<ExitCode> {
    match cli.command.unwrap_or(Command::Run(cli.run)) {
        Command::Run(args) => run::run(&args),
        Command::Classic(args) => classic::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Shrink(args) => shrink::run(&args),
        Command::Ports(args) => ports::run(&args),
    }
}

/// What a file has to be executed, the machine for that, and where it can be reached.
struct Loaded {
    machine: Machine,
    map: RegionMap,
    recording: Recording,
    /// How many operations there are.
    operations: u64,
    /// What is expected of it: verdict and signature, where the file says so.
    expected: Option<(String, String)>,
}

impl Loaded {
    fn of(file: &Path, args: &MachineArgs) -> Outcome<Self> {
        let name = file.display().to_string();
        let bytes = read(file)?;
        let loaded = Replayable::load(&bytes, &name).map_err(of_library)?;
        let machine = Machine::of_file(args, &loaded)?.confirmed()?;
        let journal = match loaded {
            Replayable::Journal(journal) => *journal,
            Replayable::Program(program) => Journal::new(Operations::Instructions(program.instructions)),
        };
        let recording = Recording::of_journal(&journal).map_err(of_library)?;
        let expected =
            (!journal.verdict.is_empty()).then(|| (journal.verdict.clone(), journal.signature.clone()));
        let operations = journal.operations.count();
        if let Operations::Instructions(instructions) = &journal.operations {
            machine.say_what_has_no_effect(instructions);
        }
        // A list that somebody wrote says nothing of the machine.
        let map =
            if journal.regions == RegionMap::default() { machine.explored()?.0 } else { journal.regions };
        Ok(Self { machine, map, recording, operations, expected })
    }
}

/// All of a file that is no longer than a program may be. A pipe will do.
fn read(file: &Path) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    let opened = fs::File::open(file).map_err(of_file(file))?;
    opened.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(of_file(file))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(could_not_run(format!(
            "{}: more than the {MAX_FILE} bytes that are read",
            file.display()
        )));
    }
    Ok(bytes)
}

/// A seed that nobody chose: short enough to be typed, and for every reader of JSON.
fn random_seed() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish() >> 32
}

/// Prints a document, or a text.
fn print(json: bool, document: &impl Serialize, text: impl FnOnce() -> String) -> Outcome {
    let mut out = Out::stdout();
    let written = if json {
        out.json(document)
    } else {
        // Names and last words come from the machine.
        out.untrusted(text().as_bytes())
    };
    match written.and_then(|()| out.flush()) {
        // Whoever went away wants no more of it; the exit status stays.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => {
            written.map_err(|error| could_not_run(format!("cannot write to standard output: {error}")))
        }
    }
}

/// The exit status.
fn status(found: bool) -> ExitCode {
    if found { ExitCode::from(FOUND) } else { ExitCode::SUCCESS }
}
