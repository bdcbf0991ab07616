//! Entries of L2 tables that are empty where leaked clusters would fit to the number: somebody zeroed a part of a table.

use std::ops::Range;

use super::fault::L2Fault;
use super::lost::MANY;
use super::problems::L2Place;
use super::walk::Walk;
use crate::qcow2::geometry::OFFSET_MASK;
use crate::qcow2::l2::L2Entry;
use crate::units::HostOffset;

impl Walk<'_, '_> {
    /// Looks for empty entries between others in whose clusters' midst as many are leaked.
    ///
    /// Not in version 2, in which a discard leaves empty entries as well, and leaks if it was not finished. In version 3 it
    /// leaves zero flags.
    pub(super) fn emptied_entries(&mut self, leaks: &[Range<u64>]) {
        if self.geometry.version() < 3 || !leaks.iter().any(|run| run.end - run.start >= MANY) {
            return;
        }
        let (geometry, l2_tables) = (self.geometry, std::mem::take(&mut self.l2_tables));
        for (table, _) in l2_tables.iter().filter(|&(table, _)| table != 0 && geometry.is_aligned(table)) {
            self.emptied_in(table, leaks);
        }
        self.l2_tables = l2_tables;
    }

    fn emptied_in(&mut self, table: u64, leaks: &[Range<u64>]) {
        let (tables, format, bits) = (self.tables, self.tables.l2_format(), self.geometry.cluster_bits());
        // The first entry behind all that are not empty, and the cluster behind the last one's.
        let (mut behind, mut next) = (0, None);
        for run in tables.l2_runs(HostOffset(table)).filter(|run| run.first != L2Entry::default()) {
            let host = run.first.host_cluster(&format).filter(|_| !run.first.is_compressed());
            let first = host.map(|_| (run.first.raw & OFFSET_MASK) >> bits);
            // What lies before the next cluster.
            let run_before = first.and_then(|first| leaks.get(leaks.partition_point(|run| run.end < first)));
            if let Some(leaked) = run_before.filter(|leaked| Some(leaked.end) == first) {
                self.emptied(table, behind..run.index, leaked);
            }
            let last = run.entry(run.count - 1).raw & OFFSET_MASK;
            (behind, next) = (run.index + run.count, first.map(|_| (last >> bits) + 1));
        }
        // What lies behind the last cluster.
        let run_behind = next.and_then(|next| leaks.get(leaks.partition_point(|run| run.start < next)));
        if let Some(leaked) = run_behind.filter(|leaked| Some(leaked.start) == next) {
            self.emptied(table, behind..self.geometry.l2_entries(), leaked);
        }
    }

    /// The entries are empty; if the clusters are as many, they are theirs. Those at the end of the file may be a crash's.
    fn emptied(&mut self, table: u64, entries: Range<u64>, leaked: &Range<u64>) {
        let count = entries.end - entries.start;
        let is_inside = leaked.end < self.counts.end();
        if count >= MANY && count == leaked.end - leaked.start && is_inside {
            self.check.lost_mappings += 1;
            let fault = L2Fault::Emptied { leaked: leaked.clone() };
            let place = L2Place { table, index: entries.start };
            self.problems.l2_run(fault, place, count, L2Entry::default(), self.findings);
            self.problems.end_of_table(self.findings);
        }
    }
}

#[cfg(test)]
#[cfg(feature = "generate")]
mod tests {
    use std::ops::Range;

    use crate::check::{Check, Verdict};
    use crate::generate::Qcow2;
    use crate::qcow2::Tables;
    use crate::qcow2::check::check;

    const SIZE: u64 = 16 << 10;

    /// Checks an image of 96 clusters in a row, of whose only L2 table some entries were made 0.
    fn emptied(image: Qcow2, entries: Range<u64>) -> Check {
        let mut image = image.cluster_bits(14).data(0, vec![1; 96 * SIZE as usize]).build().unwrap();
        let tables = Tables::new(&image).unwrap();
        let table = tables.l1_entry(tables.geometry().l1_table(), 0).unwrap().l2_table().0;
        let size = tables.geometry().l2_entry_size();
        let (start, end) = (table + entries.start * size, table + entries.end * size);
        image[start as usize..end as usize].fill(0);
        check(&image).unwrap()
    }

    #[test]
    fn a_part_of_a_table() {
        for extended in [false, true] {
            for entries in [0..16, 3..40, 20..95] {
                let image = Qcow2::new(16 << 20).extended_l2(extended);
                let check = emptied(image, entries.clone());
                let count = entries.end - entries.start;
                assert_eq!((check.leaks, check.corruptions, check.lost_mappings), (count, 0, 1));
                let mut found = check.report.findings().iter();
                let finding = found.find(|finding| finding.code == "emptied-entries").unwrap();
                assert_eq!(finding.guest, Some(entries.start * SIZE..entries.end * SIZE));
                assert_eq!(check.verdict(), Verdict::Corrupt);
            }
        }
    }

    /// The last entry of a table is followed by those of the next one.
    #[test]
    fn the_end_of_a_table() {
        let disk = Qcow2::new(64 << 20).cluster_bits(14);
        let mut image = disk.data((32 << 20) - 96 * SIZE, vec![1; 128 * SIZE as usize]).build().unwrap();
        let tables = Tables::new(&image).unwrap();
        let table = tables.l1_entry(tables.geometry().l1_table(), 0).unwrap().l2_table().0 as usize;
        image[table + SIZE as usize - 20 * 8..table + SIZE as usize].fill(0);
        let check = check(&image).unwrap();
        assert_eq!((check.leaks, check.lost_mappings), (20, 1), "{:#?}", check.report);
    }

    /// The same might come of a crash: few entries, the last ones, and a discard in version 2.
    #[test]
    fn what_may_be_a_leak() {
        let disk = || Qcow2::new(16 << 20);
        for (image, entries) in [(disk(), 20..35), (disk(), 64..96), (disk().version(2), 20..60)] {
            let check = emptied(image, entries.clone());
            assert_eq!((check.leaks, check.verdict()), (entries.end - entries.start, Verdict::Leaks));
        }
    }
}
