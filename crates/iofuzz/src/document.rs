//! The documents that `--json` prints. A change of their shape is a change of [`SCHEMA`].

use std::collections::BTreeMap;

use guest_fuzz::region::RegionMap;
use guest_fuzz::report::{InFlight, Report};
use guest_fuzz::target::Identity;
use serde::Serialize;

/// The version of all of them.
pub(crate) const SCHEMA: u32 = 1;

/// What `replay` prints: a finding as `report.json` has it, and more.
#[derive(Debug, Serialize)]
pub(crate) struct Replayed {
    pub(crate) schema: u32,
    /// Who executed it.
    pub(crate) target: Identity,
    /// The verdict of the replays that showed what was expected; where none did, that of the last one.
    pub(crate) verdict: String,
    pub(crate) signal: Option<i32>,
    /// The status that the VMM ended itself with.
    pub(crate) code: Option<i32>,
    pub(crate) signature: String,
    pub(crate) operation_in_flight: Option<InFlight>,
    /// How many operations the file has.
    pub(crate) operations: u64,
    pub(crate) shrunk_operations: Option<u64>,
    /// How many replays there were.
    pub(crate) runs: u64,
    /// How many showed what the journal says, or, where it says nothing, what the first one showed.
    pub(crate) hits: u64,
    /// The file.
    pub(crate) journal: String,
    /// How often the machine was reset.
    pub(crate) resets: u64,
    /// How often each verdict came.
    pub(crate) verdicts: BTreeMap<String, u64>,
    /// The last that the VMM wrote to standard error.
    pub(crate) stderr: String,
}

/// What `shrink` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Shrunk {
    pub(crate) schema: u32,
    pub(crate) target: Identity,
    pub(crate) verdict: String,
    pub(crate) signal: Option<i32>,
    pub(crate) signature: String,
    /// How many operations the file has.
    pub(crate) operations: u64,
    /// How many are left.
    pub(crate) shrunk_operations: u64,
    /// Whether none of them can be left out.
    pub(crate) is_minimal: bool,
    /// How many programs were executed.
    pub(crate) runs: u64,
    /// The operations that are left, as text.
    pub(crate) instructions: Vec<String>,
    /// The file.
    pub(crate) journal: String,
}

/// What `ports` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Ports {
    pub(crate) schema: u32,
    pub(crate) target: Identity,
    #[serde(flatten)]
    pub(crate) map: RegionMap,
}

/// What `classic` prints: a report, and where the journal is.
#[derive(Debug, Serialize)]
pub(crate) struct Classic {
    #[serde(flatten)]
    pub(crate) report: Report,
    /// The journal of the whole run.
    pub(crate) journal: String,
}
