//! The writer of qcow2 images.

mod bitmap;
mod builder;
mod geometry;
mod header;
mod layout;
mod refcounts;
mod snapshot;
mod validate;
mod write;

pub use bitmap::Bitmap;
pub use builder::Qcow2;
pub use snapshot::Snapshot;
