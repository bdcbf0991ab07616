//! [`execute`]: has a target execute a program, watches it, and brings it back where that goes.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::instruction::Instruction;
use crate::target::{Progress, Recovery, Target};
use crate::verdict::{Condition, Death, Halt, Verdict};

/// How many instructions are handed over at a time.
const CHUNK: usize = 2048;
/// How many chunks are made ahead of their execution.
const CHUNKS: usize = 64;
/// How long a target may do nothing before it is asked how it is.
const QUIET: Duration = Duration::from_millis(5);
/// How many instructions are in flight at first, at least and at most; between, as many as take [`AHEAD`].
const WINDOW: (u64, u64, u64) = (1024, 64, 1 << 17);
/// How much work a target has ahead of it: so much longer does a program take than it may.
const AHEAD: Duration = Duration::from_millis(20);
/// How often a machine's speed is measured.
const MEASURE: Duration = Duration::from_millis(5);
/// How often in a row a machine is brought back before that counts as a hang: programs that do nothing but stop it.
const MAX_RECOVERIES: u32 = 10_000;

/// How long what may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// A guest that did nothing for that long hangs.
    pub hang: Duration,
    /// A VMM that did not answer for that long has stalled.
    pub stall: Duration,
    /// A VMM that did not answer for that long never will.
    pub deadlock: Duration,
    /// How long a new login may take.
    pub login: Duration,
    /// How long a program may take. Then no more of it is handed over, and what was is executed; without an end where it
    /// is `None`.
    pub program: Option<Duration>,
    /// How long a machine is watched after the last instruction: timers and threads have their say.
    pub settle: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            hang: Duration::from_secs(3),
            stall: Duration::from_secs(5),
            deadlock: Duration::from_secs(15),
            login: Duration::from_secs(10),
            program: None,
            settle: Duration::from_millis(20),
        }
    }
}

/// What happened on the way, without being the end of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// What it was.
    pub verdict: Verdict,
    /// The instruction that was in flight or, if none was, the last one: its number in the program.
    pub index: Option<u64>,
    /// The instruction.
    pub instruction: Option<Instruction>,
    /// The instructions up to that one, oldest first; 16 at most.
    pub trail: Vec<Instruction>,
}

/// How the execution of a program ended.
#[derive(Clone, Debug, Default)]
pub struct Execution {
    /// How many instructions ended.
    pub done: u64,
    /// How often the program reset the machine.
    pub resets: u64,
    /// Where the machine was reset, by the program or to bring it back: how many instructions had been begun.
    pub reset_points: Vec<u64>,
    /// What happened on the way, in order; no more than 1,000.
    pub incidents: Vec<Incident>,
    /// How often the guest's own program was overwritten by what it told devices to do: an artefact.
    pub overwritten: u64,
    /// How it ended, where the machine is not there any more, or does not answer. The machine must be started anew.
    pub end: Option<Incident>,
    /// How the process ended, if it did.
    pub death: Option<Death>,
    /// Whether it was cut, as it took longer than [`Patience::program`].
    pub cut: bool,
    /// Whether it was stopped by the observer.
    pub stopped: bool,
}

impl Execution {
    /// The worst that happened.
    #[must_use]
    pub fn worst(&self) -> Incident {
        let reset = || {
            let verdict = if self.resets > 0 { Verdict::GuestReset } else { Verdict::Completed };
            Incident { verdict, index: None, instruction: None, trail: Vec::new() }
        };
        let mut worst = reset();
        for incident in self.incidents.iter().chain(&self.end) {
            if incident.verdict > worst.verdict {
                worst = incident.clone();
            }
        }
        worst
    }
}

#[cfg(feature = "serde")]
impl Execution {
    /// Goes on with `next`, whose numbers follow.
    pub(crate) fn append(&mut self, next: Self) {
        let shift = |mut incident: Incident| {
            incident.index = incident.index.map(|index| index + self.done);
            incident
        };
        let room = MAX_INCIDENTS.saturating_sub(self.incidents.len());
        self.incidents.extend(next.incidents.into_iter().take(room).map(shift));
        self.end = next.end.map(shift);
        self.reset_points.extend(next.reset_points.iter().map(|point| point + self.done));
        self.done += next.done;
        self.resets += next.resets;
        self.overwritten += next.overwritten;
        self.death = next.death;
        self.cut |= next.cut;
        self.stopped = next.stopped;
    }
}

