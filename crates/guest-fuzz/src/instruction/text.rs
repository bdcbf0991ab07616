//! The text form of an [`Instruction`]: a line of QEMU's qtest protocol, and more.
//!
//! Numbers are what `strtoull` with base 0 makes of them, as in qtest: decimal, hexadecimal behind `0x`, octal behind
//! `0`; no sign. What is written is always hexadecimal for ports, addresses and values, and decimal for counts.
//!
//! | text | instruction |
//! |---|---|
//! | `inb PORT`, also `w`, `l` | [`In`](Instruction::In) |
//! | `outb PORT VALUE`, also `w`, `l` | [`Out`](Instruction::Out) |
//! | `insb PORT ADDRESS COUNT`, also `w`, `l` | [`InString`](Instruction::InString) |
//! | `outsb PORT ADDRESS COUNT`, also `w`, `l` | [`OutString`](Instruction::OutString) |
//! | `readb ADDRESS`, also `w`, `l`, `q`; `read ADDRESS 1`, also `2`, `4`, `8` | [`Read`](Instruction::Read) |
//! | `writeb ADDRESS VALUE`, also `w`, `l`, `q` | [`Write`](Instruction::Write) |
//! | `write ADDRESS LENGTH 0xHEX` | [`WriteBlock`](Instruction::WriteBlock) |
//! | `memset ADDRESS LENGTH VALUE`; `fillb ADDRESS LENGTH PATTERN`, also `w`, `l`, `q` | [`Fill`](Instruction::Fill) |
//! | `pci_readb BB:DD.F REGISTER`, also `w`, `l` | [`PciRead`](Instruction::PciRead) |
//! | `pci_writeb BB:DD.F REGISTER VALUE`, also `w`, `l` | [`PciWrite`](Instruction::PciWrite) |
//! | `delay COUNT` | [`Delay`](Instruction::Delay) |
//! | `clock_step NANOSECONDS`; `clock_step`, which is [`NEXT_TIMER`] nanoseconds | [`ClockStep`](Instruction::ClockStep) |
//! | `burst COUNT` | [`Burst`](Instruction::Burst) |
//! | `reset` | [`Reset`](Instruction::Reset) |

use std::fmt;
use std::str::{FromStr, SplitAsciiWhitespace};

use super::{
    Instruction, MAX_BLOCK, MAX_BURST, MAX_CLOCK_STEP, MAX_DELAY, MAX_FILL, MAX_STRING, PciAddress,
    PortWidth, Width,
};
use crate::quoted::quoted;

/// What `clock_step` without a number is, in nanoseconds. In qtest it goes to the next timer, which only QEMU knows;
/// the reports that have it mostly step USB controllers, whose timers come each millisecond.
pub const NEXT_TIMER: u64 = 1_000_000;

const COMMAND: &str = "an instruction: inb, outb, insb, outsb, pci_readb or pci_writeb (also with w or l for b); \
                       readb, writeb or fillb (also with w, l or q for b); \
                       write, memset, delay, clock_step, burst or reset";

/// Why a text is no [`Instruction`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found}")]
pub struct TextError {
    /// What should stand there.
    pub expected: String,
    /// What stands there, shortened and escaped.
    pub found: String,
}

/// Writes the line that [`from_str`](FromStr::from_str) reads, without its end. A value that does not fit its width is
/// cut to it, as the access would.
///
/// ```
/// use guest_fuzz::Instruction;
/// let instruction: Instruction = "outb 1016 01".parse()?;
/// assert_eq!(instruction.to_string(), "outb 0x3f8 0x1");
/// # Ok::<(), guest_fuzz::instruction::TextError>(())
/// ```
impl fmt::Display for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::In { port, width } => write!(f, "in{width} {port:#x}"),
            Self::Out { port, width, value } => {
                write!(f, "out{width} {port:#x} {:#x}", value & width.max())
            }
            Self::InString { port, width, address, count } => {
                write!(f, "ins{width} {port:#x} {address:#x} {count}")
            }
            Self::OutString { port, width, address, count } => {
                write!(f, "outs{width} {port:#x} {address:#x} {count}")
            }
            Self::Read { address, width } => write!(f, "read{width} {address:#x}"),
            Self::Write { address, width, value } => {
                write!(f, "write{width} {address:#x} {:#x}", value & width.max())
            }
            Self::WriteBlock { address, ref bytes } => {
                write!(f, "write {address:#x} {} 0x", bytes.len())?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            // qtest's own word where there is one, so that the line can be pasted.
            Self::Fill { address, length, width: Width::Byte, pattern } => {
                write!(f, "memset {address:#x} {length} {:#x}", pattern & 0xff)
            }
            Self::Fill { address, length, width, pattern } => {
                write!(f, "fill{width} {address:#x} {length} {:#x}", pattern & width.max())
            }
            Self::PciRead { function, register, width } => {
                write!(f, "pci_read{width} {function} {register:#x}")
            }
            Self::PciWrite { function, register, width, value } => {
                write!(f, "pci_write{width} {function} {register:#x} {:#x}", value & width.max())
            }
            Self::Delay { count } => write!(f, "delay {count}"),
            Self::ClockStep { nanoseconds } => write!(f, "clock_step {nanoseconds}"),
            Self::Burst { count } => write!(f, "burst {count}"),
            Self::Reset => f.write_str("reset"),
        }
    }
}

