//! `set-header NAME VALUE`.

use tool_support::{Failure, Outcome, number};
use vdisk_format::qcow2::{edit, header::known_fields};
use vdisk_format::{Error, Plan};

use crate::original as words;

pub(super) fn plan(name: &str, value: &str) -> Outcome<impl FnOnce(&[u8]) -> Result<Plan, Error>> {
    let number = number::parse(value).ok_or_else(|| Failure::original(words::not_a_number(value)))?;
    let field = known_fields()
        .find(|field| field.name == words::spec_name(name))
        .ok_or_else(|| Failure::original(words::not_a_field(name)))?;
    let number = u64::try_from(number).ok().filter(|&number| number <= field.max()).ok_or_else(|| {
        Failure::usage(format!(
            "{name} at offset {:#x}: expected 0 to {:#x} ({} bits), found {value}",
            field.offset,
            field.max(),
            8 * field.width
        ))
    })?;
    Ok(move |image: &[u8]| edit::set_field(image, field.name, number))
}
