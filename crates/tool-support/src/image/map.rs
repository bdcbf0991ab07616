//! What `map` prints, for any format: what `qemu-img map` prints, and a document of its own.

use std::cell::RefCell;
use std::io::{self, Write};
use std::path::Path;

use serde::{Serialize, Serializer};

use crate::Out;

/// Text is written in pieces of so many bytes.
const WRITTEN: usize = 1 << 16;

/// The document of `map --json`. The extents are written as they are found.
#[derive(Debug, Serialize)]
pub struct MapDocument<I: Iterator<Item: Serialize>> {
    schema: u32,
    image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<String>,
    #[serde(serialize_with = "in_turn")]
    extents: RefCell<I>,
}

impl<I: Iterator<Item: Serialize>> MapDocument<I> {
    /// Of the image at `path`, or of a snapshot in it, as it was asked for.
    pub fn new(path: &Path, snapshot: Option<&str>, extents: I) -> Self {
        let image = path.display().to_string();
        Self { schema: 1, image, snapshot: snapshot.map(str::to_owned), extents: RefCell::new(extents) }
    }
}

fn in_turn<S: Serializer, I: Iterator<Item: Serialize>>(
    extents: &RefCell<I>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(&mut *extents.borrow_mut())
}

/// A range of the disk, in `qemu-img map`'s terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MapEntry {
    /// Where it starts in the virtual disk.
    pub start: u64,
    /// Its length in bytes.
    pub length: u64,
    /// How many backing files down it is.
    pub depth: u64,
    /// Whether an image has it, as data or as zeroes.
    pub present: bool,
    /// Whether it reads as zeroes.
    pub zero: bool,
    /// Whether an image has data for it.
    pub data: bool,
    /// Whether these are compressed.
    pub compressed: bool,
    /// Where its first byte is in the file.
    pub offset: Option<u64>,
}

impl MapEntry {
    fn goes_on_in(&self, next: &Self) -> bool {
        let start = self.start + self.length;
        let offset = self.offset.map(|offset| offset.saturating_add(self.length));
        *next == Self { start, offset, length: next.length, ..*self }
    }
}

/// Neighbours that are alike together, as `qemu-img map` joins them.
pub fn joined(mut entries: impl Iterator<Item = MapEntry>) -> impl Iterator<Item = MapEntry> {
    let mut waiting = entries.next();
    std::iter::from_fn(move || {
        let mut last = waiting.take()?;
        for next in entries.by_ref() {
            if !last.goes_on_in(&next) {
                waiting = Some(next);
                break;
            }
            last.length += next.length;
        }
        Some(last)
    })
}

/// Writes the array of `qemu-img map --output=json`, byte for byte. The entries are [`joined`] already.
///
/// # Errors
/// As [`Write::write_all`].
pub fn array(out: &mut Out, entries: impl Iterator<Item = MapEntry>) -> io::Result<()> {
    let mut text = Vec::with_capacity(2 * WRITTEN);
    text.push(b'[');
    // Lines are alike: what is between start and offset is as a rule that of the line before.
    let (mut middle, mut middle_of) = (Vec::new(), None);
    // Of a disk without a sector, qemu-img has an entry all the same.
    let mut entries = entries.peekable();
    if entries.peek().is_none() {
        text.extend_from_slice(b"{ \"start\": 0");
        text.extend_from_slice(&keys(&MapEntry::default()));
        text.push(b'}');
    }
    for (index, entry) in entries.enumerate() {
        if index > 0 {
            text.extend_from_slice(b",\n");
        }
        text.extend_from_slice(b"{ \"start\": ");
        decimal(&mut text, entry.start);
        let alike = Some(MapEntry { start: 0, offset: None, ..entry });
        if middle_of != alike {
            middle_of = alike;
            middle = keys(&entry);
        }
        text.extend_from_slice(&middle);
        if let Some(offset) = entry.offset {
            text.extend_from_slice(b", \"offset\": ");
            decimal(&mut text, offset);
        }
        text.push(b'}');
        if text.len() >= WRITTEN {
            out.write_all(&text)?;
            text.clear();
        }
    }
    text.extend_from_slice(b"]\n");
    out.write_all(&text)
}

