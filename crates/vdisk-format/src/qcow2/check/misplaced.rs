//! Clusters in an external data file that are not where the guest has them. QEMU reads no such cluster, whether the data
//! file is raw or not.

use super::fault::L2Fault;
use super::problems::L2Place;
use super::walk::Walk;
use crate::qcow2::l2::L2Entry;
use crate::qcow2::tables::Tables;
use crate::units::HostOffset;

impl Walk<'_, '_> {
    /// Compares the offsets of the disk's clusters in the data file with those that they have in the disk.
    pub(super) fn misplaced(&mut self) {
        if !self.geometry.data_file() {
            return;
        }
        let (tables, l2_tables) = (self.tables, std::mem::take(&mut self.l2_tables));
        for (index, entry) in tables.l1_entries(self.geometry.l1_table()) {
            let table = entry.l2_table().0;
            if l2_tables.get(table).is_some_and(|by| by.active == 1) {
                self.misplaced_in(table, Some(index));
            }
        }
        for (table, _) in l2_tables.iter().filter(|(_, by)| by.active > 1) {
            self.misplaced_in(table, None);
        }
        self.l2_tables = l2_tables;
    }

    /// Looks at the L2 table of an L1 entry; or at that of several, in which no cluster is right for all of them.
    fn misplaced_in(&mut self, table: u64, l1_index: Option<u64>) {
        // Neither is a table that QEMU reads.
        if table == 0 || !self.geometry.is_aligned(table) {
            return;
        }
        let (tables, geometry) = (self.tables, self.geometry);
        for run in tables.l2_runs(HostOffset(table)).filter(|run| has_place(run.first, tables)) {
            // In a run that moves on as the guest's clusters do, all entries are as the first one is.
            let count = if run.step == 0 { 1 } else { run.count };
            for (index, entry) in run.entries().step_by(usize::try_from(count).unwrap_or(usize::MAX)) {
                let guest = l1_index.and_then(|l1_index| geometry.guest_offset(l1_index, index));
                if guest != Some(entry.offset().0) {
                    let fault = L2Fault::DataMisplaced { is_shared: l1_index.is_none() };
                    self.check.extra_corruptions += count;
                    self.problems.l2_run(fault, L2Place { table, index }, count, entry, self.findings);
                }
            }
        }
        self.problems.end_of_table(self.findings);
    }
}

/// Whether an entry names a cluster of the data file, and one that could be right.
fn has_place(entry: L2Entry, tables: &Tables<'_>) -> bool {
    let host = entry.host_cluster(&tables.l2_format()).filter(|_| !entry.is_compressed());
    host.is_some_and(|host| tables.geometry().is_aligned(host.0))
}

#[cfg(test)]
#[cfg(feature = "generate")]
mod tests {
    use crate::check::Check;
    use crate::generate::Qcow2;
    use crate::qcow2::Tables;
    use crate::qcow2::check::check;

    const SIZE: u64 = 16 << 10;
    const DISK: u64 = 64 << 20;

    /// An image with four clusters at its start, four at its end, and the L2 tables for them.
    fn image(raw: bool, extended: bool) -> (Vec<u8>, Vec<u64>) {
        let image = Qcow2::new(DISK).cluster_bits(14).extended_l2(extended).data_file("data", raw);
        let image = image.data(0, vec![1; 65536]).data(DISK - 65536, vec![2; 65536]).build().unwrap();
        let tables = Tables::new(&image).unwrap();
        let l1 = tables.geometry().l1_table();
        let found = tables.l1_entries(l1).map(|(_, entry)| entry.l2_table().0).collect();
        (image, found)
    }

    fn misplaced(check: &Check) -> Vec<(u64, std::ops::Range<u64>)> {
        let all = check.report.findings().iter().filter(|finding| finding.code == "data-misplaced");
        all.flat_map(|finding| finding.guest.iter().map(|part| (finding.offset.0, part.clone()))).collect()
    }

    fn set(image: &mut [u8], at: u64, value: u64) {
        let at = usize::try_from(at).unwrap();
        image[at..at + 8].copy_from_slice(&value.to_be_bytes());
    }

    #[test]
    fn an_offset_that_is_not_the_guests() {
        for (raw, extended) in [(false, false), (true, false), (false, true), (true, true)] {
            let (mut image, tables) = image(raw, extended);
            let clean = check(&image).unwrap();
            assert_eq!((clean.extra_corruptions, misplaced(&clean)), (0, vec![]), "{raw}, {extended}");
            let size = if extended { 16 } else { 8 };
            // Two in a row, one that is right, and one that says 0.
            set(&mut image, tables[0], 1 << 63 | 0x50_0000);
            set(&mut image, tables[0] + size, 1 << 63 | 0x50_4000);
            set(&mut image, tables[0] + 3 * size, 1 << 63);
            let check = check(&image).unwrap();
            assert_eq!((check.corruptions, check.extra_corruptions), (0, 3), "{raw}, {extended}");
            let expected = [(tables[0], 0..2 * SIZE), (tables[0] + 3 * size, 3 * SIZE..4 * SIZE)];
            assert_eq!(misplaced(&check), expected, "{raw}, {extended}");
        }
    }

    /// Its clusters can be right for one of two L1 entries, and are wrong for the other.
    #[test]
    fn a_table_of_two_l1_entries() {
        let (mut image, tables) = image(true, false);
        let l1 = Tables::new(&image).unwrap().geometry().l1_table().offset.0;
        set(&mut image, l1 + 8, 1 << 63 | tables[0]);
        let check = check(&image).unwrap();
        let window = SIZE / 8 * SIZE;
        assert_eq!(misplaced(&check), [(tables[0], 0..4 * SIZE), (tables[0], window..window + 4 * SIZE)]);
        assert_eq!(check.extra_corruptions, 4);
    }

    /// What is compressed, unaligned or no cluster has faults of its own, or none.
    #[test]
    fn an_offset_that_is_none() {
        let (mut image, tables) = image(true, false);
        for (index, entry) in [1 << 62 | 0x5000, 1 << 63 | 0x5200, 1, 1 << 63 | 1].into_iter().enumerate() {
            set(&mut image, tables[0] + 8 * index as u64, entry);
        }
        assert_eq!(misplaced(&check(&image).unwrap()), []);
        // Zeroes, with a cluster for what will be written: QEMU looks at its place.
        set(&mut image, tables[0], 1 << 63 | SIZE | 1);
        assert_eq!(misplaced(&check(&image).unwrap()), [(tables[0], 0..SIZE)]);
    }
}
