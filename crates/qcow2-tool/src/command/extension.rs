//! `add-header-ext MAGIC DATA`, `add-header-ext-stdio MAGIC` and `del-header-ext MAGIC`.

use std::io::Read;

use tool_support::status::FAILED;
use tool_support::{Failure, Outcome, number};
use vdisk_format::error::Reason;
use vdisk_format::limits::CLUSTER_BITS;
use vdisk_format::qcow2::{Magic, edit};
use vdisk_format::{Error, Plan};

use crate::original as words;

pub(super) fn add(magic: &str, data: Vec<u8>) -> Outcome<impl FnOnce(&[u8]) -> Result<Plan, Error>> {
    let magic = self::magic(magic)?;
    Ok(move |image: &[u8]| edit::add_extension(image, magic, &data))
}

/// Reads no more of standard input than the largest first cluster has room for.
pub(super) fn add_stdin(magic: &str) -> Outcome<impl FnOnce(&[u8]) -> Result<Plan, Error>> {
    self::magic(magic)?;
    let limit = 1u64 << CLUSTER_BITS.end();
    let mut data = Vec::new();
    std::io::stdin()
        .take(limit + 1)
        .read_to_end(&mut data)
        .map_err(|error| Failure::failed(format!("cannot read standard input: {error}")))?;
    if data.len() as u64 > limit {
        let message = format!("standard input: expected at most the {limit} bytes of a cluster, found more");
        return Err(Failure::failed(message));
    }
    add(magic, data)
}

pub(super) fn delete(magic: &str) -> Outcome<impl FnOnce(&[u8]) -> Outcome<Plan>> {
    let magic = self::magic(magic)?;
    Ok(move |image: &[u8]| {
        edit::delete_extensions(image, magic).map_err(|error| match error.reason() {
            Some(Reason::NoSuchExtension) => {
                Failure::Original { status: FAILED, message: words::NO_SUCH_EXTENSION.to_owned() }
            }
            _ => error.into(),
        })
    })
}

fn magic(text: &str) -> Outcome<Magic> {
    let magic = number::parse(text).and_then(|number| u32::try_from(number).ok()).map(Magic);
    // 0 ends the extension area: no extension has this type.
    magic
        .filter(|&magic| magic != Magic::END)
        .ok_or_else(|| Failure::original(words::not_a_magic_number(text)))
}
