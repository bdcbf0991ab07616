//! `replay`: a journal or a list of operations again, each time on a fresh machine.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::Duration;

use guest_fuzz::engine::{Execution, Patience};
use guest_fuzz::report::InFlight;
use guest_fuzz::target::Identity;
use tool_support::Outcome;
use tool_support::status::note;

use super::{Loaded, print, status};
use crate::args::ReplayArgs;
use crate::document::{Replayed, SCHEMA};
use crate::failure::of_library;
use crate::interrupt::Interrupt;
use crate::machine;
use crate::screen::{counted, named};
use crate::verdicts::Seen;

/// How long a machine is watched after the last operation: timers and threads may have something to say.
const SETTLE: Duration = Duration::from_millis(300);

pub(super) fn run(args: &ReplayArgs) -> Outcome<ExitCode> {
    let interrupt = Interrupt::listen()?;
    interrupt.exit_soon();
    let loaded = Loaded::of(&args.file, &args.machine)?;
    let runs = Runs::of(&loaded, args.times, &interrupt)?;
    let Some(document) = runs.document(&loaded, &args.file.display().to_string()) else {
        note("stopped before the first replay ended");
        return Ok(ExitCode::SUCCESS);
    };
    print(args.json, &document, || text(&document))?;
    Ok(status(runs.found))
}

/// What the replays came to.
#[derive(Default)]
struct Runs {
    target: Identity,
    runs: u64,
    hits: u64,
    verdicts: BTreeMap<String, u64>,
    /// Whether one of them was a finding.
    found: bool,
    /// The first that was as expected, or the last.
    kept: Option<(Seen, Execution)>,
}

impl Runs {
    fn of(loaded: &Loaded, times: u64, interrupt: &Interrupt) -> Outcome<Self> {
        let prologue = machine::prologue(&loaded.map)?;
        let patience = Patience { settle: SETTLE, ..loaded.machine.patience };
        let mut expected = loaded.expected.clone();
        let mut runs = Self::default();
        while runs.runs < times && !interrupt.is_asked() {
            let mut target = loaded.machine.start(&prologue).map_err(of_library)?;
            let observe = &mut |_: &_| match interrupt.is_asked() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            };
            let execution =
                loaded.recording.execute(target.as_mut(), &patience, observe).map_err(of_library)?;
            let seen = match &expected {
                Some((verdict, signature)) => Seen::like(&execution, &loaded.map, verdict, signature),
                None => Seen::of(&execution, &loaded.map),
            };
            let ended = execution.end.is_some();
            // Where nothing is expected, it is what the first one shows.
            let (verdict, signature) = expected.get_or_insert_with(|| seen.names());
            let hit = seen.is_like(verdict, signature);
            runs.target = target.identity();
            runs.runs += 1;
            runs.found |= seen.incident.verdict.is_finding();
            *runs.verdicts.entry(seen.incident.verdict.name().to_owned()).or_default() += 1;
            if runs.hits == 0 {
                runs.kept = Some((seen, execution));
            }
            runs.hits += u64::from(hit);
            if ended && !loaded.machine.is_renewable() {
                break;
            }
        }
        Ok(runs)
    }

    fn document(&self, loaded: &Loaded, journal: &str) -> Option<Replayed> {
        let (seen, execution) = self.kept.as_ref()?;
        let text = seen.incident.instruction.as_ref().map(ToString::to_string);
        let (verdict, signature) = seen.names();
        Some(Replayed {
            schema: SCHEMA,
            target: self.target.clone(),
            verdict,
            signal: seen.signal(),
            code: seen.code(),
            signature,
            operation_in_flight: seen.incident.index.zip(text).map(|(index, text)| InFlight { index, text }),
            operations: loaded.operations,
            shrunk_operations: None,
            runs: self.runs,
            hits: self.hits,
            journal: journal.to_owned(),
            resets: execution.resets,
            verdicts: self.verdicts.clone(),
            stderr: execution.death.as_ref().map_or_else(String::new, |death| death.stderr.clone()),
        })
    }
}

fn text(document: &Replayed) -> String {
    let mut text = named(&document.verdict, &document.signature);
    if let Some(code) = document.code {
        text.push_str(&format!(", status {code}"));
    }
    text.push('\n');
    if let Some(in_flight) = &document.operation_in_flight {
        text.push_str(&format!("in flight: {}, operation {}\n", in_flight.text, in_flight.index));
    }
    text.push_str(&format!("shown by {} of {}", document.hits, counted(document.runs, "replay")));
    text.push_str(&format!(" of {}", counted(document.operations, "operation")));
    text.push_str(&format!(", {}\n", counted(document.resets, "reset")));
    if document.hits < document.runs {
        for (verdict, count) in &document.verdicts {
            text.push_str(&format!("  {count} x {verdict}\n"));
        }
    }
    text
}
