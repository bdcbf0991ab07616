//! Refcounts: entries of the refcount table, and refcount blocks of every width. Specification: "Host cluster
//! management".

use crate::bytes::exactly;
use crate::qcow2::geometry::{Geometry, MAX_REFCOUNT_ORDER};
use crate::table::{Pieces, follow};
use crate::units::HostOffset;
use crate::view::{SECTOR, View};

/// One entry of the refcount table. Any bits are an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(transparent))]
pub struct RefcountTableEntry(pub u64);

impl RefcountTableEntry {
    /// Bits 0 to 8, which must be 0.
    pub const RESERVED: u64 = 0x1ff;

    /// Offset of the refcount block, which must be a multiple of the cluster size; 0: there is none, and all its refcounts
    /// are 0.
    #[inline]
    #[must_use]
    pub const fn block(self) -> HostOffset {
        HostOffset(self.0 & !Self::RESERVED)
    }

    /// The reserved bits that are set.
    #[inline]
    #[must_use]
    pub const fn reserved(self) -> u64 {
        self.0 & Self::RESERVED
    }
}

/// How refcounts of one width stand in eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Width {
    order: u32,
    /// The number all of whose refcounts are 1.
    ones: u64,
}

impl Width {
    /// `None` above order 6: no refcount has more than 64 bits.
    const fn new(order: u32) -> Option<Self> {
        if order > MAX_REFCOUNT_ORDER {
            return None;
        }
        let mask = u64::MAX >> (64 - (1 << order));
        Some(Self { order, ones: u64::MAX / mask })
    }

    /// Refcounts in eight bytes.
    const fn per_word(self) -> u64 {
        64 >> self.order
    }

    /// The refcount at `index` of a big-endian number, counted from the first byte on, and in a byte from the least
    /// significant bit on; and how many from there on are equal to it.
    #[inline]
    const fn run(self, word: u64, index: u64) -> (u64, u64) {
        // Below 64, as every index is taken within its number.
        let bit = ((index % self.per_word()) as u32) << self.order;
        let unused = 64 - (1 << self.order);
        let (refcount, same) = if self.order < 3 {
            // With the bytes turned around, every refcount is above the one before it.
            let word = word.swap_bytes() >> bit;
            let refcount = word << unused >> unused;
            (refcount, (word ^ self.repeated(refcount)).trailing_zeros())
        } else {
            let word = word << bit;
            let refcount = word >> unused;
            (refcount, (word ^ self.repeated(refcount)).leading_zeros())
        };
        // The bits that were shifted in are no refcounts.
        let left = 64 - bit;
        (refcount, (if same < left { same } else { left } >> self.order) as u64)
    }

    /// The number all of whose refcounts are `count`.
    #[inline]
    const fn repeated(self, count: u64) -> u64 {
        count.wrapping_mul(self.ones)
    }
}

/// Refcounts of neighbouring clusters that are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefcountRun {
    /// Index of the first of them in its block.
    pub index: u64,
    /// How many, at least 1.
    pub count: u64,
    /// The refcount of each.
    pub refcount: u64,
}

/// A refcount block of an image: one cluster of refcounts, as far as the file has it.
///
/// ```
/// use vdisk_format::{View, qcow2::RefcountBlock};
/// let bytes = [0, 1, 0, 1, 0, 7, 0xff, 0xff]; // 16 bits each
/// let view = View::from(bytes.as_slice());
/// let block = RefcountBlock::new(&view, 0.into(), 4, 8).unwrap();
/// assert_eq!((block.count_at(2), block.count_at(4)), (Some(7), None));
/// let runs: Vec<_> = block.runs().map(|run| (run.count, run.refcount)).collect();
/// assert_eq!(runs, [(2, 1), (1, 7), (1, 65535)]);
/// assert!(RefcountBlock::new(&view, 0.into(), 7, 8).is_none()); // refcounts of 128 bits
/// ```
#[derive(Debug, Clone, Copy)]
pub struct RefcountBlock<'v, 'a> {
    view: &'v View<'a>,
    offset: HostOffset,
    width: Width,
    bytes: u64,
}

