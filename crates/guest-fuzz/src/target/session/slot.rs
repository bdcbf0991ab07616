//! [`Slot`]: one thing that the program in the guest does.

use crate::instruction::{Instruction, PortWidth};

/// What is done. The numbers are those that the program in the guest knows: see `build/helper.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Nothing = 0,
    InByte = 1,
    InWord = 2,
    InLong = 3,
    OutByte = 4,
    OutWord = 5,
    OutLong = 6,
    /// As many reads of port 0x80 as the value says.
    Delay = 7,
    /// As many microseconds as the value says.
    Sleep = 8,
    /// Not for the guest: the machine is reset from outside.
    Reset = 16,
}

impl Kind {
    fn of_in(width: PortWidth) -> Self {
        match width {
            PortWidth::Byte => Self::InByte,
            PortWidth::Word => Self::InWord,
            PortWidth::Long => Self::InLong,
        }
    }

    fn of_out(width: PortWidth) -> Self {
        match width {
            PortWidth::Byte => Self::OutByte,
            PortWidth::Word => Self::OutWord,
            PortWidth::Long => Self::OutLong,
        }
    }

    /// Whether it is one of the things that can be done.
    pub(crate) fn fits(self, can: Abilities) -> bool {
        match self {
            Self::Nothing | Self::InByte | Self::OutByte => true,
            Self::InWord | Self::InLong | Self::OutWord | Self::OutLong => can.words,
            Self::Delay => can.time && can.words,
            Self::Sleep => can.time,
            Self::Reset => can.reset,
        }
    }

    /// Whether a value is read.
    pub(crate) fn reads(self) -> bool {
        matches!(self, Self::InByte | Self::InWord | Self::InLong)
    }
}

/// One access, or what stands in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) port: u16,
    pub(crate) kind: Kind,
    pub(crate) value: u32,
    /// Whether an instruction begins here, and whether it ends here.
    pub(crate) first: bool,
    pub(crate) last: bool,
}

impl Slot {
    /// As it is in memory that the guest shares.
    pub(crate) fn to_bytes(self) -> [u8; 8] {
        let [port_low, port_high] = self.port.to_le_bytes();
        let [a, b, c, d] = self.value.to_le_bytes();
        [port_low, port_high, self.kind as u8, 0, a, b, c, d]
    }
}

/// What can be done by the way that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Abilities {
    /// Accesses of more than a byte.
    pub(crate) words: bool,
    /// Delays of many reads, and sleeping.
    pub(crate) time: bool,
    /// A reset from outside.
    pub(crate) reset: bool,
}

/// What `instruction` is made of: one slot or two. Whether anything of it is done at all.
pub(crate) fn slots_of(instruction: &Instruction, can: Abilities) -> ([Option<Slot>; 2], bool) {
    let slot = |kind, port, value| Slot { port, kind, value, first: true, last: true };
    let one = |kind, port, value| ([Some(slot(kind, port, value)), None], true);
    let nothing = ([Some(slot(Kind::Nothing, 0, 0)), None], false);
    let pci = |address: u32, second: Slot| {
        let first = Slot { last: false, ..slot(Kind::OutLong, 0xcf8, address) };
        ([Some(first), Some(Slot { first: false, ..second })], true)
    };
    match *instruction {
        Instruction::In { width, .. } | Instruction::Out { width, .. }
            if width != PortWidth::Byte && !can.words =>
        {
            nothing
        }
        Instruction::In { port, width } => one(Kind::of_in(width), port, 0),
        Instruction::Out { port, width, value } => one(Kind::of_out(width), port, value & width.max()),
        Instruction::PciRead { function, register, width } if can.words => {
            let port = 0xcfc + u16::from(register & 3);
            pci(function.configuration_address(register), slot(Kind::of_in(width), port, 0))
        }
        Instruction::PciWrite { function, register, width, value } if can.words => {
            let port = 0xcfc + u16::from(register & 3);
            let write = slot(Kind::of_out(width), port, value & width.max());
            pci(function.configuration_address(register), write)
        }
        Instruction::Delay { count } if can.time => match can.words {
            true => one(Kind::Delay, 0x80, count),
            false => one(Kind::Sleep, 0, count),
        },
        Instruction::ClockStep { nanoseconds } if can.time => {
            one(Kind::Sleep, 0, u32::try_from(nanoseconds.div_ceil(1000)).unwrap_or(u32::MAX))
        }
        Instruction::Reset if can.reset => one(Kind::Reset, 0, 0),
        _ => nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruction::PciAddress;

    const ALL: Abilities = Abilities { words: true, time: true, reset: true };

    #[test]
    fn a_configuration_access_is_two_slots_and_one_instruction() {
        let function = PciAddress::new(0, 1, 3).unwrap();
        let read = Instruction::PciRead { function, register: 6, width: PortWidth::Word };
        let ([first, second], done) = slots_of(&read, ALL);
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_eq!((first.kind, first.port, first.value), (Kind::OutLong, 0xcf8, 0x8000_0b04));
        assert_eq!((second.kind, second.port), (Kind::InWord, 0xcfe));
        assert_eq!(
            (first.first, first.last, second.first, second.last, done),
            (true, false, false, true, true)
        );
    }

    #[test]
    fn what_cannot_be_done_is_nothing_and_said_to_be() {
        let word = Instruction::In { port: 1, width: PortWidth::Word };
        let bytes = Abilities { words: false, ..ALL };
        for (instruction, can) in [(&word, bytes), (&Instruction::Burst { count: 2 }, ALL)] {
            let (slots, done) = slots_of(instruction, can);
            assert_eq!((slots[0].unwrap().kind, slots[1], done), (Kind::Nothing, None, false));
        }
        assert_eq!(slots_of(&word, ALL).0[0].unwrap().kind, Kind::InWord);
    }

    #[test]
    fn a_slot_as_the_guest_sees_it() {
        let slot = Slot { port: 0x2ff, kind: Kind::OutByte, value: 0x12, first: true, last: true };
        assert_eq!(slot.to_bytes(), [0xff, 0x02, 4, 0, 0x12, 0, 0, 0]);
    }
}
