//! [`Plan`]: a change to a file as byte-range writes, each with the bytes it expects, the bytes it puts there, and why.

mod commit;
mod text;

pub use commit::{Commit, Fingerprint};
pub(crate) use text::digest;

use std::collections::BTreeMap;

use crate::bytes::clipped;
use crate::error::{Error, Reason, Result};
use crate::units::HostOffset;

/// One write of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Where it starts.
    pub offset: HostOffset,
    /// The bytes there now. Shorter than `new` only where the write makes the file grow.
    pub old: Vec<u8>,
    /// The bytes it puts there. Shorter than `old` only where the plan makes the file shrink.
    pub new: Vec<u8>,
    /// What it is for, in one line.
    pub why: String,
}

impl Write {
    fn end(&self) -> u64 {
        self.offset.0.saturating_add(self.old.len().max(self.new.len()) as u64)
    }
}

/// How an image compares with a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Every range holds its old bytes: the plan can be committed.
    Before,
    /// Every byte is the old or the new one, and some are new: a commit was interrupted.
    Between,
    /// Every range holds its new bytes.
    After,
}

/// An ordered list of byte-range writes, made for an image of one length.
///
/// Writes never overlap. They are carried out in order, so that a plan's author decides what a crash between two of
/// them leaves behind.
///
/// ```
/// use vdisk_format::Plan;
/// let image = b"hello, disk".to_vec();
/// let mut plan = Plan::new(&image);
/// plan.set(&image, 0, b"HELLO", "shout".to_owned())?;
/// let mut changed = image.clone();
/// plan.apply_to(&mut changed);
/// assert_eq!(changed, b"HELLO, disk");
/// plan.inverse().apply_to(&mut changed);
/// assert_eq!(changed, image);
/// # Ok::<(), vdisk_format::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    length: u64,
    new_length: u64,
    writes: Vec<Write>,
    /// End by start of every range written, to find overlaps.
    ranges: BTreeMap<u64, u64>,
}

impl Plan {
    /// A plan for `image` that changes nothing yet.
    #[must_use]
    pub fn new(image: &[u8]) -> Self {
        let length = image.len() as u64;
        Self::with_lengths(length, length)
    }

    fn with_lengths(length: u64, new_length: u64) -> Self {
        Self { length, new_length, writes: Vec::new(), ranges: BTreeMap::new() }
    }

    /// Adds the write of `new` at `offset` of `image`; nothing is added where nothing changes. A write past the end of
    /// the file makes it grow.
    ///
    /// The whole range is written and, before that, compared: a field of which one byte changes is stale as soon as any
    /// of its bytes did.
    ///
    /// # Errors
    /// [`Reason::BadPlan`] where the write overlaps an earlier one, or `image` is not the plan's.
    pub fn set(&mut self, image: &[u8], offset: u64, new: &[u8], why: String) -> Result<()> {
        let bad = |expected: &str, found: String| {
            Err(Error::refused(Reason::BadPlan, why.as_str(), Some(HostOffset(offset)), expected, found))
        };
        if image.len() as u64 != self.length {
            return bad("the image that the plan was made for", format!("{} bytes", image.len()));
        }
        if offset.checked_add(new.len() as u64).is_none_or(|end| end > i64::MAX as u64) {
            return bad("a place inside a file", format!("{} bytes", new.len()));
        }
        let old = clipped(image, offset, new.len() as u64);
        if old == new {
            return Ok(());
        }
        let write = Write { offset: HostOffset(offset), old: old.to_vec(), new: new.to_vec(), why };
        let new_length = self.new_length.max(write.end());
        self.push(write)?;
        self.new_length = new_length;
        Ok(())
    }

    fn push(&mut self, write: Write) -> Result<()> {
        let (start, end) = (write.offset.0, write.end());
        let before = self.ranges.range(..end).next_back().filter(|&(_, &other_end)| other_end > start);
        let found = match before {
            Some((other, other_end)) => format!("another write of {other:#x} to {other_end:#x}"),
            None if start == end => "no byte at all".to_owned(),
            None => {
                self.ranges.insert(start, end);
                self.writes.push(write);
                return Ok(());
            }
        };
        let expected = "a range that no other write of the plan touches";
        Err(Error::refused(Reason::BadPlan, write.why, Some(write.offset), expected, found))
    }

