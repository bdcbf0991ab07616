//! Any text as a plan.

use twox_hash::XxHash3_64;
use vdisk_format::Plan;

/// Largest image, in bytes, on which a plan that was read is carried out: its text may claim any length.
const LARGEST: u64 = 1 << 20;

/// Reads the input as the text of a plan, as it is and with the digest that makes it whole.
///
/// # Panics
/// Where a plan that was read does not write itself as what was read, or cannot be carried out and taken back.
pub fn plan_text(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    one(text);
    let mut whole = text.to_owned();
    if !whole.ends_with('\n') {
        whole.push('\n');
    }
    let digest = XxHash3_64::oneshot(whole.as_bytes());
    one(&format!("{whole}end {digest:016x}\n"));
}

fn one(text: &str) {
    let Ok(plan) = Plan::from_text(text, "fuzz") else { return };
    assert_eq!(plan.to_text(), text);
    if plan.length().max(plan.new_length()) > LARGEST {
        return;
    }
    // The image that the plan was made for: zeros, and the old bytes in their places.
    let mut image = Vec::new();
    plan.inverse().apply_to(&mut image);
    crate::promise::kept(&plan, &image);
}
