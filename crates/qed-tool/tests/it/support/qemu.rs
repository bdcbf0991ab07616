//! qemu-img and qemu-io on QED images.

use serde_json::Value;
use std::path::Path;
use test_support::process::Run;
use test_support::qemu;
pub(crate) use test_support::qemu::{img, try_img};
use test_support::scratch::text;

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

/// What a check counts: `qemu-img`'s or ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) status: Option<i32>,
    pub(crate) corruptions: u64,
    pub(crate) leaks: u64,
    pub(crate) check_errors: u64,
    pub(crate) total: u64,
    pub(crate) allocated: u64,
    pub(crate) fragmented: u64,
}

impl Counts {
    /// Of a document with qemu-img's keys, where a count that is 0 may be missing.
    pub(crate) fn of(status: Option<i32>, document: &Value) -> Counts {
        let count = |key| match &document[key] {
            Value::Null => 0,
            value => value.as_u64().unwrap(),
        };
        Counts {
            status,
            corruptions: count("corruptions"),
            leaks: count("leaks"),
            check_errors: count("check-errors"),
            total: count("total-clusters"),
            allocated: count("allocated-clusters"),
            fragmented: count("fragmented-clusters"),
        }
    }
}

/// What `qemu-img check` counts, or why it does not open the image.
pub(crate) fn try_check(file: &Path) -> Result<Counts, Run> {
    let run = try_img(&["check", "-f", FORMAT, "--output=json", text(file)]);
    match serde_json::from_slice::<Value>(&run.stdout) {
        Ok(document) => Ok(Counts::of(run.status.code(), &document)),
        Err(_) => Err(run),
    }
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
