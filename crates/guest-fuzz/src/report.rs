//! [`Report`]: what a campaign came to, as it is written to `report.json`.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::region::Skipped;
use crate::target::Identity;

/// What a campaign came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The version of this document: 1.
    pub schema: u32,
    /// Who executed the instructions.
    pub target: Identity,
    /// The generator.
    pub generator: String,
    /// The seed.
    pub seed: u64,
    /// Which part of all episodes was this one's: `I/N`, or `0/1` where it was all of them.
    pub shard: String,
    /// How many instructions were executed. Those that a replay or the shrinker executed do not count.
    pub operations: u64,
    /// How long that took.
    pub seconds: f64,
    /// The one divided by the other.
    pub operations_per_second: f64,
    /// How often a machine was reset by what it was told.
    pub resets: u64,
    /// How many machines were started.
    pub machines: u64,
    /// How often what was no finding happened: orderly exits, shutdowns, the guest's own program overwritten.
    pub incidents: BTreeMap<String, u64>,
    /// What was left alone, and why.
    pub skipped: Vec<Skipped>,
    /// What was found.
    pub findings: Vec<Finding>,
    /// What was seen once and did not happen again: hangs and stalls on a busy machine, mostly.
    pub unconfirmed: Vec<Finding>,
}

/// Something that was found. Findings with the same signature are one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// The verdict's [name](crate::verdict::Verdict::name).
    pub verdict: String,
    /// The signal that ended the VMM.
    pub signal: Option<i32>,
    /// What findings with the same cause have in common.
    pub signature: String,
    /// What was begun and not ended; `None` where it happened between two instructions.
    pub operation_in_flight: Option<InFlight>,
    /// How many operations the journal has, from the start of a fresh machine on.
    pub operations: u64,
    /// How many were left when all that could be left out was; `None` where it was not shrunk.
    pub shrunk_operations: Option<u64>,
    /// How often it was replayed on a fresh machine.
    pub runs: u64,
    /// How often it happened then.
    pub hits: u64,
    /// How often it happened in the campaign.
    pub times: u64,
    /// The journal's file; empty where none was written.
    pub journal: String,
    /// The last that the VMM wrote to standard error.
    pub stderr: String,
}

/// The operation that was in flight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InFlight {
    /// Its number in the journal, from 0.
    pub index: u64,
    /// Its text.
    pub text: String,
}

impl Finding {
    /// Whether it happened in each replay.
    #[must_use]
    pub fn is_deterministic(&self) -> bool {
        self.runs > 0 && self.hits == self.runs
    }
}
