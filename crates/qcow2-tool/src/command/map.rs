//! `map`.

mod chain;
mod layer;

use std::cell::Cell;
use std::path::Path;

use tool_support::image::OpenArgs;
use tool_support::image::map::{MapDocument, array, joined, table};
use tool_support::status::note;
use tool_support::{Failure, Out, Outcome};
use vdisk_format::qcow2::read::open_chain;

use super::lookup::{expect_qcow2, expect_qcow2_unless};
use crate::args::{MapArgs, Output};
use chain::stacked;
use layer::{Entry, Layer, Qcow2, Why, Wrong, invalid};

pub(super) fn run(path: &Path, open: OpenArgs, json: bool, args: &MapArgs) -> Outcome {
    if args.chain {
        return run_chain(path, args);
    }
    let image = open.read(path)?;
    expect_qcow2_unless(args.force, path, image.bytes())?;
    let layer = Qcow2::new(path, &image, args.snapshot.as_deref())?;
    let first_wrong = Cell::new(None);
    if json && args.output.is_none() {
        let extents = layer.extents().inspect(|extent| {
            note_first(&first_wrong, || {
                let why = Why::Qcow2(invalid(extent)?);
                Some(Wrong { depth: 0, start: extent.start.0, why })
            });
        });
        let mut out = Out::stdout();
        out.json(&MapDocument::new(path, args.snapshot.as_deref(), extents))?;
        out.finish()?;
    } else {
        print(args, layer.entries(), &first_wrong, &[layer.data_path()])?;
    }
    if layer.has_backing_file() {
        note("the backing file is not looked into: --chain does");
    }
    first_wrong.get().map_or(Ok(()), |wrong| Err(failure(path, &wrong)))
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
    let first_wrong = Cell::new(None);
    let entries = layers.iter().map(|layer| (layer.size(), layer.entries())).collect();
    let files: Vec<_> = layers.iter().map(Layer::data_path).collect();
    print(args, stacked(entries), &first_wrong, &files)?;
    let Some(wrong) = first_wrong.get() else { return Ok(()) };
    let image = chain.images().zip(0..).find(|&(_, depth)| depth == wrong.depth);
    Err(failure(image.map_or(path, |(image, _)| &image.path), &wrong))
}

/// Prints the entries, and keeps the first thing that is wrong with them.
fn print(
    args: &MapArgs,
    entries: impl Iterator<Item = Entry>,
    first_wrong: &Cell<Option<Wrong>>,
    files: &[Vec<u8>],
) -> Outcome {
    let seen = entries.inspect(|entry| note_first(first_wrong, || entry.wrong));
    let entries = joined(seen.map(|Entry { entry, .. }| entry));
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

fn note_first(first: &Cell<Option<Wrong>>, wrong: impl FnOnce() -> Option<Wrong>) {
    if first.get().is_none() {
        first.set(wrong());
    }
}

fn failure(path: &Path, wrong: &Wrong) -> Failure {
    let Wrong { start, why, .. } = wrong;
    Failure::failed(format!("{}: guest offset {start:#x}: {why}; `check` tells all", path.display()))
}
