//! Entries of L2 tables that are empty where as many clusters are leaked as would fit.

use std::collections::BTreeSet;
use std::ops::Range;

use super::fault::L2Fault;
use super::lost::MANY;
use super::problems::L2Place;
use super::walk::Walk;
use crate::qcow2::geometry::OFFSET_MASK;
use crate::qcow2::l2::L2Entry;
use crate::units::HostOffset;
use crate::view::SECTOR;

/// More than a guest or QEMU writes at once, as a rule: so many bytes are not left of one write.
const MANY_BYTES: u64 = 4 << 20;

impl Walk<'_, '_> {
    /// Looks for entries that name a cluster behind leaked ones, and are behind as many empty entries or more. Leaks whose
    /// starts are in `told` have been told of.
    ///
    /// A crash leaves such leaks where writes ended in another order than they began, and so does, in version 2, a discard
    /// that was not finished; in version 3 that leaves zero flags. But where whole sectors of a table are empty, not an
    /// entry more, and they were for more than one write, they seem to be lost.
    pub(super) fn emptied_entries(&mut self, leaks: &[Range<u64>], told: &mut BTreeSet<u64>) {
        if !leaks.iter().any(|run| run.end - run.start >= MANY) {
            return;
        }
        let (geometry, l2_tables) = (self.geometry, std::mem::take(&mut self.l2_tables));
        let is_read = |table| table != 0 && geometry.is_aligned(table);
        let tables = || l2_tables.iter().filter(|&(table, _)| is_read(table));
        // Snapshots have copies of the disk's tables: what these tell is told once, of the disk.
        let of_disk = tables().filter(|(_, by)| by.active > 0);
        let others = tables().filter(|(_, by)| by.active == 0);
        for (done, (table, _)) in (1..).zip(of_disk.chain(others)) {
            self.emptied_in(table, leaks, told);
            self.tables.view().report(done, l2_tables.len() as u64);
        }
        self.l2_tables = l2_tables;
    }

    fn emptied_in(&mut self, table: u64, leaks: &[Range<u64>], told: &mut BTreeSet<u64>) {
        let (tables, format, bits) = (self.tables, self.tables.l2_format(), self.geometry.cluster_bits());
        // Behind all entries that are not empty.
        let mut behind = 0;
        for run in tables.l2_runs(HostOffset(table)).filter(|run| run.first != L2Entry::default()) {
            let empty = behind..run.index;
            behind = run.index + run.count;
            let is_many = empty.end - empty.start >= MANY;
            if !is_many || run.first.is_compressed() || run.first.host_cluster(&format).is_none() {
                continue;
            }
            let cluster = (run.first.raw & OFFSET_MASK) >> bits;
            let leaked = leaks.get(leaks.partition_point(|run| run.end < cluster));
            let fits = |leaked: &&Range<u64>| {
                let count = leaked.end - leaked.start;
                leaked.end == cluster && count >= MANY && count <= empty.end - empty.start
            };
            if let Some(leaked) = leaked.filter(fits).filter(|leaked| told.insert(leaked.start)) {
                self.emptied(table, &empty, leaked);
            }
        }
    }

    fn emptied(&mut self, table: u64, empty: &Range<u64>, leaked: &Range<u64>) {
        let in_sector = SECTOR / self.geometry.l2_entry_size();
        let are_sectors = empty.start.is_multiple_of(in_sector) && empty.end.is_multiple_of(in_sector);
        let count = leaked.end - leaked.start;
        let is_all = count == empty.end - empty.start;
        let is_large = count << self.geometry.cluster_bits() >= MANY_BYTES;
        let is_lost = are_sectors && is_all && is_large && self.geometry.version() >= 3;
        self.check.lost_mappings += u64::from(is_lost);
        let fault = L2Fault::Emptied { leaked: leaked.clone(), is_lost };
        let place = L2Place { table, index: empty.end - count };
        self.problems.l2_run(fault, place, count, L2Entry::default(), self.findings);
        self.problems.end_of_table(self.findings);
    }
}