    /// The length in bytes of the file that the plan was made for.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The length in bytes that the file has afterwards.
    #[must_use]
    pub fn new_length(&self) -> u64 {
        self.new_length
    }

    /// The writes, in the order in which they are carried out.
    #[must_use]
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// The ranges that are written, in order of their offsets.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = std::ops::Range<u64>> {
        self.ranges.iter().map(|(&start, &end)| start..end)
    }

    /// Whether the plan changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.length == self.new_length
    }

    /// The plan that takes this one back: the writes in reverse order, old and new bytes exchanged.
    #[must_use]
    pub fn inverse(&self) -> Self {
        let invert = |write: &Write| Write {
            offset: write.offset,
            old: write.new.clone(),
            new: write.old.clone(),
            why: format!("undo: {}", write.why.trim_start_matches("undo: ")),
        };
        Self {
            length: self.new_length,
            new_length: self.length,
            writes: self.writes.iter().rev().map(invert).collect(),
            ranges: self.ranges.clone(),
        }
    }

    /// Carries the plan out on bytes in memory, whatever they hold.
    pub fn apply_to(&self, bytes: &mut Vec<u8>) {
        bytes.resize(usize::try_from(self.new_length.max(self.length)).unwrap_or(bytes.len()), 0);
        for write in &self.writes {
            let start = usize::try_from(write.offset.0).unwrap_or(usize::MAX);
            if let Some(range) = bytes.get_mut(start..).and_then(|tail| tail.get_mut(..write.new.len())) {
                range.copy_from_slice(&write.new);
            }
        }
        bytes.truncate(usize::try_from(self.new_length).unwrap_or(bytes.len()));
    }

    /// Compares an image, read through `read(offset, length)`, with the plan.
    ///
    /// # Errors
    /// [`Reason::Stale`], naming the first byte that is neither the old nor the new one.
    fn state(&self, length: u64, mut read: impl FnMut(u64, u64) -> Result<Vec<u8>>) -> Result<State> {
        let (shortest, longest) = (self.length.min(self.new_length), self.length.max(self.new_length));
        if length < shortest || length > longest {
            let expected = format!("{} bytes", self.length);
            let found = format!("{length} bytes");
            return Err(Error::refused(Reason::Stale, "length of the file", None, expected, found));
        }
        let (mut before, mut after) = (length == self.length, length == self.new_length);
        for write in &self.writes {
            let now = read(write.offset.0, write.end() - write.offset.0)?;
            before &= now == write.old;
            after &= now == write.new;
            for (index, byte) in now.iter().enumerate() {
                let (old, new) = (write.old.get(index), write.new.get(index));
                // Between the old and the new length there may be a hole: the file grew, the bytes are yet to come.
                let hole = *byte == 0 && (old.is_none() || new.is_none());
                if Some(byte) != old && Some(byte) != new && !hole {
                    return Err(stale(write, index, *byte));
                }
            }
        }
        // What changes nothing is committed before it starts.
        Ok(if before && !self.is_empty() {
            State::Before
        } else if after {
            State::After
        } else {
            State::Between
        })
    }

    /// What is left of the plan on an image where its commit was interrupted: the writes not done or done in part,
    /// their old bytes those that are there.
    ///
    /// # Errors
    /// [`Reason::Stale`] where a write is done, or done in part, although an earlier one is not: this is no interruption.
    fn rest(&self, length: u64, mut read: impl FnMut(u64, u64) -> Result<Vec<u8>>) -> Result<Self> {
        let mut rest = Self::with_lengths(length, self.new_length);
        for write in &self.writes {
            let now = read(write.offset.0, write.end() - write.offset.0)?;
            if now == write.new && rest.writes.is_empty() {
                continue;
            }
            let done = now.iter().zip(&write.new).take_while(|(now, new)| now == new).count();
            let torn = rest.writes.is_empty() && now.get(done..) == write.old.get(done..now.len().max(done));
            if now != write.old && !torn {
                return Err(stale(write, done, now.get(done).copied().unwrap_or(0)));
            }
            rest.push(Write { old: now, ..write.clone() })?;
        }
        Ok(rest)
    }

    /// Compares an image in memory with the plan.
    ///
    /// # Errors
    /// [`Reason::Stale`], naming the first byte that is neither the old nor the new one, or a length that is neither.
    pub fn state_of(&self, image: &[u8]) -> Result<State> {
        self.state(image.len() as u64, |at, length| Ok(clipped(image, at, length).to_vec()))
    }
}

