//! The documents of `--json`: each one object with a `schema` number. README.md describes them; a change of shape
//! raises the number.

use std::cell::RefCell;
use std::path::Path;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use tool_support::output::Lossy;
use vdisk_format::bytes::{Hex, clipped};
use vdisk_format::limits::{CLUSTER_BITS, MAX_BACKING_FILE_NAME};
use vdisk_format::qcow2::bitmap::TableBudget;
use vdisk_format::qcow2::extension::{AreaEnd, FeatureNames};
use vdisk_format::qcow2::{Content, Extension, Header, check};
use vdisk_format::record::Field;
use vdisk_format::report::Report;
use vdisk_format::units::HostOffset;

use crate::bitmaps::BitmapsObject;

const SCHEMA: u32 = 1;

/// Most bytes of one extension's data that a document shows: without an end marker, an extension may claim gigabytes.
const MAX_DATA: u64 = 1 << *CLUSTER_BITS.end();

/// The document of `dump-header`.
#[derive(Serialize)]
pub(crate) struct HeaderDocument<'h> {
    schema: u32,
    image: String,
    header: Fields<'h>,
    /// How many fields of `header` are in the file; the others have the value that the specification assumes.
    fields_in_file: usize,
    cluster_size: Option<u64>,
    /// Header bytes behind the known fields, where any is not 0.
    unknown_additional_fields: Option<Hex<'h>>,
    backing_file: Option<Lossy<'h>>,
    #[serde(flatten)]
    extensions: ExtensionsPart<'h>,
}

/// The document of `dump-header-exts`.
#[derive(Serialize)]
pub(crate) struct ExtensionsDocument<'h> {
    schema: u32,
    image: String,
    #[serde(flatten)]
    extensions: ExtensionsPart<'h>,
}

#[derive(Serialize)]
struct ExtensionsPart<'h> {
    extension_area: AreaObject,
    extensions: Extensions<'h>,
    findings: Report,
}

impl<'h> HeaderDocument<'h> {
    pub(crate) fn new(path: &Path, header: &'h Header<'h>) -> Self {
        let unknown = header.additional().unknown();
        Self {
            schema: SCHEMA,
            image: path.display().to_string(),
            header: Fields(header),
            fields_in_file: header.fields().count(),
            cluster_size: header.cluster_size(),
            unknown_additional_fields: unknown.iter().any(|&byte| byte != 0).then_some(Hex(unknown)),
            backing_file: header
                .backing_file()
                .map(|name| Lossy(clipped(name, 0, MAX_BACKING_FILE_NAME.into()))),
            extensions: ExtensionsPart::new(header),
        }
    }
}

impl<'h> ExtensionsDocument<'h> {
    pub(crate) fn new(path: &Path, header: &'h Header<'h>) -> Self {
        Self { schema: SCHEMA, image: path.display().to_string(), extensions: ExtensionsPart::new(header) }
    }
}

impl<'h> ExtensionsPart<'h> {
    fn new(header: &'h Header<'h>) -> Self {
        Self {
            extension_area: AreaObject::new(header),
            extensions: Extensions { header, budget: RefCell::new(TableBudget::new(header.image())) },
            findings: check::header(header),
        }
    }
}

/// All fields, of all versions.
struct Fields<'h>(&'h Header<'h>);

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Header { v2, v3, .. } = self.0;
        let compression_type = self.0.additional().compression_type().unwrap_or(0);
        let named = |(field, value): (&'static Field, u64)| (field.name, value);
        let last = ("compression_type", u64::from(compression_type));
        serializer.collect_map(v2.fields().chain(v3.fields()).map(named).chain([last]))
    }
}

#[derive(Serialize)]
struct AreaObject {
    start: u32,
    end: Option<HostOffset>,
    end_marker: bool,
}

impl AreaObject {
    fn new(header: &Header<'_>) -> Self {
        let mut walk = header.extensions();
        walk.by_ref().for_each(drop);
        let (end, end_marker) = match walk.end() {
            AreaEnd::Marker(at) => (Some(at), true),
            AreaEnd::Bound(at) => (Some(at), false),
            _ => (None, false),
        };
        Self { start: header.v3.header_length, end, end_marker }
    }
}

struct Extensions<'h> {
    header: &'h Header<'h>,
    budget: RefCell<TableBudget>,
}

impl<'h> Serialize for Extensions<'h> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let extensions = self.header.extensions().map_while(Result::ok);
        let cut =
            |extension: Extension<'h>| Extension { data: clipped(extension.data, 0, MAX_DATA), ..extension };
        serializer
            .collect_seq(extensions.map(|extension| ExtensionObject { all: self, extension: cut(extension) }))
    }
}

struct ExtensionObject<'h> {
    all: &'h Extensions<'h>,
    extension: Extension<'h>,
}

impl Serialize for ExtensionObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let extension = &self.extension;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("offset", &extension.offset)?;
        map.serialize_entry("magic", &extension.magic)?;
        map.serialize_entry("name", &extension.magic.name())?;
        map.serialize_entry("length", &extension.length)?;
        map.serialize_entry("data", &Hex(extension.data))?;
        match extension.content() {
            Ok(Content::BackingFormat(name)) => map.serialize_entry("backing_format", &Lossy(name))?,
            Ok(Content::DataFile(name)) => map.serialize_entry("data_file", &Lossy(name))?,
            Ok(Content::FeatureNames(names)) => map.serialize_entry("feature_names", &Names(names))?,
            Ok(Content::CryptoHeader(pointer)) => map.serialize_entry("crypto_header", &pointer)?,
            Ok(Content::Bitmaps(bitmaps)) => {
                let Extensions { header, budget } = self.all;
                map.serialize_entry("bitmaps", &BitmapsObject { image: header.image(), bitmaps, budget })?;
            }
            Ok(_) | Err(_) => {}
        }
        map.end()
    }
}

struct Names<'h>(FeatureNames<'h>);

impl Serialize for Names<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Name<'n> {
            r#type: u8,
            group: Option<&'static str>,
            bit: u8,
            name: Lossy<'n>,
        }
        serializer.collect_seq(self.0.entries().map(|entry| Name {
            r#type: entry.kind,
            group: entry.group().map(vdisk_format::FeatureGroup::name),
            bit: entry.bit,
            name: Lossy(entry.name),
        }))
    }
}
