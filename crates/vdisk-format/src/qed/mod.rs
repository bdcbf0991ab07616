//! The QED format: the header, and the two levels of tables below it.
//!
//! Field names, and the meaning of every field, are those of QEMU's `docs/interop/qed_spec`. [`Header`] reads any header,
//! [`Tables`] the tables of one whose sizes make sense; [`check::check`], [`map::map`] and the others start from an
//! [`Image`](crate::Image), a preview, or bytes.

pub mod check;
mod contested;
pub mod corrupt;
pub mod edit;
mod fingerprint;
pub mod fragmentation;
pub mod geometry;
pub mod header;
pub mod map;
pub mod repair;
pub mod scrub;
pub mod tables;
pub mod walk;

pub use fingerprint::fingerprint;
pub use geometry::{Entry, Geometry, Invalid};
pub use header::{Header, HeaderFields};
pub use tables::Tables;
