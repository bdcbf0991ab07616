//! Checked slicing of an image by `u64` ranges: the only way this crate reaches into a file.

use crate::error::{Error, Result};
use crate::units::HostOffset;

/// The part of `at .. at + len` that lies inside `bytes`; empty where none does.
///
/// ```
/// use vdisk_format::bytes::clipped;
/// assert_eq!(clipped(b"abcdef", 4, 100), b"ef");
/// assert_eq!(clipped(b"abcdef", u64::MAX, u64::MAX), b"");
/// ```
#[must_use]
pub fn clipped(bytes: &[u8], at: u64, len: u64) -> &[u8] {
    let end = usize::try_from(at.saturating_add(len)).map_or(bytes.len(), |end| end.min(bytes.len()));
    let start = usize::try_from(at).map_or(end, |start| start.min(end));
    bytes.get(start..end).unwrap_or_default()
}

/// A text as C reads it: up to its first zero; `None` where nothing is left.
pub(crate) fn up_to_zero(text: &[u8]) -> Option<&[u8]> {
    text.split(|&byte| byte == 0).next().filter(|text| !text.is_empty())
}

/// Exactly `at .. at + len`.
///
/// # Errors
/// [`Error::Truncated`], naming `what`, where a part of the range lies outside `bytes`.
pub fn exactly<'a>(bytes: &'a [u8], at: u64, len: u64, what: &'static str) -> Result<&'a [u8]> {
    let slice = clipped(bytes, at, len);
    let have = slice.len() as u64;
    if have == len {
        return Ok(slice);
    }
    Err(Error::Truncated { what, at: HostOffset(at), need: len, have })
}

/// `n` rounded up to a multiple of 8, the alignment of header extensions and bitmap directory entries.
#[must_use]
pub fn round_up_8(n: u64) -> u64 {
    n.saturating_add(7) & !7
}

/// Lower-case hexadecimal, two digits a byte.
pub struct Hex<'a>(pub &'a [u8]);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or_default();
        for chunk in self.0.chunks(64) {
            let text: String = chunk.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
            f.write_str(&text)?;
        }
        Ok(())
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Hex<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The bytes that `text` spells in hexadecimal; `None` for anything else.
#[must_use]
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let nibble = |c: u8| char::from(c).to_digit(16).and_then(|n| u8::try_from(n).ok());
    pairs.iter().map(|&[high, low]| Some(nibble(high)? << 4 | nibble(low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn exactly_names_what_is_missing() {
        let error = exactly(b"abc", 2, 4, "thing").unwrap_err();
        assert_eq!(error.to_string(), "thing at offset 0x2: needs 4 bytes, the file has 1 there");
    }

    proptest! {
        #[test]
        fn hex_round_trips(bytes: Vec<u8>) {
            prop_assert_eq!(from_hex(&Hex(&bytes).to_string()), Some(bytes));
        }

        #[test]
        fn clipped_is_total(bytes: Vec<u8>, at: u64, len: u64) {
            prop_assert!(clipped(&bytes, at, len).len() as u64 <= len);
        }
    }
}
