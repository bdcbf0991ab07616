//! [`Classic`]: the original's algorithm, range by range: read every port, write 0 to every port, then random bytes to
//! random ports.

use std::sync::Arc;

use super::places::Area;
use crate::instruction::{Instruction, PortWidth};
use crate::random::Random;

/// The instructions of `classic`, made one by one.
#[derive(Clone, Debug)]
pub(super) struct Classic {
    areas: Arc<[Area]>,
    fuzz_count: u32,
    random: Random,
    area: usize,
    /// How many instructions of the area are done.
    done: u64,
}

impl Classic {
    pub(super) fn new(areas: Arc<[Area]>, fuzz_count: u32, random: Random) -> Self {
        Self { areas, fuzz_count, random, area: 0, done: 0 }
    }

    /// How many instructions there are.
    pub(super) fn count(areas: &[Area], fuzz_count: u32) -> u64 {
        let ports: u64 = areas.iter().map(Area::length).sum();
        ports.saturating_mul(u64::from(fuzz_count) + 2)
    }
}

impl Iterator for Classic {
    type Item = Instruction;

    fn next(&mut self) -> Option<Instruction> {
        let area = *self.areas.get(self.area)?;
        let (length, width) = (area.length(), PortWidth::Byte);
        let port = |offset| (area.first + offset) as u16;
        let instruction = match self.done / length {
            0 => Instruction::In { port: port(self.done), width },
            1 => Instruction::Out { port: port(self.done - length), width, value: 0 },
            _ => {
                // The port is drawn first, as in the original.
                let port = port(self.random.below(length));
                Instruction::Out { port, width, value: self.random.below(256) as u32 }
            }
        };
        self.done += 1;
        if self.done == length * (u64::from(self.fuzz_count) + 2) {
            (self.area, self.done) = (self.area + 1, 0);
        }
        Some(instruction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{Generator, samples};
    use crate::region::Space;

    /// The original's three loops, as they are written there.
    fn plain(ranges: &[(u16, u16)], fuzz_count: u64, mut random: Random) -> Vec<Instruction> {
        let width = PortWidth::Byte;
        let mut program = Vec::new();
        for &(begin, end) in ranges {
            for port in begin..=end {
                program.push(Instruction::In { port, width });
            }
            for port in begin..=end {
                program.push(Instruction::Out { port, width, value: 0 });
            }
            for _ in 0..fuzz_count * u64::from(end - begin + 1) {
                let port = begin + random.below(u64::from(end - begin) + 1) as u16;
                program.push(Instruction::Out { port, width, value: random.below(256) as u32 });
            }
        }
        program
    }

    #[test]
    fn it_is_the_originals_algorithm() {
        let mut map = samples::map(&[(Space::Port, 0x60, 0x60), (Space::Port, 0x3f8, 0x3ff)]);
        map.regions.push(samples::region(Space::Memory, 0, 100));
        map.regions.push(samples::region(Space::Port, 0xffff, 0xffff));
        for fuzz_count in [0, 1, 10] {
            let made: Vec<_> = Generator::Classic { fuzz_count }.episode(&map, 5, 0).collect();
            let ranges = [(0x60, 0x60), (0x3f8, 0x3ff), (0xffff, 0xffff)];
            assert_eq!(made, plain(&ranges, fuzz_count.into(), Random::part(5, 0)));
        }
    }

    #[test]
    fn all_ports_are_786_432_instructions() {
        let map = samples::map(&[(Space::Port, 0, 0xffff)]);
        let prepared = Generator::Classic { fuzz_count: 10 }.prepare(&map);
        assert_eq!(prepared.length(), 786_432);
        let mut seen = [0u32; 0x1_0000];
        let mut count = 0;
        for instruction in prepared.episode(1, 0) {
            count += 1;
            if let Instruction::Out { port, .. } = instruction {
                seen[usize::from(port)] += 1;
            }
        }
        assert_eq!(count, 786_432);
        // One zero each, and ten random values on average.
        assert!(seen.iter().all(|&writes| writes >= 1) && seen.iter().any(|&writes| writes > 15));
    }

    #[test]
    fn what_is_skipped_parts_a_range() {
        let mut map = samples::map(&[(Space::Port, 0x60, 0x67)]);
        map.skipped.push(samples::skipped(Space::Port, 0x64, 0x64));
        let made: Vec<_> = Generator::Classic { fuzz_count: 3 }.episode(&map, 5, 0).collect();
        let (_, rest) = ((), &made[5 * 4..]);
        assert_eq!(made, plain(&[(0x60, 0x63), (0x65, 0x67)], 3, Random::part(5, 0)));
        assert_eq!(rest.len(), 5 * 3);
    }
}
