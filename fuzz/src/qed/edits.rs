//! Sequences of edits: header fields, feature bits, zero clusters.

use std::collections::{BTreeMap, BTreeSet};

use vdisk_format::bytes::clipped;
use vdisk_format::error::Reason;
use vdisk_format::qed::check::check;
use vdisk_format::qed::{Header, Tables, edit};
use vdisk_format::{FeatureGroup, Plan, Result};

use super::image::put;
use super::model::Model;
use crate::input::Input;
use crate::promise;

/// Plans up to 6 edits, each on the image that the one before it left.
///
/// # Panics
/// Where a plan breaks a promise, or an edit does something else than its name says: a field, a bit, or all clusters of
/// a range and no other, and a sound image stays sound.
pub fn qed_edits(input: &[u8]) {
    let mut input = Input::new(input);
    let mut image = super::image(&mut input);
    for _ in 0..6 {
        if input.is_empty() {
            break;
        }
        let after = match input.below(6) {
            0 => set_field(&image, &mut input),
            1 => set_feature_bit(&image, &mut input),
            2 => need_check(&image, &mut input),
            _ => zero_clusters(&image, &mut input),
        };
        image = after.unwrap_or(image);
    }
}

/// The image after a plan that keeps every promise; `None` where there is no plan.
fn carried_out(plan: Result<Plan>, image: &[u8], input: &mut Input<'_>) -> Option<Vec<u8>> {
    let plan = plan.ok()?;
    promise::undoable(&plan, image, input.below(4), input.below(256));
    Some(promise::kept(&plan, image))
}

fn set_field(image: &[u8], input: &mut Input<'_>) -> Option<Vec<u8>> {
    let header = Header::parse(image).ok()?;
    let (field, _) = header.fields().nth(input.below(11))?;
    let value = input.value();
    let plan = edit::set_field(image, field.name, value);
    assert_eq!(plan.is_ok(), value <= field.max(), "{} = {value:#x}", field.name);
    let after = carried_out(plan, image, input)?;
    let (at, end) = (field.offset, field.offset + u64::from(field.width));
    assert_eq!(clipped(image, 0, at), clipped(&after, 0, at));
    assert!(clipped(image, end, u64::MAX) == clipped(&after, end, u64::MAX));
    assert_eq!(Header::parse(&after).ok()?.get(field.name), Some(value));
    Some(after)
}

fn set_feature_bit(image: &[u8], input: &mut Input<'_>) -> Option<Vec<u8>> {
    let group = FeatureGroup::ALL.get(input.below(3)).copied()?;
    let (bit, on) = (input.below(70) as u32, input.flag());
    let old = Header::parse(image).ok()?.features(group);
    let plan = edit::set_feature_bit(image, group, bit, on);
    assert_eq!(plan.is_ok(), bit < 64);
    let after = carried_out(plan, image, input)?;
    let new = Header::parse(&after).ok()?.features(group);
    assert_eq!(old & !(1 << bit), new & !(1 << bit), "other bits changed");
    assert_eq!(new >> bit & 1 != 0, on);
    Some(after)
}

fn need_check(image: &[u8], input: &mut Input<'_>) -> Option<Vec<u8>> {
    let on = input.flag();
    let after = carried_out(edit::need_check(image, on), image, input)?;
    assert_eq!(Header::parse(&after).ok()?.need_check(), on);
    assert!(clipped(image, 24, u64::MAX) == clipped(&after, 24, u64::MAX));
    Some(after)
}

fn zero_clusters(image: &[u8], input: &mut Input<'_>) -> Option<Vec<u8>> {
    let (tables, model) = (Tables::new(image).ok()?, Model::new(image)?);
    let at = match input.below(4) {
        0 => input.value(),
        // Around the end of the first table's part of the disk.
        1 => (model.entries() * model.cluster_size + input.below(4096) as u64).saturating_sub(2048),
        _ => input.below(64) as u64 * model.cluster_size,
    };
    let count = match input.below(8) {
        0 => input.value(),
        1 => model.entries() + input.below(8) as u64,
        _ => input.below(40) as u64,
    };
    let entries = entries(&model, at, count);
    let zeroed = match edit::zero_clusters(&tables, at, count) {
        Ok(zeroed) => zeroed,
        Err(error) => {
            assert_eq!(entries.err(), error.reason(), "{error}");
            return None;
        }
    };
    assert!(entries.is_ok(), "zero clusters at {at:#x}, {count} of them, although {entries:?}");
    let entries = entries.ok()?;
    let is_data = |&&at: &&u64| model.entry(at, 0).is_some_and(|value| model.wrong(value).is_none());
    let leaked = entries.iter().filter(is_data).count() as u64;
    assert_eq!(zeroed.leaked, leaked);
    let mut expected = image.to_vec();
    // A table may end in the file's last sector, of which the file need not have all.
    expected.resize(usize::try_from(zeroed.plan.new_length()).ok()?, 0);
    assert!(expected.len() < image.len() + 512);
    entries.iter().for_each(|&at| put(&mut expected, at, &1u64.to_le_bytes()));
    let after = carried_out(Ok(zeroed.plan), image, input)?;
    assert!(after == expected, "other bytes than those of the range's entries changed");

    let (before, after_check) = (check(image).ok()?, check(&after).ok()?);
    if before.corruptions == 0 {
        assert_eq!(after_check.corruptions, 0);
        assert_eq!(after_check.leaks, before.leaks + leaked);
        assert_eq!(after_check.allocated_clusters, before.allocated_clusters - leaked);
    }
    Some(after)
}

/// Where the entries are of `count` clusters from guest offset `at` on, or why there are none.
fn entries(model: &Model<'_>, at: u64, count: u64) -> Result<BTreeSet<u64>, Reason> {
    let first = at / model.cluster_size;
    let behind = first.checked_add(count).filter(|&behind| behind <= model.guest_clusters());
    let behind = behind.ok_or(Reason::PastDisk)?;
    let mut entries = BTreeSet::new();
    let l1 = model.l1();
    let mut tables = BTreeMap::new();
    for cluster in first..behind {
        let table =
            l1.get(usize::try_from(cluster / model.entries()).unwrap_or(usize::MAX)).copied().unwrap_or(0);
        if model.wrong_table(table).is_some() {
            return Err(Reason::NoTable);
        }
        if *tables.entry(table).or_insert_with(|| model.is_contested(table)) {
            return Err(Reason::Contested);
        }
        entries.insert(table + cluster % model.entries() * 8);
    }
    Ok(entries)
}
