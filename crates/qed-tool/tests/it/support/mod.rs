//! What the tests share besides `test_support`: the binary, images, byte patches, and QEMU's answers.

pub(crate) mod bytes;
pub(crate) mod images;
pub(crate) mod mutate;
pub(crate) mod program;
pub(crate) mod qemu;
