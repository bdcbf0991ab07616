//! What the specification does not allow.

use super::Qed;
use crate::generate::GenerateError;
use crate::generate::error::field;
use crate::limits::MAX_QED_BACKING_FILE_NAME;

/// Length of the header's fields in bytes.
const HEADER: u64 = 64;

pub(super) fn fields(wanted: &Qed) -> Result<(), GenerateError> {
    let Qed { size, cluster_size, table_size, header_size, .. } = *wanted;
    let cluster_ok = cluster_size.is_power_of_two() && (1 << 12..=1 << 26).contains(&cluster_size);
    field("cluster_size", cluster_size.into(), cluster_ok, "a power of two from 4096 to 67108864")?;
    let table_ok = table_size.is_power_of_two() && table_size <= 16;
    field("table_size", table_size.into(), table_ok, "1, 2, 4, 8 or 16")?;
    field("header_size", header_size.into(), header_size > 0, "at least 1")?;
    field("image_size", size, size.is_multiple_of(512), "a multiple of 512")?;
    let entries = u128::from(table_size) * u128::from(cluster_size) / 8;
    let most = entries * entries * u128::from(cluster_size);
    field("image_size", size, u128::from(size) <= most, "at most what the tables address")?;
    let Some(name) = &wanted.backing_file else { return Ok(()) };
    let length = name.name.len() as u64;
    let max = MAX_QED_BACKING_FILE_NAME.into();
    if !(1..=max).contains(&length) {
        return Err(GenerateError::Length { what: "the backing file's name", length, min: 1, max });
    }
    let (offset, end) = (u64::from(name.offset), u64::from(name.offset) + length);
    let header_end = u64::from(header_size) * u64::from(cluster_size);
    let inside = offset >= HEADER && end <= header_end;
    field(
        "backing_filename_offset",
        offset,
        inside,
        "behind the header's fields, and the name inside its clusters",
    )
}
