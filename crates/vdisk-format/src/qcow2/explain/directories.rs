//! The snapshot table, and what belongs to bitmaps.

use super::tables::cut;
use super::{EntryProblem, Part, Subject};
use crate::bytes::clipped;
use crate::qcow2::bitmap::{
    BitPlace, Bitmap, BitmapEntryHeader, BitmapTableEntry, BitmapTableEntryKind, BitmapsExtension,
};
use crate::qcow2::check::{SnapshotEntry, snapshot_entries};
use crate::qcow2::geometry::Area;
use crate::qcow2::snapshot::{Snapshot, SnapshotHeader};
use crate::qcow2::tables::Tables;
use crate::units::HostOffset;

const ENTRY: u64 = 8;
const SNAPSHOT: &str = "snapshot table entry";

pub(super) fn snapshot_table(tables: &Tables<'_>, offset: u64) -> Part {
    let snapshots = tables.snapshots().map_while(Result::ok);
    let image = tables.view().bytes();
    let mut found = snapshots.filter(|snapshot| contains(snapshot.area(), offset));
    if let Some(snapshot) = found.next() {
        let part = snapshot_entry(image, &snapshot, offset);
        let is_empty = snapshot.fixed.l1_size == 0;
        return if is_empty { part } else { with_place(part, "l1_table_offset", tables) };
    }
    cut_snapshot_entry(tables, offset).unwrap_or_else(|| Part::unused(offset, offset + 1, "snapshot table"))
}

/// The part, with what is wrong with the place that a field names: that it is in the file, a check says elsewhere. Where it is
/// not aligned, it says so here.
fn with_place(part: Part, field: &str, tables: &Tables<'_>) -> Part {
    let value = match part.subject {
        Subject::Field { name, value, .. } if name == field => value,
        _ => return part,
    };
    let problems = EntryProblem::of_offset(HostOffset(value), &tables.geometry());
    part.with(problems.filter(|problem| *problem == EntryProblem::PastEnd))
}

/// Of an entry that goes on behind the file's end, the fields are there.
fn cut_snapshot_entry(tables: &Tables<'_>, offset: u64) -> Option<Part> {
    let fields = |entry: &SnapshotEntry| entry.offset..entry.offset.saturating_add(SnapshotHeader::SIZE);
    let entry = snapshot_entries(tables).find(|entry| fields(entry).contains(&offset))?;
    let is_there = fields(&entry).end <= tables.geometry().file_length();
    is_there.then(|| Part::field(SNAPSHOT, entry.fixed.fields(), entry.offset, offset))?
}

fn snapshot_entry(image: &[u8], snapshot: &Snapshot<'_>, offset: u64) -> Part {
    let start = snapshot.offset.0;
    let extra_at = start + SnapshotHeader::SIZE;
    let (extra, known) = snapshot.extra();
    let id_at = extra_at + snapshot.extra_data.len() as u64;
    let name_at = id_at + snapshot.id.len() as u64;
    let end = name_at + snapshot.name.len() as u64;
    if offset < extra_at {
        Part::field(SNAPSHOT, snapshot.fixed.fields(), start, offset)
    } else if offset < extra_at + known {
        Part::field("snapshot extra data", extra.fields(), start, offset)
    } else if offset < id_at {
        Some(Part::unused(extra_at + known, id_at, "snapshot extra data of a later specification"))
    } else {
        let id = Part::text(image, SNAPSHOT, "unique ID", (id_at, name_at - id_at), offset);
        id.or_else(|| Part::text(image, SNAPSHOT, "name", (name_at, end - name_at), offset))
    }
    .unwrap_or_else(|| Part::unused(end, snapshot.next.0, "snapshot table entry: padding"))
}

/// The bitmaps of the image, with their numbers.
fn bitmaps<'a>(tables: &Tables<'a>) -> impl Iterator<Item = (u32, Bitmap<'a>)> {
    let extension = BitmapsExtension::of(tables.header());
    let directory = extension.map(|bitmaps| bitmaps.directory(tables.view().bytes()));
    (0..).zip(directory.into_iter().flatten().map_while(Result::ok))
}

