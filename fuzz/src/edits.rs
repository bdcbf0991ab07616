//! Sequences of edits, on healthy, damaged and arbitrary images.

use std::collections::BTreeSet;

use vdisk_format::bytes::clipped;
use vdisk_format::qcow2::bitmap::BitmapsExtension;
use vdisk_format::qcow2::{FeatureGroup, Header, Magic, check, edit};
use vdisk_format::report::Severity;
use vdisk_format::{Plan, Result};

use crate::input::Input;
use crate::{healthy, mutate, promise};

/// Plans up to 8 edits, each on the image that the one before it left.
///
/// # Panics
/// Where a plan breaks a promise, or an edit does something else than its name says: a field that is set changes that
/// field only, an extension that is added is the last one and all others stay, deleting it brings the old list back,
/// and neither makes an error of what was none.
pub fn edits(input: &[u8]) {
    let mut input = Input::new(input);
    let mut image = match input.below(4) {
        0 => input.take(4096).to_vec(),
        _ => healthy::image(&mut input),
    };
    if input.below(3) == 0 {
        mutate::mutate(&mut image, &mut input);
    }
    for _ in 0..8 {
        if input.is_empty() {
            break;
        }
        image = one(&image, &mut input);
    }
}

/// Plans one edit, and returns the image after it; the image as it was where the edit is refused.
fn one(image: &[u8], input: &mut Input<'_>) -> Vec<u8> {
    let kind = input.below(5);
    let after = match kind {
        0 => set_field(image, input),
        1 => set_feature_bit(image, input),
        2 => delete(image, mutate::magic(input)),
        _ => add(image, input),
    };
    after.unwrap_or_else(|| image.to_vec())
}

/// The image after a plan that keeps every promise; `None` where there is no plan.
fn carried_out(plan: Result<Plan>, image: &[u8], input: &mut Input<'_>) -> Option<Vec<u8>> {
    let plan = plan.ok()?;
    promise::undoable(&plan, image, input.below(4), input.below(256));
    Some(promise::kept(&plan, image))
}

fn set_field(image: &[u8], input: &mut Input<'_>) -> Option<Vec<u8>> {
    let header = Header::parse(image).ok()?;
    let index = input.below(header.fields().count());
    let (field, old) = header.fields().nth(index)?;
    let value = input.value();
    let plan = edit::set_field(image, field.name, value);
    assert_eq!(plan.is_ok(), value <= field.max(), "{} = {value:#x}", field.name);
    let after = carried_out(plan, image, input)?;
    let (at, end) = (field.offset, field.offset + u64::from(field.width));
    assert_eq!(clipped(image, 0, at), clipped(&after, 0, at));
    assert_eq!(clipped(image, end, u64::MAX), clipped(&after, end, u64::MAX));
    assert_eq!(value == old, after == image);
    Some(after)
}

fn set_feature_bit(image: &[u8], input: &mut Input<'_>) -> Option<Vec<u8>> {
    let group = FeatureGroup::ALL.get(input.below(3)).copied()?;
    let (bit, on) = (input.below(70) as u32, input.flag());
    let old = Header::parse(image).ok()?.features(group);
    let after = carried_out(edit::set_feature_bit(image, group, bit, on), image, input)?;
    let new = Header::parse(&after).ok()?.features(group);
    assert_eq!(old & !(1 << bit), new & !(1 << bit), "other bits changed");
    assert_eq!(new >> bit & 1 != 0, on);
    Some(after)
}

fn add(image: &[u8], input: &mut Input<'_>) -> Option<Vec<u8>> {
    let magic = mutate::magic(input);
    let length = input.below(96);
    let data = input.take(length);
    let after = carried_out(edit::add_extension(image, magic, data), image, input)?;
    if magic == Magic::BITMAPS && data.len() as u64 != BitmapsExtension::SIZE {
        // Of this type 24 bytes are read whatever the length says, so that the rest of the data is no data.
        return Some(after);
    }
    let (old, new) = (list(image)?, list(&after)?);
    let (last, others) = new.split_last()?;
    assert_eq!(others, old, "the other extensions changed");
    assert_eq!((last.magic, last.length as usize), (magic, data.len()));
    assert_eq!(last.data, data);
    same_name(image, &after);
    let is_new = old.iter().all(|extension| extension.magic != magic);
    if is_new && !data_is_judged(magic) {
        no_new_error(image, &after);
    }
    if is_new {
        let restored = delete(&after, magic);
        assert_eq!(list(&restored?)?, old, "adding and deleting is no identity");
    }
    Some(after)
}

fn delete(image: &[u8], magic: Magic) -> Option<Vec<u8>> {
    let plan = edit::delete_extensions(image, magic).ok()?;
    let after = promise::kept(&plan, image);
    let mut old = list(image)?;
    old.retain(|extension| extension.magic != magic);
    assert_eq!(list(&after)?, old, "the other extensions changed");
    same_name(image, &after);
    // An encrypted image needs the pointer to its encryption header.
    if magic != Magic::CRYPTO_HEADER {
        no_new_error(image, &after);
    }
    Some(after)
}

/// Whether the extension's data are pointers, or a name that may be too long, which random data make errors of.
fn data_is_judged(magic: Magic) -> bool {
    [Magic::BITMAPS, Magic::CRYPTO_HEADER, Magic::BACKING_FORMAT].contains(&magic)
}

/// One extension, without its place, which edits change.
#[derive(Debug, PartialEq, Eq)]
struct Listed {
    magic: Magic,
    length: u32,
    data: Vec<u8>,
}

fn list(image: &[u8]) -> Option<Vec<Listed>> {
    let extensions = Header::parse(image).ok()?.extensions();
    let listed = extensions.map(|extension| {
        extension.map(|extension| Listed {
            magic: extension.magic,
            length: extension.length,
            data: extension.data.to_vec(),
        })
    });
    listed.collect::<Result<_>>().ok()
}

/// Whatever moves, the backing file is the same, where the file was not cut short inside its name.
fn same_name(before: &[u8], after: &[u8]) {
    let name = |image| {
        Some((Header::parse(image).ok()?.v2.backing_file_size, Header::parse(image).ok()?.backing_file()?))
    };
    let old = name(before);
    if old.is_none_or(|(size, name)| u64::from(size) == name.len() as u64) {
        assert_eq!(old, name(after), "another backing file");
    }
}

fn no_new_error(before: &[u8], after: &[u8]) {
    let errors = |image| -> BTreeSet<&str> {
        let report = Header::parse(image).map(|header| check::header(&header)).unwrap_or_default();
        let errors = report.findings().iter().filter(|finding| finding.severity == Severity::Error);
        errors.map(|finding| finding.code).collect()
    };
    let (before, after) = (errors(before), errors(after));
    // A damaged header may have any number of errors; what was hidden behind one may show when it goes.
    if before.is_empty() {
        assert!(after.is_empty(), "new errors: {after:?}");
    }
}
