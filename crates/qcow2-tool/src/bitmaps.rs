//! The bitmaps extension as JSON: the same object in `-j` and in `--json`.

use std::cell::RefCell;

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use tool_support::output::Lossy;
use vdisk_format::qcow2::bitmap::{
    Bitmap, BitmapTable, BitmapTableEntry, BitmapTableEntryKind, BitmapsExtension, TableBudget,
};
use vdisk_format::units::HostOffset;

/// The extension's fields, and its directory as far as it can be read.
pub(crate) struct BitmapsObject<'d> {
    pub(crate) image: &'d [u8],
    pub(crate) bitmaps: BitmapsExtension,
    /// One for all extensions of a document.
    pub(crate) budget: &'d RefCell<TableBudget>,
}

impl Serialize for BitmapsObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (field, value) in self.bitmaps.fields() {
            map.serialize_entry(field.name, &value)?;
        }
        map.serialize_entry("bitmap_directory", &Directory(self))?;
        map.end()
    }
}

struct Directory<'d>(&'d BitmapsObject<'d>);

impl Serialize for Directory<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let BitmapsObject { image, bitmaps, budget } = self.0;
        let mut seq = serializer.serialize_seq(None)?;
        for bitmap in bitmaps.directory(image).map_while(Result::ok) {
            if budget.borrow_mut().spend(&bitmap).is_err() {
                break;
            }
            seq.serialize_element(&BitmapObject(bitmap))?;
        }
        seq.end()
    }
}

struct BitmapObject<'d>(Bitmap<'d>);

impl Serialize for BitmapObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &Lossy(self.0.name))?;
        for (field, value) in self.0.fixed.fields() {
            map.serialize_entry(field.name, &value)?;
        }
        map.serialize_entry("bitmap_table", &self.0.table().ok().map(Table))?;
        map.end()
    }
}

struct Table<'d>(BitmapTable<'d>);

#[derive(Serialize)]
struct Entry {
    r#type: BitmapTableEntryKind,
    offset: HostOffset,
    reserved: u64,
}

impl Serialize for Table<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.entries().map(|entry: BitmapTableEntry| Entry {
            r#type: entry.kind(),
            offset: entry.cluster(),
            reserved: entry.reserved(),
        }))
    }
}