pub(super) fn bitmap_directory(tables: &Tables<'_>, offset: u64) -> Part {
    const NAME: &str = "bitmap directory entry";
    let Some((_, bitmap)) = bitmaps(tables).find(|(_, bitmap)| contains(bitmap.area(), offset)) else {
        return Part::unused(offset, offset + 1, "bitmap directory, no entry");
    };
    let start = bitmap.offset.0;
    let extra_at = start + BitmapEntryHeader::SIZE;
    let name_at = extra_at + u64::from(bitmap.fixed.extra_data_size);
    let name_size = u64::from(bitmap.fixed.name_size);
    if let Some(part) = Part::field(NAME, bitmap.fixed.fields(), start, offset) {
        return with_place(part, "bitmap_table_offset", tables);
    }
    if offset < name_at {
        return Part::unused(
            extra_at,
            name_at,
            "bitmap directory entry: extra data, of which none are defined",
        );
    }
    let name = Part::text(tables.view().bytes(), NAME, "name", (name_at, name_size), offset);
    name.unwrap_or_else(|| {
        Part::unused(name_at + name_size, bitmap.next.0, "bitmap directory entry: padding")
    })
}

pub(super) fn bitmap_table(tables: &Tables<'_>, table: Area, bitmap: u32, offset: u64) -> Part {
    let geometry = tables.geometry();
    let index = (offset - table.offset.0) / ENTRY;
    let place = Area::new(table.offset.0 + index * ENTRY, ENTRY);
    let bytes: Option<&[u8; 8]> = clipped(tables.view().bytes(), place.offset.0, ENTRY).first_chunk();
    let Some(entry) = bytes.map(|bytes| BitmapTableEntry(u64::from_be_bytes(*bytes))) else {
        return cut(place, "entry of a bitmap's table");
    };
    let fixed = bitmaps(tables).find(|(number, _)| *number == bitmap).map(|(_, bitmap)| bitmap.fixed);
    let guest = fixed.and_then(|fixed| {
        let start = BitPlace { table_index: index, byte: 0, bit: 0 };
        let last = BitPlace { table_index: index, byte: geometry.cluster_size() - 1, bit: 7 };
        let start = fixed.guest_range(start, geometry.cluster_size())?.start;
        let end = fixed.guest_range(last, geometry.cluster_size()).map_or(u64::MAX, |range| range.end);
        Some(start..end.min(geometry.virtual_size().max(start)))
    });
    let both = entry.kind() == BitmapTableEntryKind::Invalid;
    let has_data = entry.cluster().0 != 0;
    let reserved = entry.reserved();
    let place_problems = EntryProblem::of_offset(entry.cluster(), &geometry).filter(|_| has_data);
    let subject = Subject::BitmapTableEntry {
        bitmap,
        index,
        value: entry.0,
        says: entry.kind(),
        cluster: entry.cluster(),
        guest,
    };
    Part::new(place, subject)
        .with((reserved != 0).then_some(EntryProblem::Reserved { bits: reserved }))
        .with(both.then_some(EntryProblem::Both))
        .with(place_problems)
}

/// A byte of the data that the entry at `entry` of a bitmap's table names.
pub(super) fn bitmap_data(tables: &Tables<'_>, area: Area, entry: HostOffset, offset: u64) -> Part {
    let cluster_size = tables.geometry().cluster_size();
    let owner = bitmaps(tables).find(|(_, bitmap)| contains(bitmap.fixed.table(), entry.0));
    let guest = owner.and_then(|(_, bitmap)| {
        let table_index = (entry.0 - bitmap.fixed.bitmap_table_offset) / ENTRY;
        let byte = offset - area.offset.0;
        let bit = |bit| bitmap.fixed.guest_range(BitPlace { table_index, byte, bit }, cluster_size);
        let start = bit(0)?.start;
        Some(start..bit(7).map_or(u64::MAX, |range| range.end))
    });
    let Some(&bits) = clipped(tables.view().bytes(), offset, 1).first() else {
        return Part::new(Area::new(offset, 1), Subject::PastEnd);
    };
    let bitmap = owner.map(|(number, _)| number);
    Part::new(Area::new(offset, 1), Subject::BitmapBits { bitmap, bits, guest })
}

fn contains(area: Area, offset: u64) -> bool {
    (area.offset.0..area.end()).contains(&offset)
}
