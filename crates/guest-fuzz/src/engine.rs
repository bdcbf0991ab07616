//! [`execute`]: has a target execute a program, watches it, and brings it back where that goes.

mod run;
mod watch;

use std::ops::ControlFlow;
use std::time::Duration;

use self::run::Run;
use crate::error::Result;
use crate::instruction::Instruction;
use crate::target::{Progress, Target};
use crate::verdict::{Death, Verdict};

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
    target.reset_points();
    let mut run = Run::new(target, patience, before);
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
