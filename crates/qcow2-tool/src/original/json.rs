//! The JSON form of its dumps: Python's `json.dumps(…, indent=4)`, which escapes all but printable ASCII.

use std::cell::RefCell;
use std::io::{self, Write};

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use tool_support::Out;
use tool_support::ascii_json::Ascii;
use vdisk_format::qcow2::bitmap::TableBudget;
use vdisk_format::qcow2::{Content, Extension, Header};

use super::{DataText, extension_name, header_fields};
use crate::bitmaps::BitmapsObject;

/// The header's document.
pub(crate) fn header(out: &mut Out, header: &Header<'_>) -> io::Result<()> {
    document(out, &HeaderDocument(header))
}

/// The document of the extensions, a list.
pub(crate) fn extensions(out: &mut Out, header: &Header<'_>) -> io::Result<()> {
    let budget = TableBudget::new(header.image());
    document(out, &ExtensionsDocument { header, budget: RefCell::new(budget) })
}

fn document(out: &mut Out, value: &impl Serialize) -> io::Result<()> {
    let formatter = Ascii::with_indent(b"    ");
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut *out, formatter))?;
    writeln!(out)
}

struct HeaderDocument<'h>(&'h Header<'h>);

impl Serialize for HeaderDocument<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(header_fields(self.0).map(|(name, _, value)| (name, value)))
    }
}

struct ExtensionsDocument<'h> {
    header: &'h Header<'h>,
    budget: RefCell<TableBudget>,
}

impl Serialize for ExtensionsDocument<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let extensions = self.header.extensions().map_while(Result::ok);
        serializer.collect_seq(extensions.map(|extension| ExtensionObject { document: self, extension }))
    }
}

struct ExtensionObject<'d> {
    document: &'d ExtensionsDocument<'d>,
    extension: Extension<'d>,
}

impl Serialize for ExtensionObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let extension = &self.extension;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", extension_name(extension.magic))?;
        map.serialize_entry("magic", &extension.magic)?;
        map.serialize_entry("length", &extension.length)?;
        if let Ok(Content::Bitmaps(bitmaps)) = extension.content() {
            let ExtensionsDocument { header, budget } = self.document;
            map.serialize_entry("data", &BitmapsObject { image: header.image(), bitmaps, budget })?;
        } else {
            map.serialize_entry("data_str", &DataText(extension.data))?;
        }
        map.end()
    }
}
