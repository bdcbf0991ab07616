//! The `--json` documents, with unknown keys denied: a change here is a change of `schema`.

#![expect(dead_code, reason = "what is not looked at still has to have its type")]

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Target {
    pub(crate) transport: String,
    pub(crate) command: Vec<String>,
    pub(crate) arguments: Vec<String>,
    pub(crate) version: String,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct InFlight {
    pub(crate) index: u64,
    pub(crate) text: String,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Finding {
    pub(crate) verdict: String,
    pub(crate) signal: Option<i32>,
    pub(crate) signature: String,
    pub(crate) operation_in_flight: Option<InFlight>,
    pub(crate) operations: u64,
    pub(crate) shrunk_operations: Option<u64>,
    pub(crate) runs: u64,
    pub(crate) hits: u64,
    pub(crate) times: u64,
    pub(crate) journal: String,
    pub(crate) stderr: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Report {
    pub(crate) schema: u32,
    pub(crate) target: Target,
    pub(crate) generator: String,
    pub(crate) seed: u64,
    pub(crate) shard: String,
    pub(crate) operations: u64,
    pub(crate) seconds: f64,
    pub(crate) operations_per_second: f64,
    pub(crate) resets: u64,
    pub(crate) machines: u64,
    pub(crate) incidents: BTreeMap<String, u64>,
    pub(crate) skipped: Vec<Skipped>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) unconfirmed: Vec<Finding>,
    /// Only what `classic` prints has it.
    pub(crate) journal: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Replayed {
    pub(crate) schema: u32,
    pub(crate) target: Target,
    pub(crate) verdict: String,
    pub(crate) signal: Option<i32>,
    pub(crate) code: Option<i32>,
    pub(crate) signature: String,
    pub(crate) operation_in_flight: Option<InFlight>,
    pub(crate) operations: u64,
    pub(crate) shrunk_operations: Option<u64>,
    pub(crate) runs: u64,
    pub(crate) hits: u64,
    pub(crate) journal: String,
    pub(crate) resets: u64,
    pub(crate) verdicts: BTreeMap<String, u64>,
    pub(crate) stderr: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Shrunk {
    pub(crate) schema: u32,
    pub(crate) target: Target,
    pub(crate) verdict: String,
    pub(crate) signal: Option<i32>,
    pub(crate) signature: String,
    pub(crate) operations: u64,
    pub(crate) shrunk_operations: u64,
    pub(crate) is_minimal: bool,
    pub(crate) runs: u64,
    pub(crate) instructions: Vec<String>,
    pub(crate) journal: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ports {
    pub(crate) schema: u32,
    pub(crate) target: Target,
    pub(crate) regions: Vec<Region>,
    pub(crate) skipped: Vec<Skipped>,
    pub(crate) pci: Vec<Function>,
    pub(crate) prologue: Vec<String>,
    pub(crate) ram: Option<(u64, u64)>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Region {
    pub(crate) space: String,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Skipped {
    pub(crate) region: Region,
    pub(crate) reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Function {
    pub(crate) address: u16,
    pub(crate) vendor: u16,
    pub(crate) device: u16,
    pub(crate) class: u32,
    pub(crate) bars: Vec<Region>,
}
