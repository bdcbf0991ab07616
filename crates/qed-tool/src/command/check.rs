//! `check`.

use std::path::Path;
use std::process::ExitCode;

use tool_support::Outcome;
use tool_support::image::{Checked, OpenArgs, print_check, with_progress};
use vdisk_format::qed;

use super::expect_qed_unless;

const NEXT: &str = "`repair` shows what can be repaired; `copy_metadata` makes a copy for a bug report";

pub(super) fn run(path: &Path, open: OpenArgs, json: bool, force: bool) -> Outcome<ExitCode> {
    let image = open.read(path)?;
    expect_qed_unless(force, path, image.bytes())?;
    let check = with_progress("checking", &image, |view| qed::check::check(view))?;
    print_check(Checked { path, format: "qed", check: &check, next: NEXT }, &[], None, json)
}
