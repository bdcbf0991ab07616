//! [`Verdict`]: how a run ended, or what it did to the machine.

use std::fmt;
use std::time::Duration;

use crate::instruction::Instruction;

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

impl Halt {
    /// What QEMU's word for its state means; `None` where the guest runs.
    #[must_use]
    pub fn of_status(status: &str) -> Option<Self> {
        match status {
            "running" => None,
            "shutdown" => Some(Self::Shutdown),
            "suspended" => Some(Self::Suspended),
            "guest-panicked" => Some(Self::Panicked),
            _ => Some(Self::Paused),
        }
    }
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

    /// What the end of a process means. `last` is the instruction that was in flight.
    #[must_use]
    pub fn of_death(death: &Death, last: Option<&Instruction>) -> Self {
        match (death.signal, death.code) {
            (None, Some(0)) => Self::Exit,
            (None, Some(code)) if last.is_some_and(|last| last.debug_exit_status() == Some(code)) => {
                Self::DebugExit(code)
            }
            (signal, code) => Self::Crash { signal, code },
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruction::PortWidth;

    #[test]
    fn a_status_is_a_debug_exit_if_the_write_says_so() {
        let death = |code, signal| Death { code, signal, stderr: String::new() };
        let write = Instruction::Out { port: 0x501, width: PortWidth::Byte, value: 0x31 };
        let of = |death, last| Verdict::of_death(&death, last);
        assert_eq!(of(death(Some(0x63), None), Some(&write)), Verdict::DebugExit(0x63));
        assert_eq!(of(death(Some(1), None), Some(&write)), Verdict::Crash { signal: None, code: Some(1) });
        assert_eq!(of(death(Some(0), None), Some(&write)), Verdict::Exit);
        assert!(of(death(None, Some(11)), Some(&write)).is_finding());
    }
}