/// Reads one line; blanks around it do not matter. Comments are a [`Program`](crate::program::Program)'s.
///
/// ```
/// use guest_fuzz::Instruction;
/// assert!("writel 0xfebc0000 0x1".parse::<Instruction>().is_ok());
/// let error = "outb 0x80 256".parse::<Instruction>().err().ok_or("no error")?;
/// assert_eq!(error.to_string(), "expected a value, at most 0xff, found \"256\"");
/// # Ok::<(), &str>(())
/// ```
impl FromStr for Instruction {
    type Err = TextError;

    fn from_str(line: &str) -> Result<Self, TextError> {
        let mut words = Words(line.split_ascii_whitespace());
        let command = words.next(COMMAND)?;
        let instruction = match command {
            "read" => words.sized_read()?,
            "write" => words.write_block()?,
            "memset" => words.fill(Width::Byte)?,
            "delay" => Self::Delay { count: words.count("a count", MAX_DELAY)? },
            "clock_step" => Self::ClockStep { nanoseconds: words.clock_step()? },
            "burst" => Self::Burst { count: words.count("a count", MAX_BURST)? },
            "reset" => Self::Reset,
            _ => words.with_width(command).ok_or_else(|| TextError::new(COMMAND, command))??,
        };
        words.end()?;
        Ok(instruction)
    }
}

/// Reads `BB:DD.F`: bus, device and function, hexadecimal, as lspci writes them.
impl FromStr for PciAddress {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let read = || {
            let (bus, rest) = text.split_once(':')?;
            let (device, function) = rest.split_once('.')?;
            Self::new(short_hex(bus)?, short_hex(device)?, short_hex(function)?)
        };
        read().ok_or_else(|| TextError::new("a PCI function, from 00:00.0 to ff:1f.7", text))
    }
}

/// The letter of this width: `b`, `w` or `l`.
impl fmt::Display for PortWidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Width::from(*self).fmt(f)
    }
}

/// The letter of this width: `b`, `w`, `l` or `q`.
impl fmt::Display for Width {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Byte => "b",
            Self::Word => "w",
            Self::Long => "l",
            Self::Quad => "q",
        })
    }
}

impl TextError {
    fn new(expected: impl Into<String>, found: &str) -> Self {
        Self { expected: expected.into(), found: quoted(found) }
    }
}

/// The words of a line that are still to be read.
struct Words<'t>(SplitAsciiWhitespace<'t>);

impl<'t> Words<'t> {
    /// The instructions whose last letter is their width; `None` where `command` is none of them.
    fn with_width(&mut self, command: &str) -> Option<Result<Instruction, TextError>> {
        let (name, letter) = command.split_at_checked(command.len().checked_sub(1)?)?;
        let width = match letter {
            "b" => Width::Byte,
            "w" => Width::Word,
            "l" => Width::Long,
            "q" => Width::Quad,
            _ => return None,
        };
        match name {
            "read" => return Some(self.address().map(|address| Instruction::Read { address, width })),
            "write" => return Some(self.write(width)),
            "fill" => return Some(self.fill(width)),
            _ => {}
        }
        let width = match width {
            Width::Byte => PortWidth::Byte,
            Width::Word => PortWidth::Word,
            Width::Long => PortWidth::Long,
            Width::Quad => return None,
        };
        Some(match name {
            "in" => self.port().map(|port| Instruction::In { port, width }),
            "out" => self.out(width),
            "ins" => self.string().map(|(port, address, count)| Instruction::InString {
                port,
                width,
                address,
                count,
            }),
            "outs" => self.string().map(|(port, address, count)| Instruction::OutString {
                port,
                width,
                address,
                count,
            }),
            "pci_read" => {
                self.register().map(|(function, register)| Instruction::PciRead { function, register, width })
            }
            "pci_write" => self.pci_write(width),
            _ => return None,
        })
    }

    fn out(&mut self, width: PortWidth) -> Result<Instruction, TextError> {
        Ok(Instruction::Out { port: self.port()?, width, value: self.value(width)? })
    }

    fn string(&mut self) -> Result<(u16, u64, u32), TextError> {
        Ok((self.port()?, self.address()?, self.count("a count", MAX_STRING)?))
    }

    fn sized_read(&mut self) -> Result<Instruction, TextError> {
        let address = self.address()?;
        let what = "a length of 1, 2, 4 or 8";
        let word = self.next(what)?;
        let width = Width::ALL.into_iter().find(|width| number(word) == Some(width.bytes().into()));
        let width = width.ok_or_else(|| TextError::new(what, word))?;
        Ok(Instruction::Read { address, width })
    }

