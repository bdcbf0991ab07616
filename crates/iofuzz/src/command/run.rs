//! `run`: a campaign, until its time is over or somebody ends it.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use guest_fuzz::campaign::{Campaign, Event, Options};
use guest_fuzz::engine::Patience;
use guest_fuzz::instruction::Instruction;
use guest_fuzz::journal::Journal;
use guest_fuzz::replay::Recording;
use guest_fuzz::report::{Finding, Report};
use tool_support::{Failure, Outcome};

use super::{print, random_seed, status};
use crate::args::RunArgs;
use crate::failure::{could_not_run, of_library};
use crate::folder::Folder;
use crate::interrupt::{GRACE, Interrupt};
use crate::machine::{self, Machine, Places, nothing_left};
use crate::screen::{PERIOD, Screen, counted, named, short};
use crate::verdicts::Seen;

/// How long a run takes where nothing is said.
const TIME: Duration = Duration::from_secs(60);
/// What is left alone where nothing is said.
const SKIP: &str = "power,slow";

pub(super) fn run(args: &RunArgs) -> Outcome<ExitCode> {
    let interrupt = Interrupt::listen()?;
    let places = Places::of(&args.places, SKIP)?;
    let machine = Machine::of(&args.machine)?.confirmed()?;
    if args.jobs > 1 && !machine.is_renewable() {
        return Err(Failure::usage("--jobs: there is one machine, which runs already"));
    }
    let (mut map, _) = machine.explored()?;
    places.select(&mut map)?;
    if args.generator.prepare(&map).length() == 0 {
        return Err(could_not_run(nothing_left(&map)));
    }
    let prologue = machine::prologue(&map)?;
    let options = Options {
        generator: args.generator,
        jobs: usize::try_from(args.jobs).unwrap_or(usize::MAX),
        part: args.shard.part,
        of: args.shard.of,
        time: args.time.or(if args.ops.is_none() { Some(TIME) } else { None }),
        operations: args.ops,
        patience: machine.patience,
        resets: !machine.is_slow(),
        ..Options::new(map, args.seed.unwrap_or_else(random_seed))
    };
    let options = Options {
        replays: machine.replays(options.replays),
        shrink: if machine.is_slow() { Duration::ZERO } else { options.shrink },
        ..options
    };
    let seed = options.seed;
    let folder = Folder::new(args.output.out.as_deref())?;
    let machine = machine.with_notes_in(folder.path());
    let screen = Screen::new();
    screen.say(&format!("seed {seed}, results in {}", folder.path().display()));
    let campaign = Campaign::new(options);
    let watch = Watch {
        campaign: &campaign,
        folder: &folder,
        screen: &screen,
        processor: machine.with_processor(),
        is_renewable: machine.is_renewable(),
        prologue: &prologue,
        ended: AtomicBool::new(false),
        doubtful: Mutex::default(),
        fault: Mutex::default(),
        json: args.output.json,
    };
    let report = thread::scope(|scope| {
        scope.spawn(|| watch.until_the_end(&interrupt));
        let start = || machine.start(&prologue);
        let report = campaign.run(&start, &|event| watch.observe(&event));
        watch.ended.store(true, Ordering::SeqCst);
        report
    });
    screen.clear();
    match report {
        Ok(report) => watch.end(report),
        Err(error) => {
            // What was found before stays found.
            let report = campaign.report();
            if report.findings.is_empty() {
                return Err(of_library(error));
            }
            screen.say(&error.to_string());
            watch.end(report)
        }
    }
}

/// What looks at a campaign while it runs.
struct Watch<'a> {
    campaign: &'a Campaign,
    folder: &'a Folder,
    screen: &'a Screen,
    /// Who has to show a finding, too.
    processor: Option<Machine>,
    /// Whether there can be another machine after the end of one.
    is_renewable: bool,
    prologue: &'a [Instruction],
    ended: AtomicBool,
    /// The signatures that a processor did not show.
    doubtful: Mutex<Vec<String>>,
    /// Why a finding could not be kept.
    fault: Mutex<Option<Failure>>,
    json: bool,
}

