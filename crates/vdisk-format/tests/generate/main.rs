//! What the generator writes, as `qemu-img` sees it: clean, of the wanted shape, with the wanted
//! contents.
#![cfg(feature = "generate")]
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod large;
mod random;
mod shapes;
mod special;
mod support;
