//! Any plan for any image.

use vdisk_format::{Image, Plan};

use crate::input::Input;
use crate::promise;

/// Plans writes that the input chooses, in an image that it chooses, and beyond its end.
///
/// # Panics
/// Where a plan and its inverse are not the identity, and where its text, its preview or a crash half-way is not what
/// the plan says.
pub fn plan_inverse(input: &[u8]) {
    let mut input = Input::new(input);
    let length = input.below(512);
    let image = input.take(length);
    let mut plan = Plan::new(image);
    for index in 0..input.below(9) {
        let (at, length) = (input.below(600) as u64, input.below(64));
        // A write that overlaps an earlier one is refused, and leaves the plan as it was.
        let before = plan.clone();
        if plan.set(image, at, input.take(length), format!("write {index}")).is_err() {
            assert_eq!(plan, before);
        }
    }
    let (whole, torn) = (input.below(9), input.below(64));
    promise::kept(&plan, image);
    promise::undoable(&plan, image, whole, torn);
    stale(&plan, image, &mut input);
}

/// A byte of a range that is neither the old nor the new one makes the plan stale.
fn stale(plan: &Plan, image: &[u8], input: &mut Input<'_>) {
    let Some(write) = plan.writes().get(input.below(plan.writes().len())) else { return };
    let index = input.below(64);
    let (Some(old), Some(new)) = (write.old.get(index), write.new.get(index)) else { return };
    let byte = input.byte();
    let mut other = image.to_vec();
    let at = usize::try_from(write.offset.0).unwrap_or(usize::MAX).saturating_add(index);
    if let Some(place) = other.get_mut(at).filter(|_| byte != *old && byte != *new) {
        *place = byte;
        assert!(plan.state_of(&other).is_err());
        assert!(Image::from_bytes(other).preview(plan).is_err());
    }
}
