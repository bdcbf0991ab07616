//! What the vdisk-tools binaries share: output that is safe on a terminal, exit status, and (feature `image`) the
//! opening of images, the options of every command that changes one, and `undo` and `apply`.

pub mod ascii_json;
#[cfg(feature = "image")]
pub mod image;
pub mod output;
pub mod status;

pub use output::Out;
pub use status::{Failure, Outcome};
