//! [`Machine`]: the ports and the memory.

use super::devices::{Pci, Rtc, Serial};
use super::plant::{Consequence, Memory, PAGE, PROGRAM_PAGE, Plant, dma};
use crate::instruction::{
    Instruction, MAX_BLOCK, MAX_CLOCK_STEP, MAX_DELAY, MAX_FILL, MAX_STRING, PortWidth, Width,
};

/// How large the RAM is. It begins at address 0.
pub(super) const RAM_BYTES: u64 = 1 << 20;
/// How long an instruction takes, on the machine's own clock.
const NANOSECONDS_PER_ACCESS: u64 = 100;

/// The machine that the simulated VMM simulates.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    ram: Vec<u8>,
    serial: Serial,
    rtc: Rtc,
    pci: Pci,
    plants: Memory,
    /// Which plants are there.
    enabled: u32,
    /// Whether the guest's own program is as it should be.
    pub(super) intact: bool,
    nanoseconds: u64,
    consequence: Consequence,
}

/// What an instruction came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// What it read.
    pub(super) value: Option<u64>,
    pub(super) consequence: Consequence,
    /// How much work it was: 1 for a plain access.
    pub(super) cost: u64,
}

impl Machine {
    pub(super) fn new(plants: &[Plant], flaky: bool) -> Self {
        let enabled = Plant::ALL
            .iter()
            .enumerate()
            .filter(|(_, plant)| plants.contains(plant))
            .map(|(at, _)| 1 << at)
            .sum();
        Self {
            ram: vec![0; RAM_BYTES as usize],
            serial: Serial::default(),
            rtc: Rtc::default(),
            pci: Pci::default(),
            plants: Memory::new(flaky),
            enabled,
            intact: true,
            nanoseconds: 0,
            consequence: Consequence::Nothing,
        }
    }

    /// RAM stays as it is, but for the guest's program, which is loaded anew.
    pub(super) fn reset(&mut self) {
        self.serial = Serial::default();
        self.rtc = Rtc::default();
        self.pci = Pci::default();
        self.plants.reset();
        self.intact = true;
        self.consequence = Consequence::Nothing;
    }

    /// Executes one instruction. Stops in the middle of it where it has a consequence.
    pub(super) fn execute(&mut self, instruction: &Instruction) -> Outcome {
        self.consequence = Consequence::Nothing;
        let (value, cost) = match *instruction {
            Instruction::In { port, width } => (Some(self.read_port(port, width).into()), 1),
            Instruction::Out { port, width, value } => {
                self.write_port(port, width, value);
                (None, 1)
            }
            Instruction::Read { address, width } => (Some(self.read(address, width.bytes())), 1),
            Instruction::Write { address, width, value } => {
                self.write(address, value.to_le_bytes().iter().take(width.bytes() as usize));
                (None, 1)
            }
            Instruction::PciRead { function, register, width } => {
                self.write_port(0xcf8, PortWidth::Long, function.configuration_address(register));
                (Some(self.read_port(data_port(register), width).into()), 2)
            }
            Instruction::PciWrite { function, register, width, value } => {
                self.write_port(0xcf8, PortWidth::Long, function.configuration_address(register));
                self.write_port(data_port(register), width, value);
                (None, 2)
            }
            Instruction::Reset => {
                self.consequence = Consequence::Happens(Plant::Reset, 0);
                (None, 1)
            }
            ref long => (None, self.execute_long(long)),
        };
        self.nanoseconds += NANOSECONDS_PER_ACCESS * cost;
        Outcome { value, consequence: self.consequence, cost }
    }

    /// Instructions that are more than one access: how many.
    fn execute_long(&mut self, instruction: &Instruction) -> u64 {
        match *instruction {
            Instruction::InString { port, width, address, count } => {
                self.string(count, address, width, |machine, at| {
                    let value = machine.read_port(port, width).to_le_bytes();
                    machine.write(at, value.iter().take(width.bytes() as usize));
                })
            }
            Instruction::OutString { port, width, address, count } => {
                self.string(count, address, width, |machine, at| {
                    let value = machine.read(at, width.bytes()) as u32;
                    machine.write_port(port, width, value);
                })
            }
            Instruction::WriteBlock { address, ref bytes } => {
                self.write(address, bytes.iter().take(MAX_BLOCK));
                1 + bytes.len() as u64 / 64
            }
            Instruction::Fill { address, length, width, pattern } => {
                let pattern = pattern.to_le_bytes();
                let pattern = pattern.iter().take(width.bytes() as usize).cycle();
                let length = length.min(MAX_FILL) as usize;
                self.write(address, pattern.take(length));
                1 + length as u64 / 64
            }
            Instruction::Delay { count } => {
                // It costs the machine's time, and not ours.
                self.nanoseconds += u64::from(count.min(MAX_DELAY)) * NANOSECONDS_PER_ACCESS;
                1
            }
            Instruction::ClockStep { nanoseconds } => {
                self.nanoseconds += nanoseconds.min(MAX_CLOCK_STEP);
                1
            }
            _ => 1,
        }
    }

