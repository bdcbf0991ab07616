//! The snapshot table: what is copied of it, and what stands in for the rest.

use std::collections::BTreeMap;

use super::Structure;
use super::records::{Records, beyond};
use crate::bytes::clipped;
use crate::limits::MAX_SNAPSHOT_TABLE_BYTES;
use crate::qcow2::check::{SnapshotEntry, snapshot_entries};
use crate::qcow2::geometry::MAX_L1_BYTES;
use crate::qcow2::geometry::{Area, Geometry};
use crate::qcow2::snapshot::{Snapshot, SnapshotExtra, SnapshotHeader};
use crate::qcow2::tables::Tables;

/// Most extra data that QEMU takes, and least that version 3 has.
const MAX_EXTRA_DATA: u32 = 1024;
const MIN_EXTRA_DATA: u32 = 16;
/// The largest L1 table that QEMU takes, in entries.
const MAX_L1_SIZE: u32 = (MAX_L1_BYTES / 8) as u32;
/// Of how large a VM's state was, more than that is not told, and of its times nothing.
const MAX_VM_STATE: u32 = 1 << 31;
/// The first four fields of an entry, and the last one: what a check looks at.
const JUDGED_FIELDS: [(u64, u64); 2] = [(0, 16), (36, 4)];
/// All fields of an entry but its times.
const UNTIMED_FIELDS: [(u64, u64); 2] = [(0, 16), (32, 8)];
/// Where another time is in the extra data.
const ICOUNT_AT: u64 = 16;
/// Where the disk's size is in the extra data.
const DISK_SIZE_AT: u64 = 8;
/// Disks are smaller, and have whole sectors.
const MAX_DISK: u64 = 1 << 50;
/// QEMU's IDs are numbers up to this long: of any other it is only told which are the same.
const MAX_ID: usize = 5;
/// Bytes of what stands in for another ID: as many as it had, up to this.
const STAND_IN_ID: usize = 8;

/// What a check makes of an entry's L1 table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Judged {
    aligned: bool,
    too_large: bool,
    reach: Reach,
    /// Whether it is too short for the disk that the snapshot had.
    short: bool,
}

/// How much of a table the file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    All(Area),
    /// To the end of the file.
    From(u64),
    /// It lies behind the file.
    Nothing,
    /// It is no more than a place.
    Empty,
}

/// Where an entry is.
struct Place<'g> {
    geometry: &'g Geometry,
    at: u64,
    /// Where the snapshot table is.
    table: u64,
    /// Whether all of it is in the file.
    is_whole: bool,
}

