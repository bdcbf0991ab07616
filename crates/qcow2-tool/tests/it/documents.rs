//! The shape of every `--json` document, with unknown keys denied: a change here is a change of `schema`.

use crate::support::images::one_bitmap;
use crate::support::program::{QCOW2, edit};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::Path;
use test_support::documents::{self, Finding, Plan, Records};
use test_support::scratch::scratch;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    schema: u32,
    image: String,
    header: BTreeMap<String, u64>,
    fields_in_file: usize,
    cluster_size: Option<u64>,
    unknown_additional_fields: Option<String>,
    backing_file: Option<String>,
    extension_area: Area,
    extensions: Vec<Extension>,
    findings: Vec<Finding>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Extensions {
    schema: u32,
    image: String,
    extension_area: Area,
    extensions: Vec<Extension>,
    findings: Vec<Finding>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Area {
    start: u64,
    end: Option<u64>,
    end_marker: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Extension {
    offset: u64,
    magic: u32,
    name: Option<String>,
    length: u32,
    data: String,
    backing_format: Option<String>,
    data_file: Option<String>,
    feature_names: Option<Vec<FeatureName>>,
    crypto_header: Option<CryptoHeader>,
    bitmaps: Option<Bitmaps>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FeatureName {
    r#type: u8,
    group: Option<String>,
    bit: u8,
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CryptoHeader {
    offset: u64,
    length: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bitmaps {
    nb_bitmaps: u32,
    reserved32: u32,
    bitmap_directory_size: u64,
    bitmap_directory_offset: u64,
    bitmap_directory: Vec<Bitmap>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bitmap {
    name: String,
    bitmap_table_offset: u64,
    bitmap_table_size: u32,
    flags: u32,
    r#type: u8,
    granularity_bits: u8,
    name_size: u16,
    extra_data_size: u32,
    bitmap_table: Option<Vec<Entry>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    r#type: String,
    offset: u64,
    reserved: u64,
}

#[track_caller]
fn document<T: DeserializeOwned>(file: &Path, args: &[&str]) -> T {
    documents::document(QCOW2, file, args)
}

#[test]
fn dump_header() {
    let folder = scratch();
    let path = one_bitmap(folder.path(), "image");
    let document: Header = document(&path, &["dump-header", "--json"]);
    assert_eq!((document.schema, document.fields_in_file, document.header.len()), (1, 19, 19));
    assert_eq!(document.image, path.to_str().unwrap());
    assert_eq!(document.header["compression_type"], 0);
    assert_eq!(document.cluster_size, Some(1 << document.header["cluster_bits"]));
    assert_eq!(document.extension_area.start, document.header["header_length"]);
    assert!(document.extension_area.end_marker && document.extension_area.end > Some(112));
    assert_eq!((document.backing_file, document.unknown_additional_fields), (None, None));
    assert_eq!(document.findings, []);
    let bitmaps = document.extensions.iter().find_map(|extension| extension.bitmaps.as_ref()).unwrap();
    assert_eq!((bitmaps.nb_bitmaps, bitmaps.reserved32, bitmaps.bitmap_directory_size), (1, 0, 32));
    assert!(bitmaps.bitmap_directory_offset > 0);
    let [bitmap] = &bitmaps.bitmap_directory[..] else { panic!("{bitmaps:?}") };
    assert_eq!((bitmap.name.as_str(), bitmap.name_size, bitmap.granularity_bits), ("b0", 2, 16));
    assert_eq!((bitmap.flags, bitmap.r#type, bitmap.extra_data_size), (2, 1, 0));
    let table = bitmap.bitmap_table.as_ref().unwrap();
    assert_eq!(table.len(), bitmap.bitmap_table_size as usize);
    assert!(bitmap.bitmap_table_offset > 0);
    assert_eq!((table[0].r#type.as_str(), table[0].reserved), ("serialized", 0));
    assert!(table[0].offset > 0);
}

#[test]
fn dump_header_exts_and_findings() {
    let folder = scratch();
    let path = folder.path().join("image.qcow2");
    let image = vdisk_format::generate::Qcow2::new(1 << 20)
        .backing_file("base", Some("raw"))
        .feature_name_table(true)
        .extension(0x0537_be77, [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9])
        .extension(0x4441_5441, *b"data.raw")
        .extension(7, *b"a")
        .extension(7, *b"b")
        .build()
        .unwrap();
    std::fs::write(&path, image).unwrap();
    let document: Extensions = document(&path, &["dump-header-exts", "--json"]);
    assert_eq!(document.schema, 1);
    assert!(document.image.ends_with("image.qcow2") && document.extension_area.end_marker);
    let [format, names, crypto, data_file, unknown, _] = &document.extensions[..] else {
        panic!("{document:?}")
    };
    assert_eq!(format.backing_format.as_deref(), Some("raw"));
    let name = &names.feature_names.as_ref().unwrap()[0];
    assert_eq!((name.r#type, name.group.as_deref(), name.bit), (0, Some("incompatible"), 0));
    assert!(!name.name.is_empty());
    let pointer = crypto.crypto_header.as_ref().unwrap();
    assert_eq!((pointer.offset, pointer.length), (1 << 32, 9));
    assert_eq!(data_file.data_file.as_deref(), Some("data.raw"));
    assert_eq!(
        (unknown.name.as_deref(), unknown.magic, unknown.length, unknown.data.as_str()),
        (None, 7, 1, "61")
    );
    assert!(unknown.offset > data_file.offset);
    let codes: Vec<_> =
        document.findings.iter().map(|finding| (finding.code.as_str(), finding.severity.as_str())).collect();
    assert_eq!(
        codes,
        [
            ("crypto-header-outside", "error"),
            ("repeated-extension", "error"),
            ("data-file-name", "warning"),
            ("crypto-header-unexpected", "warning")
        ]
    );
    let repeated = &document.findings[1];
    assert_eq!((repeated.expected.as_str(), repeated.found.as_str()), ("each type at most once", "2 times"));
    assert_eq!((repeated.r#where.as_str(), repeated.offset), ("header extension 0x7", unknown.offset));
}

#[test]
fn plans_and_undo_records() {
    let folder = scratch();
    let path = one_bitmap(folder.path(), "image");
    let plan: Plan = document(&path, &["set-header", "version", "7", "--dry-run", "--json"]);
    assert_eq!((plan.schema, plan.length == plan.new_length), (1, true));
    assert!(plan.image.ends_with("image.qcow2"));
    let [write] = &plan.writes[..] else { panic!("{plan:?}") };
    assert_eq!((write.offset, write.old.as_str(), write.new.as_str()), (4, "00000003", "00000007"));
    assert_eq!(write.why, "set version from 0x3 to 0x7");
    assert_eq!((plan.mends.len(), plan.breaks[0].code.as_str()), (0, "version"));

    edit(&path, &["set-feature-bit", "compatible", "0"]);
    let list: Records = document(&path, &["undo", "--list", "--json"]);
    let [record] = &list.records[..] else { panic!("{list:?}") };
    assert_eq!((list.schema, record.state.as_str()), (1, "committed"));
    assert!(
        record.path.ends_with("image.qcow2.undo-1")
            && record.fingerprint.as_ref().is_some_and(|digits| digits.len() == 16)
    );
    assert_eq!(record.length, Some(record.plan.length));
    assert_eq!((record.plan.new_length, record.plan.writes.len()), (record.plan.length, 1));
}