    fn write(&mut self, width: Width) -> Result<Instruction, TextError> {
        let address = self.address()?;
        Ok(Instruction::Write { address, width, value: self.hex("a value", width.max())? })
    }

    fn write_block(&mut self) -> Result<Instruction, TextError> {
        let address = self.address()?;
        let length = self.count("a length", MAX_BLOCK)?;
        let digits = 2 * length;
        let bytes = if length == 1 { "byte" } else { "bytes" };
        let expected = || format!("0x and {digits} hexadecimal digits, for {length} {bytes}");
        let word = match self.0.next() {
            Some(word) => word,
            None => return Err(TextError { expected: expected(), found: NOTHING.into() }),
        };
        let bytes = word.strip_prefix("0x").filter(|hex| hex.len() == digits).and_then(from_hex);
        let bytes = bytes.ok_or_else(|| TextError::new(expected(), word))?;
        Ok(Instruction::WriteBlock { address, bytes })
    }

    fn fill(&mut self, width: Width) -> Result<Instruction, TextError> {
        let address = self.address()?;
        let length = self.count("a length in bytes", MAX_FILL)?;
        Ok(Instruction::Fill { address, length, width, pattern: self.hex("a pattern", width.max())? })
    }

    fn pci_write(&mut self, width: PortWidth) -> Result<Instruction, TextError> {
        let (function, register) = self.register()?;
        Ok(Instruction::PciWrite { function, register, width, value: self.value(width)? })
    }

    fn register(&mut self) -> Result<(PciAddress, u8), TextError> {
        Ok((self.next("a PCI function")?.parse()?, self.hex("a register", u8::MAX)?))
    }

    fn clock_step(&mut self) -> Result<u64, TextError> {
        if self.0.clone().next().is_none() {
            return Ok(NEXT_TIMER);
        }
        self.count("nanoseconds", MAX_CLOCK_STEP)
    }

    fn port(&mut self) -> Result<u16, TextError> {
        self.hex("a port", u16::MAX)
    }

    fn address(&mut self) -> Result<u64, TextError> {
        self.hex("an address", u64::MAX)
    }

    fn value(&mut self, width: PortWidth) -> Result<u32, TextError> {
        self.hex("a value", width.max())
    }

    /// A number up to `max`, which errors write as a hexadecimal one.
    fn hex<T: Copy + TryFrom<u64> + PartialOrd + fmt::LowerHex>(
        &mut self,
        what: &str,
        max: T,
    ) -> Result<T, TextError> {
        let word = self.next(what)?;
        up_to(word, max).ok_or_else(|| bad_number(format!("{what}, at most {max:#x}"), word))
    }

    /// A number up to `max`, which errors write as a decimal one.
    fn count<T: Copy + TryFrom<u64> + PartialOrd + fmt::Display>(
        &mut self,
        what: &str,
        max: T,
    ) -> Result<T, TextError> {
        let word = self.next(what)?;
        up_to(word, max).ok_or_else(|| bad_number(format!("{what}, at most {max}"), word))
    }

    fn next(&mut self, expected: &str) -> Result<&'t str, TextError> {
        let missing = || TextError { expected: expected.into(), found: NOTHING.into() };
        self.0.next().ok_or_else(missing)
    }

    fn end(&mut self) -> Result<(), TextError> {
        self.0.next().map_or(Ok(()), |word| Err(TextError::new("the end of the line", word)))
    }
}

const NOTHING: &str = "the end of the line";

fn up_to<T: Copy + TryFrom<u64> + PartialOrd>(word: &str, max: T) -> Option<T> {
    T::try_from(number(word)?).ok().filter(|number| *number <= max)
}

/// Says what is wrong with a number, with a hint where a decimal one has a zero in front.
fn bad_number(mut expected: String, word: &str) -> TextError {
    if number(word).is_none() && word.starts_with('0') && word.bytes().all(|byte| byte.is_ascii_digit()) {
        expected.push_str(" (with a 0 in front it is octal)");
    }
    TextError::new(expected, word)
}

/// An unsigned number as base 0 has it; `None` where it is none, or does not fit.
fn number(word: &str) -> Option<u64> {
    let (digits, radix) = match word.as_bytes() {
        [b'0', b'x' | b'X', ..] => (word.get(2..)?, 16),
        [b'0', _, ..] => (word.get(1..)?, 8),
        _ => (word, 10),
    };
    // The standard library would take a sign.
    if digits.starts_with('+') { None } else { u64::from_str_radix(digits, radix).ok() }
}

/// One or two hexadecimal digits.
fn short_hex(digits: &str) -> Option<u8> {
    let valid = digits.len() <= 2 && !digits.starts_with('+');
    valid.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

fn from_hex(hex: &str) -> Option<Box<[u8]>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    rest.is_empty()
        .then(|| pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect())?
}

#[cfg(test)]
mod tests;
