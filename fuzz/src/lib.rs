//! The fuzz targets of `vdisk-format` and `guest-fuzz`, as functions: `fuzz_targets/` runs them under libFuzzer, `tests/smoke.rs` on a
//! stable toolchain, and the program `replay` on one input.
//!
//! A target takes any bytes, and panics where the library breaks a promise.
//!
//! ```console
//! $ cargo +nightly fuzz run edits --features libfuzzer      # in this folder's parent
//! $ cargo run -p vdisk-fuzz --bin replay -- edits fuzz/artifacts/edits/crash-…
//! $ cargo run -p vdisk-fuzz --bin seeds -- fuzz/corpus
//! ```

mod edits;
mod enumerate;
mod explain;
mod guest;
mod header;
mod healthy;
mod input;
mod mutate;
mod plan_inverse;
mod plan_text;
mod promise;
mod qcow2_check;
mod qcow2_map;
mod qcow2_scrub;
mod qed;
mod qtest_answer;
pub mod seeds;
mod structured_header;

pub use edits::edits;
pub use enumerate::{mtree, proc_ioports, region_file};
pub use explain::qcow2_explain;
pub use guest::{instruction_binary, instruction_text, journal};
pub use header::header;
pub use plan_inverse::plan_inverse;
pub use plan_text::plan_text;
pub use qcow2_check::qcow2_check;
pub use qcow2_map::qcow2_map;
pub use qcow2_scrub::qcow2_scrub;
pub use qed::{qed_check, qed_corrupt, qed_edits, qed_map, qed_parse, qed_repair, qed_scrub, qed_walk};
pub use qtest_answer::qtest_answer;
pub use structured_header::structured_header;

/// A fuzz target.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also that of its program in `fuzz_targets/`.
pub const TARGETS: [(&str, Target); 24] = [
    ("header", header),
    ("structured_header", structured_header),
    ("plan_inverse", plan_inverse),
    ("edits", edits),
    ("plan_text", plan_text),
    ("qcow2_explain", qcow2_explain),
    ("qcow2_scrub", qcow2_scrub),
    ("qed_parse", qed_parse),
    ("qed_walk", qed_walk),
    ("qed_check", qed_check),
    ("qed_map", qed_map),
    ("qed_scrub", qed_scrub),
    ("qed_corrupt", qed_corrupt),
    ("qed_edits", qed_edits),
    ("qed_repair", qed_repair),
    ("qcow2_map", qcow2_map),
    ("qcow2_check", qcow2_check),
    ("instruction_text", instruction_text),
    ("instruction_binary", instruction_binary),
    ("journal", journal),
    ("proc_ioports", proc_ioports),
    ("mtree", mtree),
    ("region_file", region_file),
    ("qtest_answer", qtest_answer),
];

/// The target called `name`.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|&(_, target)| target)
}
