//! Read, check and edit disk images at the level of their bytes: qcow2 and QED.
//!
//! The library opens what is broken. Parsing never fails because a value is wrong: a [`qcow2::Header`] or a
//! [`qed::Header`] parses whenever its bytes are there, whatever they say, and what is wrong comes back as a [`report::Finding`].
//! Changes are [`plan::Plan`]s of byte-range writes, which can be shown, previewed, saved, committed with a
//! record on disk that takes them back, and undone.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use vdisk_format::qcow2::{self, Header, FeatureGroup};
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("disk.qcow2");
//! # let mut bytes = vec![0; 4096];
//! # bytes[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
//! # bytes[20..24].copy_from_slice(&[0, 0, 0, 12]);
//! # bytes[100..104].copy_from_slice(&[0, 0, 0, 104]);
//! # std::fs::write(&path, &bytes)?;
//! use vdisk_format::{Image, undo::UndoPlace};
//!
//! let image = Image::options().write(true).open(&path)?;        // takes the locks that QEMU respects
//! let plan = qcow2::edit::set_feature_bit(image.bytes(), FeatureGroup::Compatible, 0, true)?;
//! let preview = image.preview(&plan)?;                          // the image as it would be
//! assert_eq!(Header::parse(&preview)?.v3.compatible_features, 1);
//! drop(preview);
//! plan.commit(image, Some(&UndoPlace::beside(&path)?), qcow2::fingerprint)?;
//! # Ok(())
//! # }
//! ```
//!
//! Of a QED image the tables are read, too: they are checked ([`qed::check`]), mapped ([`qed::map`]), copied without what
//! the guest stored ([`qed::scrub`]), repaired ([`qed::repair`]), and corrupted for tests ([`qed::corrupt`]).
//!
//! ```no_run
//! use vdisk_format::{Image, qed};
//! let check = qed::check::check(&Image::open("disk.qed")?)?;     // a map of the file: 1 TiB costs what it holds
//! for finding in check.report.findings() {
//!     println!("{finding}");
//! }
//! # Ok::<(), vdisk_format::Error>(())
//! ```
//!
//! # Features
//! * `serde`: `Serialize` for headers, plans, reports, and what a check, a map and the others found.
//! * `decompress`: [`qcow2::read`] reads compressed clusters, zlib and zstd.
//! * `generate`: the `generate` module, a writer of valid images of any shape.

pub mod bytes;
pub mod check;
mod cluster_counts;
mod cluster_set;
mod edit;
pub mod error;
pub mod feature;
mod fingerprint;
#[cfg(feature = "generate")]
pub mod generate;
pub mod image;
pub mod limits;
pub mod lock;
pub mod plan;
pub mod preview;
pub mod qcow2;
pub mod qed;
mod random;
pub mod record;
pub mod report;
mod sparse;
pub mod table;
pub mod undo;
pub mod units;
pub mod view;

pub use error::{Error, Result};
pub use feature::FeatureGroup;
pub use image::Image;
pub use plan::Plan;
pub use view::View;

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
