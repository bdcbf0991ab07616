//! Gives addresses to base address registers, and windows to bridges.

use super::bar::Bar;
use super::{Found, Windows};
use crate::region::{Region, Space};

/// Gives an address to each register that has none, in the order of the functions. What does not fit has none, still.
pub(super) fn place(found: &mut [Found], windows: &Windows, notes: &mut Vec<String>) {
    let kept = found.iter().flat_map(|function| function.bars.iter());
    let kept = kept.filter_map(|bar| Region::new(bar.space, bar.address?, bar.address? + (bar.size - 1), ""));
    let used: Vec<Region> = windows.used.iter().cloned().chain(kept).collect();
    let cursor = |space, (first, last)| Cursor { next: first, last, used: occupied(space, &used) };
    let mut placer = Placer {
        ports: cursor(Space::Port, windows.ports),
        memory: cursor(Space::Memory, windows.memory),
        high_memory: cursor(Space::Memory, windows.high_memory),
        notes,
    };
    placer.functions(found, Behind::Nothing);
}

/// What a function is behind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Behind {
    Nothing,
    /// A bridge whose windows are made to fit.
    NewBridge,
    /// A bridge whose windows were there before: nothing more goes in.
    OldBridge,
}

struct Placer<'p> {
    ports: Cursor,
    memory: Cursor,
    high_memory: Cursor,
    notes: &'p mut Vec<String>,
}

impl Placer<'_> {
    fn functions(&mut self, functions: &mut [Found], behind: Behind) {
        let mut rest = functions;
        while let Some((function, others)) = rest.split_first_mut() {
            let address = function.address;
            for bar in function.bars.iter_mut().filter(|bar| bar.address.is_none()) {
                bar.address = self.address(bar, behind);
                if bar.address.is_none() {
                    let size = bar.size;
                    self.notes.push(format!("{address}: no room for BAR {} of {size:#x} bytes", bar.index()));
                }
            }
            let Some(bridge) = &mut function.bridge else {
                rest = others;
                continue;
            };
            let (inside, outside) = others.split_at_mut(bridge.behind.min(others.len()));
            if bridge.is_new && behind != Behind::OldBridge {
                let [passing_ports, passing_memory] = self.behind_bridge(inside);
                let [ports, memory, ..] = &mut bridge.windows;
                *ports = passing_ports.map_or(*ports, |(first, last)| first >> 8 & 0xf0 | last & 0xf000);
                *memory =
                    passing_memory.map_or(*memory, |(first, last)| first >> 16 & 0xfff0 | last & 0xfff0_0000);
            } else {
                self.functions(inside, Behind::OldBridge);
            }
            rest = outside;
        }
    }

    /// Places what is behind a bridge: the ports and the memory that have to pass, as far as there are any.
    fn behind_bridge(&mut self, inside: &mut [Found]) -> [Option<(u32, u32)>; 2] {
        // What passes through a bridge begins and ends at multiples of these.
        let starts = (self.ports.open(0x1000), self.memory.open(0x10_0000));
        self.functions(inside, Behind::NewBridge);
        [self.ports.close(starts.0, 0x1000), self.memory.close(starts.1, 0x10_0000)]
    }

    fn address(&mut self, bar: &Bar, behind: Behind) -> Option<u64> {
        match (bar.space, behind) {
            (_, Behind::OldBridge) => None,
            (Space::Port, _) => self.ports.take(bar.size),
            (Space::Memory, Behind::Nothing) if bar.is_64_bit => {
                self.memory.take(bar.size).or_else(|| self.high_memory.take(bar.size))
            }
            (Space::Memory, _) => self.memory.take(bar.size),
        }
    }
}

/// Hands out addresses, upwards.
struct Cursor {
    next: u64,
    last: u64,
    /// What is taken already, in order and without overlaps.
    used: Vec<(u64, u64)>,
}

impl Cursor {
    /// The next `size` addresses that are free, at a multiple of `size`, which is a power of two.
    fn take(&mut self, size: u64) -> Option<u64> {
        let mut at = self.next.checked_next_multiple_of(size)?;
        for &(first, last) in self.used.iter().skip_while(|&&(_, last)| last < self.next) {
            if at.checked_add(size)? <= first {
                break;
            }
            if at <= last {
                at = last.checked_add(1)?.checked_next_multiple_of(size)?;
            }
        }
        let end = at.checked_add(size)?;
        (end - 1 <= self.last).then(|| {
            self.next = end;
            at
        })
    }

    /// Begins a window of a bridge: where it was before, and where it is now.
    fn open(&mut self, granularity: u64) -> (u64, u64) {
        let before = self.next;
        self.next = before.checked_next_multiple_of(granularity).unwrap_or(u64::MAX);
        (before, self.next)
    }

    /// Ends it: its first and last address, or `None` where nothing was taken since.
    fn close(&mut self, (before, start): (u64, u64), granularity: u64) -> Option<(u32, u32)> {
        if self.next == start {
            self.next = before;
            return None;
        }
        self.next = self.next.checked_next_multiple_of(granularity)?;
        Some((start as u32, (self.next - 1) as u32))
    }
}

/// The addresses of `regions` in `space`, in order and without overlaps.
fn occupied(space: Space, regions: &[Region]) -> Vec<(u64, u64)> {
    let here = regions.iter().filter(|region| region.space == space);
    let mut ranges: Vec<(u64, u64)> = here.map(|region| (region.first, region.last)).collect();
    ranges.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if first <= before.1 => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_aligned_and_around_what_is_used() {
        let used = vec![(0xc008, 0xc008), (0xc100, 0xc1ff), (0xffff, 0xffff)];
        let mut cursor = Cursor { next: 0xc000, last: 0xffff, used };
        let taken: Vec<_> = [8, 16, 256, 4, 0x1000].iter().map(|&size| cursor.take(size)).collect();
        assert_eq!(taken, [0xc000, 0xc010, 0xc200, 0xc300, 0xd000].map(Some));
        assert_eq!(cursor.take(0x2000), None);
        // 0x2000 ports at 0xe000 would have the last one, which is used.
        assert_eq!(cursor.take(4), Some(0xe000));
    }

    #[test]
    fn the_end_of_all_addresses_is_no_trouble() {
        let mut cursor = Cursor { next: u64::MAX - 3, last: u64::MAX, used: vec![(u64::MAX, u64::MAX)] };
        assert_eq!(cursor.take(4), None);
        assert_eq!(cursor.take(1 << 40), None);
        assert_eq!(cursor.take(1), Some(u64::MAX - 3));
    }

    #[test]
    fn what_is_used_is_merged() {
        let region = |first, last| Region::new(Space::Port, first, last, "").unwrap();
        let used = occupied(Space::Port, &[region(5, 9), region(0, 6), region(20, 21), region(5, 5)]);
        assert_eq!(used, [(0, 9), (20, 21)]);
    }
}
