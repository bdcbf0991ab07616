//! What the tests share besides `test_support`: the binary, images, byte patches and the original.

pub(crate) mod bytes;
pub(crate) mod images;
pub(crate) mod mutate;
pub(crate) mod original;
pub(crate) mod program;
pub(crate) mod qemu;
pub(crate) mod shapes;
pub(crate) mod tables;
