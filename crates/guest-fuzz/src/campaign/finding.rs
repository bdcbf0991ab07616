//! From what was seen once to a finding: replays on fresh machines, and the shortest program.

use std::collections::BTreeMap;

use super::{Job, Seen, refined};
use crate::engine::{Execution, Patience};
use crate::error::Result;
use crate::generate::Generator;
use crate::instruction::Instruction;
use crate::journal::{InFlight, Journal, Operations, Part, SCHEMA, Source};
use crate::region::RegionMap;
use crate::replay::{Recording, replay};
use crate::report::{self, Finding};
use crate::shrink::Shrink;
use crate::signature::signature;
use crate::verdict::Verdict;

/// A longer program is not shrunk: it would not be done in time.
const MAX_SHRUNK: u64 = 4 << 20;

/// Whether an execution shows `signature`.
pub(super) fn shows(execution: &Execution, wanted: &str, map: &RegionMap) -> bool {
    let of = |incident| {
        let incident = refined(incident, map);
        incident.verdict.is_finding() && signature(&incident, execution.death.as_ref(), map) == wanted
    };
    execution.incidents.iter().chain(&execution.end).any(of)
}

/// Replays what was seen, and shrinks it.
pub(super) fn look(job: &Job<'_>, seen: &Seen) -> Result<(Finding, Journal, Option<Vec<Instruction>>)> {
    let options = &job.campaign.options;
    let shown = |execution: &Execution| shows(execution, &seen.signature, &seen.map);
    let patience = patience_for(&seen.incident.verdict, options.patience);
    let recording =
        |parts: &[Part]| Recording::of_episodes(seen.prepared.clone(), options.seed, parts.to_vec());
    // The last episode alone is the better reproducer; the machine's whole life is the surer one.
    let last = seen.parts.get(seen.parts.len().saturating_sub(1)..).unwrap_or(&[]);
    let mut parts = last;
    let start = job.start;
    let (mut hits, _) = replay(&recording(parts), options.replays, start, &patience, &shown)?;
    let mut runs = options.replays;
    if hits == 0 && seen.parts.len() > 1 {
        parts = &seen.parts;
        hits = replay(&recording(parts), options.replays, start, &patience, &shown)?.0;
        runs += options.replays;
    }
    let recording = recording(parts);
    let operations: u64 = parts.iter().map(|part| part.operations).sum();
    let mut shrunk = None;
    if hits == options.replays && operations <= MAX_SHRUNK && !options.shrink.is_zero() {
        let program = with_resets(&recording, parts);
        let shrink = Shrink { target: start, shows: &shown, patience, time: options.shrink };
        shrunk = shrink.shrink(&program)?.map(|shrunk| shrunk.instructions);
    }
    let index = seen.incident.index.and(operations.checked_sub(1));
    let text = seen.incident.instruction.as_ref().map(ToString::to_string);
    let signal = match seen.incident.verdict {
        Verdict::Crash { signal, .. } => signal,
        _ => None,
    };
    let in_flight = index.zip(text);
    let finding = Finding {
        verdict: seen.incident.verdict.name().to_owned(),
        signal,
        signature: seen.signature.clone(),
        operation_in_flight: in_flight.clone().map(|(index, text)| report::InFlight { index, text }),
        operations,
        shrunk_operations: shrunk.as_ref().map(|shrunk| shrunk.len() as u64),
        runs,
        hits,
        times: 1,
        journal: String::new(),
        stderr: seen.death.as_ref().map_or_else(String::new, |death| death.stderr.clone()),
    };
    let alone = parts.len() < seen.parts.len();
    let journal = Journal {
        schema: SCHEMA,
        target: seen.target.clone(),
        source: Some(source(options.generator, options.seed)),
        regions: seen.map.clone(),
        operations: Operations::Episodes(parts.to_vec()),
        // The points of a machine's life are not those of its last episode alone.
        resets: if alone { Vec::new() } else { seen.resets.clone() },
        in_flight: in_flight.map(|(index, text)| InFlight { index, text }),
        verdict: finding.verdict.clone(),
        signal,
        signature: seen.signature.clone(),
    };
    Ok((finding, journal, shrunk))
}

fn source(generator: Generator, seed: u64) -> Source {
    Source { generator: generator.to_string(), parameters: BTreeMap::new(), seed }
}

/// The instructions of a recording as one program: with the resets between its parts.
fn with_resets(recording: &Recording, parts: &[Part]) -> Vec<Instruction> {
    let mut program = Vec::new();
    let mut instructions = recording.instructions();
    for (number, part) in parts.iter().enumerate() {
        if number > 0 {
            program.push(Instruction::Reset);
        }
        let count = usize::try_from(part.operations).unwrap_or(usize::MAX);
        program.extend(instructions.by_ref().take(count));
    }
    program
}

/// What is deadly is seen at once. What does not end is waited for: not longer than needed.
fn patience_for(verdict: &Verdict, patience: Patience) -> Patience {
    let settle = match verdict {
        Verdict::Crash { .. } => patience.settle * 5,
        _ => patience.settle,
    };
    Patience { settle, ..patience }
}
