//! The image half: for tools whose commands read and change disk images.

mod apply;
mod check;
mod feature_bit;
mod fragcheck;
pub mod line;
pub mod map;
mod open;
mod out_file;
mod plan_args;
mod progress;
mod set_header;
mod show;
mod sigbus;
mod undo;

use vdisk_format::View;
use vdisk_format::plan::Fingerprint;
use vdisk_format::report::{Report, Severity};

pub use apply::ApplyArgs;
pub use check::{Checked, print_check};
pub use feature_bit::FeatureBitArgs;
pub use fragcheck::{Fragmented, print_fragmentation};
pub use open::OpenArgs;
pub use out_file::{IfExists, OutFile};
pub use plan_args::{PlanArgs, same_file};
pub use progress::with_progress;
pub use set_header::SetHeaderArgs;
pub use undo::UndoArgs;

/// What the shared commands need to know of an image format.
#[derive(Debug, Clone, Copy)]
pub struct Format {
    /// The digest that undo records keep.
    pub fingerprint: Fingerprint,
    /// The findings that a plan's preview is compared by.
    pub check: fn(&View<'_>) -> Report,
}

/// Most findings that are told without being asked for.
const MAX_WARNINGS: usize = 12;

/// Warns of what cannot be read, or not as it is meant; the rest is for those who ask (`--json`).
pub fn warn_of(report: &Report) {
    let errors = || report.findings().iter().filter(|finding| finding.severity >= Severity::Error);
    for finding in errors().take(MAX_WARNINGS) {
        crate::status::warn(&finding.to_string());
    }
    let more = errors().count().saturating_sub(MAX_WARNINGS);
    if more > 0 {
        crate::status::warn(&format!("{more} more findings: --json lists them all"));
    }
}
