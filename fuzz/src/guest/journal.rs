//! Any bytes as something to replay.

use guest_fuzz::journal::{InFlight, Journal, Operations, Part, Replayable, Source};
use guest_fuzz::program::Program;

/// Reads the input as whatever it looks like, and as a journal.
///
/// # Panics
/// Where a journal that was read does not write itself as what is read as the same, or promises what it does not hold.
pub fn journal(input: &[u8]) {
    match Replayable::load(input, "fuzz") {
        Ok(Replayable::Journal(journal)) => kept(&journal),
        Ok(Replayable::Program(program)) => super::kept(&program),
        Err(error) => assert!(!error.to_string().chars().any(char::is_control), "{error}"),
    }
    if let Ok(journal) = Journal::load(input, "fuzz") {
        kept(&journal);
    }
}

fn kept(journal: &Journal) {
    let json = journal.to_json();
    let again = Journal::load(json.as_bytes(), "fuzz");
    assert_eq!(again.ok().as_ref(), Some(journal), "JSON round trip");
    let count = journal.operations.count();
    assert!(journal.resets.is_sorted() && journal.resets.iter().all(|&reset| reset < count));
    assert!(journal.in_flight.iter().all(|operation| operation.index < count));
    match &journal.operations {
        Operations::Episodes(_) => assert!(journal.source.is_some()),
        Operations::Instructions(list) => super::kept(&Program::from(list.clone())),
    }
}

/// A journal that holds `program`; or, where that is of an even length, the episodes of such a one.
pub(super) fn seed(program: Program) -> String {
    let text = program.instructions.last().map(ToString::to_string);
    let count = program.instructions.len() as u64;
    let generated = count.is_multiple_of(2);
    let operations = if generated {
        Operations::Episodes(vec![Part { episode: count, operations: count }])
    } else {
        Operations::Instructions(program.instructions)
    };
    let mut journal = Journal::new(operations);
    if generated {
        let parameters = [("fuzz-count".to_owned(), 10)].into();
        journal.source = Some(Source { generator: "classic".into(), parameters, seed: count });
    }
    journal.target.command = vec!["qemu-system-x86_64".into(), "-nodefaults".into()];
    journal.resets.extend((0..count).take(2));
    journal.in_flight = text.map(|text| InFlight { index: count - 1, text });
    journal.verdict = "crash".into();
    journal.to_json()
}
