//! The targets of QED: images, a plain model of what their tables say, and what each part of the library promises.

mod check;
mod corrupt;
mod edits;
mod image;
mod map;
mod model;
mod parse;
mod repair;
mod scrub;
mod walk;

pub use check::qed_check;
pub use corrupt::qed_corrupt;
pub use edits::qed_edits;
pub use map::qed_map;
pub use parse::qed_parse;
pub use repair::qed_repair;
pub use scrub::qed_scrub;
pub use walk::qed_walk;

pub(crate) use image::image;
