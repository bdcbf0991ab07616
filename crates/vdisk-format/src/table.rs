//! Tables of 64-bit entries, of either order of bytes, and the runs in them. Nothing is copied.

use crate::view::{SECTOR, View};

/// Bytes of a piece: what is read of a table before pages are given back.
const AT_MOST: u64 = 1 << 20;

/// An entry's value: qcow2's entries have the highest byte first, QED's the lowest.
#[inline]
const fn decode<const BIG: bool>(entry: [u8; 8]) -> u64 {
    if BIG { u64::from_be_bytes(entry) } else { u64::from_le_bytes(entry) }
}

/// How many of `entries` are `value`, `value + step`, `value + 2 * step`, …
///
/// Sixteen at a time, without a branch between them: this is where a check of an image in order spends its time.
#[inline]
pub(crate) fn follow<const BIG: bool>(entries: &[[u8; 8]], mut value: u64, step: u64) -> usize {
    if entries.first().is_none_or(|&entry| decode::<BIG>(entry) != value) {
        return 0; // as a rule where clusters are in no order
    }
    const AT_ONCE: usize = 16;
    let (chunks, _) = entries.as_chunks::<AT_ONCE>();
    let mut count = 0;
    for chunk in chunks {
        let mut differ = 0;
        let mut expected = value;
        for entry in chunk {
            differ |= decode::<BIG>(*entry) ^ expected;
            expected = expected.wrapping_add(step);
        }
        if differ != 0 {
            break;
        }
        value = expected;
        count += AT_ONCE;
    }
    let rest = entries.get(count..).unwrap_or_default();
    let more = rest.iter().take_while(|&&entry| {
        let follows = decode::<BIG>(entry) == value;
        value = value.wrapping_add(step);
        follows
    });
    count + more.count()
}

/// Entries that follow one another: all 0, all 1, or each a cluster further than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Index of the first entry in its table.
    pub index: u64,
    /// Entries.
    pub count: u64,
    /// Value of the first entry.
    pub value: u64,
}

/// The entries of a table of a [`View`] that are no hole, piece by piece.
#[derive(Debug)]
pub(crate) struct Pieces<'v, 'a> {
    view: &'v View<'a>,
    start: u64,
    end: u64,
    /// Numbers an entry: two in qcow2's extended L2 tables.
    words: u64,
    /// Index of the next entry.
    index: u64,
}

impl<'v, 'a> Pieces<'v, 'a> {
    /// The `entries` entries of `words` numbers each, one or two, at offset `at`, as far as the file has them: its last
    /// sector is whole, as QEMU reads it.
    pub(crate) fn new(view: &'v View<'a>, at: u64, entries: u64, words: u64) -> Self {
        let size = words * 8;
        let there = view.length().next_multiple_of(SECTOR).saturating_sub(at) / size;
        let end = at.saturating_add(entries.min(there) * size);
        Self { view, start: at, end, words, index: 0 }
    }

    /// Entries that are in the file.
    pub(crate) fn entries(&self) -> u64 {
        (self.end - self.start) / (self.words * 8)
    }

    fn at(&self, index: u64) -> u64 {
        self.start + index * self.words * 8
    }
}

impl<'v> Iterator for Pieces<'v, '_> {
    /// Index of the first entry, and the numbers of the entries, all of each. Whatever is between two pieces is 0.
    type Item = (u64, &'v [[u8; 8]]);

    fn next(&mut self) -> Option<Self::Item> {
        // The piece before is done with, and this one is no longer than what may be resident.
        self.view.was_read();
        let data = self.view.next_data(self.at(self.index)..self.end)?;
        let data = data.start..data.end.min(data.start + AT_MOST);
        // Entries are whole, whatever the pieces of the file are.
        let size = self.words * 8;
        let first = (data.start - self.start) / size;
        let behind = (data.end - self.start).div_ceil(size);
        let at = self.at(first);
        let there = self.view.length().saturating_sub(at) / size;
        let mut entries = self.view.clipped(at, (behind - first).min(there) * size).as_chunks().0;
        if entries.is_empty() {
            entries = self.view.cut_entry(at, self.words);
        }
        self.view.reads(data);
        // One that the end of the file cuts short comes by itself.
        self.index = first + entries.len() as u64 / self.words;
        (!entries.is_empty()).then_some((first, entries))
    }
}

