//! The text form of its dumps.

use std::io::{self, Write};

use tool_support::Out;
use tool_support::image::line::{self, bits, line, number};
use vdisk_format::qcow2::bitmap::{Bitmap, BitmapTableEntryKind, TableBudget};
use vdisk_format::qcow2::{Content, Extension, Header};
use vdisk_format::record::{Field, Notation};

use super::{BINARY, DataText, extension_name, header_fields};

/// `dump-header`, up to the empty line before the extensions.
pub(crate) fn header(out: &mut Out, header: &Header<'_>) -> io::Result<()> {
    for (name, notation, value) in header_fields(header) {
        line::field(out, name, notation, value)?;
    }
    writeln!(out)
}

/// `dump-header-exts`.
pub(crate) fn extensions(out: &mut Out, header: &Header<'_>) -> io::Result<()> {
    let mut budget = TableBudget::new(header.image());
    let cluster_size = power_of_two(header.v2.cluster_bits).unwrap_or_else(|| "?".to_owned());
    // What cannot be read is a finding, which standard error names.
    for extension in header.extensions().map_while(Result::ok) {
        self::extension(out, header, &extension, &cluster_size, &mut budget)?;
    }
    Ok(())
}

fn extension(
    out: &mut Out,
    header: &Header<'_>,
    extension: &Extension<'_>,
    cluster_size: &str,
    budget: &mut TableBudget,
) -> io::Result<()> {
    writeln!(out, "Header extension:")?;
    line(out, "magic", &format!("{:#x} ({})", extension.magic.0, extension_name(extension.magic)))?;
    line(out, "length", &extension.length.to_string())?;
    if let Ok(Content::Bitmaps(bitmaps)) = extension.content() {
        for (field, value) in bitmaps.fields() {
            line::field(out, field.name, field.notation, value)?;
        }
        for bitmap in bitmaps.directory(header.image()).map_while(Result::ok) {
            if budget.spend(&bitmap).is_err() {
                break;
            }
            writeln!(out)?;
            self::bitmap(out, &bitmap, cluster_size)?;
        }
    } else {
        write!(out, "{:<25} ", "data")?;
        match DataText(extension.data).printable() {
            Some(data) => {
                write!(out, "'")?;
                out.name(data)?;
                writeln!(out, "'")?;
            }
            None => writeln!(out, "{BINARY}")?,
        }
    }
    writeln!(out)
}

fn bitmap(out: &mut Out, bitmap: &Bitmap<'_>, cluster_size: &str) -> io::Result<()> {
    write!(out, "{:<25} ", "Bitmap name")?;
    out.name(bitmap.name)?;
    writeln!(out)?;
    for (field, value) in bitmap.fixed.fields() {
        line(out, field.name, &bitmap_value(field, value))?;
    }
    writeln!(out, "{:<14} {:<15} {:<12} offset", "Bitmap table", "type", "size")?;
    let Ok(table) = bitmap.table() else { return Ok(()) };
    for (index, entry) in table.entries().enumerate() {
        let kind = entry.kind();
        let size = if kind == BitmapTableEntryKind::Serialized { cluster_size } else { "0" };
        // At once, as every line is.
        let line = format!("{index:<14} {:<15} {size:<12} {}\n", kind.name(), entry.cluster().0);
        out.write_all(line.as_bytes())?;
    }
    Ok(())
}

/// `1 << bits` in decimal digits, which Python prints up to 4300 of: more raise ValueError.
fn power_of_two(bits: u32) -> Option<String> {
    const LIMB: u32 = 1_000_000_000;
    const MOST: u32 = 14_284;
    let mut limbs = vec![1u32]; // of nine digits, the lowest first
    for _ in 0..(bits <= MOST).then_some(bits)? {
        let mut carry = 0;
        for limb in &mut limbs {
            let double = *limb * 2 + carry;
            (*limb, carry) = (double % LIMB, double / LIMB);
        }
        limbs.extend((carry > 0).then_some(carry));
    }
    let mut digits = limbs.pop()?.to_string();
    digits.extend(limbs.iter().rev().map(|limb| format!("{limb:09}")));
    Some(digits)
}

fn bitmap_value(field: &Field, value: u64) -> String {
    if field.notation != Notation::Bits {
        return number(field.notation, value);
    }
    let name = |bit| match bit {
        0 => "'in-use'".to_owned(),
        1 => "'auto'".to_owned(),
        bit => format!("'bit-{bit}'"),
    };
    let names: Vec<String> = bits(value).map(name).collect();
    format!("{value:#x} ([{}])", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::power_of_two;

    #[test]
    fn powers_of_two_in_decimal() {
        for bits in [0, 9, 16, 29, 30, 31, 63, 90, 127] {
            assert_eq!(power_of_two(bits), Some((1u128 << bits).to_string()));
        }
        let large = power_of_two(255).unwrap();
        assert!(
            large
                .starts_with("57896044618658097711785492504343953926634992332820282019728792003956564819968")
        );
        assert_eq!(power_of_two(14_284).map(|digits| digits.len()), Some(4300));
        assert_eq!(power_of_two(14_285), None);
    }
}