/// What is printed of an entry, but for its start and its offset.
fn keys(entry: &MapEntry) -> Vec<u8> {
    let MapEntry { length, depth, present, zero, data, compressed, .. } = entry;
    format!(
        r#", "length": {length}, "depth": {depth}, "present": {present}, "zero": {zero}, "data": {data}, "compressed": {compressed}"#
    )
    .into_bytes()
}

/// Writes the table of `qemu-img map`: what is data, and of what depth `file` is the name. Where data are and have no
/// offset, qemu-img ends with an error, and this goes on: `compressed`.
///
/// # Errors
/// As [`Write::write_all`].
pub fn table<'f>(
    out: &mut Out,
    entries: impl Iterator<Item = MapEntry>,
    file: impl Fn(u64) -> &'f [u8],
) -> io::Result<()> {
    writeln!(out, "{:<16}{:<16}{:<16}File", "Offset", "Length", "Mapped to")?;
    let mut line = Vec::with_capacity(64);
    for entry in entries.filter(|entry| entry.data && !entry.zero) {
        hexadecimal(&mut line, entry.start);
        hexadecimal(&mut line, entry.length);
        match entry.offset {
            Some(offset) => hexadecimal(&mut line, offset),
            None => line.extend_from_slice(b"compressed      "),
        }
        out.write_all(&line)?;
        out.name(file(entry.depth))?;
        out.write_all(b"\n")?;
        line.clear();
    }
    Ok(())
}

/// A number as C's `%d` prints it. Here and below digit by digit: an image has millions of lines.
fn decimal(text: &mut Vec<u8>, mut number: u64) {
    let mut digits = [[0; 2]; 10];
    let mut count = 0;
    for pair in digits.iter_mut().rev() {
        let two = (number % 100) as u8;
        *pair = [b'0' + two / 10, b'0' + two % 10];
        number /= 100;
        count += if number == 0 && two < 10 { 1 } else { 2 };
        if number == 0 {
            break;
        }
    }
    let digits = digits.as_flattened();
    text.extend_from_slice(digits.get(digits.len() - count..).unwrap_or_default());
}

/// A number as C's `%#-16x` prints it.
fn hexadecimal(line: &mut Vec<u8>, number: u64) {
    let end = line.len() + 16;
    if number > 0 {
        line.extend_from_slice(b"0x");
    }
    let digits = (64 - number.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        let digit = (number >> (digit * 4) & 15) as u8;
        line.push(if digit < 10 { b'0' + digit } else { b'a' - 10 + digit });
    }
    line.resize(line.len().max(end), b' ');
}

/// `part` of `whole` in percent; nothing of nothing is 0.
#[must_use]
pub fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_printf() {
        for number in [0, 1, 9, 10, 99, 100, 101, 65_536, 1_000_000, 12_345_678_901_234_567_890, u64::MAX] {
            let mut line = Vec::new();
            decimal(&mut line, number);
            assert_eq!(line, number.to_string().as_bytes());
            line.clear();
            hexadecimal(&mut line, number);
            let expected = if number == 0 { "0".to_owned() } else { format!("{number:#x}") };
            assert_eq!(line, format!("{expected:<16}").as_bytes());
        }
    }

    #[test]
    fn neighbours_are_joined_where_offsets_go_on() {
        let entry = |start, length, offset| MapEntry { start, length, offset, ..MapEntry::default() };
        let entries = [
            entry(0, 512, Some(1024)),
            entry(512, 512, Some(1536)),
            entry(1024, 512, Some(1024)),
            entry(1536, 512, None),
            entry(2048, 1024, None),
            MapEntry { zero: true, ..entry(3072, 512, None) },
        ];
        let joined: Vec<_> = joined(entries.into_iter()).map(|entry| (entry.start, entry.length)).collect();
        assert_eq!(joined, [(0, 1024), (1024, 512), (1536, 1536), (3072, 512)]);
    }
}
