//! [`Instruction`]: one thing that a guest does to its machine.

pub mod binary;
#[cfg(test)]
pub(crate) mod strategy;
pub mod text;

use std::fmt;

pub use text::TextError;

/// How many bytes a port access moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PortWidth {
    /// One byte: `b`.
    Byte,
    /// Two bytes: `w`.
    Word,
    /// Four bytes: `l`.
    Long,
}

impl PortWidth {
    /// All of them, the narrowest first.
    pub const ALL: [Self; 3] = [Self::Byte, Self::Word, Self::Long];

    /// 1, 2 or 4.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Long => 4,
        }
    }

    /// The largest value of this width.
    #[must_use]
    pub const fn max(self) -> u32 {
        u32::MAX >> (32 - 8 * self.bytes())
    }
}

/// How many bytes a memory access moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Width {
    /// One byte: `b`.
    Byte,
    /// Two bytes: `w`.
    Word,
    /// Four bytes: `l`.
    Long,
    /// Eight bytes: `q`.
    Quad,
}

impl Width {
    /// All of them, the narrowest first.
    pub const ALL: [Self; 4] = [Self::Byte, Self::Word, Self::Long, Self::Quad];

    /// 1, 2, 4 or 8.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Long => 4,
            Self::Quad => 8,
        }
    }

    /// The largest value of this width.
    #[must_use]
    pub const fn max(self) -> u64 {
        u64::MAX >> (64 - 8 * self.bytes())
    }
}

impl From<PortWidth> for Width {
    fn from(width: PortWidth) -> Self {
        match width {
            PortWidth::Byte => Self::Byte,
            PortWidth::Word => Self::Word,
            PortWidth::Long => Self::Long,
        }
    }
}

/// A PCI function: its bus, device and function number, in one number as in a configuration address.
///
/// ```
/// use guest_fuzz::instruction::PciAddress;
/// let lpc = PciAddress::new(0, 31, 0).ok_or("no such device")?;
/// assert_eq!(lpc.to_string(), "00:1f.0");
/// assert_eq!(PciAddress::new(0, 32, 0), None);
/// # Ok::<(), &str>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress(pub u16);

impl PciAddress {
    /// The function `bus:device.function`; `None` where device is above 31 or function above 7.
    #[must_use]
    pub fn new(bus: u8, device: u8, function: u8) -> Option<Self> {
        let valid = device < 32 && function < 8;
        valid.then(|| Self(u16::from(bus) << 8 | u16::from(device) << 3 | u16::from(function)))
    }

    /// What is written to port 0xcf8 to reach the four bytes around `register`.
    #[must_use]
    pub const fn configuration_address(self, register: u8) -> u32 {
        1 << 31 | (self.0 as u32) << 8 | (register & 0xfc) as u32
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.0 >> 8, self.0 >> 3 & 31, self.0 & 7)
    }
}

