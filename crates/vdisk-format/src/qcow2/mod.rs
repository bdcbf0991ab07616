//! The qcow2 format: the header, its extensions, and what they point to.
//!
//! Field names, and the meaning of every field, are those of QEMU's `docs/interop/qcow2`.

pub mod bitmap;
pub mod check;
pub mod claims;
pub mod crypto;
pub mod edit;
pub mod explain;
pub mod extension;
mod fingerprint;
pub mod fragmentation;
pub mod geometry;
pub mod header;
pub mod l1;
mod l1_tables;
pub mod l2;
pub mod map;
pub mod read;
mod reader;
pub mod refcount;
pub mod runs;
pub mod scrub;
mod segments;
pub mod snapshot;
pub mod tables;

pub use extension::{Content, Extension, Extensions, Magic};
pub use fingerprint::fingerprint;
pub use geometry::{Area, Compression, Geometry};
pub use header::{AdditionalFields, Header, HeaderV2, HeaderV3};
pub use l1::L1Entry;
pub use l2::{L2Entry, L2Format, Mapping};
pub use refcount::{RefcountBlock, RefcountTableEntry};
pub use snapshot::{Snapshot, Snapshots};
pub use tables::Tables;

pub use crate::feature::FeatureGroup;
