//! What every plan promises, whoever made it.

use std::ops::Range;

use vdisk_format::plan::{State, Write};
use vdisk_format::{Image, Plan};

/// Carries `plan` out on `image` in every way there is, and returns the image after it.
#[track_caller]
pub(crate) fn kept(plan: &Plan, image: &[u8]) -> Vec<u8> {
    let after = applied(plan, image);
    assert_eq!(after.len() as u64, plan.new_length());
    assert_eq!(plan.state_of(&after).ok(), Some(State::After));
    assert_eq!(untouched(plan, image), untouched(plan, &after), "bytes outside the plan changed");

    let inverse = plan.inverse();
    assert_eq!(applied(&inverse, &after), image, "the inverse does not take the plan back");
    let ranges = |plan: &Plan| -> Vec<_> {
        plan.writes().iter().map(|write| (write.offset, write.old.clone(), write.new.clone())).collect()
    };
    assert_eq!(ranges(&inverse.inverse()), ranges(plan));

    if !plan.is_empty() {
        assert_eq!(plan.state_of(image).ok(), Some(State::Before));
        assert_eq!(inverse.state_of(&after).ok(), Some(State::Before));
    }
    for plan in [plan, &inverse] {
        assert_eq!(Plan::from_text(&plan.to_text(), "fuzz").ok().as_ref(), Some(plan), "text round trip");
    }
    let owned = Image::from_bytes(image.to_vec());
    let preview = owned.preview(plan);
    assert!(preview.is_ok_and(|preview| *preview == *after), "the preview is another image");
    after
}

/// As after a crash: the first `whole` writes are there, and `torn` bytes of the next one.
#[track_caller]
pub(crate) fn undoable(plan: &Plan, image: &[u8], whole: usize, torn: usize) {
    let mut crashed = image.to_vec();
    for (index, write) in plan.writes().iter().enumerate().take(whole + 1) {
        let length = if index < whole { write.new.len() } else { torn.min(write.new.len()) };
        let (range, new) = (range(write, length), write.new.get(..length).unwrap_or_default());
        if crashed.len() < range.end && length > 0 {
            crashed.resize(range.end, 0);
        }
        if let Some(place) = crashed.get_mut(range) {
            place.copy_from_slice(new);
        }
    }
    assert!(plan.state_of(&crashed).is_ok(), "a crash leaves what the plan calls stale");
    assert!(plan.inverse().state_of(&crashed).is_ok(), "a crash leaves what the undo calls stale");
    plan.inverse().apply_to(&mut crashed);
    assert_eq!(crashed, image, "a crash leaves what cannot be undone");
}

fn applied(plan: &Plan, image: &[u8]) -> Vec<u8> {
    let mut bytes = image.to_vec();
    plan.apply_to(&mut bytes);
    bytes
}

/// The bytes of `image`, those that the plan writes blanked, cut to what there is before and after.
fn untouched(plan: &Plan, image: &[u8]) -> Vec<u8> {
    let common = usize::try_from(plan.length().min(plan.new_length())).unwrap_or(usize::MAX);
    let mut bytes = image.get(..common).unwrap_or(image).to_vec();
    for write in plan.writes() {
        let range = range(write, write.new.len());
        let end = range.end.min(bytes.len());
        if let Some(place) = bytes.get_mut(range.start..end) {
            place.fill(0);
        }
    }
    bytes
}

/// The first `length` bytes of the write's range.
fn range(write: &Write, length: usize) -> Range<usize> {
    let start = usize::try_from(write.offset.0).unwrap_or(usize::MAX);
    start..start.saturating_add(length)
}