impl Place<'_> {
    /// What is read of an entry: zeroes behind the end of the file.
    fn as_read(&self, fixed: SnapshotHeader) -> SnapshotHeader {
        let there =
            usize::try_from(self.geometry.file_length().saturating_sub(self.at)).unwrap_or(usize::MAX);
        let mut bytes = fixed.to_bytes();
        bytes.iter_mut().skip(there).for_each(|byte| *byte = 0);
        SnapshotHeader::parse(&bytes, 0).unwrap_or_default()
    }

    fn judged(&self, fixed: SnapshotHeader, disk_size: Option<u64>) -> Judged {
        let fixed = self.as_read(fixed);
        let table = Area::new(fixed.l1_table_offset, u64::from(fixed.l1_size) * 8);
        let limit = self.limit();
        let reach = match table.end() {
            _ if table.length == 0 => Reach::Empty,
            end if end < limit => Reach::All(table),
            _ if table.offset.0 < limit => Reach::From(table.offset.0),
            _ => Reach::Nothing,
        };
        Judged {
            aligned: self.geometry.is_aligned(table.offset.0),
            too_large: table.length > MAX_L1_BYTES,
            reach,
            short: self.is_whole && u64::from(fixed.l1_size) < self.needed(disk_size),
        }
    }

    fn needed(&self, disk_size: Option<u64>) -> u64 {
        disk_size.unwrap_or(self.geometry.virtual_size()).div_ceil(self.geometry.l2_span())
    }

    /// Behind that, nothing is claimed.
    fn limit(&self) -> u64 {
        self.geometry.reach()
    }

    /// The entry's L1 table, and the size of its disk, that a check makes the same of.
    fn stand_in(&self, fixed: SnapshotHeader, disk_size: Option<u64>) -> (SnapshotHeader, Option<u64>) {
        let judged = self.judged(fixed, disk_size);
        let offset = fixed.l1_table_offset;
        let offset = if offset < self.limit() { offset } else { beyond(offset) };
        let behind = u32::try_from(self.limit().saturating_sub(offset).div_ceil(8)).unwrap_or(u32::MAX);
        let needed = u32::try_from(self.needed(None)).unwrap_or(u32::MAX);
        let exact = matches!(judged.reach, Reach::All(_)).then_some(fixed.l1_size);
        let sizes = [0, 1, behind, needed, behind.max(needed), MAX_L1_SIZE, MAX_L1_SIZE + 1, u32::MAX];
        let disks = disk_size.map_or([None; 3], |size| {
            let is_one = size < MAX_DISK && size.is_multiple_of(512);
            [Some(if is_one { size } else { 0 }), Some(0), Some(u64::MAX)]
        });
        exact
            .into_iter()
            .chain(sizes)
            .flat_map(|l1_size| {
                disks.map(|disk| (SnapshotHeader { l1_table_offset: offset, l1_size, ..fixed }, disk))
            })
            .find(|&(fixed, disk)| self.judged(fixed, disk) == judged)
            .unwrap_or_default()
    }

    /// Where an entry of these sizes ends, as far as it matters; and what is said of its extra data.
    fn layout(&self, fixed: SnapshotHeader) -> (u64, bool, bool, bool) {
        let fixed = self.as_read(fixed);
        let strings = u64::from(fixed.id_str_size) + u64::from(fixed.name_size);
        let length = SnapshotHeader::SIZE + u64::from(fixed.extra_data_size) + strings;
        let (end, next) =
            (self.at.saturating_add(length), self.at.saturating_add(length.next_multiple_of(8)));
        let is_too_large = next.saturating_sub(self.table) > MAX_SNAPSHOT_TABLE_BYTES;
        let extra = fixed.extra_data_size;
        let end = if next < self.limit() { next } else { end.min(self.limit()) };
        (end, extra < MIN_EXTRA_DATA, extra > MAX_EXTRA_DATA, is_too_large)
    }

    /// Sizes that lead to the same place.
    fn sizes(&self, fixed: SnapshotHeader) -> SnapshotHeader {
        let wanted = self.layout(fixed);
        if wanted.0 < self.limit() {
            return fixed;
        }
        let with = |extra_data_size| SnapshotHeader {
            extra_data_size,
            id_str_size: u16::MAX,
            name_size: u16::MAX,
            ..fixed
        };
        let sizes =
            [0, MIN_EXTRA_DATA, MAX_EXTRA_DATA, 1 << 11, 1 << 20, 1 << 23, 1 << 25, u32::MAX].map(with);
        sizes.into_iter().find(|&fixed| self.layout(fixed) == wanted).unwrap_or(fixed)
    }
}

/// What stands in for IDs: the same for the same.
#[derive(Debug, Default)]
struct Ids<'a>(BTreeMap<&'a [u8], Vec<u8>>);

impl<'a> Ids<'a> {
    fn of(&mut self, id: &'a [u8]) -> Vec<u8> {
        let number = self.0.len();
        let stand_in = || {
            if id.len() <= MAX_ID && id.iter().all(u8::is_ascii_digit) {
                return id.to_vec();
            }
            let mut left = number;
            let digits = std::iter::repeat_with(move || {
                let digit = (left % 256) as u8;
                left /= 256;
                b'a'.wrapping_add(digit)
            });
            digits.take(id.len().min(STAND_IN_ID)).collect()
        };
        self.0.entry(id).or_insert_with(stand_in).clone()
    }
}

