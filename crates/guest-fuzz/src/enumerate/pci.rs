//! A scan for PCI functions, through their configuration space: finds them, measures their base address registers
//! (BARs), gives an address to each that has none, and switches them on.
//!
//! A machine that no firmware has set up has its PCI devices at no address at all: a fuzzer that wants to reach them has
//! to do what firmware does. All writes of it are kept as the [`prologue`](Scan::prologue), for after a reset.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::instruction::{Instruction, PciAddress, PortWidth};
use crate::region::{PciFunction, Region, Space};
use crate::target::Target;

mod bar;
mod discover;
mod place;
#[cfg(test)]
mod simulated;

/// How many functions a scan lists at most. A machine with more than that answers for functions that do not exist.
pub const MAX_FUNCTIONS: usize = 256;

/// Access to configuration space.
pub trait ConfigSpace {
    /// Reads `width` from `register`; all ones where there is no such function.
    ///
    /// # Errors
    /// Where the machine does not answer.
    fn read(&mut self, function: PciAddress, register: u8, width: PortWidth) -> Result<u32>;

    /// Writes `value` to `register`.
    ///
    /// # Errors
    /// Where the machine does not answer.
    fn write(&mut self, function: PciAddress, register: u8, width: PortWidth, value: u32) -> Result<()>;
}

/// Where base address registers may be put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Ports: first and last.
    pub ports: (u64, u64),
    /// Memory below 4 GiB: first and last.
    pub memory: (u64, u64),
    /// Memory for 64-bit registers that do not fit below: first and last.
    pub high_memory: (u64, u64),
    /// What is in use in them already.
    pub used: Vec<Region>,
}

impl Windows {
    /// The usual places of a PC, around what is `used`: ports from 0xc000, memory from 0xe0000000 to where the I/O APIC
    /// is, and from 64 GiB to 512 GiB, which the narrowest processors of QEMU can address.
    #[must_use]
    pub fn new(used: Vec<Region>) -> Self {
        Self {
            ports: (0xc000, 0xffff),
            memory: (0xe000_0000, 0xfebf_ffff),
            high_memory: (0x10_0000_0000, 0x7f_ffff_ffff),
            used,
        }
    }
}

/// What a scan finds and does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Scan {
    /// The functions, in the order in which they are found: by address, and what is behind a bridge right after it.
    pub functions: Vec<PciFunction>,
    /// The writes that bring a machine that was just reset into the same state, in their order: all of them
    /// [`Instruction::PciWrite`].
    pub prologue: Vec<Instruction>,
    /// What was odd, and was left alone.
    pub notes: Vec<String>,
}

impl Scan {
    /// [`prologue`](Self::prologue), as text.
    #[must_use]
    pub fn prologue_text(&self) -> Vec<String> {
        self.prologue.iter().filter_map(text).collect()
    }
}

fn text(instruction: &Instruction) -> Option<String> {
    let &Instruction::PciWrite { function, register, width, value } = instruction else { return None };
    let suffix = match width {
        PortWidth::Byte => 'b',
        PortWidth::Word => 'w',
        PortWidth::Long => 'l',
    };
    Some(format!("pci_write{suffix} {function} {register:#x} {value:#x}"))
}

/// Scans bus 0 and what is behind its bridges, and switches on ports, memory and bus mastering of each function.
///
/// Registers and bridges that have an address keep it. Expansion ROMs are left alone. Nothing that a device answers
/// makes the scan fail or go on for ever: what makes no sense is left alone, with a note.
///
/// # Errors
/// Those of `space`.
pub fn scan(space: &mut dyn ConfigSpace, windows: &Windows) -> Result<Scan> {
    let mut notes = Vec::new();
    let mut found = discover::discover(space, &mut notes)?;
    place::place(&mut found, windows, &mut notes);
    let mut writer = Writer { space, prologue: Vec::new() };
    let mut functions = Vec::new();
    for function in &found {
        functions.push(function.program(&mut writer, &mut notes)?);
    }
    Ok(Scan { functions, prologue: writer.prologue, notes })
}

/// A function as it is found.
struct Found {
    address: PciAddress,
    vendor: u16,
    device: u16,
    class: u32,
    command: u16,
    bars: Vec<bar::Bar>,
    bridge: Option<Bridge>,
}

/// What a bridge lets through.
struct Bridge {
    /// Primary, secondary and subordinate bus, and the latency timer: register 0x18.
    buses: u32,
    /// Whether the scan gave it its buses, and so has to give it its windows.
    is_new: bool,
    /// How many of the functions right after it are behind it.
    behind: usize,
    /// The values of [`WINDOWS`].
    windows: [u32; WINDOWS.len()],
}

