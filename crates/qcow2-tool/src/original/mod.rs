//! What QEMU's qcow2.py prints, byte for byte: its messages (but for those that
//! `tool_support` has), its text ([`text`]) and its JSON ([`json`]).

pub(crate) mod json;
pub(crate) mod text;

use serde::{Serialize, Serializer};
use tool_support::output::Lossy;
use vdisk_format::qcow2::{Header, Magic};
use vdisk_format::record::{Field, Notation};

pub(crate) fn not_a_magic_number(value: &str) -> String {
    format!("'{value}' is not a valid magic number")
}

pub(crate) const NO_SUCH_EXTENSION: &str = "No such header extension";

/// The 18 fields of its header dump, which it prints for version 2 as well, and under its own names.
fn header_fields(header: &Header<'_>) -> impl Iterator<Item = (&'static str, Notation, u64)> {
    let named = |(field, value): (&'static Field, u64)| (original_name(field.name), field.notation, value);
    header.v2.fields().chain(header.v3.fields()).map(named)
}

/// Its name for a field of the specification's name.
fn original_name(name: &'static str) -> &'static str {
    if name == "snapshots_offset" { "snapshot_offset" } else { name }
}

/// The specification's name for a field of its name.
pub(crate) fn spec_name(name: &str) -> &str {
    if name == "snapshot_offset" { "snapshots_offset" } else { name }
}

fn extension_name(magic: Magic) -> &'static str {
    match magic {
        Magic::BACKING_FORMAT => "Backing format",
        Magic::FEATURE_NAME_TABLE => "Feature table",
        Magic::CRYPTO_HEADER => "Crypto header",
        Magic::BITMAPS => "Bitmaps",
        Magic::DATA_FILE => "Data file",
        _ => "<unknown>",
    }
}

/// Extension data as it shows them: quoted where all bytes are Python's `string.printable`, else not at all.
struct DataText<'d>(&'d [u8]);

impl<'d> DataText<'d> {
    /// The bytes, where they are shown.
    fn printable(&self) -> Option<&'d [u8]> {
        self.0.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'..=b'\r')).then_some(self.0)
    }
}

impl Serialize for DataText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.printable() {
            Some(data) => serializer.collect_str(&format_args!("'{}'", Lossy(data))),
            None => serializer.serialize_str(BINARY),
        }
    }
}

const BINARY: &str = "<binary>";
