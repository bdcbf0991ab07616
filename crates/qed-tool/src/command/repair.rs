//! `repair`.

use std::path::Path;
use std::process::ExitCode;

use tool_support::image::{OpenArgs, PlanArgs};
use tool_support::status::note;
use tool_support::{Failure, Outcome};
use vdisk_format::qed::{self, Tables, repair::repair};
use vdisk_format::{Image, Plan};

use super::{FORMAT, expect_qed};

/// Corruptions are left.
const LEFT: u8 = 2;

pub(super) fn run(
    path: &Path,
    open: OpenArgs,
    json: bool,
    commit: bool,
    plan: &PlanArgs,
) -> Outcome<ExitCode> {
    let mut is_corrupt = false;
    let mut options = plan.clone();
    options.dry_run |= !commit && plan.save_plan.is_none();
    options.run_on(FORMAT, open, json, path, |image| {
        expect_qed(path, image.bytes())?;
        let repair = repair(&Tables::new(image)?)?;
        is_corrupt = prove(image, &repair.plan)?;
        if repair.plan.is_empty() {
            note("there is nothing to repair without a guess");
        } else if options.dry_run {
            note("to carry the plan out, add --commit");
        }
        if repair.left > 0 {
            let left = repair.left;
            note(&format!("{left} corruptions are left: which of two owners has a cluster, nobody can tell"));
        }
        Ok::<_, Failure>(repair.plan)
    })?;
    Ok(if is_corrupt { ExitCode::from(LEFT) } else { ExitCode::SUCCESS })
}

/// Checks the image as it would be: no repair may make anything worse. Returns whether it is still corrupt.
fn prove(image: &Image, plan: &Plan) -> Outcome<bool> {
    let before = qed::check::check(image)?;
    let after = qed::check::check(&image.preview(plan)?)?;
    let worse = [
        (before.corruptions, after.corruptions, "corruptions"),
        (before.extra_corruptions, after.extra_corruptions, "faults of the header"),
    ];
    for (before, after, what) in worse {
        if after > before {
            let message = format!("the repair would make {after} {what} of {before}: nothing was written");
            return Err(Failure::failed(message));
        }
    }
    Ok(after.is_corrupt())
}
