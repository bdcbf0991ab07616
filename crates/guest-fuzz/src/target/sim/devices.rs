//! The devices that have no faults: serial port, clock, PCI functions.

use crate::instruction::PortWidth;

/// A serial port: the divisor's latch, and a scratch register that keeps what it is given.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Serial {
    registers: [u8; 8],
    divisor: [u8; 2],
}

impl Serial {
    const LINE_CONTROL: u16 = 3;
    const LINE_STATUS: u16 = 5;
    /// In the line control: registers 0 and 1 are the divisor.
    const LATCH: u8 = 0x80;

    pub(super) fn read(&self, register: u16) -> u8 {
        let at = usize::from(register & 7);
        if self.is_divisor(register) {
            return self.divisor.get(at).copied().unwrap_or(0);
        }
        // Nothing is ever received; what is sent is gone at once.
        if register == Self::LINE_STATUS { 0x60 } else { self.registers.get(at).copied().unwrap_or(0) }
    }

    pub(super) fn write(&mut self, register: u16, value: u8) {
        let bank: &mut [u8] = if self.is_divisor(register) { &mut self.divisor } else { &mut self.registers };
        if let Some(place) = bank.get_mut(usize::from(register & 7)) {
            *place = value;
        }
    }

    fn is_divisor(&self, register: u16) -> bool {
        let latch = self.registers.get(usize::from(Self::LINE_CONTROL)).copied().unwrap_or(0) & Self::LATCH;
        latch != 0 && register < 2
    }
}

/// A real-time clock behind an index port: 128 bytes, of which the first is the seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rtc {
    index: u8,
    memory: [u8; 128],
}

impl Default for Rtc {
    fn default() -> Self {
        Self { index: 0, memory: [0; 128] }
    }
}

impl Rtc {
    pub(super) fn read(&self, port: u16, nanoseconds: u64) -> u8 {
        match (port, self.index) {
            // The index cannot be read back.
            (0, _) => 0xff,
            (_, 0) => (nanoseconds / 1_000_000_000 % 60) as u8,
            (_, index) => self.memory.get(usize::from(index)).copied().unwrap_or(0),
        }
    }

    pub(super) fn write(&mut self, port: u16, value: u8) {
        if port == 0 {
            self.index = value & 0x7f;
        } else if let Some(place) = self.memory.get_mut(usize::from(self.index)) {
            *place = value;
        }
    }
}

/// The PCI bus: a host bridge, and two functions with base address registers behind which are 64 bytes each that keep
/// what they are given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pci {
    address: u32,
    functions: [Function; 3],
}

/// A function's configuration space: 16 registers.
#[derive(Clone, Copy, Debug)]
struct Function {
    /// As in a configuration address: `device << 3 | function`.
    place: u32,
    registers: [u32; 16],
    bars: [Option<Bar>; 2],
    /// What is behind the base address registers.
    window: [u8; 64],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bar {
    is_io: bool,
    size: u32,
}

const COMMAND: usize = 1;
const FIRST_BAR: usize = 4;
/// In the command register: ports, memory.
const DECODES_IO: u32 = 1;
const DECODES_MEMORY: u32 = 2;

impl Default for Pci {
    fn default() -> Self {
        let io = |size| Some(Bar { is_io: true, size });
        let memory = |size| Some(Bar { is_io: false, size });
        Self {
            address: 0,
            functions: [
                Function::new(0, 0x1237_8086, 0x0600_0002, [None, None]),
                Function::new(3 << 3, 0x100e_8086, 0x0200_0003, [memory(0x1000), io(0x40)]),
                Function::new(4 << 3, 0x5000_1274, 0x0401_0000, [io(0x40), None]),
            ],
        }
    }
}

impl Pci {
    pub(super) fn read_port(&self, port: u16, width: PortWidth) -> u32 {
        if port == 0xcf8 {
            return self.address & width.max();
        }
        let register = self.selected().and_then(|(at, register)| {
            self.functions.get(at).and_then(|function| function.registers.get(register))
        });
        let value = register.copied().unwrap_or(if self.selected().is_some() { 0 } else { u32::MAX });
        value >> (8 * u32::from(port & 3)) & width.max()
    }