    fn string(
        &mut self,
        count: u32,
        address: u64,
        width: PortWidth,
        mut access: impl FnMut(&mut Self, u64),
    ) -> u64 {
        let mut done = 0;
        while done < u64::from(count.min(MAX_STRING)) && self.consequence == Consequence::Nothing {
            access(self, address.wrapping_add(done * u64::from(width.bytes())));
            done += 1;
        }
        1 + done
    }

    #[inline]
    fn read_port(&mut self, port: u16, width: PortWidth) -> u32 {
        match port {
            0xcf8 | 0xcfc..=0xcff => return self.pci.read_port(port, width),
            0x2000.. => {
                if let Some((plant, offset)) = self.plant(port) {
                    self.note(plant, offset, None);
                    return 0;
                }
                if let Some(value) = self.pci.read_io(port, width) {
                    return value;
                }
            }
            _ => {}
        }
        // Byte-wide devices see a wide access as accesses of neighbouring ports.
        let byte = |offset| u32::from(self.read_byte(port.wrapping_add(offset))) << (8 * offset);
        (0..width.bytes() as u16).map(byte).fold(0, |value, byte| value | byte)
    }

    fn read_byte(&self, port: u16) -> u8 {
        match port {
            0x70..=0x71 => self.rtc.read(port & 1, self.nanoseconds),
            0x3f8..=0x3ff => self.serial.read(port & 7),
            _ => 0xff,
        }
    }

    #[inline]
    fn write_port(&mut self, port: u16, width: PortWidth, value: u32) {
        let value = value & width.max();
        match port {
            0xcf8 | 0xcfc..=0xcff => return self.pci.write_port(port, width, value),
            0x2000.. => {
                if let Some((plant, offset)) = self.plant(port) {
                    return self.note(plant, offset, Some(value));
                }
                if self.pci.write_io(port, width, value) {
                    return;
                }
            }
            _ => {}
        }
        for (offset, byte) in (0..).zip(value.to_le_bytes().into_iter().take(width.bytes() as usize)) {
            let port = port.wrapping_add(offset);
            match port {
                0x70..=0x71 => self.rtc.write(port & 1, byte),
                0x3f8..=0x3ff => self.serial.write(port & 7, byte),
                _ => {}
            }
        }
    }

    fn plant(&self, port: u16) -> Option<(Plant, u16)> {
        Plant::at(port).filter(|(plant, _)| self.enabled >> (*plant as u32) & 1 == 1)
    }

    fn note(&mut self, plant: Plant, offset: u16, value: Option<u32>) {
        let consequence = self.plants.access(plant, offset, value);
        match consequence {
            Consequence::Happens(Plant::Dma, page) => {
                self.execute_long(&dma(page));
            }
            Consequence::Happens(..) => self.consequence = consequence,
            Consequence::Nothing => {}
        }
    }

    fn read(&mut self, address: u64, length: u32) -> u64 {
        let byte = |offset: u32| {
            let address = address.wrapping_add(offset.into());
            let byte = usize::try_from(address).ok().and_then(|at| self.ram.get(at).copied());
            let byte = byte.or_else(|| self.pci.read_memory(address)).unwrap_or(0xff);
            u64::from(byte) << (8 * offset)
        };
        (0..length.min(Width::Quad.bytes())).map(byte).fold(0, |value, byte| value | byte)
    }

    fn write<'a>(&mut self, address: u64, bytes: impl Iterator<Item = &'a u8>) {
        const PROGRAM: std::ops::Range<u64> = PROGRAM_PAGE as u64 * PAGE..(PROGRAM_PAGE as u64 + 1) * PAGE;
        let mut address = address;
        for &byte in bytes {
            match usize::try_from(address).ok().and_then(|at| self.ram.get_mut(at)) {
                Some(place) => *place = byte,
                None => self.pci.write_memory(address, byte),
            }
            self.intact &= !PROGRAM.contains(&address);
            address = address.wrapping_add(1);
        }
    }
}

fn data_port(register: u8) -> u16 {
    0xcfc + u16::from(register & 3)
}
