//! [`Campaign`]: episode after episode on one machine after the other, until the time is over; what is found is replayed,
//! made short and told.

mod finding;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::{Execution, Incident, Patience, execute};
use crate::error::{Error, Result};
use crate::generate::{Generator, Prepared};
use crate::instruction::{Instruction, PortWidth};
use crate::journal::{Journal, Part};
use crate::refine::refined;
use crate::region::{Region, RegionMap, Skipped, Space};
use crate::report::{Finding, Report};
use crate::target::{Identity, Target};
use crate::verdict::{Death, Verdict};

/// How many episodes a machine lives for: a journal has no more parts.
const EPISODES_PER_MACHINE: usize = 256;
/// How long an episode may take: one that has made its machine slow, with timers that fire without a pause, is left. The
/// journal says how much of it was executed.
const EPISODE_TIME: Duration = Duration::from_millis(200);
/// After how many such episodes in a row the machine is replaced: what slowed it down survives a reset.
const SLOW_EPISODES: u32 = 2;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
/// After how many hits of a finding its port is left alone, so that others are found behind it.
const HITS_UNTIL_SKIPPED: u64 = 3;
/// How long to wait after that.
const RETRY: Duration = Duration::from_millis(500);
/// How many machines in a row may fail to start before the campaign gives up.
const MAX_FAILURES: u32 = 20;

/// What a campaign is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// How instructions are made.
    pub generator: Generator,
    /// The seed of it all.
    pub seed: u64,
    /// Where the machine can be reached.
    pub map: RegionMap,
    /// How many machines run at a time.
    pub jobs: usize,
    /// This campaign's part: the episodes `n` with `n % of == part`.
    pub part: u64,
    /// How many parts there are: 1 or more.
    pub of: u64,
    /// How long; without an end where it is `None`.
    pub time: Option<Duration>,
    /// How many instructions; without an end where it is `None`.
    pub operations: Option<u64>,
    /// How many episodes; without an end where it is `None`. One of `classic` is all of it.
    pub episodes: Option<u64>,
    /// How long what may take.
    pub patience: Patience,
    /// How often a finding is replayed.
    pub replays: u64,
    /// How long that may take: once this is over, no other replay begins.
    pub replay_time: Duration,
    /// How long a finding may be shrunk; not at all where it is 0.
    pub shrink: Duration,
    /// Whether the machine is reset between two episodes. Where a reset takes seconds, it is not worth it.
    pub resets: bool,
}

impl Options {
    /// A campaign on `map` without an end, on one machine.
    #[must_use]
    pub fn new(map: RegionMap, seed: u64) -> Self {
        Self {
            generator: Generator::default(),
            seed,
            map,
            jobs: 1,
            part: 0,
            of: 1,
            time: None,
            operations: None,
            episodes: None,
            patience: Patience::default(),
            replays: 3,
            replay_time: Duration::from_secs(20),
            shrink: Duration::from_secs(10),
            resets: true,
        }
    }
}

/// Something to tell.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Something was found, replayed and, if it could be, made short. Its `journal` is where the answer says.
    Finding {
        /// What.
        finding: &'a Finding,
        /// What is needed to see it again.
        journal: &'a Journal,
        /// The shortest program that shows it.
        shrunk: Option<&'a [Instruction]>,
        /// Whether a replay showed it, too.
        confirmed: bool,
    },
    /// A line for whoever watches.
    Note(&'a str),
}

/// How far a campaign is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Instructions executed.
    pub operations: u64,
    /// Resets of machines.
    pub resets: u64,
    /// Machines started.
    pub machines: u64,
    /// Findings, unconfirmed ones left out.
    pub findings: u64,
}

