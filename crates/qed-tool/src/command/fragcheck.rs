//! `fragcheck`.

use std::io::Write;
use std::path::Path;

use tool_support::image::{OpenArgs, percent, with_progress};
use tool_support::status::warn;
use tool_support::{Out, Outcome};
use vdisk_format::qed::{Tables, fragmentation::fragmentation};

use super::expect_qed;
use crate::documents::FragmentationDocument;

pub(super) fn run(path: &Path, open: OpenArgs, json: bool) -> Outcome {
    let image = open.read(path)?;
    expect_qed(path, image.bytes())?;
    let found =
        with_progress("counting", &image, |view| Tables::new(view).map(|tables| fragmentation(&tables)))?;
    let mut out = Out::stdout();
    if json {
        out.json(&FragmentationDocument::new(path, found))?;
    } else {
        let (allocated, total) = (found.allocated_clusters, found.total_clusters);
        let (share, fragmented) = (percent(allocated, total), percent(found.fragmented_clusters, allocated));
        writeln!(out, "{allocated}/{total} = {share:.2}% allocated, {fragmented:.2}% fragmented")?;
    }
    out.finish()?;
    if found.skipped_tables > 0 {
        let path = path.display();
        warn(&format!("{path}: {} L1 entries name no table, and are not counted", found.skipped_tables));
    }
    Ok(())
}