impl Watch<'_> {
    /// Shows how far it is, and ends it when somebody asks for that: it itself if it can, else from here.
    fn until_the_end(&self, interrupt: &Interrupt) {
        let begun = Instant::now();
        let mut asked: Option<Instant> = None;
        let (mut then, mut before) = (begun, 0);
        while !self.ended.load(Ordering::SeqCst) {
            let now = self.campaign.status();
            if then.elapsed() >= PERIOD {
                let recent = now.operations.saturating_sub(before) as f64 / then.elapsed().as_secs_f64();
                (then, before) = (Instant::now(), now.operations);
                self.screen.show(&now, begun.elapsed(), recent);
            }
            if interrupt.is_asked() {
                self.campaign.stop();
                if asked.get_or_insert_with(Instant::now).elapsed() >= GRACE {
                    self.end_now();
                }
            }
            // Short, for this is also how long the end is waited for.
            thread::sleep(PERIOD / 20);
        }
    }

    /// Ends this process; the system ends the machines.
    fn end_now(&self) {
        // From here on, the campaign's own end comes too late.
        if self.ended.swap(true, Ordering::SeqCst) {
            return;
        }
        self.screen.clear();
        let report = self.campaign.report();
        let found = !report.findings.is_empty();
        let failed = self.end(report).is_err();
        std::process::exit(if failed { crate::failure::COULD_NOT_RUN.into() } else { found.into() });
    }

    /// Keeps a finding, and returns its journal.
    fn observe(&self, event: &Event<'_>) -> Option<String> {
        match event {
            Event::Finding { finding, journal, shrunk, confirmed } => {
                let shown = self.is_shown_by_a_processor(finding, journal, *shrunk);
                if !shown {
                    lock(&self.doubtful).push(finding.signature.clone());
                }
                let confirmed = *confirmed && shown;
                if !self.is_renewable && matches!(finding.verdict.as_str(), "crash" | "vmm-deadlock") {
                    self.campaign.stop();
                }
                let kept = self.folder.keep(finding, journal, *shrunk, confirmed);
                self.screen.say(&told(finding, confirmed));
                match kept {
                    Ok(journal) => return Some(journal.display().to_string()),
                    Err(failure) => {
                        *lock(&self.fault) = Some(failure);
                        self.campaign.stop();
                    }
                }
            }
            Event::Note(text) => self.screen.say(text),
            _ => {}
        }
        None
    }

    /// Whether a machine with a processor shows it, where that makes a difference.
    fn is_shown_by_a_processor(
        &self,
        finding: &Finding,
        journal: &Journal,
        shrunk: Option<&[Instruction]>,
    ) -> bool {
        let Some(machine) = &self.processor else { return true };
        let recording = match shrunk {
            Some(instructions) => Ok(Recording::of_instructions(instructions.to_vec())),
            None => Recording::of_journal(journal),
        };
        let patience = Patience { settle: machine.patience.settle * 5, ..machine.patience };
        let executed = recording.and_then(|recording| {
            let mut target = machine.start(self.prologue)?;
            recording.execute(target.as_mut(), &patience, &mut guest_fuzz::engine::to_the_end)
        });
        // What was in flight differs; the last words do not.
        let seen = executed.map(|execution| Seen::of(&execution, &journal.regions));
        seen.is_ok_and(|seen| seen.incident.verdict.name() == finding.verdict)
    }

    /// Writes the report, and says what came of it.
    fn end(&self, mut report: Report) -> Outcome<ExitCode> {
        let doubtful = std::mem::take(&mut *lock(&self.doubtful));
        let (unconfirmed, findings) =
            report.findings.into_iter().partition(|finding| doubtful.contains(&finding.signature));
        report.findings = findings;
        report.unconfirmed.extend::<Vec<Finding>>(unconfirmed);
        self.folder.report(&report)?;
        print(self.json, &report, || summary(&report))?;
        match lock(&self.fault).take() {
            Some(failure) => Err(failure),
            None => Ok(status(!report.findings.is_empty())),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A finding, in a few lines.
pub(super) fn told(finding: &Finding, confirmed: bool) -> String {
    let doubt = if confirmed { "" } else { " (not confirmed)" };
    let mut text = named(&finding.verdict, &finding.signature);
    text.push_str(doubt);
    if let Some(in_flight) = &finding.operation_in_flight {
        text.push_str(&format!("\n  in flight: {}, operation {}", in_flight.text, in_flight.index));
    }
    text.push_str(&match finding.runs {
        0 => "\n  not replayed".to_owned(),
        runs => format!("\n  shown by {} of {}", finding.hits, counted(runs, "replay")),
    });
    if let Some(shrunk) = finding.shrunk_operations.filter(|&shrunk| shrunk < finding.operations) {
        text.push_str(&format!(", shrunk from {} to {shrunk}", counted(finding.operations, "operation")));
    }
    text
}

/// What a run came to: the verdict first, and what to do next.
pub(super) fn summary(report: &Report) -> String {
    let mut text = match report.findings.len() {
        0 => "nothing found".to_owned(),
        count => counted(count as u64, "finding"),
    };
    text.push_str(&format!(
        ": {} in {:.1} s, {}/s, {}, {}, seed {}\n",
        counted(report.operations, "operation"),
        report.seconds,
        short(report.operations_per_second),
        counted(report.resets, "reset"),
        counted(report.machines, "machine"),
        report.seed
    ));
    if !report.unconfirmed.is_empty() {
        text.push_str(&format!(
            "{} that no replay showed\n",
            counted(report.unconfirmed.len() as u64, "incident")
        ));
    }
    for finding in &report.findings {
        text.push_str(&format!("  iofuzz replay {}\n", crate::folder::quoted(&finding.journal)));
    }
    text
}
