//! What the bytes of a qcow2 image are said to be.

use vdisk_format::Error;
use vdisk_format::qcow2::explain::{MOST_CLAIMS, State, explain};
use vdisk_format::qcow2::{Header, Tables};
use vdisk_format::units::HostOffset;

use crate::healthy;
use crate::input::Input;
use crate::mutate::mutate;

/// Explains bytes of a healthy image, of the same image damaged, and of the input itself.
///
/// # Panics
/// Where the library breaks a promise: a byte of a healthy image has something wrong, a part does not have the byte that it
/// is of, or a list is longer than it may be.
pub fn qcow2_explain(input: &[u8]) {
    let mut choices = Input::new(input);
    let mut image = healthy::image(&mut choices);
    some_bytes(&image, &mut choices, true);
    mutate(&mut image, &mut choices);
    some_bytes(&image, &mut choices, false);
    some_bytes(input, &mut choices, false);
}

fn some_bytes(image: &[u8], choices: &mut Input<'_>, is_healthy: bool) {
    for _ in 0..16 {
        let offset = match choices.below(4) {
            0 => choices.value(),
            1 => choices.below(256) as u64,
            _ => (choices.below(65536) as u64).checked_rem(image.len() as u64).unwrap_or(0),
        };
        one(image, offset, is_healthy);
    }
}

fn one(image: &[u8], offset: u64, is_healthy: bool) {
    let explanation = match explain(image, HostOffset(offset)) {
        Ok(explanation) => explanation,
        Err(error) => {
            assert!(Header::parse(image).is_err() && matches!(error, Error::Truncated { .. }), "{error}");
            return;
        }
    };
    assert_eq!(explanation.owners.is_some(), Tables::new(image).is_ok());
    assert!(!explanation.parts.is_empty() && explanation.parts.len() <= MOST_CLAIMS);
    for part in &explanation.parts {
        let place = part.place.offset.0..=part.place.end();
        assert!(place.contains(&offset), "{offset:#x}: {part:?}");
        assert!(!is_healthy || part.problems.is_empty(), "{offset:#x}: {part:?}");
    }
    let Some(owners) = explanation.owners else { return };
    assert!(owners.claims.len() <= MOST_CLAIMS && owners.neighbours.len() <= MOST_CLAIMS);
    assert_eq!(owners.in_file, offset < image.len() as u64);
    for claim in &owners.claims {
        assert!((claim.area.offset.0..claim.area.end()).contains(&offset), "{offset:#x}: {claim:?}");
    }
    if is_healthy {
        assert!(
            matches!(owners.state, State::Used | State::Free | State::PastEnd),
            "{offset:#x}: {owners:?}"
        );
    }
}
