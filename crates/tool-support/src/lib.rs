//! What the vdisk-tools binaries share: command lines, numbers, output that is safe on a terminal, exit status, and
//! (feature `image`) the opening of images, the options of every command that changes one, and the commands that are the
//! same for every format; feature `dist`: man pages and completions.

pub mod argv;
pub mod ascii_json;
pub mod cli;
#[cfg(feature = "dist")]
pub mod dist;
#[cfg(feature = "image")]
pub mod image;
pub mod number;
pub mod output;
pub mod status;

pub use output::Out;
pub use status::{Failure, Outcome};
