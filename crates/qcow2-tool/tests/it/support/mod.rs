//! What the tests share: processes, scratch folders, QEMU's programs, images and byte patches.

pub(crate) mod bytes;
pub(crate) mod images;
pub(crate) mod original;
pub(crate) mod plan;
pub(crate) mod process;
pub(crate) mod program;
pub(crate) mod qemu;
pub(crate) mod random;
pub(crate) mod scratch;
pub(crate) mod tracer;
