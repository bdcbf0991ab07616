//! [`Input`]: choices drawn from a fuzzer's bytes.

/// Bytes as a stream of choices. When they run out, every choice is 0, so that each input means something.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next `length` bytes, or as many as there are.
    pub(crate) fn take(&mut self, length: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(length.min(self.0.len()));
        self.0 = tail;
        head
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 != 0
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.take(8).iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
    }

    /// A number below `end`, which must be at most 65536; 0 where `end` is 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let number = self.take(if end <= 256 { 1 } else { 2 });
        let number = number.iter().fold(0, |number, &byte| number << 8 | usize::from(byte));
        number.checked_rem(end).unwrap_or(0)
    }

    /// One of `choices`.
    pub(crate) fn one_of<T: Copy + Default>(&mut self, choices: &[T]) -> T {
        choices.get(self.below(choices.len())).copied().unwrap_or_default()
    }

    /// A number of the kind at which arithmetic breaks, or any.
    pub(crate) fn value(&mut self) -> u64 {
        match self.below(8) {
            0 => self.number(),
            1 => u64::MAX - self.below(256) as u64,
            2 => u64::from(u32::MAX) - self.below(256) as u64,
            3 => 1u64.checked_shl(self.below(64) as u32).unwrap_or(0).wrapping_sub(self.below(2) as u64),
            4 => 512 * self.below(64) as u64,
            5 => 8 * self.below(256) as u64,
            _ => self.below(256) as u64,
        }
    }
}
