//! From what was seen once to a finding: replays on fresh machines, and the shortest program.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Event, Job, Options, Seen};
use crate::engine::{Execution, Patience};
use crate::instruction::Instruction;
use crate::journal::{InFlight, Journal, Operations, Part, SCHEMA, Source};
use crate::refine::refined;
use crate::region::RegionMap;
use crate::replay::{RESETS, Recording, Replays, replay};
use crate::report::{self, Finding};
use crate::shrink::Shrink;
use crate::signature::signature;
use crate::verdict::Verdict;

/// A longer program is not shrunk: it would not be done in time.
const MAX_SHRUNK: u64 = 4 << 20;

/// What a replay may take however late it is.
const LEAST: Duration = Duration::from_secs(1);
/// How long replays, and the shrinker, may take when the campaign's time is over.
const OVERTIME: Duration = Duration::from_secs(8);

/// Whether an execution shows `signature`.
pub(super) fn shows(execution: &Execution, wanted: &str, map: &RegionMap) -> bool {
    let of = |incident| {
        let incident = refined(incident, map);
        incident.verdict.is_finding() && signature(&incident, execution.death.as_ref(), map) == wanted
    };
    execution.incidents.iter().chain(&execution.end).any(of)
}

/// Replays what was seen, and shrinks it.
///
/// Where no machine starts for that, it is a finding without replays.
pub(super) fn look(job: &Job<'_>, seen: &Seen) -> (Finding, Journal, Option<Vec<Instruction>>) {
    let options = &job.campaign.options;
    let shown = |execution: &Execution| shows(execution, &seen.signature, &seen.map);
    let patience = patience_for(&seen.incident.verdict, options.patience, job.is_over());
    let wanted = match seen.incident.verdict {
        Verdict::Crash { .. } => options.replays,
        // Each takes as long as it takes to be sure: too long where it should have ended already.
        _ if job.is_over() => options.replays.min(1),
        _ => options.replays.min(2),
    };
    let recording = |parts: &[Part]| {
        let recording = Recording::of_episodes(seen.prepared.clone(), options.seed, parts.to_vec());
        if options.resets { recording } else { recording.without_resets() }
    };
    // The last episode alone is the better reproducer; the machine's whole life is the surer one.
    let last = seen.parts.get(seen.parts.len().saturating_sub(1)..).unwrap_or(&[]);
    let mut parts = last;
    let start = job.start;
    let replayed = |parts: &[Part]| {
        let time = job.allowed(options.replay_time);
        let replays = replay(&recording(parts), wanted, time, start, &patience, &shown);
        replays.unwrap_or_else(|error| {
            (job.tell)(Event::Note(&format!("a finding could not be replayed: {error}")));
            Replays { runs: 0, hits: 0, execution: None }
        })
    };
    let mut replays = replayed(parts);
    if replays.hits == 0 && seen.parts.len() > 1 {
        parts = &seen.parts;
        replays = replayed(parts);
    }
    let recording = recording(parts);
    let operations: u64 = parts.iter().map(|part| part.operations).sum();
    let mut shrunk = None;
    if replays.hits > 0
        && replays.hits == replays.runs
        && operations <= MAX_SHRUNK
        && cost(&seen.incident.verdict, &patience) < options.shrink / 4
    {
        let stop = &job.campaign.stop;
        let shrink =
            Shrink { target: start, shows: &shown, patience, time: job.allowed(options.shrink), stop };
        // Where a machine did not start, the long program is better than none.
        shrunk = shrink.shrink(&recording.program()).ok().flatten().map(|shrunk| shrunk.instructions);
        // It may have been too long to get anywhere.
        shrunk = shrunk.filter(|shrunk| operations == 1 || (shrunk.len() as u64) < operations);
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
        runs: replays.runs,
        hits: replays.hits,
        times: 1,
        journal: String::new(),
        stderr: seen.death.as_ref().map_or_else(String::new, |death| death.stderr.clone()),
    };
    let alone = parts.len() < seen.parts.len();
    let mut journal = Journal {
        schema: SCHEMA,
        target: seen.target.clone(),
        source: Some(source(options)),
        regions: seen.map.clone(),
        operations: Operations::Episodes(parts.to_vec()),
        resets: Vec::new(),
        in_flight: in_flight.map(|(index, text)| InFlight { index, text }),
        verdict: finding.verdict.clone(),
        signal,
        signature: seen.signature.clone(),
    };
    // The points of a machine's life are not those of its last episode alone.
    if !alone {
        journal.set_reset_points(&seen.resets);
    }
    (finding, journal, shrunk)
}

fn source(options: &Options) -> Source {
    let mut parameters = BTreeMap::new();
    if !options.resets {
        parameters.insert(RESETS.to_owned(), 0);
    }
    Source { generator: options.generator.to_string(), parameters, seed: options.seed }
}

impl Job<'_> {
    /// Of `time`, what is left before the campaign's end, and some overtime.
    fn allowed(&self, time: Duration) -> Duration {
        let end = self.campaign.options.time.map(|whole| whole + OVERTIME);
        let left = end.map(|end| end.saturating_sub(self.begun.elapsed()));
        left.map_or(time, |left| time.min(left.max(LEAST)))
    }
}

/// How long it takes to see it.
fn cost(verdict: &Verdict, patience: &Patience) -> Duration {
    match verdict {
        Verdict::GuestHang => patience.hang,
        Verdict::VmmStall(time) => *time,
        Verdict::VmmDeadlock => patience.deadlock,
        _ => Duration::ZERO,
    }
}

/// What is deadly is seen at once. What does not end is waited for: not longer than needed.
fn patience_for(verdict: &Verdict, patience: Patience, is_late: bool) -> Patience {
    let settle = match verdict {
        Verdict::Crash { .. } => patience.settle * 5,
        _ => patience.settle,
    };
    // What was silent for long enough once is known to be so when it has been for as long as a stall.
    let is_known = *verdict == Verdict::VmmDeadlock;
    let deadlock =
        if is_known || is_late { patience.stall.min(patience.deadlock) } else { patience.deadlock };
    Patience { settle, deadlock, ..patience }
}
