//! The parts of the file that are neither the guest's nor L1 or L2 tables: snapshot table, refcount table, encryption
//! header, bitmaps.

use super::fault::Fault;
use super::snapshots::{SnapshotEntries, SnapshotEntry};
use super::walk::Walk;
use crate::qcow2::bitmap::{AUTOCLEAR_BITMAPS, BitmapTableEntry, BitmapTableEntryKind, BitmapsExtension};
use crate::qcow2::claims::Owner;
use crate::qcow2::crypto::crypto_header_pointer;
use crate::qcow2::geometry::Area;
use crate::qcow2::segments::{Segment, segments};
use crate::units::HostOffset;

/// Extra data that version 3 demands of a snapshot.
const SNAPSHOT_EXTRA_DATA: u32 = 16;
/// Extra data of a snapshot that QEMU takes. The specification sets no limit.
const MAX_SNAPSHOT_EXTRA_DATA: u32 = 1024;

impl Walk<'_, '_> {
    /// Claims what they take.
    pub(super) fn regions(&mut self) {
        self.snapshot_table();
        self.region(Owner::RefcountTable, self.geometry.refcount_table());
        let crypto_header = crypto_header_pointer(self.tables.header()).ok().flatten();
        if let Some(pointer) = crypto_header.filter(|_| self.geometry.crypt_method() == 2) {
            self.region(Owner::CryptoHeader, Area::new(pointer.offset, pointer.length));
        }
        let is_consistent = self.tables.header().v3.autoclear_features & AUTOCLEAR_BITMAPS != 0;
        if let Some(bitmaps) = BitmapsExtension::of(self.tables.header()).filter(|_| is_consistent) {
            self.bitmaps(&bitmaps);
        }
    }

    fn snapshot_table(&mut self) {
        if let Some(Err(error)) = self.tables.snapshots().find(Result::is_err) {
            self.extra(Fault::SnapshotTable(error.to_string()));
        }
        let start = self.tables.header().v2.snapshots_offset;
        let mut end = start;
        for entry in SnapshotEntries::new(self.tables) {
            self.extra_data(&entry);
            end = entry.end;
        }
        self.region(Owner::SnapshotTable, Area::new(start, end - start));
    }

    /// What is wrong with entries of the snapshot table, whatever they lead to.
    pub(super) fn snapshot_fields(&mut self) {
        for entry in SnapshotEntries::new(self.tables) {
            self.extra_data(&entry);
            if let Some(fault) = self.refused(&entry) {
                self.problems.add(fault, self.findings);
            }
        }
    }

    fn extra_data(&mut self, entry: &SnapshotEntry) {
        let SnapshotEntry { index, offset: entry, fixed, .. } = *entry;
        let size = fixed.extra_data_size;
        if self.geometry.version() >= 3 && size < SNAPSHOT_EXTRA_DATA {
            self.check.corruptions += 1;
            self.problems.add(Fault::SnapshotExtraData { index, entry, size }, self.findings);
        } else if size > MAX_SNAPSHOT_EXTRA_DATA {
            self.extra(Fault::SnapshotExtraData { index, entry, size });
        }
    }

    fn bitmaps(&mut self, extension: &BitmapsExtension) {
        self.region(Owner::BitmapDirectory, extension.directory_area());
        let image = self.tables.view().bytes();
        let mut tables = Vec::new();
        for (number, bitmap) in (0..).zip(extension.directory(image).map_while(Result::ok)) {
            let table = bitmap.fixed.table();
            if self.note(Owner::BitmapTable { bitmap: number }, table) {
                tables.push((number, table));
            }
        }
        self.count_all(&tables.iter().map(|&(_, table)| table).collect::<Vec<_>>());
        tables.retain(|(_, table)| table.offset.0.is_multiple_of(8));
        let view = self.tables;
        for Segment { area, times, tables: named } in segments(tables.iter().map(|&(_, table)| table)) {
            let bitmap = named.first().and_then(|&first| tables.get(first)).map_or(0, |&(number, _)| number);
            for (index, entry) in view.bitmap_table_entries(area) {
                self.bitmap_table_entry(bitmap, area.offset.0 + index * 8, entry, times);
            }
        }
    }

    fn bitmap_table_entry(&mut self, bitmap: u32, at: u64, entry: BitmapTableEntry, times: u64) {
        let cluster = entry.cluster().0;
        let is_valid = entry.reserved() == 0
            && entry.kind() != BitmapTableEntryKind::Invalid
            && self.geometry.is_aligned(cluster);
        if !is_valid {
            self.check.corruptions += times;
            self.problems.add(Fault::BitmapTableEntry { bitmap, at, entry: entry.0 }, self.findings);
        } else if cluster != 0 {
            let area = Area::new(cluster, self.geometry.cluster_size());
            self.region(Owner::BitmapData { bitmap, entry: HostOffset(at), tables: times }, area);
            // Tables that share an entry share its cluster.
            if times > 1 && !self.claim(area, times - 1, false) {
                self.check.corruptions += times - 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::generate::{Bitmap, Qcow2};
    use crate::qcow2::check::check;

    #[test]
    fn a_snapshot_table_at_the_end_of_all_numbers() {
        let mut image = Qcow2::new(1 << 16).cluster_bits(9).build().unwrap();
        image[60..72].fill(0xff);
        image[60..63].fill(0);
        let check = check(&image).unwrap();
        let places = check.report.findings().iter().filter(|finding| finding.code == "snapshot-extra-data");
        assert!(places.map(|finding| finding.offset.0).eq([u64::MAX; 255]));
    }

    #[test]
    fn of_two_bitmap_extensions_the_last_counts() {
        let bitmap = Bitmap::new("b0").granularity_bits(9).dirty(0..512);
        // One bitmap; a directory of 32 bytes at 0, where the header is.
        let mut second = [0; 24];
        (second[3], second[15]) = (1, 32);
        let wanted = Qcow2::new(1 << 16).cluster_bits(9).bitmap(bitmap).extension(0x2385_2875, second);
        let check = check(&wanted.build().unwrap()).unwrap();
        // The first one's directory, table and data are nobody's, and the header's cluster has another owner.
        assert!(check.leaks >= 3 && check.report.has("refcount-too-low"), "{:#?}", check.report);
    }
}
