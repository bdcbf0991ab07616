//! [`Target`]: who executes instructions.

#[cfg(all(feature = "qemu", target_os = "linux"))]
pub mod dev_port;
#[cfg(all(feature = "qemu", target_os = "linux"))]
pub mod micro_guest;
#[cfg(all(feature = "qemu", target_os = "linux"))]
mod process;
#[cfg(all(feature = "qemu", target_os = "linux"))]
mod processor_time;
#[cfg(all(feature = "qemu", target_os = "linux"))]
pub mod qemu;
#[cfg(all(feature = "qemu", target_os = "linux"))]
pub mod qmp;
#[cfg(all(feature = "qemu", target_os = "linux"))]
pub mod qtest;
#[cfg(all(feature = "qemu", target_os = "linux"))]
pub mod session;
pub mod sim;

use std::time::Duration;

use crate::error::Result;
use crate::instruction::Instruction;
use crate::verdict::Condition;

/// How many values, and how many reset points, a target keeps that nobody fetched. Those after them are lost.
pub const MAX_KEPT: usize = 1 << 20;

/// What a target is, for journals and reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct Identity {
    /// Its kind: `micro`, `qtest`, `session`, `dev-port`, `sim`.
    pub transport: String,
    /// The command line that starts it, exactly; empty where nothing is started.
    pub command: Vec<String>,
    /// Of that, what the user asked for; the rest was added by the target.
    pub arguments: Vec<String>,
    /// The version that the VMM gives of itself.
    pub version: String,
}

impl Identity {
    /// A target of that kind, of which nothing else is known yet.
    #[must_use]
    pub fn new(transport: impl Into<String>) -> Self {
        Self { transport: transport.into(), ..Self::default() }
    }
}

/// How far a target has come since it was started. An instruction that is started and not done is in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// How many instructions were begun.
    pub started: u64,
    /// How many instructions were ended.
    pub done: u64,
    /// How often the machine was reset since it was started.
    pub resets: u64,
}

/// What brings a machine back that does not answer, in the order in which it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recovery {
    /// A new login, into the guest as it is.
    Login,
    /// A reset of the machine, from outside.
    Reset,
}

/// How much processor time a machine's process has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessorTime {
    /// By its first thread, in which a VMM answers and runs its timers.
    pub main: Duration,
    /// By all others, in which its guest's processors run.
    pub others: Duration,
    /// Whether all of them sleep: none runs, waits for a disk, or is stopped from outside.
    pub asleep: bool,
}

impl ProcessorTime {
    /// One that was used by the two kinds of threads.
    #[must_use]
    pub fn new(main: Duration, others: Duration, asleep: bool) -> Self {
        Self { main, others, asleep }
    }
}

/// The value that an instruction read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    /// Which instruction, from 0 since the start.
    pub index: u64,
    /// What it read.
    pub value: u64,
}

/// A machine that executes instructions, one after the other, in the order in which they are given.
///
/// Instructions are counted from 0 at each [`start`](Target::start). After a machine's death `progress` still says how
/// far it came: that is how the instruction is known that killed it.
pub trait Target: Send {
    /// What it is.
    fn identity(&self) -> Identity;

    /// Starts a fresh machine, after the end of the one before it, if there is one.
    ///
    /// # Errors
    /// Where it does not start.
    fn start(&mut self) -> Result<()>;

    /// Hands over instructions without waiting for them, as many as there is room for: how many. What a target cannot
    /// do at all is counted and has no effect.
    ///
    /// # Errors
    /// [`Error::Dead`](crate::Error::Dead) where the machine is known to have died.
    fn submit(&mut self, instructions: &[Instruction]) -> Result<usize>;

    /// How far it has come. Never waits.
    fn progress(&mut self) -> Progress;

    /// Waits until an instruction ended, the machine was reset, there is nothing to do or `patience` is over: how far it
    /// has come.
    fn wait(&mut self, patience: Duration) -> Progress;

    /// What the machine is like. Waits for answers, `patience` at most.
    fn condition(&mut self, patience: Duration) -> Condition;

    /// How much processor time its process has used since it was started; `None` where nobody knows.
    fn processor_time(&mut self) -> Option<ProcessorTime> {
        None
    }

    /// Tries to bring it back. Instructions that were submitted and not executed still are, after those in flight, which
    /// are not repeated.
    ///
    /// # Errors
    /// Where that failed: the next way is to [`start`](Target::start) anew.
    fn recover(&mut self, how: Recovery, patience: Duration) -> Result<()>;

    /// Where the machine was reset, and not yet fetched, in order: how many instructions were begun before that. The first
    /// [`MAX_KEPT`] are kept.
    fn reset_points(&mut self) -> Vec<u64>;

    /// From now on, keeps what is read for [`values`](Target::values), or does not. It does not, at first.
    fn keep_values(&mut self, keep: bool);

    /// What was read and not yet fetched, in order: the first [`MAX_KEPT`].
    fn values(&mut self) -> Vec<Value>;

    /// What is executed, unseen and uncounted, after each start and reset, before anything else: see
    /// [`RegionMap::prologue`](crate::region::RegionMap::prologue). From the next start on.
    fn set_prologue(&mut self, prologue: &[Instruction]);

    /// Ends the machine.
    fn stop(&mut self);
}
