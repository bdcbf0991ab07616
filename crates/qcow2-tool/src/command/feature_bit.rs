//! `set-feature-bit GROUP BIT` and `clear-feature-bit GROUP BIT`.

use tool_support::{Failure, Outcome, number};
use vdisk_format::qcow2::edit;
use vdisk_format::{Error, FeatureGroup, Plan};

use crate::original as words;

pub(super) fn plan(group: &str, bit: &str, on: bool) -> Outcome<impl FnOnce(&[u8]) -> Result<Plan, Error>> {
    let number = number::parse(bit).ok_or_else(|| Failure::original(words::not_a_bit(bit)))?;
    let bit = u32::try_from(number)
        .ok()
        .filter(|&bit| bit < 64)
        // The original names the number here, not its spelling.
        .ok_or_else(|| Failure::original(words::not_a_bit(&number.to_string())))?;
    let group = FeatureGroup::ALL
        .into_iter()
        .find(|known| known.name() == group)
        .ok_or_else(|| Failure::original(words::not_a_group(group)))?;
    Ok(move |image: &[u8]| edit::set_feature_bit(image, group, bit, on))
}
