//! [`Verdict`]: how a run ended, or what it did to the machine.

use std::fmt;
use std::time::Duration;

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// Its exit status, where it ended itself.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The last lines that it wrote to standard error.
    pub stderr: String,
}

/// What a machine is like, when it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Condition {
    /// The guest does what it is told.
    Responsive,
    /// The VMM answers and says that the guest runs; the guest does nothing.
    GuestSilent,
    /// The guest does nothing because its own program was overwritten, by a device that it told to: an artefact.
    Overwritten,
    /// The VMM answers and says that the guest does not run.
    Halted(Halt),
    /// The process lives, and the VMM does not answer.
    VmmSilent,
    /// The process has ended.
    Dead(Death),
}

/// Why a guest does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Halt {
    /// It switched itself off.
    Shutdown,
    /// It sleeps.
    Suspended,
    /// It said that it panicked.
    Panicked,
    /// It is stopped: by a debugger, by an error of a disk, by the VMM.
    Paused,
}

/// How a run ended, or the worst that it did to the machine. The worse ones are greater.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Verdict {
    /// Everything was executed.
    Completed,
    /// Everything was executed, and the machine was reset by it.
    GuestReset,
    /// The guest slept.
    GuestSuspend,
    /// The guest stopped, for another reason.
    GuestPause,
    /// The guest switched itself off.
    GuestShutdown,
    /// The guest said that it panicked.
    GuestPanic,
    /// The process ended itself, with status 0.
    Exit,
    /// The process ended itself because a debug-exit device was told to; with this status.
    DebugExit(i32),
    /// The guest did nothing any more, while the VMM answered.
    GuestHang,
    /// The VMM did not answer for that long, and then it did.
    VmmStall(Duration),
    /// The VMM did not answer any more.
    VmmDeadlock,
    /// The process died: by a signal, or with a status that says that something is wrong.
    Crash {
        /// The signal.
        signal: Option<i32>,
        /// The exit status.
        code: Option<i32>,
    },
}

impl Verdict {
    /// Its name, as it is in reports.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::GuestReset => "guest-reset",
            Self::GuestSuspend => "guest-suspend",
            Self::GuestPause => "guest-pause",
            Self::GuestShutdown => "guest-shutdown",
            Self::GuestPanic => "guest-panic",
            Self::Exit => "exit",
            Self::DebugExit(_) => "debug-exit",
            Self::GuestHang => "guest-hang",
            Self::VmmStall(_) => "vmm-stall",
            Self::VmmDeadlock => "vmm-deadlock",
            Self::Crash { .. } => "crash",
        }
    }

    /// Whether it is a fault of the machine, and not what a guest may do to itself.
    #[must_use]
    pub fn is_finding(&self) -> bool {
        matches!(self, Self::GuestHang | Self::VmmStall(_) | Self::VmmDeadlock | Self::Crash { .. })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