/// The registers of a bridge's windows: ports, memory, prefetchable memory and its upper halves.
const WINDOWS: [(u8, PortWidth); 5] = [
    (0x1c, PortWidth::Word),
    (0x20, PortWidth::Long),
    (0x24, PortWidth::Long),
    (0x28, PortWidth::Long),
    (0x2c, PortWidth::Long),
];

/// Windows that let nothing through: their ends are before their beginnings.
const CLOSED: [u32; WINDOWS.len()] = [0x00f0, 0x0000_fff0, 0x0000_fff0, 0, 0];

/// Ports, memory, and bus mastering.
const ENABLE: u16 = 0b111;

const COMMAND: u8 = 0x04;
const BUSES: u8 = 0x18;

impl Found {
    /// Writes all that was decided, and reads the registers back: one that does not hold its address is none.
    fn program(&self, writer: &mut Writer<'_>, notes: &mut Vec<String>) -> Result<PciFunction> {
        if let Some(bridge) = &self.bridge {
            writer.write(self.address, BUSES, PortWidth::Long, bridge.buses)?;
            for ((register, width), value) in WINDOWS.into_iter().zip(bridge.windows) {
                writer.write(self.address, register, width, value)?;
            }
        }
        let mut bars = Vec::new();
        for bar in &self.bars {
            let Some(region) = bar.region(self) else { continue };
            writer.write(self.address, bar.register, PortWidth::Long, region.first as u32)?;
            let mut holds = writer.space.read(self.address, bar.register, PortWidth::Long)?
                & !bar.flags_mask()
                == region.first as u32;
            if bar.is_64_bit {
                let high = (region.first >> 32) as u32;
                writer.write(self.address, bar.register + 4, PortWidth::Long, high)?;
                holds &= writer.space.read(self.address, bar.register + 4, PortWidth::Long)? == high;
            }
            if holds {
                bars.push(region);
            } else {
                notes.push(format!("{}: BAR {} does not hold its address", self.address, bar.index()));
            }
        }
        let command = u32::from(self.command | ENABLE);
        writer.write(self.address, COMMAND, PortWidth::Word, command)?;
        let Self { address, vendor, device, class, .. } = *self;
        Ok(PciFunction { address: address.0, vendor, device, class, bars })
    }
}

impl bar::Bar {
    fn region(&self, function: &Found) -> Option<Region> {
        let Found { address, vendor, device, .. } = function;
        let name = format!("pci {address} [{vendor:04x}:{device:04x}] bar {}", self.index());
        let first = self.address?;
        Region::new(self.space, first, first.checked_add(self.size - 1)?, name)
    }

    /// The low bits of the register that are no address.
    fn flags_mask(&self) -> u32 {
        if self.space == Space::Port { 0b11 } else { 0b1111 }
    }
}

/// Writes, and remembers it.
struct Writer<'s> {
    space: &'s mut dyn ConfigSpace,
    prologue: Vec<Instruction>,
}

impl Writer<'_> {
    fn write(&mut self, function: PciAddress, register: u8, width: PortWidth, value: u32) -> Result<()> {
        self.prologue.push(Instruction::PciWrite { function, register, width, value });
        self.space.write(function, register, width, value)
    }
}

/// The configuration space of a [`Target`], one access after the other. What the target reads is kept from then on:
/// see [`Target::keep_values`].
pub struct TargetConfigSpace<'t> {
    target: &'t mut dyn Target,
    patience: Duration,
}

impl std::fmt::Debug for TargetConfigSpace<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TargetConfigSpace").field("target", &self.target.identity()).finish_non_exhaustive()
    }
}

impl<'t> TargetConfigSpace<'t> {
    /// That of `target`, which is started and has nothing to do. An access that takes longer than `patience` fails.
    pub fn new(target: &'t mut dyn Target, patience: Duration) -> Self {
        target.keep_values(true);
        Self { target, patience }
    }

    /// Executes one instruction: what it read.
    fn execute(&mut self, instruction: Instruction) -> Result<Option<u32>> {
        let silent = || Error::protocol("PCI configuration space", "the machine does not answer");
        self.target.values();
        let index = self.target.progress().started;
        if self.target.submit(&[instruction])? == 0 {
            return Err(silent());
        }
        let deadline = std::time::Instant::now() + self.patience;
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if self.target.wait(left).done > index {
                return Ok(self.target.values().last().map(|value| value.value as u32));
            }
            if left.is_zero() {
                return Err(silent());
            }
        }
    }
}

impl ConfigSpace for TargetConfigSpace<'_> {
    fn read(&mut self, function: PciAddress, register: u8, width: PortWidth) -> Result<u32> {
        let value = self.execute(Instruction::PciRead { function, register, width })?;
        value.ok_or_else(|| Error::protocol("PCI configuration space", "a read without a value"))
    }

    fn write(&mut self, function: PciAddress, register: u8, width: PortWidth, value: u32) -> Result<()> {
        self.execute(Instruction::PciWrite { function, register, width, value }).map(|_| ())
    }
}
