//! [`Fixed`]: bytes of the copy that are decided before any table is copied: fields, and what stands in for names.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Structure;

/// What a name's bytes are replaced by: the first that a check takes for what was there, where it reads them as a table.
pub(super) const FILLERS: [u8; 5] = [b'x', b'0', b'~', b'@', 0];

/// Eight bytes of the copy.
#[derive(Debug, Clone, Copy)]
pub(super) struct FixedWord {
    pub(super) bytes: [u8; 8],
    /// A bit for each byte that is decided, the first one's the lowest.
    pub(super) exact: u8,
    /// A bit for each byte that may be any but what it was.
    pub(super) filler: u8,
    /// A bit for each byte of a name: nothing of it may stay, whatever else it is taken for.
    pub(super) name: u8,
    structure: Structure,
}

impl FixedWord {
    /// The bytes that are decided, and those of `other` where none is.
    pub(super) fn exactly_over(&self, other: [u8; 8]) -> [u8; 8] {
        Self { filler: 0, ..*self }.over(other, 0)
    }

    /// Whether a byte that may be any but what it was is that in `new`.
    pub(super) fn tells(&self, old: [u8; 8], new: [u8; 8]) -> bool {
        let mut bytes = old.into_iter().zip(new).enumerate();
        bytes.any(|(index, (old, new))| self.filler >> index & 1 != 0 && old == new && old != 0)
    }

    /// The word, with `filler` for the bytes that may be any, and those of `other` where nothing is decided.
    pub(super) fn over(&self, other: [u8; 8], filler: u8) -> [u8; 8] {
        let mut word = other;
        for (index, (byte, fixed)) in word.iter_mut().zip(self.bytes).enumerate() {
            if self.exact >> index & 1 != 0 {
                *byte = fixed;
            } else if self.filler >> index & 1 != 0 {
                *byte = filler;
            }
        }
        word
    }
}

/// Which bits of a number are decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decided {
    /// Those that are not.
    pub(super) free: u64,
    /// What the others are.
    pub(super) bits: u64,
}

impl Decided {
    /// A number, with the bits that are decided.
    pub(super) fn over(self, number: u64) -> u64 {
        number & self.free | self.bits
    }
}

/// Bytes by their places. What is decided once stays so.
#[derive(Debug, Default)]
pub(super) struct Fixed {
    words: BTreeMap<u64, FixedWord>,
    barred: Vec<Range<u64>>,
}

impl Fixed {
    /// Has no name replaced in a range: there it would mean something.
    pub(super) fn bar(&mut self, start: u64, end: u64) {
        self.barred.push(start..end);
    }

    pub(super) fn put(&mut self, at: u64, bytes: &[u8], structure: Structure) {
        for (at, &byte) in (at..).zip(bytes) {
            self.byte(at, Some(byte), structure);
        }
    }

    /// Decides the bytes of a name that others stand in for.
    pub(super) fn put_stand_in(&mut self, at: u64, bytes: &[u8], structure: Structure) {
        self.put(at, bytes, structure);
        (at..).zip(bytes).for_each(|(at, _)| self.note_name(at));
    }

    fn note_name(&mut self, at: u64) {
        if let Some(word) = self.words.get_mut(&(at / 8)) {
            word.name |= 1 << (at % 8);
        }
    }

    /// Decides the last bytes of a name that others stand in for, unless they would mean something there.
    pub(super) fn end_with(&mut self, at: u64, ending: &[u8], structure: Structure) {
        let end = at + ending.len() as u64;
        if !self.barred.iter().any(|barred| barred.start < end && at < barred.end) {
            self.put_stand_in(at, ending, structure);
        }
    }

    /// Has `length` bytes replaced by whatever is not what they were.
    pub(super) fn fill(&mut self, at: u64, length: u64, structure: Structure) {
        for at in at..at.saturating_add(length) {
            if !self.barred.iter().any(|barred| barred.contains(&at)) {
                self.byte(at, None, structure);
                self.note_name(at);
            }
        }
    }