impl Records<'_> {
    /// Copies what a check looks at: sizes, where the L1 tables are, which IDs are the same. Sizes of states are copied where
    /// the entry looks like one.
    pub(super) fn snapshots(&mut self, tables: &Tables<'_>, is_exclusive: &dyn Fn(Area) -> bool) {
        let geometry = tables.geometry();
        let mut whole = tables.snapshots();
        let mut ids = Ids::default();
        for entry in snapshot_entries(tables) {
            if entry.offset >= geometry.file_length() {
                break; // nothing but zeroes from here on
            }
            let snapshot = whole.next().and_then(Result::ok);
            let table = tables.header().v2.snapshots_offset;
            let place = Place { geometry: &geometry, at: entry.offset, table, is_whole: snapshot.is_some() };
            match snapshot {
                Some(snapshot) => self.snapshot(&place, &snapshot, is_exclusive(snapshot.area()), &mut ids),
                None => self.cut_snapshot(&place, &entry),
            }
        }
    }

    fn snapshot<'s>(
        &mut self,
        place: &Place<'_>,
        snapshot: &Snapshot<'s>,
        exclusive: bool,
        ids: &mut Ids<'s>,
    ) {
        let fixed = snapshot.fixed;
        let (extra, known) = snapshot.extra();
        let is_sound = exclusive && is_sound(place, snapshot);
        let (kept, disk_size) = if is_sound {
            (SnapshotHeader { vm_state_size: fixed.vm_state_size.min(MAX_VM_STATE), ..fixed }, None)
        } else {
            self.redacted.blanked += 1;
            let (stand_in, disk_size) = place.stand_in(fixed, snapshot.disk_size());
            (SnapshotHeader { id_str_size: fixed.id_str_size, ..only_sizes(stand_in, fixed) }, disk_size)
        };
        let strings = u32::from(fixed.id_str_size) + u32::from(fixed.name_size);
        let id = if self.options.keep_names { snapshot.id.to_vec() } else { ids.of(snapshot.id) };
        // The name has what the ID does not take.
        let name_size = strings.saturating_sub(id.len() as u32);
        let kept = match (u16::try_from(id.len()), u16::try_from(name_size)) {
            (Ok(id_str_size), Ok(name_size)) => SnapshotHeader { id_str_size, name_size, ..kept },
            _ => kept,
        };
        let extra_at = place.at + SnapshotHeader::SIZE;
        if is_sound {
            self.fields(place.at, &kept.to_bytes(), &UNTIMED_FIELDS);
            let vm_state_size_large = extra.vm_state_size_large.min(MAX_VM_STATE.into());
            let kept = SnapshotExtra { vm_state_size_large, ..extra }.to_bytes();
            let is_untimed = extra.icount == u64::MAX;
            let untimed = if is_untimed { known } else { known.min(ICOUNT_AT) };
            self.fields(extra_at, &kept, &[(0, untimed)]);
        } else {
            self.fields(place.at, &kept.to_bytes(), &JUDGED_FIELDS);
            if let Some(disk_size) = disk_size {
                self.fixed.put(extra_at + DISK_SIZE_AT, &disk_size.to_be_bytes(), Structure::SnapshotTable);
            }
        }
        self.redacted.blanked += u64::from(snapshot.extra_data.len() as u64 > SnapshotExtra::SIZE);
        let id_at = extra_at + u64::from(fixed.extra_data_size);
        if id == snapshot.id {
            self.fixed.put(id_at, &id, Structure::SnapshotTable);
        } else {
            self.fixed.put_stand_in(id_at, &id, Structure::SnapshotTable);
        }
        let behind = snapshot.name.len() as u64 + snapshot.id.len() as u64 - id.len() as u64;
        if self.options.keep_names {
            self.name(id_at + id.len() as u64, snapshot.name, Structure::SnapshotTable);
        } else {
            self.stand_in_name(id_at + id.len() as u64, behind, Structure::SnapshotTable);
        }
    }

    /// An entry that the file's end cuts short, cut short all the same.
    fn cut_snapshot(&mut self, place: &Place<'_>, entry: &SnapshotEntry) {
        let (stand_in, _) = place.stand_in(entry.fixed, None);
        let kept = only_sizes(stand_in, place.sizes(entry.fixed));
        self.redacted.blanked += 1;
        self.fields(place.at, &kept.to_bytes(), &JUDGED_FIELDS);
    }

    /// Copies the fields that begin at `start` and have `length` bytes. The others may be a table to something else.
    fn fields(&mut self, at: u64, bytes: &[u8], fields: &[(u64, u64)]) {
        for &(start, length) in fields {
            self.fixed.put(at + start, clipped(bytes, start, length), Structure::SnapshotTable);
        }
    }
}

/// Where and how large the L1 table is, as in one; how long the rest is, as in the other.
fn only_sizes(table: SnapshotHeader, sizes: SnapshotHeader) -> SnapshotHeader {
    SnapshotHeader {
        l1_table_offset: table.l1_table_offset,
        l1_size: table.l1_size,
        id_str_size: sizes.id_str_size,
        name_size: sizes.name_size,
        extra_data_size: sizes.extra_data_size,
        ..SnapshotHeader::default()
    }
}

/// Whether an entry has nothing that none would have.
fn is_sound(place: &Place<'_>, snapshot: &Snapshot<'_>) -> bool {
    let fixed = snapshot.fixed;
    let (extra, _) = snapshot.extra();
    let table = snapshot.l1_table();
    place.geometry.is_aligned(table.offset.0)
        && table.end() <= place.geometry.file_length()
        && fixed.l1_size <= MAX_L1_SIZE
        && fixed.extra_data_size <= MAX_EXTRA_DATA
        && fixed.date_nsec < 1_000_000_000
        && extra.disk_size < MAX_DISK
        && extra.disk_size.is_multiple_of(512)
}