/// One thing that a guest does to its machine.
///
/// Its text form is that of QEMU's qtest protocol, and more. Values fit their
/// width: neither form has bytes that no access would move.
///
/// ```
/// use guest_fuzz::Instruction;
/// use guest_fuzz::instruction::PortWidth;
/// let instruction: Instruction = "outb 0x2014 0".parse()?;
/// assert_eq!(instruction, Instruction::Out { port: 0x2014, width: PortWidth::Byte, value: 0 });
/// assert_eq!(instruction.to_string(), "outb 0x2014 0x0");
/// # Ok::<(), guest_fuzz::instruction::TextError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Instruction {
    /// `inb PORT`: reads a port.
    In {
        /// The port.
        port: u16,
        /// How much is read.
        width: PortWidth,
    },
    /// `outb PORT VALUE`: writes a port.
    Out {
        /// The port.
        port: u16,
        /// How much is written.
        width: PortWidth,
        /// What is written.
        value: u32,
    },
    /// `insb PORT ADDRESS COUNT`: reads a port `count` times, into guest memory.
    InString {
        /// The port.
        port: u16,
        /// How much is read each time.
        width: PortWidth,
        /// Where in the guest's physical memory the values go.
        address: u64,
        /// How often, at most [`MAX_STRING`].
        count: u32,
    },
    /// `outsb PORT ADDRESS COUNT`: writes a port `count` times, out of guest memory.
    OutString {
        /// The port.
        port: u16,
        /// How much is written each time.
        width: PortWidth,
        /// Where in the guest's physical memory the values are.
        address: u64,
        /// How often, at most [`MAX_STRING`].
        count: u32,
    },
    /// `readb ADDRESS`: reads memory, be it RAM or a device's.
    Read {
        /// Guest physical address.
        address: u64,
        /// How much is read.
        width: Width,
    },
    /// `writeb ADDRESS VALUE`: writes memory, be it RAM or a device's.
    Write {
        /// Guest physical address.
        address: u64,
        /// How much is written.
        width: Width,
        /// What is written.
        value: u64,
    },
    /// `write ADDRESS LENGTH 0xHEX`: writes bytes, in the order of the text.
    WriteBlock {
        /// Guest physical address.
        address: u64,
        /// What is written, at most [`MAX_BLOCK`] bytes.
        bytes: Box<[u8]>,
    },
    /// `fillw ADDRESS LENGTH PATTERN` (`memset` for one of a byte): fills memory with a pattern, the lowest byte first.
    Fill {
        /// Guest physical address.
        address: u64,
        /// How many bytes, at most [`MAX_FILL`]. The last repetition may be cut.
        length: u32,
        /// How long the pattern is.
        width: Width,
        /// The pattern.
        pattern: u64,
    },
    /// `pci_readb FUNCTION REGISTER`: reads the configuration space through ports 0xcf8 and 0xcfc.
    PciRead {
        /// Whose.
        function: PciAddress,
        /// Which register.
        register: u8,
        /// How much is read.
        width: PortWidth,
    },
    /// `pci_writeb FUNCTION REGISTER VALUE`: writes the configuration space.
    PciWrite {
        /// Whose.
        function: PciAddress,
        /// Which register.
        register: u8,
        /// How much is written.
        width: PortWidth,
        /// What is written.
        value: u32,
    },
    /// `delay COUNT`: that many dummy reads of port 0x80, at most [`MAX_DELAY`].
    Delay {
        /// How many.
        count: u32,
    },
    /// `clock_step NANOSECONDS`: the virtual clock goes on, at most [`MAX_CLOCK_STEP`]. Where a target has a running
    /// clock, it is waited for; where the clock stands, as that of a machine that qtest drives without `-accel qtest`,
    /// nothing happens.
    ClockStep {
        /// How far.
        nanoseconds: u64,
    },
    /// `burst COUNT`: the next `count` instructions are to arrive together, where a target can do that.
    Burst {
        /// How many, at most [`MAX_BURST`].
        count: u16,
    },
    /// `reset`: the machine is reset.
    Reset,
}

impl Instruction {
    /// The bits that a value which it reads can have; `None` where it reads none.
    #[must_use]
    pub fn value_bits(&self) -> Option<u64> {
        match self {
            Self::In { width, .. } | Self::PciRead { width, .. } => Some(width.max().into()),
            Self::Read { width, .. } => Some(width.max()),
            _ => None,
        }
    }

    /// The status with which a debug-exit device ends its VMM, if this is a write to one.
    #[must_use]
    pub fn debug_exit_status(&self) -> Option<i32> {
        match self {
            Self::Out { value, .. } => Some(((value << 1 | 1) & 0xff) as i32),
            _ => None,
        }
    }
}

/// The largest count of a string instruction.
pub const MAX_STRING: u32 = 1 << 16;
/// The largest number of bytes that one instruction writes.
pub const MAX_BLOCK: usize = 1 << 16;
/// The largest number of bytes that one instruction fills.
pub const MAX_FILL: u32 = 1 << 20;
/// The largest delay, in reads of port 0x80: about a second in an emulated guest.
pub const MAX_DELAY: u32 = 1_000_000;
/// The largest step of the clock, in nanoseconds: an hour.
pub const MAX_CLOCK_STEP: u64 = 3_600_000_000_000;
/// The largest burst.
pub const MAX_BURST: u16 = 1024;