fn stale(write: &Write, index: usize, found: u8) -> Error {
    let byte =
        |bytes: &[u8]| bytes.get(index).map_or("end of file".to_owned(), |byte| format!("{byte:#04x}"));
    Error::refused(
        Reason::Stale,
        format!("stale plan: {}", write.why),
        Some(HostOffset(write.offset.0 + index as u64)),
        format!("{} (or already {})", byte(&write.old), byte(&write.new)),
        format!("{found:#04x}"),
    )
}

#[cfg(feature = "serde")]
impl serde::Serialize for Write {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use crate::bytes::Hex;
        use serde::ser::SerializeStruct;
        let mut out = serializer.serialize_struct("Write", 4)?;
        out.serialize_field("offset", &self.offset)?;
        out.serialize_field("old", &Hex(&self.old))?;
        out.serialize_field("new", &Hex(&self.new))?;
        out.serialize_field("why", &self.why)?;
        out.end()
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Plan {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut out = serializer.serialize_struct("Plan", 3)?;
        out.serialize_field("length", &self.length)?;
        out.serialize_field("new_length", &self.new_length)?;
        out.serialize_field("writes", &self.writes)?;
        out.end()
    }
}

/// Plans as property tests draw them: an image, and writes at random places of it and a little beyond.
#[cfg(test)]
pub(crate) fn any_plan() -> impl proptest::strategy::Strategy<Value = (Vec<u8>, Plan)> {
    use proptest::prelude::*;
    let write = (0..300u64, proptest::collection::vec(any::<u8>(), 0..40));
    (proptest::collection::vec(any::<u8>(), 0..256), proptest::collection::vec(write, 0..6)).prop_map(
        |(image, writes)| {
            let mut plan = Plan::new(&image);
            for (index, (at, new)) in writes.into_iter().enumerate() {
                // Overlaps are refused, which is as good as not drawing them.
                let _ = plan.set(&image, at, &new, format!("write {index}"));
            }
            (image, plan)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn overlapping_writes_are_refused() {
        let image = vec![0; 64];
        let mut plan = Plan::new(&image);
        plan.set(&image, 8, &[1; 8], "first".to_owned()).unwrap();
        let error = plan.set(&image, 15, &[2; 4], "second".to_owned()).unwrap_err();
        assert_eq!(error.reason(), Some(Reason::BadPlan));
        plan.set(&image, 16, &[2; 4], "beside".to_owned()).unwrap();
        assert_eq!(plan.writes().len(), 2);
    }

    #[test]
    fn a_field_is_stale_when_any_of_its_bytes_changed() {
        let image = 0x1_0000u64.to_be_bytes().to_vec();
        let mut plan = Plan::new(&image);
        plan.set(&image, 0, &image, "nothing".to_owned()).unwrap();
        assert!(plan.is_empty());
        plan.set(&image, 0, &0x2_0000u64.to_be_bytes(), "size".to_owned()).unwrap();
        let error = plan.state_of(&0x111_0000u64.to_be_bytes()).unwrap_err();
        assert_eq!(error.reason(), Some(Reason::Stale));
    }

    #[test]
    fn a_byte_that_is_neither_old_nor_new_is_named() {
        let image = vec![0; 16];
        let mut plan = Plan::new(&image);
        plan.set(&image, 4, &[1, 1], "ones".to_owned()).unwrap();
        let mut other = image.clone();
        other[5] = 7;
        let error = plan.state_of(&other).unwrap_err();
        assert_eq!(
            error.to_string(),
            "stale plan: ones at offset 0x5: expected 0x00 (or already 0x01), found 0x07"
        );
    }

    proptest! {
        #[test]
        fn the_inverse_takes_a_plan_back((image, plan) in any_plan()) {
            let mut bytes = image.clone();
            plan.apply_to(&mut bytes);
            prop_assert_eq!(bytes.len() as u64, plan.new_length());
            prop_assert_eq!(plan.state_of(&bytes).unwrap(), State::After);
            plan.inverse().apply_to(&mut bytes);
            prop_assert_eq!(&bytes, &image);
            if !plan.is_empty() {
                prop_assert_eq!(plan.state_of(&bytes).unwrap(), State::Before);
            }
        }
    }
}
