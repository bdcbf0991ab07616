//! What a check counts: `qemu-img`'s or ours.

use crate::process::Run;
use crate::qemu::try_img;
use crate::scratch::text;
use serde_json::Value;
use std::path::Path;

/// The numbers of a check that both have, and its exit status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    /// The exit status.
    pub status: Option<i32>,
    /// `corruptions`.
    pub corruptions: u64,
    /// `leaks`.
    pub leaks: u64,
    /// `check-errors`.
    pub check_errors: u64,
    /// `total-clusters`.
    pub total: u64,
    /// `allocated-clusters`.
    pub allocated: u64,
    /// `fragmented-clusters`.
    pub fragmented: u64,
    /// `compressed-clusters`.
    pub compressed: u64,
    /// `image-end-offset`.
    pub image_end: u64,
}

impl Counts {
    /// Of a document with qemu-img's keys, where a count that is 0 may be missing.
    #[must_use]
    pub fn of(status: Option<i32>, document: &Value) -> Counts {
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
            compressed: count("compressed-clusters"),
            image_end: count("image-end-offset"),
        }
    }

    /// Of a run of our check, with its document. Where there is none, it says why.
    #[track_caller]
    #[must_use]
    pub fn ours(run: &Run) -> (Counts, Value) {
        match serde_json::from_slice::<Value>(&run.stdout) {
            Ok(document) => (Counts::of(run.status.code(), &document), document),
            Err(_) => {
                assert_eq!(run.status.code(), Some(1), "{run}");
                assert!(!run.stderr.is_empty(), "{run}");
                (Counts::of(Some(1), &Value::Null), Value::Null)
            }
        }
    }
}

/// What `qemu-img check` counts, or why it does not open the image.
///
/// # Errors
/// The run that printed no document.
pub fn try_check(format: &str, file: &Path) -> Result<Counts, Run> {
    let run = try_img(&["check", "-f", format, "--output=json", text(file)]);
    match serde_json::from_slice::<Value>(&run.stdout) {
        Ok(document) => Ok(Counts::of(run.status.code(), &document)),
        Err(_) => Err(run),
    }
}
