//! Writes valid qcow2 and QED images of any shape, with known contents.
//!
//! This is for tests, demonstrations, benchmarks and fuzzing seeds: whatever needs an image of a
//! given shape without a hypervisor's tools at hand. The result is always valid: what the format
//! does not allow is a [`GenerateError`]. To get an image that is *wrong*, generate a right one and
//! change its bytes.
//!
//! ```
//! use vdisk_format::generate::{Bitmap, Qcow2, Snapshot};
//!
//! let image = Qcow2::new(64 << 20)
//!     .cluster_bits(12)
//!     .backing_file("base.qcow2", Some("qcow2"))
//!     .data(1 << 20, b"known contents")
//!     .zero(2 << 20..3 << 20)
//!     .bitmap(Bitmap::new("since-monday").dirty(1 << 20..2 << 20))
//!     .snapshot(Snapshot::new("1", "clean"))
//!     .build()?;
//! assert_eq!(image.get(..4), Some(b"QFI\xfb".as_slice()));
//! # Ok::<(), vdisk_format::generate::GenerateError>(())
//! ```
//!
//! Snapshots have the contents of their time, and share with the disk what did not change since:
//!
//! ```
//! use vdisk_format::generate::{Order, Qcow2, Snapshot};
//!
//! // A full disk of 1 TiB whose clusters are in no order, and which changed between its snapshots.
//! let tib = 1 << 40;
//! let full = Qcow2::new(tib).allocate(0..tib).order(Order::Random(1));
//! let image = (1..=200).fold(full, |image, day| {
//!     image.snapshot(Snapshot::new(day.to_string(), "daily")).data(day << 30, b"changed")
//! });
//! # drop(image);
//! ```
//!
//! # How it works
//!
//! 1. The setters of [`Qcow2`] and [`Qed`] only note what is wanted.
//! 2. Everything is planned before a byte is written: `guest` turns the guest's contents into runs
//!    of clusters, `layout` gives every structure its place, which fixes every reference count.
//!    L2 tables and data are numbered, and only their number is known: a `permutation` puts them in
//!    a random order without a list of them.
//! 3. `write` goes through the plan once, and writes what is not zero. With snapshots, `disk` is
//!    what goes from one to the next, once for the plan and once for the file.
//!
//! Memory is proportional to the number of ranges described and of L2 tables, not to the size of
//! the disk or of its data: a fully allocated disk of 1 TiB is one range and 2048 tables.
//!
//! # The layout
//!
//! Like that of a new image of `qemu-img`: header, refcount table, refcount blocks, L1 table; then
//! the LUKS header; then L2 tables and data in the wanted [`Order`]; then the snapshots' L1 tables
//! and the snapshot table; then for each bitmap its data and its table; then the bitmap directory.
//! There are no leaks.
//!
//! # What it does not write
//!
//! The saved state of a virtual machine, AES encryption without LUKS, and guest data that is really
//! encrypted. QEMU's own limits (an L1 table of 32 MiB, a refcount table of 8 MiB, a bitmap name of
//! 1023 bytes, …) are not enforced: a shape beyond them is valid but QEMU will not open it.

mod error;
mod guest;
mod order;
mod permutation;
mod qcow2;
mod qed;
mod sink;
mod tables;

pub use error::GenerateError;
pub use order::Order;
pub use qcow2::{Bitmap, Luks, Qcow2, Snapshot};
pub use qed::Qed;
