//! What the tests of the binaries share: processes, scratch folders, QEMU's programs, and the checks that every binary
//! of the form `NAME FILE COMMAND [ARGS]` has to pass. A binary's tests describe it as a [`Binary`](binary::Binary) and
//! make tests of the checks with [`conformance!`], [`crash!`], [`interrupted!`] and [`locks!`].
//!
//! Nothing is skipped when a program is missing: the test fails and names the chore that installs it. Whatever is random
//! prints its seed; `VDISK_SEED` replays it.

#![expect(
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unwrap_used,
    reason = "all of this is test code, which fails by a panic"
)]

pub mod binary;
pub mod conformance;
pub mod counts;
pub mod crash;
pub mod dist;
pub mod documents;
pub mod holder;
pub mod interrupted;
pub mod locks;
pub mod measure;
pub mod plan;
pub mod process;
pub mod program;
pub mod qemu;
pub mod random;
pub mod scratch;
pub mod threads;
pub mod tracer;
