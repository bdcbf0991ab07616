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
    // Hand-written text may differ in what does not matter: the library's own text says the same, and stays as it is.
    let written = plan.to_text();
    let again = Plan::from_text(&written, "fuzz");
    assert_eq!(again.as_ref().map(Plan::to_text).ok(), Some(written));
    let Ok(again) = again else { return };
    assert_eq!((again.length(), again.new_length()), (plan.length(), plan.new_length()));
    assert_eq!(bytes_of(&again), bytes_of(&plan));
    if plan.length().max(plan.new_length()) > LARGEST {
        return;
    }
    // The image that the plan was made for: zeros, and the old bytes in their places.
    let mut image = Vec::new();
    plan.inverse().apply_to(&mut image);
    crate::promise::kept(&again, &image);
}

fn bytes_of(plan: &Plan) -> Vec<(u64, &[u8], &[u8])> {
    plan.writes().iter().map(|write| (write.offset.0, &*write.old, &*write.new)).collect()
}
