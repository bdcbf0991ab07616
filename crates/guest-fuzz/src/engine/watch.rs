//! What a machine is like that does nothing, and what is done about it.

use std::time::{Duration, Instant};

use super::run::{QUIET, Run};
use super::{Incident, MAX_INCIDENTS, Observe, TRAIL};
use crate::error::{Error, Result};
use crate::instruction::Instruction;
use crate::target::{ProcessorTime, Recovery};
use crate::verdict::{Condition, Death, Halt, Verdict};

/// How long a target is waited for when it is asked how it is; then, somebody may want to stop.
const SLICE: Duration = Duration::from_secs(1);
/// How often in a row a machine is brought back before that counts as a hang: programs that do nothing but stop it.
const MAX_RECOVERIES: u32 = 10_000;

impl Run<'_> {
    /// Everything is done: is the machine still there, and for how long?
    pub(super) fn settle(&mut self, observe: Observe<'_>) -> Result<()> {
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

    pub(super) fn moved(&mut self) {
        self.last_move = Instant::now();
        self.quiet = None;
    }

    /// Asks the target how it is, and does what is to be done. Returns whether it is the end, the machine's or the
    /// observer's.
    pub(super) fn look(&mut self, observe: Observe<'_>) -> Result<bool> {
        let silent = self.last_move.elapsed();
        if self.quiet.is_none() {
            self.quiet = self.target.processor_time().map(|time| (Instant::now(), time));
        }
        let left = self.patience.hang.saturating_sub(silent).max(QUIET);
        match self.target.condition(self.patience.stall.min(left).min(SLICE)) {
            Condition::Responsive => {
                self.moved();
                Ok(false)
            }
            Condition::GuestSilent if !self.hangs() => Ok(false),
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

    /// Whether a guest that does nothing hangs. One that does not get its turn, because its VMM is busy with timers that
    /// fire without a pause, is waited for as long as a VMM that does not answer.
    fn hangs(&mut self) -> bool {
        let silent = self.last_move.elapsed();
        if silent < self.patience.hang {
            return false;
        }
        let is_starved =
            self.used().is_some_and(|(time, used)| used.main > used.others && used.main * 4 >= time);
        !is_starved || silent >= self.patience.deadlock
    }

    /// For how long nothing has happened, and the processor time that took.
    fn used(&mut self) -> Option<(Duration, ProcessorTime)> {
        let (since, then) = self.quiet?;
        let now = self.target.processor_time()?;
        let (main, others) = (now.main.saturating_sub(then.main), now.others.saturating_sub(then.others));
        Some((since.elapsed(), ProcessorTime { main, others, ..now }))
    }

    fn wait_for_vmm(&mut self, observe: Observe<'_>) -> Result<bool> {
        loop {
            let silent = self.last_move.elapsed();
            // What has been silent for a while is to have its verdict, and no more time than that takes.
            let is_stopped = observe(&self.target.progress()).is_break();
            if is_stopped && silent < self.patience.stall / 5 {
                return Ok(true);
            }
            let is_proven = is_stopped || self.is_asleep();
            if silent >= self.patience.deadlock || silent >= self.patience.stall && is_proven {
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
                    self.moved();
                    return Ok(false);
                }
            }
        }
    }

    /// Whether the VMM's threads all sleep, and have done next to nothing since it was found to be silent: they wait for
    /// one another.
    fn is_asleep(&mut self) -> bool {
        let used = self.used();
        used.is_some_and(|(time, used)| used.asleep && (used.main + used.others) * 50 < time)
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
                        self.moved();
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
