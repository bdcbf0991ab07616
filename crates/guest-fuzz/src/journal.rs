//! [`Journal`]: what is needed to do a run again, as JSON. What a seed regenerates is not stored.

mod load;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::instruction::Instruction;
use crate::region::RegionMap;
use crate::target::{Identity, MAX_KEPT};

pub use load::{Replayable, is_journal};

/// The version of the journals that are written, and the only one that is read.
pub const SCHEMA: u32 = 1;
/// The largest journal that is read, in bytes.
pub const MAX_JOURNAL: usize = 64 << 20;
/// How many resets a journal has at most. Those after them are not written, and more are not read.
pub const MAX_RESETS: usize = MAX_KEPT;

/// What is needed to do a run again, and what came of it.
///
/// A replay starts from a fresh machine: operation 0 is the first one after its start.
///
/// ```
/// use guest_fuzz::journal::{Journal, Operations};
/// let mut journal = Journal::new(Operations::Instructions(vec!["outb 0x2014 0".parse()?]));
/// journal.verdict = "crash".into();
/// let json = journal.to_json();
/// assert_eq!(Journal::load(json.as_bytes(), "example")?, journal);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Journal {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Who executed the operations.
    pub target: Identity,
    /// Where the operations came from; `None` where somebody wrote them down.
    pub source: Option<Source>,
    /// Where the machine could be reached: what a generator makes depends on it.
    pub regions: RegionMap,
    /// What was executed since the machine was started.
    pub operations: Operations,
    /// The operations after which the machine was reset, by index and in order: the first [`MAX_RESETS`]. One may stand
    /// there more than once.
    pub resets: Vec<u64>,
    /// What was begun and not ended.
    pub in_flight: Option<InFlight>,
    /// The verdict's [name](crate::verdict::Verdict::name).
    pub verdict: String,
    /// The signal that ended the VMM.
    pub signal: Option<i32>,
    /// What findings with the same cause have in common; empty where nothing was found.
    pub signature: String,
}

/// Where operations came from. A run is cut into episodes; a generator, its parameters, a seed, the number of an
/// episode and a region map decide every instruction of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The generator's name.
    pub generator: String,
    /// What it was set to, by name; and `resets`, 0 where the machine was not reset between two episodes.
    pub parameters: BTreeMap<String, u64>,
    /// The seed of the whole run.
    pub seed: u64,
}

/// What was executed, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operations {
    /// Parts of episodes, which the [`Source`] regenerates.
    Episodes(Vec<Part>),
    /// The instructions themselves, in their text form: a list that was shrunk, or written by hand.
    #[serde(with = "load::lines")]
    Instructions(Vec<Instruction>),
}

/// The beginning of an episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Which episode.
    pub episode: u64,
    /// How many of its instructions were executed, from its first one on.
    pub operations: u64,
}

/// An operation that was begun and not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InFlight {
    /// Which one, from 0.
    pub index: u64,
    /// Its text form.
    pub text: String,
}

impl Operations {
    /// How many there are. A sum of parts that no number can hold is the largest number.
    #[must_use]
    pub fn count(&self) -> u64 {
        match self {
            Self::Episodes(parts) => {
                parts.iter().fold(0, |count, part| count.saturating_add(part.operations))
            }
            Self::Instructions(instructions) => instructions.len() as u64,
        }
    }
}

impl Journal {
    /// A journal of `operations`, of which nothing else is known yet.
    #[must_use]
    pub fn new(operations: Operations) -> Self {
        Self {
            schema: SCHEMA,
            target: Identity::default(),
            source: None,
            regions: RegionMap::default(),
            operations,
            resets: Vec::new(),
            in_flight: None,
            verdict: String::new(),
            signal: None,
            signature: String::new(),
        }
    }

    /// Sets [`resets`](Self::resets) from how many operations had been begun at each reset, as a
    /// [`Target`](crate::target::Target::reset_points) has it. What came before the first operation counts as after it.
    pub fn set_reset_points(&mut self, points: &[u64]) {
        let operations = self.operations.count();
        let indices = points.iter().map(|point| point.saturating_sub(1));
        self.resets = indices.take_while(|&index| index < operations).take(MAX_RESETS).collect();
    }

    /// The JSON that [`load`](Self::load) reads, with a line's end behind it.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Its maps have strings for keys, and writing to memory does not fail: there is nothing that can go wrong.
        let mut json = serde_json::to_string_pretty(self).unwrap_or_default();
        json.push('\n');
        json
    }
}

#[cfg(test)]
mod tests;
