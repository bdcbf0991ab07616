//! `fragcheck`.

use std::path::Path;

use tool_support::Outcome;
use tool_support::image::{Fragmented, OpenArgs, print_fragmentation, with_progress};
use vdisk_format::View;
use vdisk_format::qcow2::Tables;
use vdisk_format::qcow2::fragmentation::{Fragmentation, fragmentation, fragmentation_of_snapshot};

use super::lookup;

pub(super) fn run(path: &Path, open: OpenArgs, json: bool, snapshot: Option<&str>, force: bool) -> Outcome {
    let image = open.read(path)?;
    lookup::expect_qcow2_unless(force, path, image.bytes())?;
    let counts = with_progress("counting", &image, |view| count(path, view, snapshot))?;
    let found = Fragmented {
        path,
        snapshot,
        total: counts.total_clusters,
        allocated: counts.allocated_clusters,
        fragmented: counts.fragmented_clusters,
        skipped_tables: counts.skipped_tables,
        counts,
    };
    print_fragmentation(&found, json)
}

fn count(path: &Path, view: View<'_>, snapshot: Option<&str>) -> Outcome<Fragmentation> {
    let tables = Tables::new(view)?;
    Ok(match snapshot {
        None => fragmentation(&tables),
        Some(name) => fragmentation_of_snapshot(&tables, &lookup::snapshot(path, &tables, name)?),
    })
}
