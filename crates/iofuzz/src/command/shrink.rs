//! `shrink`: without whatever is not needed.

use std::fs;
use std::process::ExitCode;

use guest_fuzz::engine::{Execution, Patience};
use guest_fuzz::journal::{Journal, Operations};
use guest_fuzz::shrink::Shrink;
use tool_support::Outcome;
use tool_support::status::note;

use super::{Loaded, print, status};
use crate::args::ShrinkArgs;
use crate::document::{SCHEMA, Shrunk};
use crate::failure::{could_not_run, of_file, of_library};
use crate::folder::listing;
use crate::interrupt::Interrupt;
use crate::machine;
use crate::screen::counted;
use crate::verdicts::Seen;

/// More operations would not be done in time.
const MAX_OPERATIONS: u64 = 16 << 20;

pub(super) fn run(args: &ShrinkArgs) -> Outcome<ExitCode> {
    let interrupt = Interrupt::listen()?;
    interrupt.exit_soon();
    let loaded = Loaded::of(&args.file, &args.machine)?;
    let name = args.file.display();
    if !loaded.machine.is_renewable() {
        return Err(could_not_run(format!(
            "{name}: each attempt needs a fresh machine, and this one runs already: leave out --attach, and name a machine \
             behind --"
        )));
    }
    if loaded.operations > MAX_OPERATIONS {
        return Err(could_not_run(format!(
            "{name}: {} operations are more than the {MAX_OPERATIONS} that can be shrunk",
            loaded.operations
        )));
    }
    let prologue = machine::prologue(&loaded.map)?;
    let start = || loaded.machine.start(&prologue);
    let usual = loaded.machine.patience;
    let patience = Patience { settle: usual.settle * 5, ..usual };
    let program = loaded.recording.program();
    // What is to be shown: what a fresh machine shows now.
    let mut target = start().map_err(of_library)?;
    let execution = loaded
        .recording
        .execute(target.as_mut(), &patience, &mut guest_fuzz::engine::to_the_end)
        .map_err(of_library)?;
    let identity = target.identity();
    drop(target);
    let wanted = Seen::of(&execution, &loaded.map);
    if !wanted.incident.verdict.is_finding() {
        return Err(could_not_run(format!(
            "{name}: there is nothing to shrink: its end is {}",
            wanted.incident.verdict
        )));
    }
    let (verdict, signature) = wanted.names();
    if loaded.expected.as_ref().is_some_and(|expected| *expected != (verdict.clone(), signature.clone())) {
        note(&format!("this is not what the journal says: {signature}"));
    }
    let shows = |execution: &Execution| Seen::of(execution, &loaded.map).is_like(&verdict, &signature);
    let shrink = Shrink { target: &start, shows: &shows, patience, time: args.time, stop: interrupt.flag() };
    let shrunk = shrink.shrink(&program).map_err(of_library)?;
    let Some(shrunk) = shrunk else {
        let why = match interrupt.is_asked() {
            true => "interrupted before there was anything to leave out",
            false => "a second machine did not show it again",
        };
        return Err(could_not_run(format!("{name}: {why}")));
    };
    let mut journal = Journal::new(Operations::Instructions(Vec::new()));
    (journal.target, journal.regions) = (identity.clone(), loaded.map.clone());
    (journal.verdict, journal.signature) = (verdict.clone(), signature.clone());
    let listing = listing(&journal, &shrunk.instructions);
    if let Some(out) = &args.output {
        fs::write(out, &listing).map_err(of_file(out))?;
    }
    let document = Shrunk {
        schema: SCHEMA,
        target: identity,
        verdict,
        signal: wanted.signal(),
        signature,
        operations: loaded.operations,
        shrunk_operations: shrunk.instructions.len() as u64,
        is_minimal: shrunk.is_minimal,
        runs: shrunk.runs,
        instructions: shrunk.instructions.iter().map(ToString::to_string).collect(),
        journal: name.to_string(),
    };
    note(&summary(&document, interrupt.is_asked()));
    let text = || if args.output.is_some() { String::new() } else { listing };
    print(args.json, &document, text)?;
    Ok(status(true))
}

fn summary(document: &Shrunk, interrupted: bool) -> String {
    let less = match (document.is_minimal, interrupted) {
        (true, _) => "",
        (false, true) => "; interrupted",
        (false, false) => "; the time was over",
    };
    format!(
        "shrunk from {} to {}, with {}{less}",
        counted(document.operations, "operation"),
        document.shrunk_operations,
        counted(document.runs, "run")
    )
}
