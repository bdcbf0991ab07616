//! The `--json` documents that every binary has, with unknown keys denied: a change here is a change of `schema`.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::program::Program;

/// What is wrong with an image.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// The rule.
    pub code: String,
    /// How bad it is.
    pub severity: String,
    /// The structure.
    pub r#where: String,
    /// Its offset.
    pub offset: u64,
    /// What is right.
    pub expected: String,
    /// What is there.
    pub found: String,
}

/// What `--dry-run --json` prints.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// 1.
    pub schema: u32,
    /// The FILE of the command line.
    pub image: String,
    /// The file's length before.
    pub length: u64,
    /// And after.
    pub new_length: u64,
    /// What is written.
    pub writes: Vec<Write>,
    /// Findings that are there only before.
    pub mends: Vec<Finding>,
    /// Findings that are there only after.
    pub breaks: Vec<Finding>,
}

/// One write of a plan.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Write {
    /// Where it starts.
    pub offset: u64,
    /// The bytes before, in hexadecimal digits.
    pub old: String,
    /// The bytes after.
    pub new: String,
    /// What it is for.
    pub why: String,
}

/// What `undo --list --json` prints.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Records {
    /// 1.
    pub schema: u32,
    /// The next one to be undone first.
    pub records: Vec<Record>,
}

/// An undo record.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Its file.
    pub path: String,
    /// How far its commit came.
    pub state: String,
    /// The file's length after the commit.
    pub length: Option<u64>,
    /// The fingerprint after the commit, 16 hexadecimal digits.
    pub fingerprint: Option<String>,
    /// What was committed.
    pub plan: PlanInRecord,
}

/// The plan that a record has.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanInRecord {
    /// The file's length before.
    pub length: u64,
    /// And after.
    pub new_length: u64,
    /// What was written.
    pub writes: Vec<Write>,
}

/// The document that `PROGRAM FILE ARGS…` prints.
#[track_caller]
pub fn document<T: DeserializeOwned>(program: Program, file: &Path, args: &[&str]) -> T {
    let run = program.run(file, args).expect(0);
    serde_json::from_slice(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run}"))
}
