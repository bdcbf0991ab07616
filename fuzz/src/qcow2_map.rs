//! The map of a qcow2 image's disk and of its snapshots, beside what the entries say when they are looked up one by one.

use vdisk_format::qcow2::map::{Extent, ExtentKind, Invalid, map, map_snapshot};
use vdisk_format::qcow2::{Area, Tables, fragmentation};
use vdisk_format::units::HostOffset;

use crate::healthy;
use crate::input::Input;
use crate::mutate::mutate;

/// Bits 9 to 55 of an entry.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// As many places of an extent are looked up.
const PLACES: u64 = 64;

/// Maps the input, and an image that it chooses, whose tables it fills.
///
/// # Panics
/// Where the extents do not cover the disk once and in order, two of them could be one, or one says something else than
/// the entries it is of.
pub fn qcow2_map(input: &[u8]) {
    one(input);
    let mut input = Input::new(input);
    let mut image = healthy::image(&mut input);
    fill(&mut image, &mut input);
    if input.flag() {
        mutate(&mut image, &mut input);
    }
    one(&image);
}

/// Overwrites entries of the L1 table, and of the L2 tables that it names.
fn fill(image: &mut [u8], input: &mut Input<'_>) {
    for _ in 0..input.below(32) {
        let Ok(tables) = Tables::new(&*image) else { return };
        let (geometry, l1) = (tables.geometry(), tables.geometry().l1_table().offset.0);
        let index = input.below(64) as u64;
        let table = tables.l1_entry(geometry.l1_table(), index / 16).map_or(0, |entry| entry.l2_table().0);
        let at = if input.below(8) == 1 || table == 0 { l1 } else { table }.saturating_add(index * 8);
        let cluster = input.below(1 + geometry.file_clusters() as usize) as u64 * geometry.cluster_size();
        let value = match input.below(10) {
            0 => input.value(),
            1 => 1,
            2 => cluster | 1,
            3 => cluster | 1 << 62,
            4 => cluster + input.below(4096) as u64,
            5 => input.value() << 32,
            6 => 0xffff_ffff,
            _ => cluster | 1 << 63,
        };
        let tail = usize::try_from(at).ok().and_then(|at| image.get_mut(at..)).unwrap_or_default();
        tail.iter_mut().zip(value.to_be_bytes()).for_each(|(to, from)| *to = from);
    }
}

fn one(image: &[u8]) {
    let Ok(tables) = Tables::new(image) else { return };
    let geometry = tables.geometry();
    let disk = Disk { tables: &tables, l1: geometry.l1_table(), may_lack_entries: false };
    disk.covered(map(&tables), geometry.virtual_size());
    let _ = fragmentation::fragmentation(&tables);
    for snapshot in tables.snapshots().map_while(Result::ok).take(4) {
        let (l1, size) = (snapshot.l1_table(), snapshot.disk_size());
        let disk = Disk { tables: &tables, l1, may_lack_entries: size.is_none() };
        let extents = map_snapshot(&tables, &snapshot);
        disk.covered(extents, size.unwrap_or(geometry.virtual_size()));
        let _ = fragmentation::fragmentation_of_snapshot(&tables, &snapshot);
    }
}

struct Disk<'t, 'a> {
    tables: &'t Tables<'a>,
    l1: Area,
    may_lack_entries: bool,
}

impl Disk<'_, '_> {
    fn covered(&self, extents: impl Iterator<Item = Extent>, size: u64) {
        let mut end = 0;
        let mut last: Option<Extent> = None;
        for extent in extents {
            assert_eq!(extent.start.0, end, "a gap, or an overlap");
            assert!(extent.length > 0);
            let joined = last.and_then(|last| moved(last.kind, last.length));
            assert!(joined != Some(extent.kind), "{last:?} goes on in {extent:?}");
            self.agree(&extent);
            end = extent.end();
            last = Some(extent);
        }
        assert_eq!(end, size / 512 * 512, "the map ends before the disk, or behind it");
    }

    /// The entries say the same, in many places of the extent, the first and the last among them.
    fn agree(&self, extent: &Extent) {
        if matches!(extent.kind, ExtentKind::Invalid { why: Invalid::TooOften, .. }) {
            return;
        }
        let step = (extent.length / PLACES).next_multiple_of(512).max(512);
        let places = (0..PLACES).map(|n| n.saturating_mul(step)).take_while(|&from| from < extent.length);
        for from in places.chain([extent.length - 1]) {
            let found = self.at(extent.start.0 + from);
            assert_eq!(Some(found), moved(extent.kind, from), "{extent:?} at {from:#x}");
        }
    }

