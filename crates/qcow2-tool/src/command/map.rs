//! `map`.

mod chain;
mod layer;

use std::cell::Cell;
use std::path::Path;

use tool_support::image::OpenArgs;
use tool_support::image::map::{MapDocument, MapEntry, array, joined, table};
use tool_support::status::note;
use tool_support::{Failure, Out, Outcome};
use vdisk_format::qcow2::header::MAGIC;
use vdisk_format::qcow2::map::{Extent, ExtentKind};
use vdisk_format::qcow2::read::open_chain;
use vdisk_format::qcow2::{Header, Snapshot, Tables};

use crate::args::{MapArgs, Output};
use chain::stacked;
use layer::{Layer, Qcow2};

pub(super) fn run(path: &Path, open: OpenArgs, json: bool, args: &MapArgs) -> Outcome {
    if args.chain {
        return run_chain(path, args);
    }
    let image = open.read(path)?;
    expect_qcow2(path, image.bytes()).or_else(|failure| match args.force {
        true => Ok(()),
        false => Err(failure.with_hint("to go on, use --force")),
    })?;
    let layer = Qcow2::new(path, &image, args.snapshot.as_deref())?;
    let first_invalid = Cell::new(None);
    if json && args.output.is_none() {
        let extents = layer.extents().inspect(|extent| note_invalid(&first_invalid, extent));
        let mut out = Out::stdout();
        out.json(&MapDocument::new(path, args.snapshot.as_deref(), extents))?;
        out.finish()?;
    } else {
        let entries = layer.entries(|extent| note_invalid(&first_invalid, extent));
        print(args, entries, &[layer.data_path()])?;
    }
    if layer.has_backing_file() {
        note("the backing file is not looked into: --chain does");
    }
    first_invalid.get().map_or(Ok(()), |extent| Err(failure(path, &extent)))
}

/// The image and those that it is backed by.
fn run_chain(path: &Path, args: &MapArgs) -> Outcome {
    let chain = open_chain(path)?;
    let mut layers = Vec::new();
    for (image, depth) in chain.images().zip(0..) {
        if depth == 0 {
            expect_qcow2(path, image.image.bytes())?;
        }
        let snapshot = args.snapshot.as_deref().filter(|_| depth == 0);
        layers.push(Layer::new(image, snapshot)?);
    }
    let first_invalid = Cell::new(None);
    let entries = layers.iter().map(|layer| {
        let entries = layer.entries(|extent| {
            if first_invalid.get().is_none() {
                note_invalid(&first_invalid, extent);
            }
        });
        (layer.size(), entries)
    });
    let files: Vec<_> = layers.iter().map(Layer::data_path).collect();
    print(args, stacked(entries.collect()), &files)?;
    first_invalid.get().map_or(Ok(()), |extent| Err(failure(path, &extent)))
}

fn print(args: &MapArgs, entries: impl Iterator<Item = MapEntry>, files: &[Vec<u8>]) -> Outcome {
    let entries = joined(entries);
    let mut out = Out::stdout();
    if args.output == Some(Output::Json) {
        array(&mut out, entries)?;
    } else {
        let file = |depth| usize::try_from(depth).ok().and_then(|depth: usize| files.get(depth));
        table(&mut out, entries, |depth| file(depth).map(Vec::as_slice).unwrap_or_default())?;
    }
    out.finish()?;
    Ok(())
}

fn note_invalid(first: &Cell<Option<Extent>>, extent: &Extent) {
    if matches!(extent.kind, ExtentKind::Invalid { .. }) && first.get().is_none() {
        first.set(Some(*extent));
    }
}

fn failure(path: &Path, extent: &Extent) -> Failure {
    let why = match extent.kind {
        ExtentKind::Invalid { why, .. } => why.words(),
        _ => "",
    };
    Failure::failed(format!("{}: guest offset {}: {why}; `check` tells all", path.display(), extent.start))
}

/// Refuses what does not begin as a qcow2 image: what tables of something else say means nothing.
pub(super) fn expect_qcow2(path: &Path, image: &[u8]) -> Outcome {
    let magic = Header::parse(image)?.v2.magic;
    if magic == MAGIC {
        return Ok(());
    }
    let path = path.display();
    let message =
        format!("{path}: magic at offset 0x0: expected {MAGIC:#x}, found {magic:#x}: no qcow2 image");
    Err(Failure::failed(message))
}

/// The snapshot with this ID; else the first one with this name, as for QEMU.
pub(super) fn find_snapshot<'a>(path: &Path, tables: &Tables<'a>, name: &str) -> Outcome<Snapshot<'a>> {
    let mut named = None;
    for snapshot in tables.snapshots() {
        let snapshot = match snapshot {
            Ok(snapshot) => snapshot,
            // What is before it can be found all the same.
            Err(error) => return named.ok_or_else(|| error.into()),
        };
        if snapshot.id == name.as_bytes() {
            return Ok(snapshot);
        }
        if named.is_none() && snapshot.name == name.as_bytes() {
            named = Some(snapshot);
        }
    }
    named.ok_or_else(|| Failure::failed(format!("{}: there is no snapshot '{name}'", path.display())))
}
