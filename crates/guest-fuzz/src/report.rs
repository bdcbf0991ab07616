//! [`Report`]: what a campaign came to, as it is written to `report.json`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::journal::Journal;
use crate::region::Skipped;
use crate::target::Identity;

/// What a campaign came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
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

impl Report {
    /// The report of one machine of which nothing is known yet but what it is, and how it is fuzzed.
    #[must_use]
    pub fn new(target: Identity, generator: impl Into<String>, seed: u64) -> Self {
        Self {
            schema: 1,
            target,
            generator: generator.into(),
            seed,
            shard: "0/1".to_owned(),
            operations: 0,
            seconds: 0.0,
            operations_per_second: 0.0,
            resets: 0,
            machines: 1,
            incidents: BTreeMap::new(),
            skipped: Vec::new(),
            findings: Vec::new(),
            unconfirmed: Vec::new(),
        }
    }

    /// Says how much was done, and how long that took.
    pub fn set_operations(&mut self, operations: u64, time: Duration) {
        self.operations = operations;
        self.seconds = time.as_secs_f64();
        self.operations_per_second = operations as f64 / self.seconds.max(1e-9);
    }
}

/// Something that was found. Findings with the same signature are one.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
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
    /// What `journal` says was found, which happened once and was neither replayed nor shrunk.
    #[must_use]
    pub fn of_journal(journal: &Journal, stderr: impl Into<String>) -> Self {
        let in_flight = journal.in_flight.as_ref();
        Self {
            verdict: journal.verdict.clone(),
            signal: journal.signal,
            signature: journal.signature.clone(),
            operation_in_flight: in_flight
                .map(|in_flight| InFlight { index: in_flight.index, text: in_flight.text.clone() }),
            operations: journal.operations.count(),
            shrunk_operations: None,
            runs: 0,
            hits: 0,
            times: 1,
            journal: String::new(),
            stderr: stderr.into(),
        }
    }

    /// Whether it happened in each replay.
    #[must_use]
    pub fn is_deterministic(&self) -> bool {
        self.runs > 0 && self.hits == self.runs
    }
}
