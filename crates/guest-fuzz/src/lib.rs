//! Random guest I/O: what a guest does to its machine, as instructions; generators of them; targets that execute them;
//! and verdicts.
//!
//! The way is one: a [`region::RegionMap`] and a seed → instructions → a [`target::Target`] → a [`verdict::Verdict`].
//!
//! | what | where |
//! |---|---|
//! | one thing that a guest does, as text and as bytes | [`Instruction`], [`program::Program`] |
//! | where a machine can be reached, and what to leave alone | [`region`], [`enumerate`], [`skip`] |
//! | which instruction comes next | [`generate::Generator`] |
//! | who executes it | [`target`]: QEMU with a firmware of ours, qtest, a Linux guest, /dev/port, a simulation |
//! | how that ended | [`engine::execute`], [`verdict`], [`signature`] |
//! | all of that for as long as wanted | `campaign::Campaign`, with `report` |
//! | seeing it again, with fewer instructions | `journal`, `replay`, [`shrink`] |
//!
//! # Example
//!
//! A campaign of 5,000 instructions on a simulated machine with a fault, which it finds, replays and makes short. With
//! `target::micro_guest::MicroGuest` in place of [`target::sim::Sim`] it is one on QEMU.
//!
#![cfg_attr(feature = "serde", doc = "```")]
#![cfg_attr(not(feature = "serde"), doc = "```ignore")]
//! use guest_fuzz::campaign::{Campaign, Options};
//! use guest_fuzz::target::{Target, sim::{Plant, Sim, SimOptions}};
//!
//! let plants = vec![Plant::Abort];
//! let start = || {
//!     let mut sim = Sim::new(SimOptions { plants: plants.clone(), ..SimOptions::default() });
//!     sim.start()?;
//!     Ok(Box::new(sim) as Box<dyn Target>)
//! };
//! let mut options = Options::new(Sim::regions_of(&plants), 1);
//! options.operations = Some(5000);
//! let report = Campaign::new(options).run(&start, &|_event| None)?;
//!
//! let finding = report.findings.first().ok_or("nothing was found")?;
//! assert_eq!((finding.verdict.as_str(), finding.shrunk_operations), ("crash", Some(1)));
//! assert!(finding.is_deterministic());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `qemu` (default) | the targets that need a system: QEMU, a Linux guest, /dev/port; on Linux. Includes `serde` |
//! | `serde` | campaigns, journals, replays and reports, as JSON |
//! | `arbitrary` | `arbitrary::Arbitrary` for instructions and programs, for fuzz targets |
//!
//! Without any of them: instructions, generators, the engine, the shrinker and the simulation.

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
mod quoted;
pub mod random;
pub mod refine;
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