    fn byte(&mut self, at: u64, value: Option<u8>, structure: Structure) {
        let bit = 1u8 << (at % 8);
        let word = self.words.entry(at / 8).or_insert(FixedWord {
            bytes: [0; 8],
            exact: 0,
            filler: 0,
            name: 0,
            structure,
        });
        if (word.exact | word.filler) & bit != 0 {
            return;
        }
        match value {
            None => word.filler |= bit,
            Some(value) => {
                word.exact |= bit;
                if let Some(byte) = word.bytes.get_mut((at % 8) as usize) {
                    *byte = value;
                }
            }
        }
    }

    /// Whether anything is decided in a range of words.
    pub(super) fn intersects(&self, words: Range<u64>) -> bool {
        self.words.range(words).next().is_some()
    }

    /// Where the words are in which anything is decided.
    pub(super) fn words(&self) -> impl Iterator<Item = u64> + '_ {
        self.words.keys().map(|word| word * 8)
    }

    pub(super) fn word(&self, at: u64) -> Option<&FixedWord> {
        self.words.get(&(at / 8))
    }

    /// Which bytes of the eight at `at`, which need not be a multiple of 8, are decided. Those that may be any are the first
    /// filler, as a rule.
    pub(super) fn decided(&self, at: u64) -> Decided {
        let (mut free, mut bits) = ([u8::MAX; 8], [0; 8]);
        for ((at, free), bits) in (at..).zip(&mut free).zip(&mut bits) {
            let index = (at % 8) as usize;
            let Some(word) = self.word(at) else { continue };
            if (word.exact | word.filler) >> index & 1 != 0 {
                let bytes = word.over([0; 8], FILLERS[0]);
                (*free, *bits) = (0, bytes.get(index).copied().unwrap_or(0));
            }
        }
        Decided { free: u64::from_be_bytes(free), bits: u64::from_be_bytes(bits) }
    }

    /// Settles the bytes of a word that may be any.
    pub(super) fn settle(&mut self, at: u64, bytes: [u8; 8]) {
        if let Some(word) = self.words.get_mut(&(at / 8)) {
            word.bytes = bytes;
            word.exact |= word.filler;
            word.filler = 0;
        }
    }

    /// All that is decided, in order: ranges of one structure.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (u64, Vec<u8>, Structure)> + '_ {
        let mut bytes = self
            .words
            .iter()
            .flat_map(|(&index, word)| {
                let bytes = word.over([0; 8], FILLERS[0]);
                (0..8u64).zip(bytes).filter_map(move |(i, byte)| {
                    let is_decided = (word.exact | word.filler) >> i & 1 != 0;
                    is_decided.then_some((index * 8 + i, byte, word.structure))
                })
            })
            .peekable();
        std::iter::from_fn(move || {
            let (start, first, structure) = bytes.next()?;
            let mut range = vec![first];
            while let Some((_, byte, _)) =
                bytes.next_if(|&(at, _, of)| at == start + range.len() as u64 && of == structure)
            {
                range.push(byte);
            }
            Some((start, range, structure))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_decided_stays_so() {
        let mut fixed = Fixed::default();
        fixed.put(6, b"abc", Structure::Header);
        fixed.fill(8, 3, Structure::BackingName);
        fixed.put(9, b"no", Structure::Header);
        let ranges: Vec<_> = fixed.ranges().collect();
        // A word has one owner: who came first.
        assert_eq!(ranges, [(6, b"abcxx".to_vec(), Structure::Header)]);
        assert_eq!(fixed.word(8).unwrap().over(*b"--------", b'y'), *b"cyy-----");
        fixed.settle(8, *b"c00-----");
        assert_eq!(fixed.ranges().next().unwrap().1, b"abc00");
        assert!(fixed.intersects(0..1) && !fixed.intersects(2..9));
        let decided = fixed.decided(5);
        assert_eq!(decided.over(0).to_be_bytes(), *b"\0abc00\0\0");
        assert_eq!(decided.over(u64::MAX), decided.over(0) | 0xff00_0000_0000_ffff);
    }
}
