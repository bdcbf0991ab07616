//! `need_check [on|off]`.

use std::io::Write;
use std::path::Path;

use tool_support::image::{OpenArgs, PlanArgs};
use tool_support::{Failure, Out, Outcome};
use vdisk_format::qed::{Header, edit};

use super::{FORMAT, expect_qed};
use crate::args::Switch;
use crate::documents::NeedCheckDocument;

pub(super) fn run(
    path: &Path,
    open: OpenArgs,
    json: bool,
    state: Option<Switch>,
    plan: &PlanArgs,
) -> Outcome {
    if let Some(state) = state {
        let on = state == Switch::On;
        return plan.run(FORMAT, open, json, path, |image| {
            expect_qed(path, image)?;
            Ok::<_, Failure>(edit::need_check(image, on)?)
        });
    }
    if plan.dry_run || plan.save_plan.is_some() {
        return Err(Failure::usage(
            "need_check: expected on or off with --dry-run or --save-plan, found neither",
        ));
    }
    let image = open.read(path)?;
    expect_qed(path, image.bytes())?;
    let need_check = Header::parse(image.bytes())?.need_check();
    let mut out = Out::stdout();
    if json {
        out.json(&NeedCheckDocument::new(path, need_check))?;
    } else {
        writeln!(out, "{}", if need_check { "True" } else { "False" })?;
    }
    Ok(out.finish()?)
}
