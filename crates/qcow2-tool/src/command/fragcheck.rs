//! `fragcheck`.

use std::path::Path;

use tool_support::image::map::{FragmentationDocument, fragmentation_line};
use tool_support::image::{OpenArgs, with_progress};
use tool_support::status::warn;
use tool_support::{Out, Outcome};
use vdisk_format::View;
use vdisk_format::qcow2::Tables;
use vdisk_format::qcow2::fragmentation::{Fragmentation, fragmentation, fragmentation_of_snapshot};

use super::map::{expect_qcow2, find_snapshot};

pub(super) fn run(path: &Path, open: OpenArgs, json: bool, snapshot: Option<&str>) -> Outcome {
    let image = open.read(path)?;
    expect_qcow2(path, image.bytes())?;
    let found = with_progress("counting", &image, |view| count(path, view, snapshot))?;
    let mut out = Out::stdout();
    if json {
        out.json(&FragmentationDocument::new(path, snapshot, found))?;
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

fn count(path: &Path, view: View<'_>, snapshot: Option<&str>) -> Outcome<Fragmentation> {
    let tables = Tables::new(view)?;
    Ok(match snapshot {
        None => fragmentation(&tables),
        Some(name) => fragmentation_of_snapshot(&tables, &find_snapshot(path, &tables, name)?),
    })
}
