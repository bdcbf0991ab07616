//! [`Plant`]: what is planted in the machine, and how it is reached.

use std::time::Duration;

use crate::instruction::{Instruction, PortWidth, Width};
use crate::verdict::Verdict;

/// Something that a machine does wrong, or that a guest does to itself: each has four ports of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Plant {
    /// Any write: an assertion fails.
    Abort,
    /// Five accesses in order, whatever is between them: an assertion fails.
    Sequence,
    /// A write to a data port while the index port holds 0x5c: a null pointer.
    IndexData,
    /// A write after a reset of the machine: an assertion fails.
    AfterReset,
    /// A write: an assertion fails, in one of [`flaky_one_in`](super::SimOptions::flaky_one_in) starts.
    Flaky,
    /// A write of 0x5a: the guest hangs until a reset.
    Hang,
    /// A write of 0x5a: the guest's program hangs, until a new login or a reset.
    ProgramHang,
    /// A write of 0x5a: the VMM does nothing for [`stall`](super::SimOptions::stall).
    Stall,
    /// A write of 0x5a: the VMM does nothing any more.
    Deadlock,
    /// A write of 0x5a: the VMM exits with status 0.
    Exit,
    /// A write of a byte: the VMM exits with the status `value << 1 | 1`.
    DebugExit,
    /// A write of 0x5a: the guest switches itself off.
    Shutdown,
    /// A write of 0x5a: the guest sleeps.
    Suspend,
    /// A write of 0x5a: the guest says that it panicked.
    Panic,
    /// A write of 0x5a: the machine is reset.
    Reset,
    /// A write of a page number: that page of RAM is overwritten. The guest's own program is in page
    /// [`PROGRAM_PAGE`].
    Dma,
}

/// The value that most plants want.
const KEY: u32 = 0x5a;
/// What the index of [`Plant::IndexData`] has to be.
pub(super) const BAD_INDEX: u8 = 0x5c;
/// The page of RAM, of 4096 bytes, where the guest's own program is.
pub const PROGRAM_PAGE: u8 = 8;
/// The first port of the first plant.
const FIRST_PORT: u16 = 0x2000;
/// How many ports each has.
const PORTS: u16 = 4;

/// What a write to a plant's port does, as the plant's state stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Consequence {
    Nothing,
    Happens(Plant, u32),
}

/// What the plants remember.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    /// How many accesses of the sequence were made.
    step: usize,
    index: u8,
    /// Whether the machine was reset since it was started.
    was_reset: bool,
    /// Whether this is one of the starts with the flaky fault.
    flaky: bool,
}

impl Memory {
    /// What a start leaves.
    pub(super) fn new(flaky: bool) -> Self {
        Self { flaky, ..Self::default() }
    }

    /// What a reset leaves.
    pub(super) fn reset(&mut self) {
        *self = Self { was_reset: true, flaky: self.flaky, ..Self::default() };
    }

    /// An access of `plant` at `offset` of its ports; `value` is what is written, `None` for a read.
    pub(super) fn access(&mut self, plant: Plant, offset: u16, value: Option<u32>) -> Consequence {
        if plant == Plant::Sequence {
            return self.sequence(offset, value);
        }
        let Some(value) = value else { return Consequence::Nothing };
        if plant == Plant::IndexData && offset == 0 {
            self.index = value as u8;
            return Consequence::Nothing;
        }
        let happens = match plant {
            Plant::Abort | Plant::DebugExit | Plant::Dma => true,
            Plant::IndexData => self.index == BAD_INDEX,
            Plant::AfterReset => self.was_reset,
            Plant::Flaky => self.flaky,
            _ => value == KEY,
        };
        if happens { Consequence::Happens(plant, value) } else { Consequence::Nothing }
    }

    fn sequence(&mut self, offset: u16, value: Option<u32>) -> Consequence {
        let (wanted_offset, written) = SEQUENCE.get(self.step).copied().unwrap_or_default();
        if (offset, value) == (wanted_offset, written) {
            self.step += 1;
        }
        if self.step < SEQUENCE.len() {
            return Consequence::Nothing;
        }
        self.step = 0;
        Consequence::Happens(Plant::Sequence, 0)
    }
}

/// The accesses of [`Plant::Sequence`]: which of its ports, and what is written; `None` is a read.
const SEQUENCE: [(u16, Option<u32>); 5] = [(0, Some(1)), (1, Some(2)), (2, None), (3, Some(4)), (0, Some(5))];

