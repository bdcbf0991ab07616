//! The plan that `--dry-run --json` prints.

use crate::process::Run;
use crate::program::Program;
use serde_json::Value;
use std::path::Path;

/// One write of a plan.
#[derive(Debug, Clone)]
pub struct Write {
    /// Where it starts.
    pub offset: usize,
    /// The bytes before it.
    pub old: Vec<u8>,
    /// The bytes after it.
    pub new: Vec<u8>,
}

/// Asks for the plan of an edit, which has to be possible.
#[track_caller]
pub fn of(program: Program, file: &Path, args: &[&str]) -> Vec<Write> {
    parse(&program.run(file, &[args, &["--dry-run", "--json"]].concat()).expect(0))
}

/// Reads the plan that a dry run has printed.
#[track_caller]
pub fn parse(run: &Run) -> Vec<Write> {
    let document: Value = serde_json::from_slice(&run.stdout).unwrap_or_else(|e| panic!("{e}: {run}"));
    assert_eq!(document["schema"], 1, "{run}");
    document["writes"].as_array().unwrap_or_else(|| panic!("no writes: {run}")).iter().map(write).collect()
}

fn write(value: &Value) -> Write {
    assert!(!value["why"].as_str().unwrap().is_empty(), "a write without a reason: {value}");
    Write {
        offset: usize::try_from(value["offset"].as_u64().unwrap()).unwrap(),
        old: bytes(value["old"].as_str().unwrap()),
        new: bytes(value["new"].as_str().unwrap()),
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "{hex}");
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

/// The image after the plan; panics where the plan's old bytes are not the image's.
#[track_caller]
pub fn applied(image: &[u8], writes: &[Write]) -> Vec<u8> {
    let mut after = image.to_vec();
    for write in writes {
        let end = write.offset + write.new.len();
        let there = image.len().saturating_sub(write.offset).min(write.new.len());
        assert_eq!(
            &write.old[..there],
            image.get(write.offset..write.offset + there).unwrap_or_default(),
            "old bytes at {:#x}",
            write.offset
        );
        if after.len() < end {
            after.resize(end, 0);
        }
        after[write.offset..end].copy_from_slice(&write.new);
    }
    after
}