/// How many instructions before an incident are kept with it.
const TRAIL: u64 = 16;
/// How many incidents are kept.
const MAX_INCIDENTS: usize = 1000;

/// Is told how far a target is; can stop it.
pub type Observe<'a> = &'a mut dyn FnMut(&Progress) -> ControlFlow<()>;

/// An [`Observe`] that stops nothing.
pub fn to_the_end(_: &Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Has `target`, which is started, execute `before` and then `program`, to its end or the machine's.
///
/// Numbers count from the first instruction of `program`. A machine that stops, sleeps, or does nothing any more is brought
/// back, in the seed's order: a new login, a reset; where that fails, it is the end. `observe` is told how far it is, every
/// few milliseconds, and can stop it.
///
/// # Errors
/// Where the target fails in a way that is no verdict.
pub fn execute(
    target: &mut dyn Target,
    before: &[Instruction],
    program: &mut dyn Iterator<Item = Instruction>,
    patience: &Patience,
    observe: Observe<'_>,
) -> Result<Execution> {
    let start = target.progress();
    let origin = start.done + before.len() as u64;
    target.reset_points();
    let mut run = Run {
        target,
        patience,
        start,
        origin,
        next: start.done,
        queue: VecDeque::new(),
        offset: 0,
        window: WINDOW.0,
        measured: (Instant::now(), start.done),
        last_move: Instant::now(),
        recoveries: 0,
        own_resets: 0,
        execution: Execution::default(),
    };
    run.queue.push_back((start.done, before.to_vec()));
    run.next += before.len() as u64;
    run.go(program, observe)?;
    let Run { target, mut execution, start, origin, own_resets, .. } = run;
    let progress = target.progress();
    execution.done = progress.done.saturating_sub(origin);
    execution.resets = progress.resets.saturating_sub(start.resets);
    // Neither those that were asked for before it nor those that brought it back are the program's.
    let asked = before.iter().filter(|instruction| **instruction == Instruction::Reset).count() as u64;
    execution.resets = execution.resets.saturating_sub(asked + own_resets);
    let points = target.reset_points().into_iter().filter(|&point| point > origin || asked == 0);
    execution.reset_points = points.map(|point| point.saturating_sub(origin)).collect();
    Ok(execution)
}

struct Run<'a> {
    target: &'a mut dyn Target,
    patience: &'a Patience,
    start: Progress,
    /// The number that the target gives to the program's first instruction.
    origin: u64,
    /// The number of the next instruction to be made.
    next: u64,
    /// Instructions that may not have ended, in chunks with the number of their first.
    queue: VecDeque<(u64, Vec<Instruction>)>,
    /// How many were handed over.
    offset: u64,
    /// How many may be in flight.
    window: u64,
    /// When the machine's speed was measured, and how far it was.
    measured: (Instant, u64),
    last_move: Instant,
    recoveries: u32,
    /// Resets that were ours.
    own_resets: u64,
    execution: Execution,
}

