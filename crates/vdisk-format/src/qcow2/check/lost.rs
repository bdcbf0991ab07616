//! Leaks that look like what a lost table has left behind: freed, they take the guest's data with them.

use std::ops::Range;

use super::problems::Fault;
use super::walk::Walk;
use crate::qcow2::geometry::OFFSET_MASK;
use crate::qcow2::l2::L2Entry;

/// Most runs of leaked clusters that are looked at, and most bytes that are read of them: leaks may be all of a disk, and some
/// thousand tables are enough to say so.
pub(super) const MOST_RUNS: usize = 1 << 12;
const MOST_BYTES: u64 = 256 << 20;
/// So much of a cluster is read at first: data that are no table show it there.
const FIRST_LOOK: usize = 512;
/// An L2 table that is empty has lost its entries if so many clusters behind it are leaked. A few may be a crash's.
const MANY: u64 = 16;

impl Walk<'_, '_> {
    /// Looks for tables among the leaked clusters, and for leaks behind empty L2 tables.
    pub(super) fn lost_mappings(&mut self) {
        let leaks = std::mem::take(&mut self.leaks);
        let mut left = MOST_BYTES;
        let mut buffer = vec![0; usize::try_from(self.geometry.cluster_size()).unwrap_or(0)];
        for run in &leaks {
            let mut at = run.start << self.geometry.cluster_bits();
            let end = run.end << self.geometry.cluster_bits();
            while let Some(data) = self.tables.view().next_data(at..end).filter(|_| left > 0) {
                let cluster = data.start >> self.geometry.cluster_bits();
                at = (cluster + 1) << self.geometry.cluster_bits();
                if let Some(entries) = self.as_table(cluster, &leaks, &mut buffer, &mut left) {
                    self.lost(Fault::LostTable { cluster, entries });
                }
            }
        }
        self.empty_tables(&leaks);
    }

    /// How many entries the cluster has, if it reads as an L1 or L2 table that refers to leaked clusters.
    /// What is read is taken from `left`.
    fn as_table(&self, cluster: u64, leaks: &[Range<u64>], buffer: &mut [u8], left: &mut u64) -> Option<u64> {
        // Entries of L2 tables may have 16 bytes, those of L1 tables have 8.
        let words: &[usize] = if self.geometry.extended_l2() { &[2, 1] } else { &[1] };
        words.iter().find_map(|&words| self.as_table_of(words, cluster, leaks, buffer, left))
    }

    /// The same, if entries have so many `words` of 8 bytes.
    fn as_table_of(
        &self,
        words: usize,
        cluster: u64,
        leaks: &[Range<u64>],
        buffer: &mut [u8],
        left: &mut u64,
    ) -> Option<u64> {
        let at = cluster << self.geometry.cluster_bits();
        let (mut entries, mut leaked) = (0, 0);
        *left = left.saturating_sub(FIRST_LOOK as u64);
        let look = buffer.get_mut(..FIRST_LOOK)?;
        self.count_entries(words, self.tables.view().read(at, look), leaks, &mut entries, &mut leaked)?;
        let rest = buffer.get_mut(FIRST_LOOK..)?;
        *left = left.saturating_sub(rest.len() as u64);
        let read = self.tables.view().read(at + FIRST_LOOK as u64, rest);
        self.count_entries(words, read, leaks, &mut entries, &mut leaked)?;
        (leaked > 0 && leaked * 2 >= entries).then_some(entries)
    }

    fn count_entries(
        &self,
        words: usize,
        bytes: &[u8],
        leaks: &[Range<u64>],
        entries: &mut u64,
        leaked: &mut u64,
    ) -> Option<()> {
        let numbers = bytes.as_chunks::<8>().0.iter().map(|bytes| u64::from_be_bytes(*bytes));
        for number in numbers.step_by(words).filter(|&number| number != 0) {
            let offset = number & OFFSET_MASK;
            let rest = number & !(OFFSET_MASK | L2Entry::COPIED);
            if number & L2Entry::COMPRESSED != 0 {
                // One that is in the file says neither this nor that. Text, which always has this bit, names none.
                let data = L2Entry::new(number).compressed(&self.tables.l2_format());
                if data.offset.0 >= self.geometry.file_length() {
                    return None;
                }
                continue;
            }
            if number == 1 {
                continue;
            }
            if rest > 1 || !self.geometry.is_aligned(offset) || offset >= self.geometry.file_length() {
                return None;
            }
            let cluster = offset >> self.geometry.cluster_bits();
            let behind = leaks.partition_point(|run| run.end <= cluster);
            *entries += 1;
            *leaked += u64::from(leaks.get(behind).is_some_and(|run| run.contains(&cluster)));
        }
        Some(())
    }

    /// L2 tables of the disk without an entry, with leaked clusters behind them, where their data would be.
    fn empty_tables(&mut self, leaks: &[Range<u64>]) {
        for table in std::mem::take(&mut self.empty_tables) {
            let behind = (table >> self.geometry.cluster_bits()) + 1;
            let next = leaks.partition_point(|run| run.end <= behind);
            let Some(run) = leaks.get(next).filter(|run| run.start <= behind) else { continue };
            if run.end - behind >= MANY {
                let clusters = behind..run.end.min(behind + self.geometry.l2_entries());
                self.lost(Fault::EmptyTable { table, clusters });
            }
        }
    }

    fn lost(&mut self, fault: Fault) {
        self.check.lost_mappings += 1;
        self.problems.add(fault, self.findings);
    }
}

#[cfg(test)]
mod tests {
    use crate::generate::{Qcow2, Snapshot};
    use crate::qcow2::check::check;

    #[test]
    fn the_entries_of_an_l1_table_have_8_bytes_also_where_those_of_l2_tables_have_16() {
        // Of its L1 tables, the second entry alone is used.
        let disk = Qcow2::new(32 << 20).extended_l2(true).cluster_bits(14).data(16 << 20, b"old");
        let mut image = disk.snapshot(Snapshot::new("1", "lost")).data(16 << 20, b"new").build().unwrap();
        image[60..72].fill(0); // nb_snapshots, snapshots_offset
        let check = check(&image).unwrap();
        // The snapshot table, its L1 table, its L2 table, and its data; of these, two are tables that name others.
        assert_eq!((check.leaks, check.lost_mappings), (4, 2), "{:#?}", check.report);
    }
}
