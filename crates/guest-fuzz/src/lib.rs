//! Random guest I/O: what a guest does to its machine, as instructions; generators of them; targets that execute them;
//! and verdicts.
//!
//! The way is one: a [`region::RegionMap`] and a seed → instructions → a [`target::Target`] → a [`verdict::Verdict`].

pub mod enumerate;
pub mod error;
pub mod generate;
pub mod instruction;
mod pattern;
pub mod random;
pub mod region;
pub mod skip;
pub mod target;
pub mod verdict;

pub use error::{Error, Result};
pub use instruction::Instruction;
