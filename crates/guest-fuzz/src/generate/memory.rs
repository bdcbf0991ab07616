//! [`Memory`]: guest RAM for devices to read; and [`value`]: what is written into registers.

use crate::instruction::{Instruction, Width};
use crate::random::Random;

/// How many places in RAM an episode returns to, so that what is laid there and what points there meet.
const PAGES: usize = 4;
const PAGE: u64 = 4096;

/// RAM that may be filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ram {
    pub(super) first: u64,
    /// In bytes, at least 1.
    pub(super) length: u64,
}

/// The RAM of one episode.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    ram: Ram,
    pages: [u64; PAGES],
}

impl Memory {
    /// Chooses the pages of an episode.
    pub(super) fn new(ram: Ram, random: &mut Random) -> Self {
        let mut page = || {
            let address = ram.first.saturating_add(random.below(ram.length));
            (address & !(PAGE - 1)).max(ram.first)
        };
        Self { ram, pages: [page(), page(), page(), page()] }
    }

    /// One of the pages.
    pub(super) fn page(&self, random: &mut Random) -> u64 {
        random.choose(&self.pages).copied().unwrap_or(self.ram.first)
    }

    /// What a driver would put into a descriptor's address.
    pub(super) fn pointer(&self, random: &mut Random) -> u64 {
        let draw = random.next_u64();
        let near = match draw & 7 {
            0..=3 => 0,
            4..=5 => (draw >> 8 & 63) * 16,
            6 => draw >> 8 & (PAGE - 1),
            _ => return self.ram.first.saturating_add(random.below(self.ram.length)),
        };
        self.page(random).saturating_add(near)
    }

    /// Where `bytes` bytes fit, near a page if possible; `None` where RAM is smaller than that.
    pub(super) fn place(&self, bytes: u64, random: &mut Random) -> Option<u64> {
        let pointer = self.pointer(random);
        self.fit(pointer, bytes)
    }

    /// `address`, or the nearest below it from which on `bytes` bytes fit; `None` where RAM is smaller than that.
    pub(super) fn fit(&self, address: u64, bytes: u64) -> Option<u64> {
        let slack = self.ram.length.checked_sub(bytes)?;
        Some(address.min(self.ram.first.saturating_add(slack)).max(self.ram.first))
    }

    /// Something in RAM that may look like a descriptor.
    pub(super) fn fill(&self, random: &mut Random) -> Option<Instruction> {
        let draw = random.next_u64();
        match draw & 15 {
            0..=11 => {
                let width = if draw & 16 == 0 { Width::Long } else { Width::Quad };
                let address = self.place(width.bytes().into(), random)?;
                let value = self.word(random) & width.max();
                Some(Instruction::Write { address, width, value })
            }
            12 => {
                let length = 1u64 << (draw >> 8 & 15);
                let address = self.place(length, random)?;
                let (width, pattern) = (Width::Quad, self.word(random));
                let width = if draw & 16 == 0 { width } else { Width::Byte };
                let (length, pattern) = (length as u32, pattern & width.max());
                Some(Instruction::Fill { address, length, width, pattern })
            }
            _ => {
                let words = 1 + (draw >> 8 & 15);
                let mut bytes = Vec::with_capacity(words as usize * 8);
                (0..words).for_each(|_| bytes.extend_from_slice(&self.word(random).to_le_bytes()));
                let address = self.place(words * 8, random)?;
                Some(Instruction::WriteBlock { address, bytes: bytes.into() })
            }
        }
    }

    /// Eight bytes of a descriptor: a pointer, a length with flags, or anything.
    fn word(&self, random: &mut Random) -> u64 {
        let draw = random.next_u64();
        match draw & 7 {
            0..=2 => self.pointer(random),
            // Two fields: a pointer and a short length with a flag, either first.
            3 => self.pointer(random) << 32 | draw >> 8 & 0x8000_0fff,
            4 => self.pointer(random) & 0xffff_ffff | (draw >> 8 & 0xffff_0fff) << 32,
            5 => draw >> 8 & 0xffff,
            6 => value(random, None, 0),
            _ => draw,
        }
    }
}

/// What may be written into a register that nothing is known of; `last` is what was written before.
#[inline]
pub(super) fn value(random: &mut Random, memory: Option<&Memory>, last: u64) -> u64 {
    let draw = random.next_u64();
    let bit = 1u64 << (draw >> 8 & 31);
    match draw & 31 {
        0..=9 => draw >> 16 ^ draw << 40,
        10..=12 => 0,
        13..=14 => u64::MAX,
        15..=17 => bit,
        18 => bit.wrapping_sub(1),
        19 => !bit,
        20..=22 => draw >> 16 & 15,
        23..=24 => last ^ bit,
        25..=26 => last,
        27 => (draw >> 16 & 0xff).wrapping_mul(0x0101_0101_0101_0101),
        28 => draw >> 16 & 0xffff,
        _ => memory.map_or(draw >> 16, |memory| memory.pointer(random)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_is_in_ram_however_little_there_is() {
        let mut random = Random::new(1);
        for (first, length) in
            [(0x10_0000, 0x10_0000), (0x1234_5678_9000, 100), (7, 1), (u64::MAX, 1), (0, u64::MAX)]
        {
            let last = first + (length - 1);
            let memory = Memory::new(Ram { first, length }, &mut random);
            for _ in 0..1000 {
                assert!((first..=last).contains(&memory.page(&mut random)));
                let (address, bytes) = match memory.fill(&mut random) {
                    Some(Instruction::Write { address, width, .. }) => (address, u64::from(width.bytes())),
                    Some(Instruction::Fill { address, length, .. }) => (address, u64::from(length)),
                    Some(Instruction::WriteBlock { address, bytes }) => (address, bytes.len() as u64),
                    other => {
                        assert!(other.is_none() && length < 1 << 15, "{other:?}");
                        continue;
                    }
                };
                assert!(address >= first && address.checked_add(bytes - 1).unwrap() <= last);
            }
        }
    }

    #[test]
    fn pointers_meet_what_is_laid_out() {
        let mut random = Random::new(2);
        let memory = Memory::new(Ram { first: 0x10_0000, length: 0x100_0000 }, &mut random);
        let hits = (0..1000).filter(|_| memory.pointer(&mut random) == memory.pages[0]).count();
        assert!(hits > 50, "{hits}");
    }
}
