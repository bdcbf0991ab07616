//! Scrubbed copies of qcow2 images: the same to a check, with every byte accounted for.

use vdisk_format::qcow2::Header;
use vdisk_format::qcow2::check::check;
use vdisk_format::qcow2::scrub::{Options, audit, differences, scrub};

use crate::healthy;
use crate::input::Input;
use crate::mutate::mutate;

/// Scrubs an image that the input chooses, damaged as it says; and the input itself.
///
/// # Panics
/// Where a check of the copy finds something else, though nothing was left unsettled, where the copy has a byte that belongs to
/// nothing, and where a copy of the copy is not sound.
pub fn qcow2_scrub(input: &[u8]) {
    one(input);
    let mut input = Input::new(input);
    let mut image = healthy::image(&mut input);
    one(&image);
    mutate(&mut image, &mut input);
    if let Some(copy) = one(&image) {
        one(&copy);
    }
}

fn one(image: &[u8]) -> Option<Vec<u8>> {
    let mut copy = vec![0; image.len()];
    let scrubbed = scrub(image, Options::default(), |at, bytes| {
        let place = usize::try_from(at).ok().and_then(|at| copy.get_mut(at..)?.get_mut(..bytes.len()));
        place
            .map(|place| place.copy_from_slice(bytes))
            .ok_or_else(|| std::io::Error::other("outside the image"))
    });
    let Ok(scrubbed) = scrubbed else {
        assert!(Header::parse(image).is_err(), "an image with a header was not scrubbed: {scrubbed:?}");
        return None;
    };
    let audit = audit(&copy, &scrubbed);
    assert!(audit.is_sound(), "{audit:?}");
    if scrubbed.redacted.unsettled == 0 {
        let (Ok(before), Ok(after)) = (check(image), check(&copy)) else { return Some(copy) };
        assert_eq!(differences(&before, &after), [], "a check finds something else");
    }
    Some(copy)
}
