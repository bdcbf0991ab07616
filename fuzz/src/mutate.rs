//! Damage to an image, aimed at what a reader of headers follows.

use vdisk_format::qcow2::Magic;
use vdisk_format::qcow2::extension::ExtensionHeader;
use vdisk_format::qcow2::header::known_fields;

use crate::input::Input;

const MAGICS: [u32; 7] = [
    Magic::BITMAPS.0,
    Magic::FEATURE_NAME_TABLE.0,
    Magic::BACKING_FORMAT.0,
    Magic::CRYPTO_HEADER.0,
    Magic::DATA_FILE.0,
    Magic::END.0,
    0x1234_5678,
];

/// A type of header extension.
pub(crate) fn magic(input: &mut Input<'_>) -> Magic {
    Magic(input.one_of(&MAGICS))
}

/// Damages `image` in up to 8 ways.
pub(crate) fn mutate(image: &mut Vec<u8>, input: &mut Input<'_>) {
    for _ in 0..input.below(9) {
        match input.below(6) {
            0 | 1 => {
                let index = input.below(known_fields().count());
                if let Some(field) = known_fields().nth(index) {
                    let value = input.value() & field.max();
                    put(image, field.offset, &field.encode(value).unwrap_or_default());
                }
            }
            2 => put(image, input.below(1024) as u64, input.take(1)),
            3 => put(image, 8 * input.below(4096) as u64, &input.value().to_be_bytes()),
            4 => {
                let at = 72 + 8 * input.below(64) as u64;
                let length = u32::try_from(input.value()).unwrap_or(u32::MAX);
                put(image, at, &ExtensionHeader { magic: magic(input).0, length }.to_bytes());
            }
            _ => image.truncate(input.below(4096)),
        }
    }
}

/// Overwrites the part of the range that the image has.
fn put(image: &mut [u8], at: u64, bytes: &[u8]) {
    let tail = usize::try_from(at).ok().and_then(|at| image.get_mut(at..)).unwrap_or_default();
    tail.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
}
