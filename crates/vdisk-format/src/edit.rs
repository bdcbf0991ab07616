//! What edits of a header's fields have in common, whatever the format.

use crate::error::{Error, Reason, Result};
use crate::feature::FeatureGroup;
use crate::plan::Plan;
use crate::record::Field;

/// Plans to set the field called `name` of a header that has `fields` in the file: its bytes, and nothing else. `None`
/// where it has no such field.
pub(crate) fn set_field(
    image: &[u8],
    mut fields: impl Iterator<Item = (&'static Field, u64)>,
    name: &str,
    value: u64,
) -> Result<Option<Plan>> {
    let Some((field, old)) = fields.find(|(field, _)| field.name == name) else { return Ok(None) };
    let mut plan = Plan::new(image);
    let why = format!("set {name} from {old:#x} to {value:#x}");
    plan.set(image, field.offset, &field.encode(value)?, why)?;
    Ok(Some(plan))
}

/// The bits of a group, `old` so far, with one of them set (`on`) or cleared.
pub(crate) fn with_bit(group: FeatureGroup, old: u64, bit: u32, on: bool) -> Result<u64> {
    let Some(mask) = 1u64.checked_shl(bit) else {
        let what = format!("{} feature bit", group.name());
        return Err(Error::refused(Reason::OutOfRange, what, None, "0 to 63", bit.to_string()));
    };
    Ok(if on { old | mask } else { old & !mask })
}