#[cfg(test)]
#[cfg(feature = "generate")]
mod tests {
    use std::ops::Range;

    use crate::check::{Check, Verdict};
    use crate::generate::{Qcow2, Snapshot};
    use crate::qcow2::Tables;
    use crate::qcow2::check::check;

    const SIZE: u64 = 64 << 10;
    const CLUSTERS: u64 = 300;

    /// A disk with so many clusters in a row.
    fn disk() -> Qcow2 {
        Qcow2::new(32 << 20).cluster_bits(16).allocate(0..CLUSTERS * SIZE)
    }

    /// Checks an image of whose L2 tables some entries were made 0.
    fn emptied(image: &Qcow2, entries: Range<u64>) -> Check {
        let mut image = image.build().unwrap();
        let tables = Tables::new(&image).unwrap();
        let size = tables.geometry().l2_entry_size();
        let l1_tables = tables.snapshots().map(|snapshot| snapshot.unwrap().l1_table());
        let l1_tables = l1_tables.chain([tables.geometry().l1_table()]);
        let l2_tables: Vec<u64> = l1_tables.map(|l1| tables.l1_entry(l1, 0).unwrap().l2_table().0).collect();
        for table in l2_tables {
            let (start, end) = (table + entries.start * size, table + entries.end * size);
            image[start as usize..end as usize].fill(0);
        }
        check(&image).unwrap()
    }

    #[track_caller]
    fn assert_told(check: &Check, code: &str, entries: &Range<u64>) {
        assert_eq!((check.leaks, check.corruptions), (entries.end - entries.start, 0));
        let found = check.report.findings().iter().filter(|finding| finding.code == code);
        let guest: Vec<_> = found.flat_map(|finding| &finding.guest).collect();
        assert_eq!(guest, [&(entries.start * SIZE..entries.end * SIZE)], "{:#?}", check.report);
    }

    #[test]
    fn sectors_of_a_table() {
        for (extended, entries) in [(false, 0..64), (false, 64..256), (true, 32..96), (true, 0..288)] {
            let check = emptied(&disk().extended_l2(extended), entries.clone());
            assert_told(&check, "lost-entries", &entries);
            assert_eq!((check.lost_mappings, check.verdict()), (1, Verdict::Corrupt));
        }
    }

    /// A crash, or an unfinished discard, leaves the same.
    #[test]
    fn what_may_be_a_leak() {
        let disks = [
            (disk(), 16..32),
            (disk(), 64..129),
            (disk().extended_l2(true), 32..64),
            (disk().version(2), 64..128),
        ];
        for (disk, entries) in disks {
            let check = emptied(&disk, entries.clone());
            assert_told(&check, "unlinked-clusters", &entries);
            assert_eq!((check.lost_mappings, check.verdict()), (0, Verdict::Leaks));
        }
        // Few, and the last ones: a crash, and a disk that was made smaller.
        for entries in [64..79, 64..CLUSTERS] {
            let check = emptied(&disk(), entries.clone());
            assert_eq!((check.leaks, check.verdict()), (entries.end - entries.start, Verdict::Leaks));
            assert!(!check.report.has("unlinked-clusters"));
        }
    }

    /// In version 3, a table that is empty before leaks has lost them; in version 2, a discard may have left both.
    #[test]
    fn all_of_a_table() {
        for (version, lost) in [(3, 1), (2, 0)] {
            let check = emptied(&disk().version(version), 0..CLUSTERS);
            assert_eq!((check.leaks, check.lost_mappings), (CLUSTERS, lost), "{:#?}", check.report);
            assert_eq!(check.report.has("unlinked-clusters"), lost == 0);
        }
    }

    /// The disk's table, and that of a snapshot that has other clusters beside these.
    #[test]
    fn a_copy_of_the_table_tells_nothing_more() {
        let snapshot = disk().snapshot(Snapshot::new("1", "before")).data(299 * SIZE, b"new");
        let check = emptied(&snapshot, 64..128);
        assert_told(&check, "lost-entries", &(64..128));
        assert_eq!(check.lost_mappings, 1);
    }
}
