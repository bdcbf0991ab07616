//! `zerocluster POS [N]`.

use std::path::Path;

use tool_support::image::{OpenArgs, PlanArgs};
use tool_support::status::note;
use tool_support::{Failure, Outcome};
use vdisk_format::qed::{Tables, edit::zero_clusters};

use super::{FORMAT, expect_qed, number};

pub(super) fn run(path: &Path, open: OpenArgs, json: bool, pos: &str, n: &str, plan: &PlanArgs) -> Outcome {
    let (pos, n) = (number("POS", pos)?, number("N", n)?);
    if n == 0 {
        return Err(Failure::usage("N: expected at least 1, found 0"));
    }
    plan.run_on(FORMAT, open, json, path, |image| {
        expect_qed(path, image.bytes())?;
        let zeroed = zero_clusters(&Tables::new(image)?, pos, n)?;
        if zeroed.leaked > 0 {
            note(&format!("leaked clusters, which held the data: {}", zeroed.leaked));
        }
        Ok::<_, Failure>(zeroed.plan)
    })
}
