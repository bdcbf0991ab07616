//! `map`.

use std::path::Path;

use tool_support::image::OpenArgs;
use tool_support::image::map::{MapDocument, MapEntry, array, table};
use tool_support::status::note;
use tool_support::{Failure, Out, Outcome};
use vdisk_format::qed::Tables;
use vdisk_format::qed::map::{Extent, ExtentKind, map};

use super::expect_qed_unless;
use crate::args::Output;

pub(super) fn run(path: &Path, open: OpenArgs, json: bool, output: Option<Output>, force: bool) -> Outcome {
    let image = open.read(path)?;
    expect_qed_unless(force, path, image.bytes())?;
    let tables = Tables::new(&image)?;
    let has_backing_file = tables.header().backing_file_name().is_some();
    let mut first_invalid = None;
    let extents = map(&tables).inspect(|extent| {
        if matches!(extent.kind, ExtentKind::Invalid { .. }) {
            first_invalid.get_or_insert(*extent);
        }
    });
    let mut out = Out::stdout();
    match output {
        None if json => out.json(&MapDocument::new(path, None, extents))?,
        Some(Output::Json) => array(&mut out, extents.map(|extent| entry(extent, has_backing_file)))?,
        Some(Output::Human) | None => {
            let name = path.display().to_string();
            let entries = extents.map(|extent| entry(extent, has_backing_file));
            table(&mut out, entries, |_| name.as_bytes())?;
        }
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

/// An extent in QEMU's terms.
fn entry(extent: Extent, has_backing_file: bool) -> MapEntry {
    let Extent { start, length, kind, .. } = extent;
    let (present, zero, data, offset) = match kind {
        ExtentKind::Data { offset } => (true, false, true, Some(offset.0)),
        ExtentKind::Zero => (true, true, false, None),
        ExtentKind::Unallocated => (false, !has_backing_file, false, None),
        // Neither zero nor data: there is nothing that could be read.
        _ => (true, false, false, None),
    };
    MapEntry { start: start.0, length, present, zero, data, offset, ..MapEntry::default() }
}