    pub(super) fn write_port(&mut self, port: u16, width: PortWidth, value: u32) {
        if port == 0xcf8 {
            // Narrower accesses are not for the configuration address.
            self.address = if width == PortWidth::Long { value } else { self.address };
            return;
        }
        let Some((at, register)) = self.selected() else { return };
        let shift = 8 * u32::from(port & 3);
        let mask = width.max() << shift;
        if let Some(function) = self.functions.get_mut(at) {
            function.write(register, value << shift, mask);
        }
    }

    /// Which function and which of its registers the address selects.
    fn selected(&self) -> Option<(usize, usize)> {
        let place = self.address >> 8 & 0xffff;
        let at = self.functions.iter().position(|function| function.place == place)?;
        (self.address >> 31 == 1).then_some((at, (self.address >> 2 & 0x3f) as usize))
    }

    /// What is read at `port`, where a base address register has it.
    pub(super) fn read_io(&self, port: u16, width: PortWidth) -> Option<u32> {
        let (at, offset) = self.decode(true, port.into())?;
        let window = self.functions.get(at)?.window;
        let bytes = window.iter().skip(offset).take(width.bytes() as usize);
        Some(bytes.rev().fold(0, |value, &byte| value << 8 | u32::from(byte)))
    }

    /// Whether a base address register has `port`.
    pub(super) fn write_io(&mut self, port: u16, width: PortWidth, value: u32) -> bool {
        let Some((at, offset)) = self.decode(true, port.into()) else { return false };
        if let Some(function) = self.functions.get_mut(at) {
            let places = function.window.iter_mut().skip(offset);
            let bytes = value.to_le_bytes();
            places.zip(bytes.iter().take(width.bytes() as usize)).for_each(|(place, byte)| *place = *byte);
        }
        true
    }

    pub(super) fn read_memory(&self, address: u64) -> Option<u8> {
        let (at, offset) = self.decode(false, address)?;
        self.functions.get(at)?.window.get(offset).copied()
    }

    pub(super) fn write_memory(&mut self, address: u64, value: u8) {
        if let Some((at, offset)) = self.decode(false, address)
            && let Some(place) =
                self.functions.get_mut(at).and_then(|function| function.window.get_mut(offset))
        {
            *place = value;
        }
    }

    /// Which function has `address`, and the offset in its window.
    fn decode(&self, is_io: bool, address: u64) -> Option<(usize, usize)> {
        self.functions.iter().enumerate().find_map(|(at, function)| {
            let offset = function.decode(is_io, address)?;
            Some((at, offset % function.window.len()))
        })
    }
}

impl Function {
    fn new(place: u32, identity: u32, class: u32, bars: [Option<Bar>; 2]) -> Self {
        let mut registers = [0; 16];
        let [first, _, third, _, bar_0, bar_1, ..] = &mut registers;
        (*first, *third) = (identity, class);
        (*bar_0, *bar_1) = (flags(bars.first()), flags(bars.get(1)));
        Self { place, registers, bars, window: [0; 64] }
    }

    fn write(&mut self, register: usize, value: u32, mask: u32) {
        let bar = register.checked_sub(FIRST_BAR).and_then(|at| self.bars.get(at).copied()).flatten();
        let writable = match (register, bar) {
            (COMMAND, _) => 7,
            (_, Some(bar)) => !(bar.size - 1),
            // The line of an interrupt.
            (15, _) => 0xff,
            _ => 0,
        };
        if let Some(place) = self.registers.get_mut(register) {
            let mask = mask & writable;
            *place = *place & !mask | value & mask;
        }
    }

    /// The offset of `address` behind a base address register.
    fn decode(&self, is_io: bool, address: u64) -> Option<usize> {
        let wanted = if is_io { DECODES_IO } else { DECODES_MEMORY };
        if self.registers.get(COMMAND).is_none_or(|command| command & wanted == 0) {
            return None;
        }
        let registers = self.registers.iter().skip(FIRST_BAR);
        registers.zip(self.bars).find_map(|(register, bar)| {
            let bar = bar.filter(|bar| bar.is_io == is_io)?;
            let first = u64::from(register & !(bar.size - 1));
            let offset = address.checked_sub(first)?;
            // A register that holds 0 was not programmed.
            (first != 0 && offset < bar.size.into()).then_some(offset as usize)
        })
    }
}

/// The read-only bits of a base address register.
fn flags(bar: Option<&Option<Bar>>) -> u32 {
    u32::from(matches!(bar, Some(Some(Bar { is_io: true, .. }))))
}
