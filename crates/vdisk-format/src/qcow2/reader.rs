//! [`Reader`]: small tables, read and not mapped.

use crate::view::View;

/// Tables of clusters this large are read, for mapping them costs more. In bytes.
const SMALL: u64 = 64 << 10;
/// So many tables may turn out to be empty before holes are looked for first: many of them are no healthy image's.
const MOST_EMPTY: usize = 1 << 10;
/// So much is read at a time where tables are near one another. In bytes.
const WINDOW: u64 = 64 << 10;

/// What is this close to the table before is near it: what lies between is read in vain, and may be a guest's data.
const NEAR: u64 = 4 << 10;

/// Reads tables. Those that are near one another come in one piece.
#[derive(Debug, Default)]
pub(in crate::qcow2) struct Reader {
    /// L2 tables that were read for nothing.
    empty: usize,
    buffer: Vec<u8>,
    /// Where in the file the buffer's first byte is.
    start: u64,
    /// Where the table before ended.
    last: u64,
}

impl Reader {
    /// The L2 table at `at`, of `length` bytes; `None` where it is better mapped, for it is large, or may well be a hole.
    pub(in crate::qcow2) fn l2_table(&mut self, view: &View<'_>, at: u64, length: u64) -> Option<&[u8]> {
        (length <= SMALL && self.empty < MOST_EMPTY).then(|| self.read(view, at, length))
    }

    /// Notes whether an L2 table has an entry.
    pub(in crate::qcow2) fn note(&mut self, is_used: bool) {
        self.empty += usize::from(!is_used);
    }

    /// The refcount block at `at`, of `length` bytes; `None` where it is better mapped.
    pub(in crate::qcow2) fn refcount_block(
        &mut self,
        view: &View<'_>,
        at: u64,
        length: u64,
    ) -> Option<&[u8]> {
        (length <= SMALL).then(|| self.read(view, at, length))
    }

    /// The `length` bytes at `at`. What the file does not have reads as zeroes.
    fn read(&mut self, view: &View<'_>, at: u64, length: u64) -> &[u8] {
        let is_near = at >= self.last && at - self.last < NEAR;
        self.last = at.saturating_add(length);
        let there = at.checked_sub(self.start).filter(|&from| from + length <= self.buffer.len() as u64);
        let from = there.unwrap_or_else(|| {
            let wanted = if is_near { length.max(WINDOW) } else { length };
            self.buffer.resize(usize::try_from(wanted).unwrap_or(0), 0);
            let read = view.read(at, &mut self.buffer).len();
            if let Some(rest) = self.buffer.get_mut(read..) {
                rest.fill(0);
            }
            self.start = at;
            0
        });
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.buffer.get(from..from.saturating_add(length)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Between them may be all of a guest's data.
    #[test]
    fn of_tables_that_are_apart_nothing_else_is_read() {
        let bytes = vec![1; 1 << 20];
        let view = View::from(&bytes);
        let mut reader = Reader::default();
        for (at, read) in
            [(8 << 10, 512), ((8 << 10) + 512, 65536), (512 << 10, 512), ((512 << 10) + NEAR + 512, 512)]
        {
            reader.read(&view, at, 512);
            assert_eq!((reader.start, reader.buffer.len()), (at, read));
        }
        // What was read already.
        reader.read(&view, (8 << 10) + 512, 512);
        reader.read(&view, 9 << 10, 512);
        reader.read(&view, (9 << 10) + 512, 512);
        assert_eq!((reader.start, reader.buffer.len()), (9 << 10, 65536));
    }

    proptest! {
        #[test]
        fn reads_what_is_there(
            places in proptest::collection::vec((0..300_000u64, 1..9000u64), 1..30),
            sorted: bool,
        ) {
            let bytes: Vec<u8> = (0..250_001u32).map(|n| (n % 251) as u8).collect();
            let view = View::from(&bytes);
            let mut reader = Reader::default();
            let mut places = places;
            if sorted {
                places.sort_unstable();
            }
            for (at, length) in places {
                let mut expected: Vec<u8> = bytes.iter().skip(at as usize).take(length as usize).copied().collect();
                expected.resize(length as usize, 0);
                prop_assert_eq!(reader.read(&view, at, length), expected);
            }
        }
    }
}
