//! Random guest I/O: what a guest does to its machine, as instructions; generators of them; targets that execute them;
//! and verdicts.
//!
//! The way is one: a [`region::RegionMap`] and a seed → instructions → a [`target::Target`] → a [`verdict::Verdict`].

pub mod engine;
pub mod error;
pub mod generate;
pub mod instruction;
#[cfg(all(feature = "qemu", target_os = "linux", target_arch = "x86_64"))]
mod port_io;
pub mod random;
pub mod region;
pub mod shrink;
pub mod signature;
pub mod target;
pub mod verdict;

pub use error::{Error, Result};
pub use instruction::Instruction;
