//! [`Endings`]: what makes names differ in the copy that differ in the image.

use std::collections::BTreeMap;

/// None of these stands in for a byte of a name else.
const DIGITS: &[u8; 34] = b"123456789abcdefghijklmnopqrstuvwyz";

/// The names that were seen, each with its number among those of its length, from 0.
#[derive(Debug, Default)]
pub(super) struct Endings<'a> {
    numbers: BTreeMap<&'a [u8], u64>,
    counts: BTreeMap<usize, u64>,
}

impl<'a> Endings<'a> {
    /// How what stands in for `name` has to end: as for an equal name, and as for no other of that length. It may be longer
    /// than the name where there are too many.
    pub(super) fn of(&mut self, name: &'a [u8]) -> Vec<u8> {
        let next = self.counts.entry(name.len()).or_default();
        let mut number = *self.numbers.entry(name).or_insert_with(|| {
            *next += 1;
            *next - 1
        });
        let mut ending = Vec::new();
        // There is no digit 0, so that no ending is the end of another one with a filler before it.
        while number > 0 {
            number -= 1;
            ending.extend(DIGITS.get((number % DIGITS.len() as u64) as usize));
            number /= DIGITS.len() as u64;
        }
        ending.reverse();
        ending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn equal_names_end_alike_and_no_others() {
        let names: Vec<String> = (0..3000).map(|number| format!("{number:04}")).collect();
        let mut endings = Endings::default();
        let found: Vec<_> = names.iter().map(|name| endings.of(name.as_bytes())).collect();
        assert_eq!(
            (found[0].as_slice(), found[1].as_slice(), found[35].as_slice()),
            (&b""[..], &b"1"[..], &b"11"[..])
        );
        let filled = found.iter().map(|ending| [&b"xxxx"[ending.len()..], ending].concat());
        assert_eq!(filled.collect::<BTreeSet<_>>().len(), names.len());
        assert_eq!(endings.of(b"0002"), found[2]);
        // One of another length needs none.
        assert_eq!(endings.of(b"2"), b"");
    }
}
