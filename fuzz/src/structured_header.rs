//! Images that were healthy before they were damaged.

use crate::input::Input;
use crate::{healthy, mutate};

/// As [`header`](crate::header), on an image of a shape, and with damage, that the input chooses.
///
/// # Panics
/// Where the library breaks a promise.
pub fn structured_header(input: &[u8]) {
    let mut input = Input::new(input);
    let mut image = healthy::image(&mut input);
    mutate::mutate(&mut image, &mut input);
    crate::header(&image);
}
