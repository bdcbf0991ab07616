//! Random guest I/O: what a guest does to its machine, as instructions; generators of them; targets that execute them;
//! and verdicts.
//!
//! The way is one: a [`region::RegionMap`] and a seed → instructions → a [`target::Target`] → a [`verdict::Verdict`].

#[cfg(feature = "arbitrary")]
mod arbitrary;
#[cfg(feature = "serde")]
pub mod campaign;
pub mod engine;
pub mod enumerate;
pub mod error;
pub mod generate;
pub mod instruction;
#[cfg(feature = "serde")]
pub mod journal;
mod pattern;
#[cfg(all(feature = "qemu", target_os = "linux", target_arch = "x86_64"))]
mod port_io;
pub mod program;
pub mod random;
pub mod region;
#[cfg(feature = "serde")]
pub mod replay;
#[cfg(feature = "serde")]
pub mod report;
pub mod shrink;
pub mod signature;
pub mod skip;
pub mod target;
pub mod verdict;

pub use error::{Error, Result};
pub use instruction::Instruction;
