//! The lines of a text dump: a name, padded, and a value.

use std::io::{self, Write};

use vdisk_format::record::Notation;

use crate::output::Out;

/// Writes the line of a field.
///
/// # Errors
/// As [`Write::write_all`].
pub fn field(out: &mut Out, name: &str, notation: Notation, value: u64) -> io::Result<()> {
    line(out, name, &number(notation, value))
}

/// Writes a line whose value is a text; one from an image is for [`Out::untrusted`].
///
/// # Errors
/// As [`Write::write_all`].
pub fn line(out: &mut Out, name: &str, value: &str) -> io::Result<()> {
    // At once: padding goes to a writer character by character, which costs more than the rest of a dump.
    out.write_all(format!("{name:<25} {value}\n").as_bytes())
}

/// A value as its field's notation says.
#[must_use]
pub fn number(notation: Notation, value: u64) -> String {
    match notation {
        Notation::Hex => format!("{value:#x}"),
        Notation::Bits => format!("{:?}", bits(value).collect::<Vec<_>>()),
        _ => value.to_string(),
    }
}

/// The numbers of the bits that are set, the lowest first.
pub fn bits(value: u64) -> impl Iterator<Item = u32> {
    (0..64).filter(move |bit| value >> bit & 1 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_their_notation_says() {
        assert_eq!(number(Notation::Hex, 0x1_0000), "0x10000");
        assert_eq!(number(Notation::Dec, 16), "16");
        assert_eq!(number(Notation::Bits, 1 << 63 | 0b101), "[0, 2, 63]");
        assert_eq!(number(Notation::Bits, 0), "[]");
    }
}