impl<'v, 'a> RefcountBlock<'v, 'a> {
    /// The block of `bytes` bytes, a multiple of 8, at `offset`, with refcounts of `1 << order` bits; `None` for orders
    /// above 6, which no image has.
    #[must_use]
    pub fn new(view: &'v View<'a>, offset: HostOffset, order: u32, bytes: u64) -> Option<Self> {
        Some(Self { view, offset, width: Width::new(order)?, bytes })
    }

    /// The block at `offset` of an image; `None` where its header has a wrong order.
    #[must_use]
    pub fn of(view: &'v View<'a>, geometry: &Geometry, offset: HostOffset) -> Option<Self> {
        Self::new(view, offset, geometry.refcount_order()?, geometry.cluster_size())
    }

    /// Refcounts that the block has room for.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.bytes / 8 * self.width.per_word()
    }

    /// Refcount `index`; `None` where the block or the file ends before it.
    #[must_use]
    pub fn count_at(&self, index: u64) -> Option<u64> {
        let word = index / self.width.per_word();
        if word >= self.bytes / 8 {
            return None;
        }
        let word = number_at(self.view, self.offset.0.checked_add(word * 8)?)?;
        Some(self.width.run(word, index).0)
    }

    /// The refcounts in order, equal neighbours together, to the end of the block or of the file. Holes of the file are
    /// zeroes that nobody read.
    #[must_use]
    pub fn runs(&self) -> RefcountRuns<'v, 'a> {
        RefcountRuns {
            pieces: Pieces::new(self.view, self.offset.0, self.bytes / 8, 1),
            words: &[],
            // The first piece may begin behind a hole.
            piece_at: 0,
            index: 0,
            width: self.width,
            waiting: None,
        }
    }
}

/// The big-endian number at an offset; as for QEMU, zeroes follow the end of the file to the end of its sector. `None`
/// behind that.
pub(crate) fn number_at(view: &View<'_>, at: u64) -> Option<u64> {
    let end = view.length().next_multiple_of(SECTOR);
    let whole = at.checked_add(8).is_some_and(|behind| behind <= end);
    // A hole is not touched: some file systems would fill it.
    let Some(data) = view.next_data(at..at.saturating_add(8)) else { return whole.then_some(0) };
    view.reads(data);
    let bytes = exactly(view.bytes(), at, 8, "number").ok().and_then(<[u8]>::first_chunk);
    let number = bytes.or_else(|| view.cut_entry(at, 1).first())?;
    Some(u64::from_be_bytes(*number))
}

/// The runs of a refcount block.
#[derive(Debug)]
pub struct RefcountRuns<'v, 'a> {
    pieces: Pieces<'v, 'a>,
    /// What is left of the piece that comes next.
    words: &'v [[u8; 8]],
    /// Index of its first number.
    piece_at: u64,
    /// Index of the next refcount.
    index: u64,
    width: Width,
    /// A run that the next one may continue.
    waiting: Option<RefcountRun>,
}

impl RefcountRuns<'_, '_> {
    /// The next refcounts that are equal, or a part of them: whole numbers, or the rest of one.
    fn part(&mut self) -> Option<RefcountRun> {
        let per_word = self.width.per_word();
        if self.words.is_empty() {
            (self.piece_at, self.words) = self.pieces.next().unwrap_or((self.pieces.entries(), &[]));
        }
        let hole = (self.piece_at * per_word).saturating_sub(self.index);
        let first = self.words.first().map(|word| u64::from_be_bytes(*word));
        let (count, refcount) = match first {
            _ if hole > 0 => (hole, 0),
            None => return None,
            Some(word) => {
                let (refcount, count) = self.width.run(word, self.index);
                if count == per_word {
                    let words = follow::<true>(self.words, word, 0);
                    self.skip(words);
                    (words as u64 * per_word, refcount)
                } else {
                    if (self.index + count).is_multiple_of(per_word) {
                        self.skip(1);
                    }
                    (count, refcount)
                }
            }
        };
        let run = RefcountRun { index: self.index, count, refcount };
        self.index += count;
        Some(run)
    }

    fn skip(&mut self, words: usize) {
        self.words = self.words.get(words..).unwrap_or_default();
        self.piece_at += words as u64;
    }
}

