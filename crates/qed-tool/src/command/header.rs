//! `dump-header` and `show header`.

use std::io::Write;
use std::path::Path;

use tool_support::image::{OpenArgs, line, warn_of};
use tool_support::{Out, Outcome};
use vdisk_format::qed::{Header, check};

use crate::documents::HeaderDocument;

pub(super) fn run(path: &Path, open: OpenArgs, json: bool) -> Outcome {
    let image = open.read(path)?;
    let header = Header::parse(image.bytes())?;
    let mut out = Out::stdout();
    if json {
        out.json(&HeaderDocument::new(path, &header))?;
        return Ok(out.finish()?);
    }
    for (field, value) in header.fields() {
        line::field(&mut out, field.name, field.notation, value)?;
    }
    if let Some(name) = header.backing_file() {
        write!(out, "{:<25} ", "backing file")?;
        out.name(name)?;
        writeln!(out)?;
    }
    out.finish()?;
    warn_of(&check::header(&header));
    Ok(())
}
