//! Where chance comes from.

use std::hash::{BuildHasher, RandomState};

use tool_support::{Failure, Outcome, number};

/// The seed that the user gave, or a new one.
pub(crate) fn seed(given: Option<&str>) -> Outcome<u64> {
    let Some(text) = given else { return Ok(RandomState::new().hash_one("qed")) };
    number::unsigned(text)
        .ok_or_else(|| Failure::usage(format!("--seed: expected a number of 64 bits, found '{text}'")))
}
