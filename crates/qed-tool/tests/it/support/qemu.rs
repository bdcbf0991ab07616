//! qemu-img and qemu-io on QED images.

use std::path::Path;
use test_support::counts;
pub(crate) use test_support::counts::Counts;
use test_support::process::Run;
use test_support::qemu;
pub(crate) use test_support::qemu::{img, try_img};

const FORMAT: &str = "qed";

/// As [`qemu::create`].
#[track_caller]
pub(crate) fn create(file: &Path, options: &str, size: &str) {
    qemu::create(FORMAT, file, options, size);
}

/// As [`qemu::io`].
#[track_caller]
pub(crate) fn io(file: &Path, commands: &[&str]) {
    qemu::io(FORMAT, file, commands);
}

/// As [`qemu::opens`].
pub(crate) fn opens(file: &Path) -> bool {
    qemu::opens(FORMAT, file)
}

/// As [`counts::try_check`].
pub(crate) fn try_check(file: &Path) -> Result<Counts, Run> {
    counts::try_check(FORMAT, file)
}

/// What `qemu-img check` counts; the image has to open.
#[track_caller]
pub(crate) fn check(file: &Path) -> Counts {
    try_check(file).unwrap_or_else(|run| panic!("QEMU does not open it: {run}"))
}

/// Fails unless `qemu-img check` finds nothing.
#[track_caller]
pub(crate) fn assert_clean(file: &Path) {
    let counts = check(file);
    assert_eq!((counts.status, counts.corruptions, counts.leaks), (Some(0), 0, 0), "{counts:?}");
}
