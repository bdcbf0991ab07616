//! What `fragcheck` prints, for any format.

use std::io::Write;
use std::path::Path;

use serde::Serialize;

use super::map::percent;
use crate::status::warn;
use crate::{Out, Outcome};

/// What was counted of an image, or of a snapshot in it.
#[derive(Debug, Clone, Copy)]
pub struct Fragmented<'f, F: Serialize> {
    /// Where the image is.
    pub path: &'f Path,
    /// The snapshot, as it was asked for.
    pub snapshot: Option<&'f str>,
    /// Clusters of the disk.
    pub total: u64,
    /// Of these, those that have one of the file.
    pub allocated: u64,
    /// Of these, those that do not follow the one before.
    pub fragmented: u64,
    /// L1 entries that name no table.
    pub skipped_tables: u64,
    /// All counts of the format: the keys of the document.
    pub counts: F,
}

/// The document of `fragcheck --json`.
#[derive(Serialize)]
struct Document<'f, F: Serialize> {
    schema: u32,
    image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<&'f str>,
    #[serde(flatten)]
    counts: &'f F,
}

/// Prints the counts: as a document, or as the line that qed-tool.py prints; and warns of tables that were not counted.
///
/// # Errors
/// Where standard output takes no more.
pub fn print_fragmentation<F: Serialize>(found: &Fragmented<'_, F>, json: bool) -> Outcome {
    let Fragmented { path, snapshot, total, allocated, fragmented, skipped_tables, counts } = found;
    let mut out = Out::stdout();
    if json {
        let image = path.display().to_string();
        out.json(&Document { schema: 1, image, snapshot: *snapshot, counts })?;
    } else {
        let (share, pieces) = (percent(*allocated, *total), percent(*fragmented, *allocated));
        writeln!(out, "{allocated}/{total} = {share:.2}% allocated, {pieces:.2}% fragmented")?;
    }
    out.finish()?;
    if *skipped_tables > 0 {
        warn(&format!("{}: {skipped_tables} L1 entries name no table, and are not counted", path.display()));
    }
    Ok(())
}
