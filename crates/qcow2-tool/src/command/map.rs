//! `map`.

mod chain;
mod layer;

use std::cell::Cell;
use std::path::Path;

use tool_support::image::OpenArgs;
use tool_support::image::map::{MapDocument, MapEntry, array, joined, table};
use tool_support::status::note;
use tool_support::{Failure, Out, Outcome};
use vdisk_format::qcow2::map::{Extent, ExtentKind};
use vdisk_format::qcow2::read::open_chain;

use super::lookup::{expect_qcow2, expect_qcow2_unless};
use crate::args::{MapArgs, Output};
use chain::stacked;
use layer::{Layer, Qcow2};

pub(super) fn run(path: &Path, open: OpenArgs, json: bool, args: &MapArgs) -> Outcome {
    if args.chain {
        return run_chain(path, args);
    }
    let image = open.read(path)?;
    expect_qcow2_unless(args.force, path, image.bytes())?;
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
