//! The text form of its dumps.

use std::io::{self, Write};

use tool_support::Out;
use vdisk_format::qcow2::bitmap::{Bitmap, BitmapTableEntryKind, TableBudget};
use vdisk_format::qcow2::{Content, Extension, Header};
use vdisk_format::record::{Field, Notation};

use super::{BINARY, DataText, extension_name, header_fields};

/// `dump-header`, up to the empty line before the extensions.
pub(crate) fn header(out: &mut Out, header: &Header<'_>) -> io::Result<()> {
    for (name, notation, value) in header_fields(header) {
        line(out, name, &number(notation, value))?;
    }
    writeln!(out)
}

/// `dump-header-exts`.
pub(crate) fn extensions(out: &mut Out, header: &Header<'_>) -> io::Result<()> {
    let mut budget = TableBudget::new(header.image());
    // What cannot be read is a finding, which standard error names.
    for extension in header.extensions().map_while(Result::ok) {
        self::extension(out, header, &extension, &mut budget)?;
    }
    Ok(())
}

fn extension(
    out: &mut Out,
    header: &Header<'_>,
    extension: &Extension<'_>,
    budget: &mut TableBudget,
) -> io::Result<()> {
    writeln!(out, "Header extension:")?;
    line(out, "magic", &format!("{:#x} ({})", extension.magic.0, extension_name(extension.magic)))?;
    line(out, "length", &extension.length.to_string())?;
    if let Ok(Content::Bitmaps(bitmaps)) = extension.content() {
        for (field, value) in bitmaps.fields() {
            line(out, field.name, &number(field.notation, value))?;
        }
        for bitmap in bitmaps.directory(header.image()).map_while(Result::ok) {
            if budget.spend(&bitmap).is_err() {
                break;
            }
            writeln!(out)?;
            self::bitmap(out, header, &bitmap)?;
        }
    } else {
        write!(out, "{:<25} ", "data")?;
        match DataText(extension.data).printable() {
            Some(data) => {
                write!(out, "'")?;
                out.untrusted(data)?;
                writeln!(out, "'")?;
            }
            None => writeln!(out, "{BINARY}")?,
        }
    }
    writeln!(out)
}

fn bitmap(out: &mut Out, header: &Header<'_>, bitmap: &Bitmap<'_>) -> io::Result<()> {
    write!(out, "{:<25} ", "Bitmap name")?;
    out.untrusted(bitmap.name)?;
    writeln!(out)?;
    for (field, value) in bitmap.fixed.fields() {
        line(out, field.name, &bitmap_value(field, value))?;
    }
    writeln!(out, "{:<14} {:<15} {:<12} offset", "Bitmap table", "type", "size")?;
    let Ok(table) = bitmap.table() else { return Ok(()) };
    for (index, entry) in table.entries().enumerate() {
        let kind = entry.kind();
        let size =
            if kind == BitmapTableEntryKind::Serialized { cluster_size(header) } else { "0".to_owned() };
        writeln!(out, "{index:<14} {:<15} {size:<12} {}", kind.name(), entry.cluster().0)?;
    }
    Ok(())
}

/// `1 << cluster_bits`, which has no upper limit in Python; beyond 128 bits no image has a bitmap table.
fn cluster_size(header: &Header<'_>) -> String {
    1u128.checked_shl(header.v2.cluster_bits).map_or_else(|| "?".to_owned(), |size| size.to_string())
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

fn number(notation: Notation, value: u64) -> String {
    match notation {
        Notation::Hex => format!("{value:#x}"),
        Notation::Bits => format!("{:?}", bits(value).collect::<Vec<_>>()),
        _ => value.to_string(),
    }
}

fn bits(value: u64) -> impl Iterator<Item = u32> {
    (0..64).filter(move |bit| value >> bit & 1 != 0)
}

fn line(out: &mut Out, name: &str, value: &str) -> io::Result<()> {
    writeln!(out, "{name:<25} {value}")
}
