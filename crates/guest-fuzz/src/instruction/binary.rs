//! The binary form of an [`Instruction`]: a byte that says what it is and how wide, and its fields.
//!
//! | field | bytes |
//! |---|---|
//! | kind and width | one: `kind << 2 \| width`, the widths from 0 for one byte to 3 for eight |
//! | ports, PCI functions | two, little-endian |
//! | registers | one |
//! | values and patterns | as many as the width says, little-endian |
//! | addresses, counts, lengths, nanoseconds | LEB128: seven bits a byte, the lowest first, bit 7 set in all but the last |
//!
//! The fields stand in the order of the text form. Each instruction has one binary form only: what has another
//! spelling, such as a number with zeros behind it, is refused.

use super::{
    Instruction, MAX_BLOCK, MAX_BURST, MAX_CLOCK_STEP, MAX_DELAY, MAX_FILL, MAX_STRING, PciAddress,
    PortWidth, Width,
};
use crate::error::{Error, Result};

const IN: u8 = 0;
const OUT: u8 = 1;
const IN_STRING: u8 = 2;
const OUT_STRING: u8 = 3;
const READ: u8 = 4;
const WRITE: u8 = 5;
const WRITE_BLOCK: u8 = 6;
const FILL: u8 = 7;
const PCI_READ: u8 = 8;
const PCI_WRITE: u8 = 9;
const DELAY: u8 = 10;
const CLOCK_STEP: u8 = 11;
const BURST: u8 = 12;
const RESET: u8 = 13;

impl Instruction {
    /// Adds the binary form to `bytes`. A value that does not fit its width is cut to it, as the access would.
    pub(crate) fn encode(&self, bytes: &mut Vec<u8>) {
        match *self {
            Self::In { port, width } => {
                opcode(bytes, IN, width);
                bytes.extend(port.to_le_bytes());
            }
            Self::Out { port, width, value } => {
                opcode(bytes, OUT, width);
                bytes.extend(port.to_le_bytes());
                fixed(bytes, width, value.into());
            }
            Self::InString { port, width, address, count } => {
                opcode(bytes, IN_STRING, width);
                string(bytes, port, address, count);
            }
            Self::OutString { port, width, address, count } => {
                opcode(bytes, OUT_STRING, width);
                string(bytes, port, address, count);
            }
            Self::Read { address, width } => {
                opcode(bytes, READ, width);
                number(bytes, address);
            }
            Self::Write { address, width, value } => {
                opcode(bytes, WRITE, width);
                number(bytes, address);
                fixed(bytes, width, value);
            }
            Self::WriteBlock { address, bytes: ref block } => {
                opcode(bytes, WRITE_BLOCK, Width::Byte);
                number(bytes, address);
                number(bytes, block.len() as u64);
                bytes.extend_from_slice(block);
            }
            Self::Fill { address, length, width, pattern } => {
                opcode(bytes, FILL, width);
                number(bytes, address);
                number(bytes, length.into());
                fixed(bytes, width, pattern);
            }
            Self::PciRead { function, register, width } => {
                opcode(bytes, PCI_READ, width);
                bytes.extend(function.0.to_le_bytes());
                bytes.push(register);
            }
            Self::PciWrite { function, register, width, value } => {
                opcode(bytes, PCI_WRITE, width);
                bytes.extend(function.0.to_le_bytes());
                bytes.push(register);
                fixed(bytes, width, value.into());
            }
            Self::Delay { count } => counted(bytes, DELAY, count.into()),
            Self::ClockStep { nanoseconds } => counted(bytes, CLOCK_STEP, nanoseconds),
            Self::Burst { count } => counted(bytes, BURST, count.into()),
            Self::Reset => opcode(bytes, RESET, Width::Byte),
        }
    }

