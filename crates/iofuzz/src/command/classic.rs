//! `classic`: the original's whole workload, once, with its recovery: responsive? alive? a new login, a reset. It fails when
//! the machine dies.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use guest_fuzz::campaign::Status;
use guest_fuzz::engine::{Execution, Patience, execute};
use guest_fuzz::generate::Generator;
use guest_fuzz::instruction::Instruction;
use guest_fuzz::journal::{InFlight, Journal, Operations, Part, Source};
use guest_fuzz::region::RegionMap;
use guest_fuzz::replay::{Recording, replay};
use guest_fuzz::report::{Finding, Report};
use guest_fuzz::shrink::Shrink;
use guest_fuzz::skip::SkipList;
use guest_fuzz::target::{Progress, Target};
use tool_support::status::warn;
use tool_support::{Failure, Outcome};

use super::run::{summary, told};
use super::{print, random_seed, status};
use crate::args::ClassicArgs;
use crate::document::Classic;
use crate::failure::{could_not_run, of_library, of_option};
use crate::folder::Folder;
use crate::interrupt::Interrupt;
use crate::machine::{self, Machine, Places, nothing_left};
use crate::screen::{PERIOD, Screen};
use crate::verdicts::Seen;

/// How often the end of a machine is replayed.
const REPLAYS: u64 = 3;
/// How long that may take.
const REPLAY_TIME: Duration = Duration::from_secs(20);
/// How long it may be shrunk.
const SHRINK: Duration = Duration::from_secs(10);

pub(super) fn run(args: &ClassicArgs) -> Outcome<ExitCode> {
    let interrupt = Interrupt::listen()?;
    let places = Places::of(&args.places, "none")?;
    let machine = Machine::of(&args.machine)?.confirmed()?;
    let (mut map, _) = machine.explored()?;
    places.select(&mut map)?;
    skip_devices(&mut map, args.skip_devices.as_deref().unwrap_or(""))?;
    map.check().map_err(of_library)?;
    let generator: Generator = format!("classic:{}", args.fuzz_count).parse().map_err(of_library)?;
    let mut classic = Workload { machine, map, generator, seed: args.seed.unwrap_or_else(random_seed) };
    if classic.generator.prepare(&classic.map).length() == 0 {
        return Err(could_not_run(nothing_left(&classic.map)));
    }
    let folder = Folder::new(args.output.out.as_deref())?;
    classic.machine = classic.machine.with_notes_in(folder.path());
    let screen = Screen::new();
    screen.say(&format!("seed {}, results in {}", classic.seed, folder.path().display()));
    let (mut report, journal, execution) = classic.run(&interrupt, &screen)?;
    screen.clear();
    let died = execution.end.is_some();
    let journal_file = folder.journal(&journal)?.display().to_string();
    folder.report(&report)?;
    if died {
        interrupt.exit_soon();
        let (mut finding, shrunk) = classic.look(&journal, &execution, &interrupt)?;
        screen.say(&told(&finding, true));
        finding.journal = folder.keep(&finding, &journal, shrunk.as_deref(), true)?.display().to_string();
        report.findings.push(finding);
        folder.report(&report)?;
    }
    let document = Classic { report, journal: journal_file };
    print(args.output.json, &document, || {
        let died = if died { "the machine died; " } else { "" };
        format!("{died}{}  journal: {}\n", summary(&document.report), document.journal)
    })?;
    Ok(status(died))
}

/// Leaves devices alone by their names, between commas, or between blanks where that is no name.
fn skip_devices(map: &mut RegionMap, names: &str) -> Outcome {
    for item in names.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let is_name = map.regions.iter().any(|region| region.name == item);
        let words: Vec<&str> = if is_name { vec![item] } else { item.split_whitespace().collect() };
        for word in words {
            let before = map.skipped.len();
            SkipList::parse(word).map_err(of_option)?.apply(map);
            if map.skipped.len() == before {
                warn(&format!(
                    "--skip-devices: nothing is called '{word}'; `iofuzz ports` lists what there is"
                ));
            }
        }
    }
    Ok(())
}

/// The workload, and the machine for it.
struct Workload {
    machine: Machine,
    map: RegionMap,
    generator: Generator,
    seed: u64,
}

