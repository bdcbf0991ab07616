//! The writer of qcow2 images.

mod bitmap;
mod builder;
mod compress;
mod disk;
mod geometry;
mod header;
mod layout;
mod luks;
mod packer;
mod place;
mod refcounts;
mod references;
mod snapshot;
mod validate;
mod write;

pub use bitmap::Bitmap;
pub use builder::Qcow2;
pub use luks::Luks;
pub use snapshot::Snapshot;
