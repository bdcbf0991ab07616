//! Runs of L2 entries: entries that follow one another, each a cluster further than the one before, or all the same.

use crate::qcow2::geometry::{Geometry, OFFSET_MASK};
use crate::qcow2::l2::L2Entry;
use crate::table::{Pieces, follow};
use crate::units::HostOffset;
use crate::view::View;

/// L2 entries that follow one another in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct L2Run {
    /// Index of the first entry in its table.
    pub index: u64,
    /// Entries, at least 1.
    pub count: u64,
    /// The first entry. All have the same bits, but for the offset.
    pub first: L2Entry,
    /// How much further in the file each is than the one before: the cluster size, or 0 for entries that are all equal.
    pub step: u64,
}

impl L2Run {
    /// Entry `i` of the run, from 0.
    #[inline]
    #[must_use]
    pub const fn entry(&self, i: u64) -> L2Entry {
        L2Entry { raw: self.first.raw.wrapping_add(i.wrapping_mul(self.step)), bitmap: self.first.bitmap }
    }

    /// The run's entries, with their indices.
    pub fn entries(self) -> impl ExactSizeIterator<Item = (u64, L2Entry)> {
        // A table has no more than 2^18 entries.
        (0..usize::try_from(self.count).unwrap_or(usize::MAX))
            .map(move |i| (self.index + i as u64, self.entry(i as u64)))
    }
}

/// The runs of an L2 table, in order, from its first entry to the last one that the file has. A run may go on in the next
/// one. Holes of the file are runs of zeroes that nobody read.
#[derive(Debug)]
pub struct L2Runs<'v, 'a> {
    pieces: Pieces<'v, 'a>,
    /// Index of the next entry.
    index: u64,
    /// What is left of the piece that comes next, and the index of its first entry.
    piece: (u64, &'v [[u8; 8]]),
    extended: bool,
    cluster_size: u64,
}

impl<'v, 'a> L2Runs<'v, 'a> {
    pub(crate) fn new(view: &'v View<'a>, geometry: &Geometry, table: HostOffset) -> Self {
        let words = geometry.l2_entry_size() / 8;
        Self {
            pieces: Pieces::new(view, table.0, geometry.l2_entries(), words),
            index: 0,
            piece: (0, &[]),
            extended: geometry.extended_l2(),
            cluster_size: geometry.cluster_size(),
        }
    }

    /// How far each entry is from the one before, in a run that begins with this one.
    #[inline]
    fn step(&self, raw: u64) -> u64 {
        let offset = raw & OFFSET_MASK;
        // No run leaves the bits of an offset: a table's span has 39 bits at most.
        let moves = raw & L2Entry::COMPRESSED == 0 && offset != 0 && offset < 1 << 54;
        if moves { self.cluster_size } else { 0 }
    }

    fn hole(&mut self, end: u64) -> Option<L2Run> {
        let count = end.checked_sub(self.index).filter(|&count| count > 0)?;
        let hole = L2Run { index: self.index, count, first: L2Entry::new(0), step: 0 };
        self.index = end;
        Some(hole)
    }

    /// The first entry of the piece, and how many follow it.
    #[inline]
    fn standard(&self) -> Option<(L2Entry, u64)> {
        let (first, rest) = self.piece.1.split_first()?;
        let raw = u64::from_be_bytes(*first);
        let step = self.step(raw);
        Some((L2Entry::new(raw), 1 + follow::<true>(rest, raw.wrapping_add(step), step) as u64))
    }

    #[inline]
    fn pairs(&self) -> Option<(L2Entry, u64)> {
        let (first, rest) = self.piece.1.as_chunks::<2>().0.split_first()?;
        let decode = |&[raw, bitmap]: &[[u8; 8]; 2]| (u64::from_be_bytes(raw), u64::from_be_bytes(bitmap));
        let (raw, bitmap) = decode(first);
        let step = self.step(raw);
        let mut expected = raw;
        let more = rest.iter().take_while(|pair| {
            expected = expected.wrapping_add(step);
            decode(pair) == (expected, bitmap)
        });
        Some((L2Entry::extended(raw, bitmap), 1 + more.count() as u64))
    }
}

impl Iterator for L2Runs<'_, '_> {
    type Item = L2Run;