impl Workload {
    /// Executes it once.
    fn run(&self, interrupt: &Interrupt, screen: &Screen) -> Outcome<(Report, Journal, Execution)> {
        let prologue = machine::prologue(&self.map)?;
        let mut target = self.machine.start(&prologue).map_err(of_library)?;
        let begun = Instant::now();
        let (mut shown, mut before) = (begun, 0);
        let mut observe = |progress: &Progress| {
            if shown.elapsed() >= PERIOD {
                let recent = (progress.done - before) as f64 / shown.elapsed().as_secs_f64();
                (shown, before) = (Instant::now(), progress.done);
                let (operations, resets) = (progress.done, progress.resets);
                screen.show(
                    &Status { operations, resets, machines: 1, findings: 0 },
                    begun.elapsed(),
                    recent,
                );
            }
            if interrupt.is_asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let mut program = self.generator.prepare(&self.map).episode(self.seed, 0);
        let patience = &self.machine.patience;
        let execution =
            execute(target.as_mut(), &[], &mut program, patience, &mut observe).map_err(of_library)?;
        let report = self.report(target.as_mut(), &execution, begun.elapsed());
        let journal = self.journal(target.as_mut(), &execution);
        Ok((report, journal, execution))
    }

    fn report(&self, target: &mut dyn Target, execution: &Execution, time: Duration) -> Report {
        let mut incidents = BTreeMap::new();
        for incident in &execution.incidents {
            *incidents.entry(incident.verdict.name().to_owned()).or_default() += 1;
        }
        if execution.overwritten > 0 {
            incidents.insert("guest-overwritten".to_owned(), execution.overwritten);
        }
        let mut report = Report::new(target.identity(), self.generator.to_string(), self.seed);
        report.set_operations(execution.done, time);
        (report.resets, report.incidents) = (execution.resets, incidents);
        report.skipped.clone_from(&self.map.skipped);
        report
    }

    fn journal(&self, target: &mut dyn Target, execution: &Execution) -> Journal {
        let in_flight = execution.end.as_ref().and_then(|end| {
            let text = end.instruction.as_ref()?.to_string();
            Some(InFlight { index: end.index?, text })
        });
        // What was in flight is executed again, too.
        let operations = in_flight.as_ref().map_or(execution.done, |last| execution.done.max(last.index + 1));
        let seen = Seen::of(execution, &self.map);
        let (verdict, signature) = seen.names();
        let source =
            Source { generator: self.generator.to_string(), parameters: BTreeMap::new(), seed: self.seed };
        let part = Part { episode: 0, operations };
        let mut journal = Journal::new(Operations::Episodes(vec![part]));
        (journal.target, journal.source) = (target.identity(), Some(source));
        journal.regions = self.map.clone();
        journal.in_flight = in_flight;
        (journal.verdict, journal.signal, journal.signature) = (verdict, seen.signal(), signature);
        journal.set_reset_points(&execution.reset_points);
        journal
    }

    /// Replays the machine's end, and leaves out what is not needed for it.
    fn look(
        &self,
        journal: &Journal,
        execution: &Execution,
        interrupt: &Interrupt,
    ) -> Result<(Finding, Option<Vec<Instruction>>), Failure> {
        let prologue = machine::prologue(&self.map)?;
        let start = || self.machine.start(&prologue);
        let recording = Recording::of_journal(journal).map_err(of_library)?;
        let usual = self.machine.patience;
        let patience = Patience { settle: usual.settle * 5, ..usual };
        let shows = |execution: &Execution| {
            Seen::of(execution, &self.map).is_like(&journal.verdict, &journal.signature)
        };
        let replays = if interrupt.is_asked() { 0 } else { self.machine.replays(REPLAYS) };
        let replays =
            replay(&recording, replays, REPLAY_TIME, &start, &patience, &shows).map_err(of_library)?;
        let mut shrunk = None;
        if replays.runs > 0 && replays.hits == replays.runs && !self.machine.is_slow() {
            let shrink =
                Shrink { target: &start, shows: &shows, patience, time: SHRINK, stop: interrupt.flag() };
            shrunk =
                shrink.shrink(&recording.program()).map_err(of_library)?.map(|shrunk| shrunk.instructions);
        }
        let stderr = execution.death.as_ref().map_or("", |death| death.stderr.as_str());
        let mut finding = Finding::of_journal(journal, stderr);
        finding.shrunk_operations = shrunk.as_ref().map(|shrunk| shrunk.len() as u64);
        (finding.runs, finding.hits) = (replays.runs, replays.hits);
        Ok((finding, shrunk))
    }
}
