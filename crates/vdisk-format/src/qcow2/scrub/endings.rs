//! [`Endings`]: what makes names differ in the copy that differ in the image.

use std::collections::{BTreeMap, BTreeSet};

use super::fixed::FILLERS;
use crate::bytes::up_to_zero;

/// The names of a directory, each with its number among those of its length, from 0.
#[derive(Debug)]
pub(super) struct Endings<'a> {
    /// Bytes that are in none of the names, nor stand in for one elsewhere.
    digits: Vec<u8>,
    numbers: BTreeMap<&'a [u8], u64>,
    counts: BTreeMap<usize, u64>,
}

impl<'a> Endings<'a> {
    /// For these names.
    pub(super) fn new(names: &[&'a [u8]]) -> Self {
        // What stands in for names already stays: a copy of a copy is the same.
        let mut plain = Self::without(FILLERS.iter());
        if names.iter().all(|name| plain.filled(name) == *name) {
            return Self::without(FILLERS.iter());
        }
        Self::without(names.iter().copied().flatten().chain(&FILLERS))
    }

    /// With any digits but these bytes.
    fn without<'u>(bytes: impl Iterator<Item = &'u u8>) -> Self {
        let used: BTreeSet<u8> = bytes.copied().collect();
        // What can be read first; no control characters.
        let digits = (b'!'..=b'~').chain(0x80..=0xff).filter(|byte| !used.contains(byte)).collect();
        Self { digits, numbers: BTreeMap::new(), counts: BTreeMap::new() }
    }

    /// What stands in for `name`, where nothing else lies over it.
    fn filled(&mut self, name: &'a [u8]) -> Vec<u8> {
        let ending = self.of(name);
        [vec![FILLERS[0]; name.len().saturating_sub(ending.len())], ending].concat()
    }

    /// How what stands in for `name` has to end: as for an equal name, and as for no other of that length. It may be longer
    /// than the name where there are too many. Names end, for QEMU, before their first zero.
    pub(super) fn of(&mut self, name: &'a [u8]) -> Vec<u8> {
        let next = self.counts.entry(name.len()).or_default();
        let mut number = *self.numbers.entry(up_to_zero(name).unwrap_or_default()).or_insert_with(|| {
            *next += 1;
            *next - 1
        });
        let base = self.digits.len() as u64;
        let mut ending = Vec::new();
        // There is no digit 0, so that no ending is the end of another one with a filler before it.
        while number > 0 && base > 0 {
            number -= 1;
            ending.extend(self.digits.get((number % base) as usize));
            number /= base;
        }
        ending.reverse();
        ending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands in for names, in the order in which they come.
    fn filled(names: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut endings = Endings::new(names);
        names.iter().map(|name| endings.filled(name)).collect()
    }

    fn differ(names: &[Vec<u8>]) -> bool {
        names.iter().collect::<BTreeSet<_>>().len() == names.len()
    }

    #[test]
    fn equal_names_end_alike_and_no_others() {
        let names: Vec<String> = (0..9999).map(|number| format!("{number:04}")).collect();
        let names: Vec<&[u8]> = names.iter().map(String::as_bytes).collect();
        let found = filled(&names);
        assert!(differ(&found));
        let keeps = |(name, filled): (&&[u8], &Vec<u8>)| name.iter().zip(filled).any(|(old, new)| old == new);
        assert!(!names.iter().zip(&found).any(keeps), "no byte stays");
        // One of another length needs no ending; a name ends before a zero.
        assert_eq!(filled(&[b"aa", b"bb", b"c", b"aa", b"bb"]), [b"xx", &b"x!"[..], b"x", b"xx", b"x!"]);
        assert_eq!(filled(&[b"xx", b"x!", b"x"]), [b"xx", &b"x!"[..], b"x"]);
        let found = filled(&[b"a\0b", b"a\0c", b"b\0c"]);
        assert!(found[0] == found[1] && found[1] != found[2]);
    }

    #[test]
    fn names_of_one_byte() {
        let names: Vec<[u8; 1]> = (b'0'..=b'z').map(|byte| [byte]).collect();
        let names: Vec<&[u8]> = names.iter().map(<[u8; 1]>::as_slice).collect();
        assert!(differ(&filled(&names)));
        // Where each byte is in a name, there is nothing to tell them apart with.
        let names: Vec<[u8; 1]> = (0..=255).map(|byte| [byte]).collect();
        let names: Vec<&[u8]> = names.iter().map(<[u8; 1]>::as_slice).collect();
        assert!(!differ(&filled(&names)));
    }
}