    /// What the tables say of a byte of the disk.
    fn at(&self, guest: u64) -> ExtentKind {
        let geometry = self.tables.geometry();
        let (l1_index, l2_index) = geometry.indices(guest);
        let Some(l1_entry) = self.tables.l1_entry(self.l1, l1_index) else {
            let is_cut = l1_index < self.l1.length / 8 || self.is_cut();
            return match (is_cut, self.may_lack_entries) {
                (true, _) => invalid(Invalid::TablePastEnd),
                (false, true) => ExtentKind::Unallocated { preallocated: None },
                (false, false) => invalid(Invalid::NoL1Entry),
            };
        };
        let table = l1_entry.0 & OFFSET;
        if table == 0 {
            return ExtentKind::Unallocated { preallocated: None };
        }
        if !table.is_multiple_of(geometry.cluster_size()) {
            return invalid(Invalid::TableUnaligned);
        }
        match self.tables.l2_entry(HostOffset(table), l2_index) {
            None => invalid(Invalid::TablePastEnd),
            Some(entry) if entry.raw >> 62 & 1 != 0 => self.compressed(entry.raw),
            Some(entry) => self.standard(guest, entry.raw, entry.bitmap.0),
        }
    }

    /// Whether the file ends inside the L1 table: all that is behind it is unknown then.
    fn is_cut(&self) -> bool {
        let last = (self.l1.length / 8).checked_sub(1);
        last.is_some_and(|last| self.tables.l1_entry(self.l1, last).is_none())
    }

    fn compressed(&self, entry: u64) -> ExtentKind {
        let geometry = self.tables.geometry();
        let offset = entry & ((1 << (62 - (geometry.cluster_bits() - 8))) - 1);
        match () {
            () if geometry.data_file() => invalid(Invalid::CompressedElsewhere),
            () if offset >= geometry.file_length() => invalid(Invalid::CompressedPastEnd),
            () => ExtentKind::Compressed,
        }
    }

    fn standard(&self, guest: u64, entry: u64, bitmap: u64) -> ExtentKind {
        let geometry = self.tables.geometry();
        let from = guest % geometry.cluster_size();
        let host = entry & OFFSET;
        let has_host = host != 0 || (geometry.data_file() && entry >> 63 != 0);
        if !host.is_multiple_of(geometry.cluster_size()) {
            return invalid(Invalid::Unaligned);
        }
        if geometry.version() < 3 && entry & 1 != 0 {
            return invalid(Invalid::ZeroFlag);
        }
        if geometry.data_file() && has_host && host != guest - from {
            return invalid(Invalid::Misplaced);
        }
        let offset = HostOffset(host + from);
        let preallocated = has_host.then_some(offset);
        let (allocated, zero) = if geometry.extended_l2() {
            let index = from / (geometry.cluster_size() / 32);
            (bitmap >> index & 1 != 0, bitmap >> (32 + index) & 1 != 0)
        } else {
            (has_host && entry & 1 == 0, entry & 1 != 0)
        };
        match (allocated, zero) {
            (false, false) => ExtentKind::Unallocated { preallocated },
            (false, true) => ExtentKind::Zero { preallocated },
            (true, false) if !has_host => invalid(Invalid::Subclusters),
            (true, false) if geometry.data_file() || host < geometry.file_length() => {
                ExtentKind::Data { offset }
            }
            (true, false) => ExtentKind::Invalid { why: Invalid::PastEnd, offset: Some(offset) },
            (true, true) => invalid(Invalid::Subclusters),
        }
    }
}

fn invalid(why: Invalid) -> ExtentKind {
    ExtentKind::Invalid { why, offset: None }
}

/// What is `bytes` behind the start of an extent.
fn moved(kind: ExtentKind, bytes: u64) -> Option<ExtentKind> {
    let moved = |offset: HostOffset| offset.0.checked_add(bytes).map(HostOffset);
    Some(match kind {
        ExtentKind::Data { offset } => ExtentKind::Data { offset: moved(offset)? },
        ExtentKind::Zero { preallocated: Some(offset) } => {
            ExtentKind::Zero { preallocated: Some(moved(offset)?) }
        }
        ExtentKind::Unallocated { preallocated: Some(offset) } => {
            ExtentKind::Unallocated { preallocated: Some(moved(offset)?) }
        }
        ExtentKind::Invalid { why, offset: Some(offset) } => {
            ExtentKind::Invalid { why, offset: Some(moved(offset)?) }
        }
        other => other,
    })
}
