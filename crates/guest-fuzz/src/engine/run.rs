//! [`Run`]: instructions are made ahead, handed over as fast as they are executed, and forgotten.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Execution, Observe, Patience, TRAIL};
use crate::error::Result;
use crate::instruction::Instruction;
use crate::target::{ProcessorTime, Progress, Target};

/// How many instructions are handed over at a time.
const CHUNK: usize = 2048;
/// How many chunks are made ahead of their execution.
const CHUNKS: usize = 64;
/// How many instructions are in flight at first, at least and at most; between, as many as take [`AHEAD`].
const WINDOW: (u64, u64, u64) = (1024, 64, 1 << 17);
/// How much work a target has ahead of it: so much longer does a program take than it may.
const AHEAD: Duration = Duration::from_millis(20);
/// How often a machine's speed is measured.
const MEASURE: Duration = Duration::from_millis(5);
/// How long a target may do nothing before it is asked how it is.
pub(super) const QUIET: Duration = Duration::from_millis(5);
/// A program that is being executed.
pub(super) struct Run<'a> {
    pub(super) target: &'a mut dyn Target,
    pub(super) patience: &'a Patience,
    pub(super) start: Progress,
    /// The number that the target gives to the program's first instruction.
    pub(super) origin: u64,
    /// The number of the next instruction to be made.
    pub(super) next: u64,
    /// Instructions that may not have ended, in chunks with the number of their first.
    pub(super) queue: VecDeque<(u64, Vec<Instruction>)>,
    /// How many were handed over.
    pub(super) offset: u64,
    /// How many may be in flight.
    pub(super) window: u64,
    /// When the machine's speed was measured, and how far it was.
    pub(super) measured: (Instant, u64),
    pub(super) last_move: Instant,
    /// When it was found to do nothing, and what processor time it had used by then.
    pub(super) quiet: Option<(Instant, ProcessorTime)>,
    pub(super) recoveries: u32,
    /// Resets that were ours.
    pub(super) own_resets: u64,
    pub(super) execution: Execution,
}

impl<'a> Run<'a> {
    /// `before` and then a program that is to come, on `target` as it is.
    pub(super) fn new(target: &'a mut dyn Target, patience: &'a Patience, before: &[Instruction]) -> Self {
        let start = target.progress();
        let origin = start.done + before.len() as u64;
        Self {
            target,
            patience,
            start,
            origin,
            next: origin,
            queue: VecDeque::from([(start.done, before.to_vec())]),
            offset: 0,
            window: WINDOW.0,
            measured: (Instant::now(), start.done),
            last_move: Instant::now(),
            quiet: None,
            recoveries: 0,
            own_resets: 0,
            execution: Execution::default(),
        }
    }

    /// Executes them, to the end.
    pub(super) fn go(
        &mut self,
        program: &mut dyn Iterator<Item = Instruction>,
        observe: Observe<'_>,
    ) -> Result<()> {
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
                self.moved();
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
}