    fn next(&mut self) -> Option<L2Run> {
        if self.piece.1.is_empty() {
            let Some(piece) = self.pieces.next() else { return self.hole(self.pieces.entries()) };
            self.piece = piece;
        }
        if let Some(hole) = self.hole(self.piece.0) {
            return Some(hole);
        }
        let (first, count) = if self.extended { self.pairs() } else { self.standard() }?;
        let run = L2Run { index: self.index, count, first, step: self.step(first.raw) };
        self.index += count;
        let words = if self.extended { 2 * count } else { count };
        let rest = usize::try_from(words).ok().and_then(|words| self.piece.1.get(words..));
        self.piece = (self.index, rest.unwrap_or_default());
        Some(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qcow2::header::Header;
    use proptest::prelude::*;

    fn geometry(extended: bool) -> Geometry {
        let mut bytes = vec![0; 104];
        (bytes[7], bytes[23]) = (3, 9);
        bytes[79] = u8::from(extended) << 4;
        Geometry::new(&Header::parse(&bytes).unwrap(), 0).unwrap()
    }

    fn runs(words: &[u64], extended: bool) -> Vec<L2Run> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        L2Runs::new(&View::from(&bytes), &geometry(extended), HostOffset(0)).collect()
    }

    #[test]
    fn runs_are_of_one_kind() {
        let copied = L2Entry::COPIED;
        let compressed = L2Entry::COMPRESSED | 0x400;
        let words = [0, 0, 1, 1, copied | 0x400, copied | 0x600, 0x800, 0xa01, compressed, compressed];
        let found: Vec<_> =
            runs(&words, false).iter().map(|run| (run.index, run.count, run.first.raw)).collect();
        assert_eq!(
            found,
            [
                (0, 2, 0),
                (2, 2, 1),
                (4, 2, copied | 0x400),
                (6, 1, 0x800),
                (7, 1, 0xa01),
                (8, 2, compressed),
                (10, 54, 0) // up to the end of the sector
            ]
        );
        // Subclusters that differ end a run.
        let found: Vec<_> = runs(&[0x400, 7, 0x600, 7, 0x800, 8], true).iter().map(|run| run.count).collect();
        assert_eq!(found, [2, 1, 29]);
    }

    #[test]
    fn no_run_leaves_the_bits_of_an_offset() {
        let last = OFFSET_MASK;
        let entry = |raw| (1, raw);
        let found: Vec<_> =
            runs(&[last, last + 0x200], false).iter().map(|run| (run.count, run.first.raw)).collect();
        assert_eq!(found[..2], [entry(last), entry(last + 0x200)]);
    }

    proptest! {
        #[test]
        fn runs_are_the_table(
            parts in proptest::collection::vec(
                (prop_oneof![Just(0), Just(1), Just(0x400u64), any::<u64>()], 0..3u64, 1..9u64),
                0..9,
            ),
            extended: bool,
            cut in 0..16usize,
        ) {
            let words = parts.iter().flat_map(|&(value, bitmap, count)| {
                (0..count).flat_map(move |i| {
                    let raw = value.wrapping_add(i << 9);
                    if extended { vec![raw, bitmap] } else { vec![raw] }
                })
            });
            let mut bytes: Vec<u8> = words.flat_map(u64::to_be_bytes).collect();
            bytes.truncate(bytes.len().saturating_sub(cut));
            let view = View::from(&bytes);
            let mut back = Vec::new();
            for run in L2Runs::new(&view, &geometry(extended), HostOffset(0)) {
                prop_assert!(run.count > 0);
                for (index, entry) in run.entries() {
                    let at = back.len() as u64;
                    prop_assert_eq!(index * if extended { 16 } else { 8 }, at);
                    back.extend(entry.raw.to_be_bytes());
                    if extended {
                        back.extend(entry.bitmap.0.to_be_bytes());
                    }
                }
            }
            // The rest of the last sector reads as zeroes.
            bytes.resize(bytes.len().next_multiple_of(512).min(512), 0);
            prop_assert_eq!(back, bytes);
        }
    }
}
