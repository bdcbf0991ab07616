//! `copy_metadata OUT`.

use std::path::Path;

use tool_support::image::{IfExists, OpenArgs, OutFile, with_progress};
use tool_support::{Out, Outcome};
use vdisk_format::qed;

use super::expect_qed_unless;
use crate::documents::CopyDocument;

pub(super) fn run(path: &Path, open: OpenArgs, json: bool, out: &Path, force: bool) -> Outcome {
    let image = open.read(path)?;
    expect_qed_unless(force, path, image.bytes())?;
    let copy = OutFile::create(path, out, open, ".copy_metadata-", IfExists::Replace)?;
    let scrubbed = with_progress("copying", &image, |view| qed::scrub::scrub_to(view, copy.file()))?;
    copy.persist()?;
    if json {
        let mut stdout = Out::stdout();
        stdout.json(&CopyDocument::new(path, out, scrubbed))?;
        stdout.finish()?;
    }
    Ok(())
}
