//! The qcow2 format: the header, its extensions, and what they point to.
//!
//! Field names, and the meaning of every field, are those of QEMU's `docs/interop/qcow2`.

pub mod bitmap;
pub mod check;
pub mod edit;
pub mod extension;
mod fingerprint;
pub mod header;

pub use extension::{Content, Extension, Extensions, Magic};
pub use fingerprint::fingerprint;
pub use header::{AdditionalFields, Header, HeaderV2, HeaderV3};

pub use crate::feature::FeatureGroup;
