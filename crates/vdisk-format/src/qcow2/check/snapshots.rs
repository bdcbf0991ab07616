//! [`SnapshotEntries`]: the snapshot table as QEMU reads it, which takes zeroes for what is behind the end of the file.

use crate::limits::MAX_SNAPSHOTS;
use crate::qcow2::geometry::Area;
use crate::qcow2::snapshot::SnapshotHeader;
use crate::qcow2::tables::Tables;
use crate::view::View;

/// An entry of the snapshot table, perhaps one that the file does not have in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::qcow2) struct SnapshotEntry {
    /// Its place in the table, from 0.
    pub(in crate::qcow2) index: u32,
    /// Where it starts.
    pub(in crate::qcow2) offset: u64,
    /// Where it ends: as QEMU has it, also the table, if it is the last one.
    pub(in crate::qcow2) end: u64,
    /// Where the next one starts.
    pub(in crate::qcow2) next: u64,
    pub(in crate::qcow2) fixed: SnapshotHeader,
}

impl SnapshotEntry {
    pub(in crate::qcow2) fn l1_table(&self) -> Area {
        Area::new(self.fixed.l1_table_offset, u64::from(self.fixed.l1_size) * 8)
    }
}

/// As many entries as the header claims, but no more than QEMU takes.
pub(super) struct SnapshotEntries<'v, 'a> {
    view: &'v View<'a>,
    next: u64,
    index: u32,
    count: u32,
}

impl<'v, 'a> SnapshotEntries<'v, 'a> {
    pub(super) fn new(tables: &'v Tables<'a>) -> Self {
        let v2 = &tables.header().v2;
        let count = v2.nb_snapshots.min(MAX_SNAPSHOTS);
        Self { view: tables.view(), next: v2.snapshots_offset, index: 0, count }
    }
}

impl Iterator for SnapshotEntries<'_, '_> {
    type Item = SnapshotEntry;

    fn next(&mut self) -> Option<SnapshotEntry> {
        let index = Some(self.index).filter(|&index| index < self.count)?;
        self.index += 1;
        let offset = self.next;
        let mut bytes = [0; SnapshotHeader::SIZE as usize];
        let there = self.view.clipped(offset, SnapshotHeader::SIZE);
        bytes.iter_mut().zip(there).for_each(|(to, from)| *to = *from);
        let fixed = SnapshotHeader::parse(&bytes, 0).unwrap_or_default();
        let strings = u64::from(fixed.id_str_size) + u64::from(fixed.name_size);
        let length = SnapshotHeader::SIZE + u64::from(fixed.extra_data_size) + strings;
        self.next = offset.saturating_add(length.next_multiple_of(8));
        Some(SnapshotEntry { index, offset, end: offset.saturating_add(length), next: self.next, fixed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_file_does_not_have_is_zeroes() {
        let mut bytes = vec![0; 72 + 40];
        (bytes[7], bytes[22], bytes[23], bytes[63], bytes[71]) = (2, 0, 9, 3, 72);
        bytes[72 + 6] = 2; // offset of the L1 table
        bytes[72 + 11] = 1; // and its entries
        bytes[72 + 15] = 9; // a name that is not there
        let tables = Tables::new(&bytes).unwrap();
        let found = SnapshotEntries::new(&tables).map(|entry| (entry.offset, entry.end, entry.next));
        assert!(found.eq([(72, 121, 128), (128, 168, 168), (168, 208, 208)]));
        assert_eq!(SnapshotEntries::new(&tables).next().unwrap().l1_table(), Area::new(0x200, 8));
        // At the end of all numbers.
        bytes[64..72].fill(0xff);
        let tables = Tables::new(&bytes).unwrap();
        assert!(SnapshotEntries::new(&tables).all(|entry| entry.next == u64::MAX));
    }
}
