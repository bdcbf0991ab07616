//! What commands ask of an image before they begin: whether it is one, and which of its snapshots is meant.

use std::path::Path;

use tool_support::{Failure, Outcome};
use vdisk_format::qcow2::header::MAGIC;
use vdisk_format::qcow2::{Header, Snapshot, Tables};

/// Refuses what does not begin as a qcow2 image: what tables of something else say means nothing.
pub(super) fn expect_qcow2(path: &Path, image: &[u8]) -> Outcome {
    other_magic(path, image)?.map_or(Ok(()), Err)
}

/// The same, for the commands that have an option to go on; not without a header.
pub(super) fn expect_qcow2_unless(force: bool, path: &Path, image: &[u8]) -> Outcome {
    match other_magic(path, image)? {
        Some(failure) if !force => Err(failure.with_hint("to go on, use --force")),
        _ => Ok(()),
    }
}

/// What is wrong with the header's first field.
fn other_magic(path: &Path, image: &[u8]) -> Outcome<Option<Failure>> {
    let magic = Header::parse(image).map_err(|error| Failure::from(error).about(path))?.v2.magic;
    let path = path.display();
    let found = format!("magic at offset 0x0: expected {MAGIC:#x}, found {magic:#x}");
    Ok((magic != MAGIC).then(|| Failure::failed(format!("{path}: {found}: no qcow2 image"))))
}

/// The snapshot with this ID; else the first one with this name, as for QEMU.
pub(super) fn snapshot<'a>(path: &Path, tables: &Tables<'a>, name: &str) -> Outcome<Snapshot<'a>> {
    let mut named = None;
    for snapshot in tables.snapshots() {
        let snapshot = match snapshot {
            Ok(snapshot) => snapshot,
            // What is before it can be found all the same.
            Err(error) => return named.ok_or_else(|| Failure::from(error).about(path)),
        };
        if snapshot.id == name.as_bytes() {
            return Ok(snapshot);
        }
        if named.is_none() && snapshot.name == name.as_bytes() {
            named = Some(snapshot);
        }
    }
    named.ok_or_else(|| {
        let path = path.display();
        Failure::failed(format!("{path}: there is no snapshot with the ID or the name '{name}'"))
    })
}