impl Plant {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Abort,
        Self::Sequence,
        Self::IndexData,
        Self::AfterReset,
        Self::Flaky,
        Self::Hang,
        Self::ProgramHang,
        Self::Stall,
        Self::Deadlock,
        Self::Exit,
        Self::DebugExit,
        Self::Shutdown,
        Self::Suspend,
        Self::Panic,
        Self::Reset,
        Self::Dma,
    ];

    /// The name of its ports, as a region.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Abort => "test-abort",
            Self::Sequence => "test-sequence",
            Self::IndexData => "test-index-data",
            Self::AfterReset => "test-after-reset",
            Self::Flaky => "test-flaky",
            Self::Hang => "test-hang",
            Self::ProgramHang => "test-program-hang",
            Self::Stall => "test-stall",
            Self::Deadlock => "test-deadlock",
            Self::Exit => "test-exit",
            Self::DebugExit => "test-debug-exit",
            Self::Shutdown => "test-shutdown",
            Self::Suspend => "test-suspend",
            Self::Panic => "test-panic",
            Self::Reset => "test-reset",
            Self::Dma => "test-dma",
        }
    }

    /// The first and the last of its ports.
    #[must_use]
    pub fn ports(self) -> (u16, u16) {
        let at = Self::ALL.iter().position(|plant| *plant == self).unwrap_or(0) as u16;
        let first = FIRST_PORT + at * PORTS;
        (first, first + PORTS - 1)
    }

    /// The shortest program that reaches it, in a fresh machine.
    #[must_use]
    pub fn trigger(self) -> Vec<Instruction> {
        let first = self.ports().0;
        let out = |port, value| Instruction::Out { port, width: PortWidth::Byte, value };
        match self {
            Self::Sequence => SEQUENCE
                .iter()
                .map(|&(offset, value)| match value {
                    Some(value) => out(first + offset, value),
                    None => Instruction::In { port: first + offset, width: PortWidth::Byte },
                })
                .collect(),
            Self::IndexData => vec![out(first, BAD_INDEX.into()), out(first + 1, 0)],
            Self::AfterReset => vec![Instruction::Reset, out(first, 0)],
            Self::DebugExit => vec![out(first, 3)],
            Self::Dma => vec![out(first, PROGRAM_PAGE.into())],
            _ => vec![out(first, KEY)],
        }
    }

    /// How a run with it ends. `stall` is how long the machine's VMM stalls.
    ///
    /// [`Plant::Dma`] is an artefact, and no fault of the machine: `None`.
    #[must_use]
    pub fn verdict(self, stall: Duration) -> Option<Verdict> {
        Some(match self {
            Self::Abort | Self::Sequence | Self::AfterReset | Self::Flaky => {
                Verdict::Crash { signal: Some(SIGABRT), code: None }
            }
            Self::IndexData => Verdict::Crash { signal: Some(SIGSEGV), code: None },
            Self::Hang | Self::ProgramHang => Verdict::GuestHang,
            Self::Stall => Verdict::VmmStall(stall),
            Self::Deadlock => Verdict::VmmDeadlock,
            Self::Exit => Verdict::Exit,
            Self::DebugExit => Verdict::DebugExit(7),
            Self::Shutdown => Verdict::GuestShutdown,
            Self::Suspend => Verdict::GuestSuspend,
            Self::Panic => Verdict::GuestPanic,
            Self::Reset => Verdict::GuestReset,
            Self::Dma => return None,
        })
    }

    /// The plant that has `port`, and which of its ports that is.
    pub(super) fn at(port: u16) -> Option<(Self, u16)> {
        let distance = port.checked_sub(FIRST_PORT)?;
        Self::ALL.get(usize::from(distance / PORTS)).map(|&plant| (plant, distance % PORTS))
    }
}

/// The signal of a failed assertion.
pub(super) const SIGABRT: i32 = 6;
/// The signal of a null pointer.
pub(super) const SIGSEGV: i32 = 11;

/// The width of all RAM accesses by a plant's direct memory access: a page.
pub(super) const PAGE: u64 = 4096;

/// Writes a page of RAM as [`Plant::Dma`] does: what an instruction would do.
pub(super) fn dma(page: u32) -> Instruction {
    let address = u64::from(page & 0xff) * PAGE;
    Instruction::Fill { address, length: PAGE as u32, width: Width::Byte, pattern: 0xdb }
}
