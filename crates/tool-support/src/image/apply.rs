//! `apply`: commit a plan that `--save-plan` saved, or complete it after a crash.

use std::path::{Path, PathBuf};

use vdisk_format::undo::read_plan;

use super::plan_args::{PlanArgs, committing};
use super::{Format, OpenArgs};
use crate::status::{Outcome, note};

/// The arguments of `apply`.
#[derive(Debug, Clone, clap::Args)]
pub struct ApplyArgs {
    /// A plan saved by --save-plan, or an undo record
    pub plan: PathBuf,

    #[command(flatten)]
    options: PlanArgs,
}

impl ApplyArgs {
    /// Runs the command on the image at `path`.
    ///
    /// # Errors
    /// Where the plan does not fit the image, cannot be read, or cannot be committed.
    pub fn run(&self, format: Format, open: OpenArgs, json: bool, path: &Path) -> Outcome {
        let plan = read_plan(&self.plan)?;
        let image = self.options.open(open, path)?;
        plan.state_of(image.bytes())?;
        if self.options.show(format, json, path, &image, &plan)? {
            return Ok(());
        }
        let undo = self.options.undo_place(path, &image)?;
        let written = committing(|| Ok(plan.complete(image, undo.as_ref(), format.fingerprint)?))?;
        if !written {
            note("the plan is carried out already: nothing to do");
        }
        Ok(())
    }
}
