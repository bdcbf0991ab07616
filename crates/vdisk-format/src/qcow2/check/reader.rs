//! [`Reader`]: small tables, read and not mapped.

use crate::view::View;

/// So much is read at a time where tables are near one another. In bytes.
const WINDOW: u64 = 64 << 10;

/// Reads tables. Those that are near one another come in one piece.
#[derive(Debug, Default)]
pub(super) struct Reader {
    buffer: Vec<u8>,
    /// Where in the file the buffer's first byte is.
    start: u64,
    /// Where the table before ended.
    last: u64,
}

impl Reader {
    /// The `length` bytes at `at`. What the file does not have reads as zeroes.
    pub(super) fn read(&mut self, view: &View<'_>, at: u64, length: u64) -> &[u8] {
        let is_near = at >= self.last && at - self.last < WINDOW;
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