impl Run<'_> {
    fn go(&mut self, program: &mut dyn Iterator<Item = Instruction>, observe: Observe<'_>) -> Result<()> {
        let mut exhausted = false;
        let mut known = self.start;
        let begun = Instant::now();
        loop {
            let handed = self.start.done + self.offset;
            let is_late = self.patience.program.is_some_and(|time| begun.elapsed() >= time);
            if is_late && !self.execution.cut && (handed < self.next || !exhausted) {
                self.next = handed;
                self.execution.cut = true;
                exhausted = true;
            }
            exhausted = self.make(program, exhausted);
            let submitted = self.submit(known.done);
            let progress = self.target.wait(if submitted { Duration::from_millis(2) } else { QUIET });
            if progress != known {
                known = progress;
                self.last_move = Instant::now();
                self.forget(progress.done);
                self.measure(progress.done);
                if observe(&progress).is_break() {
                    self.execution.stopped = true;
                    return Ok(());
                }
            }
            let all_done = exhausted && progress.done >= self.next;
            if all_done {
                return self.settle(observe);
            }
            let is_quiet = self.last_move.elapsed() >= QUIET;
            if is_quiet && (self.look(observe)? || observe(&progress).is_break()) {
                self.execution.stopped = self.execution.end.is_none();
                return Ok(());
            }
        }
    }

    /// Makes instructions ahead, unless there are enough. Returns whether the program has ended.
    fn make(&mut self, program: &mut dyn Iterator<Item = Instruction>, exhausted: bool) -> bool {
        if exhausted || self.queue.len() >= CHUNKS {
            return exhausted;
        }
        let chunk: Vec<Instruction> = (&mut *program).take(CHUNK).collect();
        let ended = chunk.len() < CHUNK;
        if chunk.is_empty() {
            return true;
        }
        let first = self.next;
        self.next += chunk.len() as u64;
        self.queue.push_back((first, chunk));
        ended
    }

    /// Hands over what the target has room for and the window allows, when it has done `done`. Returns whether it took
    /// anything.
    fn submit(&mut self, done: u64) -> bool {
        let from = self.start.done + self.offset;
        let end = (done + self.window).min(self.next);
        let mut taken = 0;
        for (first, chunk) in &self.queue {
            let at = |number: u64| usize::try_from(number.saturating_sub(*first)).unwrap_or(usize::MAX);
            let rest = chunk.get(at(from + taken)..at(end).min(chunk.len())).unwrap_or(&[]);
            if rest.is_empty() {
                continue;
            }
            // A machine that has died takes nothing; it is asked how it is soon.
            let count = self.target.submit(rest).unwrap_or(0);
            taken += count as u64;
            if count < rest.len() {
                break;
            }
        }
        self.offset += taken;
        taken > 0
    }

    /// Widens the window or narrows it, as the machine is fast or slow.
    fn measure(&mut self, done: u64) {
        let handed = self.start.done + self.offset;
        if done >= handed {
            self.window = (self.window * 2).min(WINDOW.2);
            return;
        }
        let (when, then) = self.measured;
        let time = when.elapsed();
        if time >= MEASURE {
            let rate = (done - then.min(done)) as f64 / time.as_secs_f64();
            self.window = ((rate * AHEAD.as_secs_f64()) as u64).clamp(WINDOW.1, WINDOW.2);
            self.measured = (Instant::now(), done);
        }
    }

    fn forget(&mut self, done: u64) {
        while self
            .queue
            .front()
            // The last one that was done is still asked for.
            .is_some_and(|(first, chunk)| first + (chunk.len() as u64) + TRAIL < done && self.queue.len() > 1)
        {
            self.queue.pop_front();
        }
    }

    /// Everything is done: is the machine still there, and for how long?
    fn settle(&mut self, observe: Observe<'_>) -> Result<()> {
        let begun = Instant::now();
        loop {
            if self.look(observe)? {
                self.execution.stopped = self.execution.end.is_none();
                return Ok(());
            }
            if begun.elapsed() >= self.patience.settle {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Asks the target how it is, and does what is to be done. Returns whether it is the end, the machine's or the
    /// observer's.
    fn look(&mut self, observe: Observe<'_>) -> Result<bool> {
        let left = self.patience.hang.saturating_sub(self.last_move.elapsed());
        let patience = self.patience.stall.min(left.max(QUIET));
        match self.target.condition(patience) {
            Condition::Responsive => {
                self.last_move = Instant::now();
                Ok(false)
            }
            Condition::GuestSilent if self.last_move.elapsed() < self.patience.hang => Ok(false),
            Condition::GuestSilent => {
                self.incident(Verdict::GuestHang);
                self.bring_back(&[Recovery::Login, Recovery::Reset])
            }
            Condition::Overwritten => {
                self.execution.overwritten += 1;
                self.bring_back(&[Recovery::Reset])
            }
            Condition::Halted(halt) => {
                self.incident(verdict(halt));
                self.bring_back(&[Recovery::Reset])
            }
            Condition::VmmSilent => self.wait_for_vmm(observe),
            Condition::Dead(death) => {
                self.end_of(death);
                Ok(true)
            }
        }
    }

    fn wait_for_vmm(&mut self, observe: Observe<'_>) -> Result<bool> {
        loop {
            // What has been silent for that long is to have its verdict.
            let is_pending = self.last_move.elapsed() >= self.patience.stall;
            if observe(&self.target.progress()).is_break() && !is_pending {
                return Ok(true);
            }
            let silent = self.last_move.elapsed();
            if silent >= self.patience.deadlock {
                let end = self.here(Verdict::VmmDeadlock);
                self.execution.end = Some(end);
                return Ok(true);
            }
            let here = self.here(Verdict::VmmStall(silent));
            let patience = (self.patience.deadlock - silent).min(Duration::from_millis(250));
            match self.target.condition(patience) {
                Condition::VmmSilent => {}
                Condition::Dead(death) => {
                    self.end_of(death);
                    return Ok(true);
                }
                _ => {
                    let silent = self.last_move.elapsed();
                    if silent >= self.patience.stall {
                        self.note(Incident { verdict: Verdict::VmmStall(silent), ..here });
                    }
                    self.last_move = Instant::now();
                    return Ok(false);
                }
            }
        }
    }

    /// Tries one way after the other. Returns whether none went: then it is the end.
    fn bring_back(&mut self, ways: &[Recovery]) -> Result<bool> {
        self.recoveries += 1;
        if self.recoveries <= MAX_RECOVERIES {
            for &way in ways {
                let patience = match way {
                    Recovery::Login => self.patience.login,
                    Recovery::Reset => self.patience.deadlock,
                };
                match self.target.recover(way, patience) {
                    Ok(()) => {
                        self.own_resets += u64::from(way == Recovery::Reset);
                        self.last_move = Instant::now();
                        return Ok(false);
                    }
                    Err(Error::Dead) => break,
                    Err(_) => {}
                }
            }
        }
        if let Condition::Dead(death) = self.target.condition(QUIET) {
            self.end_of(death);
        } else {
            let end = self.here(Verdict::GuestHang);
            self.execution.end = Some(end);
        }
        Ok(true)
    }

    fn end_of(&mut self, death: Death) {
        let mut end = self.here(Verdict::Completed);
        end.verdict = Verdict::of_death(&death, end.instruction.as_ref());
        self.execution.end = Some(end);
        self.execution.death = Some(death);
    }

    fn incident(&mut self, verdict: Verdict) {
        let incident = self.here(verdict);
        self.note(incident);
    }

    fn note(&mut self, incident: Incident) {
        if self.execution.incidents.len() < MAX_INCIDENTS {
            self.execution.incidents.push(incident);
        }
    }

    /// Where the target is: at the instruction in flight, else behind the last one.
    fn here(&mut self, verdict: Verdict) -> Incident {
        let progress = self.target.progress();
        let at =
            if progress.started > progress.done { Some(progress.done) } else { progress.done.checked_sub(1) };
        let at = at.filter(|&at| at >= self.origin);
        let instruction = at.and_then(|at| self.instruction(at)).cloned();
        let trail = at.map_or_else(Vec::new, |at| self.trail(at));
        Incident { verdict, index: at.map(|at| at - self.origin), instruction, trail }
    }

    /// The instructions up to number `at`.
    fn trail(&self, at: u64) -> Vec<Instruction> {
        let first = at.saturating_sub(TRAIL - 1).max(self.origin);
        (first..=at)
            .rev()
            .map_while(|at| self.instruction(at).cloned())
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect()
    }

    fn instruction(&self, at: u64) -> Option<&Instruction> {
        let (first, chunk) = self.queue.iter().rev().find(|(first, _)| *first <= at)?;
        chunk.get(usize::try_from(at - first).ok()?)
    }
}

fn verdict(halt: Halt) -> Verdict {
    match halt {
        Halt::Shutdown => Verdict::GuestShutdown,
        Halt::Suspended => Verdict::GuestSuspend,
        Halt::Panicked => Verdict::GuestPanic,
        Halt::Paused => Verdict::GuestPause,
    }
}
