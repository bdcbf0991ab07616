//! The JSON form of its dumps: Python's `json.dumps(…, indent=4)`, which escapes all but printable ASCII.

use std::cell::RefCell;
use std::io::{self, Write};

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::ser::{CharEscape, Formatter, PrettyFormatter};
use tool_support::Out;
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
    let formatter = Python(PrettyFormatter::with_indent(b"    "));
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut *out, formatter))?;
    writeln!(out)
}

/// serde_json's indented form, but for characters that Python escapes and serde_json does not.
struct Python(PrettyFormatter<'static>);

impl Formatter for Python {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        for c in fragment.chars() {
            if matches!(c, ' '..='~') {
                write!(writer, "{c}")?;
            } else {
                let mut units = [0; 2];
                c.encode_utf16(&mut units).iter().try_for_each(|unit| write!(writer, "\\u{unit:04x}"))?;
            }
        }
        Ok(())
    }

    fn write_char_escape<W: ?Sized + Write>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()> {
        self.0.write_char_escape(writer, escape)
    }

    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
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