/// Starts a machine. The prologue is part of that.
pub type Start<'a> = &'a (dyn Fn() -> Result<Box<dyn Target>> + Sync);
/// Is told what happens; returns the file in which it put a journal, if it did.
pub type Tell<'a> = &'a (dyn Fn(Event<'_>) -> Option<String> + Sync);

/// A run of the fuzzer.
#[derive(Debug)]
pub struct Campaign {
    options: Options,
    begun: OnceLock<Instant>,
    stop: AtomicBool,
    next_episode: AtomicU64,
    operations: AtomicU64,
    /// Instructions that may still be made.
    left: AtomicU64,
    resets: AtomicU64,
    machines: AtomicU64,
    known: Mutex<Known>,
}

/// What all jobs share.
#[derive(Debug)]
struct Known {
    /// What is fuzzed: less and less, as what was found is left alone.
    map: RegionMap,
    prepared: Prepared,
    target: Identity,
    incidents: BTreeMap<String, u64>,
    findings: Vec<Finding>,
    unconfirmed: Vec<Finding>,
    /// The signatures of findings that are being looked at.
    pending: Vec<String>,
}

impl Campaign {
    /// A campaign that has not begun.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let known = Known {
            prepared: options.generator.prepare(&options.map),
            map: options.map.clone(),
            target: Identity::default(),
            incidents: BTreeMap::new(),
            findings: Vec::new(),
            unconfirmed: Vec::new(),
            pending: Vec::new(),
        };
        Self {
            begun: OnceLock::new(),
            stop: AtomicBool::new(false),
            next_episode: AtomicU64::new(0),
            operations: AtomicU64::new(0),
            left: AtomicU64::new(options.operations.unwrap_or(u64::MAX)),
            resets: AtomicU64::new(0),
            machines: AtomicU64::new(0),
            known: Mutex::new(known),
            options,
        }
    }

    /// Ends it soon. What was found is still replayed.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// How far it is.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            operations: self.operations.load(Ordering::Relaxed),
            resets: self.resets.load(Ordering::Relaxed),
            machines: self.machines.load(Ordering::Relaxed),
            findings: self.known().findings.len() as u64,
        }
    }

    /// Runs it to its end. It runs once.
    ///
    /// # Errors
    /// Where no machine starts, the map has nothing that could be touched, or it has run already.
    pub fn run(&self, start: Start<'_>, tell: Tell<'_>) -> Result<Report> {
        if self.known().prepared.length() == 0 {
            return Err(Error::Unsupported {
                what: "a campaign".to_owned(),
                why: "there are no ports and no memory to fuzz".to_owned(),
            });
        }
        let begun = Instant::now();
        if self.begun.set(begun).is_err() {
            return Err(Error::Unsupported {
                what: "a campaign".to_owned(),
                why: "it has run already".to_owned(),
            });
        }
        let results: Vec<Result<()>> = std::thread::scope(|scope| {
            let job = || Job { campaign: self, start, tell, begun }.run();
            let jobs: Vec<_> = (0..self.options.jobs.max(1)).map(|_| scope.spawn(job)).collect();
            let panicked = |_| Err(Error::protocol("a job", "it panicked"));
            jobs.into_iter().map(|job| job.join().unwrap_or_else(panicked)).collect()
        });
        for result in results {
            result?;
        }
        Ok(self.report())
    }

    /// What it came to so far. What is being replayed is not among it.
    #[must_use]
    pub fn report(&self) -> Report {
        let time = self.begun.get().map_or(Duration::ZERO, Instant::elapsed);
        let known = self.known();
        let operations = self.operations.load(Ordering::Relaxed);
        Report {
            schema: 1,
            target: known.target.clone(),
            generator: self.options.generator.to_string(),
            seed: self.options.seed,
            shard: format!("{}/{}", self.options.part, self.options.of),
            operations,
            seconds: time.as_secs_f64(),
            operations_per_second: operations as f64 / time.as_secs_f64().max(1e-9),
            resets: self.resets.load(Ordering::Relaxed),
            machines: self.machines.load(Ordering::Relaxed),
            incidents: known.incidents.clone(),
            skipped: known.map.skipped.clone(),
            findings: known.findings.clone(),
            unconfirmed: known.unconfirmed.clone(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next episode that is this campaign's.
    fn take_episode(&self) -> Option<u64> {
        let number = self.next_episode.fetch_add(1, Ordering::Relaxed);
        let in_time = self.options.episodes.is_none_or(|episodes| number < episodes);
        in_time.then(|| number.saturating_mul(self.options.of.max(1)).saturating_add(self.options.part))
    }

    /// Takes up to `wanted` instructions from those that may still be made.
    fn take_operations(&self, wanted: u64) -> u64 {
        let mut taken = 0;
        let take = |left: u64| {
            taken = wanted.min(left);
            Some(left - taken)
        };
        let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken
    }

    /// Gives back what was not executed.
    fn give_back(&self, operations: u64) {
        if self.options.operations.is_some() {
            self.left.fetch_add(operations, Ordering::Relaxed);
        }
    }
}

/// What was seen, before it is replayed.
struct Seen {
    incident: Incident,
    death: Option<Death>,
    signature: String,
    /// The map that the instructions were made of.
    map: RegionMap,
    prepared: Prepared,
    /// What was executed since the machine was started; the last one ends with the instruction concerned.
    parts: Vec<Part>,
    resets: Vec<u64>,
    target: Identity,
}

/// One machine at a time.
struct Job<'a> {
    campaign: &'a Campaign,
    start: Start<'a>,
    tell: Tell<'a>,
    begun: Instant,
}

impl Job<'_> {
    fn run(&self) -> Result<()> {
        let mut failures = 0;
        while !self.is_over() {
            let mut target = match (self.start)() {
                Ok(target) => target,
                // One that starts now and then, as on a machine without memory, is worth another try.
                Err(_) if failures > 0 && failures < MAX_FAILURES => {
                    failures += 1;
                    std::thread::sleep(RETRY);
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.campaign.machines.fetch_add(1, Ordering::Relaxed);
            failures = 1;
            if !self.live(target.as_mut())? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        let late = self.campaign.options.time.is_some_and(|time| self.begun.elapsed() >= time);
        late || self.campaign.stop.load(Ordering::Relaxed)
    }

    /// The life of a machine. Returns whether there should be another one.
    fn live(&self, target: &mut dyn Target) -> Result<bool> {
        let campaign = self.campaign;
        let mut parts: Vec<Part> = Vec::new();
        let mut resets: Vec<u64> = Vec::new();
        let mut slow = 0;
        campaign.known().target = target.identity();
        while parts.len() < EPISODES_PER_MACHINE && slow < SLOW_EPISODES && !self.is_over() {
            let (map, prepared) = {
                let known = campaign.known();
                (known.map.clone(), known.prepared.clone())
            };
            let wanted = campaign.take_operations(prepared.length());
            let Some(episode) = campaign.take_episode().filter(|_| wanted > 0) else { return Ok(false) };
            let is_reset = campaign.options.resets && !parts.is_empty();
            let before = if is_reset { &[Instruction::Reset][..] } else { &[][..] };
            let begun = Instant::now();
            let execution = self.execute(target, before, &prepared, episode, wanted)?;
            campaign.give_back(wanted.saturating_sub(execution.done));
            slow = if begun.elapsed() >= EPISODE_TIME { slow + 1 } else { 0 };
            let earlier: u64 = parts.iter().map(|part| part.operations).sum();
            parts.push(Part { episode, operations: execution.done });
            resets.extend(execution.reset_points.iter().map(|point| earlier + point));
            let identity = target.identity();
            let mut incidents = execution.incidents.iter().chain(&execution.end);
            // A machine that takes long to start is kept where it was brought back.
            let is_cheap = campaign.options.resets;
            let is_over = execution.end.is_some()
                || is_cheap && incidents.any(|incident| incident.verdict.is_finding());
            if is_over {
                // It holds what the replays may need: memory, files, sockets.
                target.stop();
            }
            for incident in execution.incidents.iter().chain(&execution.end) {
                let seen = |parts| Seen {
                    incident: refined(incident, &map),
                    death: execution.death.clone(),
                    signature: String::new(),
                    map: map.clone(),
                    prepared: prepared.clone(),
                    parts,
                    resets: resets.clone(),
                    target: identity.clone(),
                };
                let mut until_then = parts.clone();
                if let (Some(last), Some(index)) = (until_then.last_mut(), incident.index) {
                    last.operations = index + 1;
                }
                self.note(seen(until_then))?;
            }
            if execution.overwritten > 0 {
                *campaign.known().incidents.entry("guest-overwritten".to_owned()).or_default() +=
                    execution.overwritten;
            }
            if is_over {
                return Ok(true);
            }
        }
        Ok(true)
    }

    fn execute(
        &self,
        target: &mut dyn Target,
        before: &[Instruction],
        prepared: &Prepared,
        episode: u64,
        count: u64,
    ) -> Result<Execution> {
        let campaign = self.campaign;
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let mut instructions = prepared.episode(campaign.options.seed, episode).take(count);
        let mut told = target.progress();
        // What comes before an episode is none of it.
        told.done += before.len() as u64;
        told.resets += before.len() as u64;
        let mut counted = 0;
        let mut observe = |progress: &crate::target::Progress| {
            let resets = progress.resets.saturating_sub(told.resets);
            campaign.operations.fetch_add(progress.started.saturating_sub(told.done), Ordering::Relaxed);
            campaign.resets.fetch_add(resets, Ordering::Relaxed);
            counted += resets;
            told.done = told.done.max(progress.started);
            told.resets = told.resets.max(progress.resets);
            if self.is_over() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        // Who wants a number of episodes or instructions wants all of them, and the same ones each time.
        // Without resets between episodes, the next one would be no faster.
        let has_end = campaign.options.episodes.is_some() || campaign.options.operations.is_some();
        let may_cut = campaign.options.resets && !has_end;
        // What a machine does a while after an episode is seen in the next one. The first may be the only one.
        let settle = if before.is_empty() { campaign.options.patience.settle } else { Duration::ZERO };
        let program = may_cut.then_some(EPISODE_TIME);
        let patience = Patience { program, settle, ..campaign.options.patience };
        let result = execute(target, before, &mut instructions, &patience, &mut observe);
        // What was done since it was last told.
        let _ = observe(&target.progress());
        // With those that brought it back.
        if let Ok(execution) = &result {
            campaign.resets.fetch_sub(counted.saturating_sub(execution.resets), Ordering::Relaxed);
        }
        result
    }

    /// Counts what is no finding, and looks at what may be one.
    fn note(&self, mut seen: Seen) -> Result<()> {
        let campaign = self.campaign;
        if !seen.incident.verdict.is_finding() {
            let name = seen.incident.verdict.name().to_owned();
            *campaign.known().incidents.entry(name).or_default() += 1;
            return Ok(());
        }
        seen.signature = crate::signature::signature(&seen.incident, seen.death.as_ref(), &seen.map);
        if self.is_known(&seen) {
            return Ok(());
        }
        let (mut finding, journal, shrunk) = finding::look(self, &seen);
        campaign.known().pending.retain(|pending| *pending != seen.signature);
        // A process that died has died. What took long may have been the host's fault: most replays have to show it, too.
        let died = match seen.incident.verdict {
            // Somebody else killed it, the kernel for want of memory perhaps.
            Verdict::Crash { signal, .. } => !matches!(signal, Some(SIGKILL | SIGTERM)),
            _ => false,
        };
        let confirmed = finding.hits * 2 > finding.runs || died;
        let event =
            Event::Finding { finding: &finding, journal: &journal, shrunk: shrunk.as_deref(), confirmed };
        finding.journal = (self.tell)(event).unwrap_or_default();
        let mut known = campaign.known();
        if confirmed {
            known.findings.push(finding);
        } else {
            known.unconfirmed.push(finding);
        }
        Ok(())
    }

    /// Whether something with this signature was found already. If it stands in the way of others, it is left alone from
    /// now on.
    fn is_known(&self, seen: &Seen) -> bool {
        let mut known = self.campaign.known();
        if known.pending.contains(&seen.signature) {
            return true;
        }
        let Known { findings, unconfirmed, .. } = &mut *known;
        let Some(finding) =
            findings.iter_mut().chain(unconfirmed).find(|one| one.signature == seen.signature)
        else {
            known.pending.push(seen.signature.clone());
            return false;
        };
        finding.times += 1;
        let reason = format!("{} was found there {} times", finding.signature, finding.times);
        if finding.times >= HITS_UNTIL_SKIPPED
            && let Some(region) = place(seen)
        {
            known.leave_alone(region, reason, self.campaign.options.generator);
        }
        true
    }
}

impl Known {
    fn leave_alone(&mut self, region: Region, reason: String, generator: Generator) {
        let skipped = Skipped { region, reason };
        if !self.map.skipped.iter().any(|known| known.region == skipped.region) {
            self.map.skipped.push(skipped);
            let prepared = generator.prepare(&self.map);
            // With nothing left to fuzz, the known is better than nothing.
            if prepared.length() > 0 {
                self.prepared = prepared;
            } else {
                self.map.skipped.pop();
            }
        }
    }
}

/// What the instruction concerned touched.
fn place(seen: &Seen) -> Option<Region> {
    let instruction = seen.incident.instruction.as_ref()?;
    let (space, first) = RegionMap::place_of(instruction)?;
    let bytes = match *instruction {
        Instruction::In { width, .. } | Instruction::Out { width, .. } => PortWidth::bytes(width),
        Instruction::InString { width, .. } | Instruction::OutString { width, .. } => PortWidth::bytes(width),
        Instruction::Read { width, .. } | Instruction::Write { width, .. } => width.bytes(),
        _ => 4,
    };
    let end = if space == Space::Port { 0xffff } else { u64::MAX };
    let last = first.saturating_add(u64::from(bytes) - 1).min(end);
    let name = seen.map.narrowest(space, first).map_or_else(String::new, |region| region.name.clone());
    Some(Region { space, first, last, name })
}
