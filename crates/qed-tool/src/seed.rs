//! Where chance comes from.

use std::hash::{BuildHasher, RandomState};

use tool_support::{Failure, Outcome, number};

/// The seed that the user gave, or a new one.
pub(crate) fn seed(given: Option<&str>) -> Outcome<u64> {
    let Some(text) = given else { return Ok(RandomState::new().hash_one("qed")) };
    let number = number::parse(text).and_then(|number| u64::try_from(number).ok());
    number.ok_or_else(|| Failure::usage(format!("--seed: expected a number of 64 bits, found '{text}'")))
}
