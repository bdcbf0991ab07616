//! `map`.

use std::io::{self, Write};
use std::path::Path;

use tool_support::image::OpenArgs;
use tool_support::status::note;
use tool_support::{Failure, Out, Outcome};
use vdisk_format::qed::Tables;
use vdisk_format::qed::map::{Extent, ExtentKind, map};

use super::expect_qed_unless;
use crate::args::Output;
use crate::documents::MapDocument;

pub(super) fn run(path: &Path, open: OpenArgs, json: bool, output: Option<Output>, force: bool) -> Outcome {
    let image = open.read(path)?;
    expect_qed_unless(force, path, image.bytes())?;
    let tables = Tables::new(&image)?;
    // As QEMU reads it: up to a zero, and nothing is no backing file.
    let name = tables.header().backing_file().unwrap_or_default();
    let has_backing_file = !matches!(name, [] | [0, ..]);
    let mut first_invalid = None;
    let extents = map(&tables).inspect(|extent| {
        if matches!(extent.kind, ExtentKind::Invalid { .. }) {
            first_invalid.get_or_insert(*extent);
        }
    });
    let mut out = Out::stdout();
    match output {
        Some(Output::Json) => array(&mut out, extents, has_backing_file)?,
        Some(Output::Human) => lines(&mut out, path, extents)?,
        None if json => out.json(&MapDocument::new(path, extents))?,
        None => lines(&mut out, path, extents)?,
    }
    out.finish()?;
    if has_backing_file {
        note("the backing file is not looked into");
    }
    match first_invalid {
        None => Ok(()),
        Some(Extent { start, kind: ExtentKind::Invalid { why }, .. }) => {
            let path = path.display();
            let what =
                format!("{path}: guest offset {start}: an entry is {}; `check` tells all", why.words());
            Err(Failure::failed(what))
        }
        Some(_) => Ok(()),
    }
}

/// As `qemu-img map` prints what is data.
fn lines(out: &mut Out, path: &Path, extents: impl Iterator<Item = Extent>) -> Outcome {
    let name = path.display().to_string();
    writeln!(out, "{:<16}{:<16}{:<16}File", "Offset", "Length", "Mapped to")?;
    let mut line = String::new();
    for extent in extents {
        if let ExtentKind::Data { offset } = extent.kind {
            line.clear();
            for number in [extent.start.0, extent.length, offset.0] {
                column(&mut line, number);
            }
            out.write_all(line.as_bytes())?;
            out.untrusted(name.as_bytes())?;
            out.write_all(b"\n")?;
        }
    }
    Ok(())
}

/// A number as C's `%#-16x` prints it, digit by digit: a hostile image has hundreds of thousands of lines.
fn column(line: &mut String, number: u64) {
    let end = line.len() + 16;
    if number > 0 {
        line.push_str("0x");
    }
    let digits = (64 - number.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        line.push(char::from_digit((number >> (digit * 4) & 15) as u32, 16).unwrap_or('0'));
    }
    while line.len() < end {
        line.push(' ');
    }
}

/// The array of `qemu-img map --output=json`, byte for byte.
fn array(out: &mut Out, extents: impl Iterator<Item = Extent>, has_backing_file: bool) -> io::Result<()> {
    write!(out, "[")?;
    for (index, extent) in extents.enumerate() {
        if index > 0 {
            writeln!(out, ",")?;
        }
        let Extent { start, length, kind, .. } = extent;
        let (present, zero, data) = match kind {
            ExtentKind::Data { .. } => (true, false, true),
            ExtentKind::Zero => (true, true, false),
            ExtentKind::Unallocated => (false, !has_backing_file, false),
            // Neither zero nor data: there is nothing that could be read.
            _ => (true, false, false),
        };
        write!(
            out,
            r#"{{ "start": {}, "length": {length}, "depth": 0, "present": {present}, "zero": {zero}, "data": {data}, "compressed": false"#,
            start.0,
        )?;
        if let ExtentKind::Data { offset } = kind {
            write!(out, r#", "offset": {}"#, offset.0)?;
        }
        write!(out, "}}")?;
    }
    writeln!(out, "]")
}
