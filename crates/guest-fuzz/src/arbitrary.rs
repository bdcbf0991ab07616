//! Instructions and programs out of a fuzzer's bytes: `arbitrary::Arbitrary`. All of them are valid.

use arbitrary::{Arbitrary, Result, Unstructured};

use crate::instruction::{
    Instruction, MAX_BLOCK, MAX_BURST, MAX_CLOCK_STEP, MAX_DELAY, MAX_FILL, MAX_STRING, PciAddress,
    PortWidth, Width,
};
use crate::program::Program;

impl<'a> Arbitrary<'a> for PortWidth {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        u.choose(&Self::ALL).copied()
    }

    fn size_hint(_depth: usize) -> (usize, Option<usize>) {
        (1, Some(1))
    }
}

impl<'a> Arbitrary<'a> for Width {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        u.choose(&Self::ALL).copied()
    }

    fn size_hint(_depth: usize) -> (usize, Option<usize>) {
        (1, Some(1))
    }
}

impl<'a> Arbitrary<'a> for Instruction {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match u.int_in_range(0..=13u8)? {
            0 => Self::In { port: u.arbitrary()?, width: u.arbitrary()? },
            1 => {
                let width: PortWidth = u.arbitrary()?;
                Self::Out { port: u.arbitrary()?, width, value: u.int_in_range(0..=width.max())? }
            }
            2 => Self::InString {
                port: u.arbitrary()?,
                width: u.arbitrary()?,
                address: u.arbitrary()?,
                count: u.int_in_range(0..=MAX_STRING)?,
            },
            3 => Self::OutString {
                port: u.arbitrary()?,
                width: u.arbitrary()?,
                address: u.arbitrary()?,
                count: u.int_in_range(0..=MAX_STRING)?,
            },
            4 => Self::Read { address: u.arbitrary()?, width: u.arbitrary()? },
            5 => {
                let width: Width = u.arbitrary()?;
                Self::Write { address: u.arbitrary()?, width, value: u.int_in_range(0..=width.max())? }
            }
            6 => {
                let mut bytes: Vec<u8> = u.arbitrary()?;
                bytes.truncate(MAX_BLOCK);
                Self::WriteBlock { address: u.arbitrary()?, bytes: bytes.into() }
            }
            7 => {
                let width: Width = u.arbitrary()?;
                Self::Fill {
                    address: u.arbitrary()?,
                    length: u.int_in_range(0..=MAX_FILL)?,
                    width,
                    pattern: u.int_in_range(0..=width.max())?,
                }
            }
            8 => Self::PciRead {
                function: PciAddress(u.arbitrary()?),
                register: u.arbitrary()?,
                width: u.arbitrary()?,
            },
            9 => {
                let width: PortWidth = u.arbitrary()?;
                Self::PciWrite {
                    function: PciAddress(u.arbitrary()?),
                    register: u.arbitrary()?,
                    width,
                    value: u.int_in_range(0..=width.max())?,
                }
            }
            10 => Self::Delay { count: u.int_in_range(0..=MAX_DELAY)? },
            11 => Self::ClockStep { nanoseconds: u.int_in_range(0..=MAX_CLOCK_STEP)? },
            12 => Self::Burst { count: u.int_in_range(0..=MAX_BURST)? },
            _ => Self::Reset,
        })
    }

    fn size_hint(_depth: usize) -> (usize, Option<usize>) {
        (1, None)
    }
}

impl<'a> Arbitrary<'a> for Program {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        u.arbitrary_iter()?.collect()
    }

    fn arbitrary_take_rest(u: Unstructured<'a>) -> Result<Self> {
        u.arbitrary_take_rest_iter()?.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn what_it_makes_is_valid_and_of_every_kind() {
        let mut random = Random::new(1);
        let bytes: Vec<u8> = (0..1 << 16).map(|_| random.next_u64() as u8).collect();
        let mut first_words = std::collections::BTreeSet::new();
        for chunk in bytes.chunks(256) {
            let program = Program::arbitrary_take_rest(Unstructured::new(chunk)).unwrap();
            assert_eq!(Program::parse(&program.to_string(), "test").unwrap(), program);
            assert_eq!(Program::from_bytes(&program.to_bytes()).unwrap(), program);
            let words =
                program.instructions.iter().map(|i| i.to_string().split(' ').next().unwrap().to_owned());
            first_words.extend(words);
        }
        // 6 of ports and PCI in 3 widths, 3 of memory in 4, and 6 without a width; fillb is one of these: memset.
        assert_eq!(first_words.len(), 6 * 3 + 3 * 4 + 6 - 1, "{first_words:?}");
    }

    #[test]
    fn no_bytes_are_an_empty_program() {
        assert_eq!(Program::arbitrary(&mut Unstructured::new(&[])).unwrap(), Program::default());
    }
}
