//! `undo`: take back the last change, or list what can be taken back.

use std::io::Write;
use std::path::Path;

use serde::Serialize;
use vdisk_format::Plan;
use vdisk_format::undo::{Progress, Record, UndoPlace};

use super::plan_args::{UndoDirArgs, committing};
use super::show::Shown;
use super::{Format, OpenArgs};
use crate::output::Out;
use crate::status::{Failure, Outcome};

/// The arguments of `undo`.
#[derive(Debug, Clone, clap::Args)]
pub struct UndoArgs {
    /// List the changes that can be taken back, the next one first
    #[arg(long)]
    pub list: bool,

    /// Show what would be written, and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Take the change back even though the image was changed since: its bytes are overwritten all the same
    #[arg(long)]
    pub force: bool,

    #[command(flatten)]
    undo_dir: UndoDirArgs,
}

impl UndoArgs {
    /// Runs the command on the image at `path`.
    ///
    /// # Errors
    /// Where there is nothing to undo, or it does not fit the image as it is now.
    pub fn run(&self, format: Format, open: OpenArgs, json: bool, path: &Path) -> Outcome {
        let place = self.undo_dir.place_of_last(path)?;
        if self.list {
            return list(&place, json);
        }
        let image = if self.dry_run { open.read(path)? } else { open.write(path)? };
        let Some(record) = place.last()? else {
            return Err(Failure::failed(format!("{}: there is nothing to undo", path.display())));
        };
        if !self.force {
            record.fits(&image, format.fingerprint)?;
        }
        if self.dry_run {
            let inverse = record.plan().inverse();
            return Shown::new(format, path, &image, &inverse)?.print(json);
        }
        // That it fits is known; from here on the image is written to.
        committing(|| Ok(record.undo(image, format.fingerprint, true)?))
    }
}

#[derive(Serialize)]
struct Listed<'a> {
    path: String,
    #[serde(flatten)]
    progress: Progress,
    plan: &'a Plan,
}

#[derive(Serialize)]
struct List<'a> {
    schema: u32,
    records: Vec<Listed<'a>>,
}

fn list(place: &UndoPlace, json: bool) -> Outcome {
    let records = place.records()?;
    let mut out = Out::stdout();
    if json {
        let listed = |record| Listed {
            path: Record::path(record).display().to_string(),
            progress: record.progress(),
            plan: record.plan(),
        };
        out.json(&List { schema: 1, records: records.iter().rev().map(listed).collect() })?;
    } else {
        for record in records.iter().rev() {
            let state = if record.is_unfinished() { " (interrupted)" } else { "" };
            out.untrusted(format!("{}{state}\n", record.path().display()).as_bytes())?;
            for write in record.plan().writes() {
                write!(out, "  {}  ", write.offset)?;
                out.untrusted(write.why.as_bytes())?;
                writeln!(out)?;
            }
        }
    }
    Ok(out.finish()?)
}
