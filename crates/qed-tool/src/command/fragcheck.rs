//! `fragcheck`.

use std::path::Path;

use tool_support::Outcome;
use tool_support::image::{Fragmented, OpenArgs, print_fragmentation, with_progress};
use vdisk_format::qed::{Tables, fragmentation::fragmentation};

use super::expect_qed;

pub(super) fn run(path: &Path, open: OpenArgs, json: bool) -> Outcome {
    let image = open.read(path)?;
    expect_qed(path, image.bytes())?;
    let counts =
        with_progress("counting", &image, |view| Tables::new(view).map(|tables| fragmentation(&tables)))?;
    let found = Fragmented {
        path,
        snapshot: None,
        total: counts.total_clusters,
        allocated: counts.allocated_clusters,
        fragmented: counts.fragmented_clusters,
        skipped_tables: counts.skipped_tables,
        counts,
    };
    print_fragmentation(&found, json)
}