/// The runs of a table of a [`View`], in order, holes skipped. A run may go on in the next one.
#[derive(Debug)]
pub struct Runs<'v, 'a> {
    pieces: Pieces<'v, 'a>,
    /// Index of the next entry.
    index: u64,
    /// What is left of the piece that comes next, and the index of its first entry.
    piece: (u64, &'v [[u8; 8]]),
    cluster_bits: u32,
}

impl<'v, 'a> Runs<'v, 'a> {
    pub(crate) fn new(pieces: Pieces<'v, 'a>, cluster_bits: u32) -> Self {
        Self { pieces, index: 0, piece: (0, &[]), cluster_bits }
    }

    /// The entries that follow the last run in the same piece of the file.
    pub(crate) fn rest(&self) -> &'v [[u8; 8]] {
        self.piece.1
    }

    /// Leaves out the next `count` entries.
    pub(crate) fn skip_entries(&mut self, count: u64) {
        self.index += count;
        let rest = usize::try_from(count).ok().and_then(|count| self.piece.1.get(count..));
        self.piece = (self.index, rest.unwrap_or_default());
    }

    fn hole(&mut self, end: u64) -> Option<Run> {
        let hole = Run {
            index: self.index,
            count: end.checked_sub(self.index).filter(|&count| count > 0)?,
            value: 0,
        };
        self.index = end;
        Some(hole)
    }
}

impl Iterator for Runs<'_, '_> {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        if self.piece.1.is_empty() {
            let Some(piece) = self.pieces.next() else {
                return self.hole(self.pieces.entries());
            };
            self.piece = piece;
        }
        if let Some(hole) = self.hole(self.piece.0) {
            return Some(hole);
        }
        let (first, rest) = self.piece.1.split_first()?;
        let value = u64::from_le_bytes(*first);
        let step = if value < 2 { 0 } else { 1 << self.cluster_bits };
        // A run ends where the next value is no u64: it would be taken for another kind of entry.
        let more = match value.checked_add(step) {
            Some(next) if step == 0 || next < 1 << 63 => follow::<false>(rest, next, step),
            _ => 0,
        };
        let run = Run { index: self.index, count: 1 + more as u64, value };
        self.skip_entries(run.count);
        Some(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(entries: &[u64]) -> Vec<u8> {
        entries.iter().flat_map(|entry| entry.to_le_bytes()).collect()
    }

    fn runs(entries: &[u64]) -> Vec<(u64, u64, u64)> {
        let bytes = bytes(entries);
        let view = View::from(&bytes);
        let runs = Runs::new(Pieces::new(&view, 0, entries.len() as u64, 1), 12);
        runs.map(|run| (run.index, run.count, run.value)).collect()
    }

    #[test]
    fn runs_are_of_one_kind() {
        assert_eq!(
            runs(&[0, 0, 1, 1, 0x1000, 0x2000, 0x2001, 0x3001, 0]),
            [(0, 2, 0), (2, 2, 1), (4, 2, 0x1000), (6, 2, 0x2001), (8, 1, 0)]
        );
    }

    #[test]
    fn no_run_goes_around_the_end_of_the_numbers() {
        let last = u64::MAX - 0xfff;
        assert_eq!(runs(&[last, 0]), [(0, 1, last), (1, 1, 0)]);
        assert_eq!(runs(&[last + 1, 1]), [(0, 1, last + 1), (1, 1, 1)]);
        assert_eq!(runs(&[last - 0x1000, last, 0]), [(0, 1, last - 0x1000), (1, 1, last), (2, 1, 0)]);
    }

    proptest! {
        #[test]
        fn runs_are_the_table(
            pieces in proptest::collection::vec((prop_oneof![Just(0), Just(1), 2..9u64, any::<u64>()], 1..40u64), 0..20)
        ) {
            let entries: Vec<u64> = pieces
                .iter()
                .flat_map(|&(value, count)| {
                    (0..count).map(move |i| if value < 2 { value } else { value.wrapping_add(i << 12) })
                })
                .collect();
            let mut back = Vec::new();
            for (index, count, value) in runs(&entries) {
                prop_assert_eq!(index, back.len() as u64);
                prop_assert!(count > 0);
                back.extend((0..count).map(|i| if value < 2 { value } else { value + (i << 12) }));
            }
            prop_assert_eq!(back, entries);
        }
    }
}
