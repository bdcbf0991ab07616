//! [`Shrink`]: from a program that shows something to the shortest one that still does.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::engine::{Execution, Patience, execute};
use crate::error::Result;
use crate::instruction::Instruction;
use crate::target::Target;

/// What a shrinker is to know.
pub struct Shrink<'a> {
    /// Starts a target. Called from another thread, so that a spare one is there when the one in use dies.
    pub target: &'a (dyn Fn() -> Result<Box<dyn Target>> + Sync),
    /// Whether an execution shows what is to be shown.
    pub shows: &'a (dyn Fn(&Execution) -> bool + Sync),
    /// How long what may take.
    pub patience: Patience,
    /// When to stop, with the shortest program that there is by then.
    pub time: Duration,
    /// The same, where somebody else says when.
    pub stop: &'a AtomicBool,
}

/// A program that was made shorter.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shrunk {
    /// The shortest program that was found. It shows it on a fresh machine.
    pub instructions: Vec<Instruction>,
    /// How many programs were executed.
    pub runs: u64,
    /// Whether no instruction can be left out.
    pub is_minimal: bool,
}

impl Shrink<'_> {
    /// Delta debugging: first the shortest end of `program` that shows it, then without a half of that, a quarter, down
    /// to single instructions, until none can be left out.
    ///
    /// Between two runs that do not kill it, a machine is reset, not started anew: hence the result is shown on a fresh
    /// one. Where that fails, all is done again on fresh machines alone. `None` where even `program` shows it not.
    ///
    /// # Errors
    /// Where a machine does not start.
    pub fn shrink(&self, program: &[Instruction]) -> Result<Option<Shrunk>> {
        let deadline = Instant::now() + self.time;
        let mut runs = 0;
        for always_fresh in [false, true] {
            // What fails once time is over is not worth another beginning.
            if always_fresh && Instant::now() >= deadline {
                break;
            }
            let shrunk = self.with_machines(always_fresh, deadline, |machines| {
                let mut search = Search { machines, stop: self.stop, program: program.to_vec() };
                if !search.machines.show(program)? {
                    return Ok((None, search.machines.runs));
                }
                search.cut_front()?;
                let is_minimal = search.leave_out()?;
                let shown = search.machines.show_fresh(&search.program)?;
                let shrunk = shown.then(|| (search.program.clone(), is_minimal));
                Ok((shrunk, search.machines.runs))
            })?;
            runs += shrunk.1;
            if let Some((instructions, is_minimal)) = shrunk.0 {
                return Ok(Some(Shrunk { instructions, runs, is_minimal }));
            }
        }
        Ok(None)
    }

    /// Runs `work` with machines, while another thread keeps a spare one ready.
    fn with_machines<T>(
        &self,
        always_fresh: bool,
        deadline: Instant,
        work: impl FnOnce(&mut Machines<'_>) -> Result<T>,
    ) -> Result<T> {
        std::thread::scope(|scope| {
            // No room: the sender waits with one machine in its hands.
            let (sender, spares) = std::sync::mpsc::sync_channel(0);
            scope.spawn(move || {
                loop {
                    let started = (self.target)();
                    let failed = started.is_err();
                    if sender.send(started).is_err() || failed {
                        break;
                    }
                }
            });
            let mut machines = Machines {
                spares,
                machine: None,
                shows: self.shows,
                patience: self.patience,
                always_fresh,
                deadline: Some(deadline),
                runs: 0,
            };
            work(&mut machines)
        })
    }
}

struct Search<'a, 'b> {
    machines: &'a mut Machines<'b>,
    stop: &'a AtomicBool,
    program: Vec<Instruction>,
}

impl Search<'_, '_> {
    fn is_over(&self) -> bool {
        self.machines.is_late() || self.stop.load(Ordering::Relaxed)
    }

    /// The shortest end of the program that shows it, by doubling.
    fn cut_front(&mut self) -> Result<()> {
        let mut length = 1;
        while length < self.program.len() && !self.is_over() {
            let end = self.program.get(self.program.len() - length..).unwrap_or(&[]).to_vec();
            if self.machines.show(&end)? {
                self.program = end;
                return Ok(());
            }
            length *= 2;
        }
        Ok(())
    }

    /// Leaves out what can be left out. Returns whether nothing more can.
    fn leave_out(&mut self) -> Result<bool> {
        let mut size = self.program.len().div_ceil(2);
        while size > 0 && self.program.len() > 1 {
            let changed = self.leave_out_chunks(size)?;
            if self.is_over() {
                return Ok(false);
            }
            // Having left out one instruction can make another needless.
            if !changed || size > 1 {
                size /= 2;
            }
        }
        Ok(true)
    }

    fn leave_out_chunks(&mut self, size: usize) -> Result<bool> {
        let mut changed = false;
        let mut end = self.program.len();
        while end > 0 && !self.is_over() {
            let start = end.saturating_sub(size);
            let (head, tail) = (self.program.get(..start), self.program.get(end..));
            let shorter = [head.unwrap_or(&[]), tail.unwrap_or(&[])].concat();
            if !shorter.is_empty() && self.machines.show(&shorter)? {
                self.program = shorter;
                changed = true;
            }
            end = start;
        }
        Ok(changed)
    }
}

struct Machines<'a> {
    spares: std::sync::mpsc::Receiver<Result<Box<dyn Target>>>,
    machine: Option<Box<dyn Target>>,
    shows: &'a (dyn Fn(&Execution) -> bool + Sync),
    patience: Patience,
    always_fresh: bool,
    /// When a run is given up, as one that shows nothing.
    deadline: Option<Instant>,
    runs: u64,
}

impl Machines<'_> {
    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// The last one: without it, all was in vain, and so it has all the time it takes.
    fn show_fresh(&mut self, program: &[Instruction]) -> Result<bool> {
        self.machine = None;
        self.deadline = None;
        self.show(program)
    }

    /// Whether `program` shows it.
    fn show(&mut self, program: &[Instruction]) -> Result<bool> {
        self.runs += 1;
        let (mut machine, before) = match self.machine.take() {
            Some(machine) => (machine, &[Instruction::Reset][..]),
            None => (self.fresh()?, &[][..]),
        };
        let mut program = program.iter().cloned();
        let is_late = || self.is_late();
        let observe = &mut |_: &_| match is_late() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        let execution = execute(machine.as_mut(), before, &mut program, &self.patience, observe)?;
        let shown = (self.shows)(&execution);
        if execution.end.is_none() && !shown && !self.always_fresh {
            self.machine = Some(machine);
        }
        Ok(shown)
    }

    fn fresh(&mut self) -> Result<Box<dyn Target>> {
        self.spares.recv().map_err(|_| crate::Error::Start {
            what: "a machine to shrink on".to_owned(),
            why: "the one before it did not start".to_owned(),
        })?
    }
}
