//! `duplicate l1|l2` and `invalidate l1|l2`.

use std::path::Path;

use tool_support::image::OpenArgs;
use tool_support::status::note;
use tool_support::{Failure, Outcome};
use vdisk_format::qed::Tables;
use vdisk_format::qed::corrupt::{self, Corruption, Target};

use super::{FORMAT, expect_qed, number};
use crate::args::{CorruptArgs, Level};
use crate::seed::seed;

pub(super) fn run(
    path: &Path,
    open: OpenArgs,
    json: bool,
    args: &CorruptArgs,
    corrupt: fn(&Tables<'_>, Target) -> vdisk_format::Result<Corruption>,
) -> Outcome {
    let target = target(args)?;
    note(&format!("seed: {}", target.seed));
    args.plan.run_on(FORMAT, open, json, path, |image| {
        expect_qed(path, image.bytes())?;
        let corruption = corrupt(&Tables::new(image)?, target)?;
        note(&corruption.to_string());
        Ok::<_, Failure>(corruption.plan)
    })
}

fn target(args: &CorruptArgs) -> Outcome<Target> {
    let seed = seed(args.seed.as_deref())?;
    let (l1_index, index) = match (args.at.as_deref(), args.level) {
        (None, _) => (None, None),
        (Some(at), Level::L2) if at.contains(':') => {
            let (l1_index, index) = at.split_once(':').unwrap_or_default();
            (Some(number("--at", l1_index)?), Some(number("--at", index)?))
        }
        (Some(at), _) => (None, Some(number("--at", at)?)),
    };
    let level = match args.level {
        Level::L1 => corrupt::Level::L1,
        Level::L2 => corrupt::Level::L2(l1_index),
    };
    Ok(Target { level, index, seed })
}
