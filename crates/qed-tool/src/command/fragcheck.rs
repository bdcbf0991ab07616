//! `fragcheck`.

use std::path::Path;

use tool_support::image::map::{FragmentationDocument, fragmentation_line};
use tool_support::image::{OpenArgs, with_progress};
use tool_support::status::warn;
use tool_support::{Out, Outcome};
use vdisk_format::qed::{Tables, fragmentation::fragmentation};

use super::expect_qed;

pub(super) fn run(path: &Path, open: OpenArgs, json: bool) -> Outcome {
    let image = open.read(path)?;
    expect_qed(path, image.bytes())?;
    let found =
        with_progress("counting", &image, |view| Tables::new(view).map(|tables| fragmentation(&tables)))?;
    let mut out = Out::stdout();
    if json {
        out.json(&FragmentationDocument::new(path, None, found))?;
    } else {
        fragmentation_line(
            &mut out,
            found.total_clusters,
            found.allocated_clusters,
            found.fragmented_clusters,
        )?;
    }
    out.finish()?;
    if found.skipped_tables > 0 {
        let path = path.display();
        warn(&format!("{path}: {} L1 entries name no table, and are not counted", found.skipped_tables));
    }
    Ok(())
}