    /// Reads one instruction.
    ///
    /// # Errors
    /// [`Error::Binary`] naming the offset.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let at = reader.at;
        let [opcode] = reader.array("an instruction")?;
        let bad = || binary(at, "an instruction's kind and width", format!("{opcode:#04x}"));
        let wide = match opcode & 3 {
            0 => Width::Byte,
            1 => Width::Word,
            2 => Width::Long,
            _ => Width::Quad,
        };
        let width = PortWidth::ALL.into_iter().find(|width| Width::from(*width) == wide).ok_or_else(bad);
        Ok(match opcode >> 2 {
            IN => Self::In { width: width?, port: reader.port()? },
            OUT => {
                let width = width?;
                Self::Out { width, port: reader.port()?, value: reader.fixed(width)? as u32 }
            }
            IN_STRING => {
                let (width, (port, address, count)) = (width?, reader.string()?);
                Self::InString { port, width, address, count }
            }
            OUT_STRING => {
                let (width, (port, address, count)) = (width?, reader.string()?);
                Self::OutString { port, width, address, count }
            }
            READ => Self::Read { address: reader.address()?, width: wide },
            WRITE => Self::Write { address: reader.address()?, width: wide, value: reader.fixed(wide)? },
            FILL => Self::Fill {
                address: reader.address()?,
                length: reader.number("a length", MAX_FILL)?,
                width: wide,
                pattern: reader.fixed(wide)?,
            },
            PCI_READ => {
                let (width, (function, register)) = (width?, reader.register()?);
                Self::PciRead { function, register, width }
            }
            PCI_WRITE => {
                let (width, (function, register)) = (width?, reader.register()?);
                Self::PciWrite { function, register, width, value: reader.fixed(width)? as u32 }
            }
            // Those below have no width: its bits are 0.
            WRITE_BLOCK if wide == Width::Byte => {
                let address = reader.address()?;
                let length = reader.number("a length", MAX_BLOCK)?;
                Self::WriteBlock { address, bytes: reader.take(length, "the bytes of a block")?.into() }
            }
            DELAY if wide == Width::Byte => Self::Delay { count: reader.number("a count", MAX_DELAY)? },
            CLOCK_STEP if wide == Width::Byte => {
                Self::ClockStep { nanoseconds: reader.number("nanoseconds", MAX_CLOCK_STEP)? }
            }
            BURST if wide == Width::Byte => Self::Burst { count: reader.number("a count", MAX_BURST)? },
            RESET if wide == Width::Byte => Self::Reset,
            _ => return Err(bad()),
        })
    }
}

/// Adds a number as LEB128.
pub(crate) fn number(bytes: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn opcode(bytes: &mut Vec<u8>, kind: u8, width: impl Into<Width>) {
    bytes.push(kind << 2 | width.into().bytes().trailing_zeros() as u8);
}

fn fixed(bytes: &mut Vec<u8>, width: impl Into<Width>, value: u64) {
    bytes.extend(value.to_le_bytes().iter().take(width.into().bytes() as usize));
}

fn string(bytes: &mut Vec<u8>, port: u16, address: u64, count: u32) {
    bytes.extend(port.to_le_bytes());
    number(bytes, address);
    number(bytes, count.into());
}

fn counted(bytes: &mut Vec<u8>, kind: u8, count: u64) {
    opcode(bytes, kind, Width::Byte);
    number(bytes, count);
}

/// The bytes of a program that are still to be read.
pub(crate) struct Reader<'b> {
    bytes: &'b [u8],
    /// How many were read.
    pub(crate) at: usize,
}

impl<'b> Reader<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes are left.
    pub(crate) fn left(&self) -> usize {
        self.bytes.len()
    }

    /// The next `length` bytes.
    pub(crate) fn take(&mut self, length: usize, what: &str) -> Result<&'b [u8]> {
        let Some((taken, rest)) = self.bytes.split_at_checked(length) else {
            let end = self.at + self.bytes.len();
            return Err(binary(self.at, what, format!("the end of the bytes, at offset {end}")));
        };
        self.bytes = rest;
        self.at += length;
        Ok(taken)
    }

    /// A number in LEB128, `max` at most.
    pub(crate) fn number<T: Copy + TryFrom<u64> + PartialOrd + std::fmt::Display>(
        &mut self,
        what: &str,
        max: T,
    ) -> Result<T> {
        let at = self.at;
        let expected = || format!("{what}, at most {max}");
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array(what)?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            number |= bits << shift;
            if byte == 0 && shift > 0 {
                return Err(binary(at, expected(), "a number with needless zeros"));
            }
            if byte & 0x80 == 0 {
                let fits = T::try_from(number).ok().filter(|number| *number <= max);
                return fits.ok_or_else(|| binary(at, expected(), number.to_string()));
            }
        }
        Err(binary(at, expected(), "a number of more than 64 bits"))
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let at = self.at;
        let bytes = self.take(N, what)?;
        bytes.try_into().map_err(|_| binary(at, what, "less"))
    }

    fn port(&mut self) -> Result<u16> {
        self.array("a port").map(u16::from_le_bytes)
    }

    fn address(&mut self) -> Result<u64> {
        self.number("an address", u64::MAX)
    }

    fn string(&mut self) -> Result<(u16, u64, u32)> {
        Ok((self.port()?, self.address()?, self.number("a count", MAX_STRING)?))
    }

    fn register(&mut self) -> Result<(PciAddress, u8)> {
        let function = PciAddress(self.array("a PCI function").map(u16::from_le_bytes)?);
        let [register] = self.array("a register")?;
        Ok((function, register))
    }

    fn fixed(&mut self, width: impl Into<Width>) -> Result<u64> {
        let bytes = self.take(width.into().bytes() as usize, "a value")?;
        Ok(bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }
}

pub(crate) fn binary(at: usize, expected: impl Into<String>, found: impl Into<String>) -> Error {
    Error::Binary { what: "program", at, expected: expected.into(), found: found.into() }
}

#[cfg(test)]
mod tests;