impl Iterator for RefcountRuns<'_, '_> {
    type Item = RefcountRun;

    fn next(&mut self) -> Option<RefcountRun> {
        loop {
            let Some(part) = self.part() else { return self.waiting.take() };
            match &mut self.waiting {
                Some(run) if run.refcount == part.refcount => run.count += part.count,
                waiting => {
                    if let Some(run) = waiting.replace(part) {
                        return Some(run);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Writes refcounts as the specification describes them, bit by bit.
    fn write(counts: &[u64], order: u32) -> Vec<u8> {
        let bits = 1usize << order;
        let mut bytes = vec![0u8; (counts.len() * bits).div_ceil(8).next_multiple_of(8)];
        for (index, count) in counts.iter().enumerate() {
            if bits >= 8 {
                let width = bits / 8;
                bytes[index * width..][..width].copy_from_slice(&count.to_be_bytes()[8 - width..]);
            } else {
                bytes[index * bits / 8] |= (*count as u8) << (index * bits % 8);
            }
        }
        bytes
    }

    #[test]
    fn table_entries_have_offsets_of_55_bits() {
        let entry = RefcountTableEntry(u64::MAX);
        assert_eq!((entry.block().0, entry.reserved()), (u64::MAX - 0x1ff, 0x1ff));
    }

    #[test]
    fn below_8_bits_the_least_significant_come_first() {
        let bytes = [0b1000_0001, 0, 0, 0, 0, 0, 0, 0b10];
        let view = View::from(bytes.as_slice());
        let block = RefcountBlock::new(&view, HostOffset(0), 0, 8).unwrap();
        let set: Vec<_> = (0..64).filter(|&index| block.count_at(index) == Some(1)).collect();
        assert_eq!(set, [0, 7, 57]);
        assert_eq!((block.entries(), block.count_at(64)), (64, None));
    }

    #[test]
    fn what_the_file_does_not_have_is_no_refcount() {
        let bytes = [[0, 1]; 511].concat();
        let view = View::from(&bytes);
        let block = RefcountBlock::new(&view, HostOffset(0), 4, 4096).unwrap();
        // The last sector is whole.
        assert_eq!((block.count_at(511), block.count_at(512)), (Some(0), None));
        let runs: Vec<_> = block.runs().map(|run| (run.index, run.count, run.refcount)).collect();
        assert_eq!(runs, [(0, 511, 1), (511, 1, 0)]);
        let nowhere = RefcountBlock::new(&view, HostOffset(u64::MAX - 8), 4, 4096).unwrap();
        assert_eq!((nowhere.count_at(9), nowhere.runs().next()), (None, None));
    }

    #[test]
    fn no_refcount_has_more_than_64_bits() {
        let bytes = [1; 8];
        let view = View::from(bytes.as_slice());
        let of = |order| RefcountBlock::new(&view, HostOffset(0), order, 8).map(|block| block.entries());
        assert_eq!([of(5), of(6), of(7), of(u32::MAX)], [Some(2), Some(1), None, None]);
    }

    proptest! {
        #[test]
        fn every_width_reads_back(
            order in 0..=6u32,
            parts in proptest::collection::vec((prop_oneof![Just(0u64), Just(1), any::<u64>()], 1..200usize), 0..12),
        ) {
            let mask = u64::MAX >> (64 - (1 << order));
            let mut counts: Vec<u64> =
                parts.iter().flat_map(|&(value, count)| vec![value & mask; count]).collect();
            let bytes = write(&counts, order);
            let view = View::from(&bytes);
            let block = RefcountBlock::new(&view, HostOffset(0), order, bytes.len() as u64).unwrap();
            counts.resize(usize::try_from(block.entries()).unwrap(), 0);
            for (index, count) in counts.iter().enumerate() {
                prop_assert_eq!(block.count_at(index as u64), Some(*count));
            }
            let mut back = Vec::new();
            let mut last = None;
            for run in block.runs() {
                prop_assert_eq!(run.index, back.len() as u64);
                prop_assert!(run.count > 0 && last != Some(run.refcount));
                last = Some(run.refcount);
                back.extend((0..run.count).map(|_| run.refcount));
            }
            prop_assert_eq!(back, counts);
        }
    }
}
