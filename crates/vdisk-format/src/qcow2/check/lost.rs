//! Leaks that look like what a lost table has left behind: freed, they take the guest's data with them.

use std::collections::BTreeSet;
use std::ops::Range;

use super::fault::Fault;
use super::walk::Walk;
use crate::qcow2::geometry::OFFSET_MASK;
use crate::qcow2::l2::L2Entry;
use crate::qcow2::tables::Tables;

/// Most runs of leaked clusters that are looked at, and most bytes that are read of them: leaks may be all of a disk, and some
/// thousand tables are enough to say so.
pub(super) const MOST_RUNS: usize = 1 << 12;
const MOST_BYTES: u64 = 256 << 20;
/// So much of a cluster is read at first: data that are no table show it there.
const FIRST_LOOK: usize = 512;
/// Empty entries have lost their clusters if so many are leaked where those would be. A few may be a crash's.
pub(super) const MANY: u64 = 16;

impl Walk<'_, '_> {
    /// Looks for tables among the leaked clusters, and for leaks where the clusters of empty entries and tables would be.
    pub(super) fn lost_mappings(&mut self) {
        let found = self.lost_tables();
        for &LostTable { cluster, entries, .. } in &found {
            self.lost(Fault::LostTable { cluster, entries });
        }
        // With a data file, there are no data here that could be lost.
        if !self.geometry.data_file() {
            let leaks = std::mem::take(&mut self.leaks);
            self.missing_tables(&leaks, found.len() as u64);
            let mut told = self.without_data(&leaks);
            self.emptied_entries(&leaks, &mut told);
        }
    }

    /// The leaked clusters that read as tables, and are none of stale bitmaps.
    pub(super) fn lost_tables(&self) -> Vec<LostTable> {
        let lost = LostTables { tables: self.tables, leaks: &self.leaks, surplus: &self.surplus };
        let bits = self.geometry.cluster_bits();
        let mut found = Vec::new();
        let mut left = MOST_BYTES;
        let mut buffer = vec![0; usize::try_from(self.geometry.cluster_size()).unwrap_or(0)];
        for run in &self.leaks {
            let mut at = run.start << bits;
            let end = run.end << bits;
            while let Some(data) = self.tables.view().next_data(at..end).filter(|_| left > 0) {
                let cluster = data.start >> bits;
                at = (cluster + 1) << bits;
                found.extend(lost.read(cluster, &mut buffer, &mut left));
            }
        }
        if !found.is_empty() {
            let stale = self.stale_bitmap_tables();
            found.retain(|lost| !stale.intersects(lost.cluster, 1));
        }
        found
    }

    /// L2 tables that the file does not have, as when its end was cut off, and leaked clusters that they may have named. Some
    /// of them have been `found` elsewhere.
    fn missing_tables(&mut self, leaks: &[Range<u64>], found: u64) {
        let leaked = leaks.iter().map(|run| run.end - run.start).sum();
        let entries = std::mem::take(&mut self.missing_tables);
        let missing = (entries.len() as u64).saturating_sub(found).min(leaked / MANY);
        if missing > 0 {
            self.check.lost_mappings += missing;
            self.problems.add(Fault::MissingTables { entries, leaked }, self.findings);
        }
    }

    /// L2 tables of the disk without an entry, or with something else over them or in them, and leaked clusters behind them,
    /// where their data would be. Returns where these begin.
    fn without_data(&mut self, leaks: &[Range<u64>]) -> BTreeSet<u64> {
        let (file, size) = (self.geometry.file_length(), self.geometry.cluster_size());
        let empty = std::mem::take(&mut self.empty_tables).into_iter();
        let empty = empty.filter(|table| table.saturating_add(size) <= file).map(|table| (table, false));
        let overwritten = std::mem::take(&mut self.overwritten_tables).into_iter().map(|table| (table, true));
        // Each once: one that something lies over may have no sound entry, or none at all.
        let mut tables: Vec<_> = empty.chain(overwritten).collect();
        tables.sort_unstable();
        tables.dedup_by_key(|(table, _)| *table);
        let (mut told, mut others) = (BTreeSet::new(), Vec::new());
        for (table, is_overwritten) in tables {
            let behind = (table >> self.geometry.cluster_bits()) + 1;
            let next = leaks.partition_point(|run| run.end <= behind);
            match leaks.get(next).filter(|run| run.start <= behind && run.end - behind >= MANY) {
                // In version 2, a discard leaves empty tables.
                Some(run) if (is_overwritten || self.geometry.version() >= 3) && told.insert(run.start) => {
                    let clusters = behind..run.end.min(behind + self.geometry.l2_entries());
                    self.lost(Fault::WithoutData { table, clusters, is_overwritten });
                }
                _ if !is_overwritten => others.push(table),
                _ => {}
            }
        }
        let untold = leaks.iter().filter(|run| !told.contains(&run.start));
        let leaked = untold.map(|run| run.end - run.start).sum();
        if let (Some(&first), MANY..) = (others.first(), leaked) {
            self.problems
                .add(Fault::EmptyTables { first, count: others.len() as u64, leaked }, self.findings);
        }
        told
    }

    fn lost(&mut self, fault: Fault) {
        self.check.lost_mappings += 1;
        self.problems.add(fault, self.findings);
    }
}

/// A leaked cluster that reads as a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::qcow2) struct LostTable {
    pub(in crate::qcow2) cluster: u64,
    /// How many of its entries name a cluster.
    entries: u64,
    /// Of how many words of 8 bytes each of them is.
    pub(in crate::qcow2) words: usize,
}

/// What a leaked cluster has to look like.
#[derive(Debug, Clone, Copy)]
pub(in crate::qcow2) struct LostTables<'s, 'a> {
    pub(in crate::qcow2) tables: &'s Tables<'a>,
    /// Leaked clusters, in order.
    pub(in crate::qcow2) leaks: &'s [Range<u64>],
    /// Clusters that have lost one of several references, in order: those of a table that a snapshot shared.
    pub(in crate::qcow2) surplus: &'s [Range<u64>],
}

impl LostTables<'_, '_> {
    /// What the cluster has, if it reads as an L1 or L2 table whose clusters have lost references. What is read is taken from
    /// `left`.
    fn read(&self, cluster: u64, buffer: &mut [u8], left: &mut u64) -> Option<LostTable> {
        // Entries of L2 tables may have 16 bytes, those of L1 tables have 8.
        let words: &[usize] = if self.tables.geometry().extended_l2() { &[2, 1] } else { &[1] };
        words.iter().find_map(|&words| {
            let entries = self.entries(words, cluster, buffer, left)?;
            Some(LostTable { cluster, entries, words })
        })
    }

    /// How many entries it has, if they are of so many `words` of 8 bytes.
    fn entries(&self, words: usize, cluster: u64, buffer: &mut [u8], left: &mut u64) -> Option<u64> {
        let view = self.tables.view();
        let at = cluster << self.tables.geometry().cluster_bits();
        let mut entries = Entries::default();
        *left = left.saturating_sub(FIRST_LOOK as u64);
        self.count(words, view.read(at, buffer.get_mut(..FIRST_LOOK)?), &mut entries)?;
        let rest = buffer.get_mut(FIRST_LOOK..)?;
        *left = left.saturating_sub(rest.len() as u64);
        self.count(words, view.read(at + FIRST_LOOK as u64, rest), &mut entries)?;
        entries.are_a_table().then_some(entries.all)
    }

    /// Counts the entries of a part of a cluster; `None` where one is none.
    fn count(&self, words: usize, bytes: &[u8], entries: &mut Entries) -> Option<()> {
        let numbers = bytes.as_chunks::<8>().0.iter().map(|bytes| u64::from_be_bytes(*bytes));
        numbers.step_by(words).try_for_each(|number| self.count_one(number, entries))
    }

    /// Counts what an entry, or the first half of one, says; `None` where it is none.
    pub(in crate::qcow2) fn count_one(&self, number: u64, entries: &mut Entries) -> Option<()> {
        if number <= 1 {
            return Some(());
        }
        let geometry = self.tables.geometry();
        let offset = number & OFFSET_MASK;
        let rest = number & !(OFFSET_MASK | L2Entry::COPIED);
        if number & L2Entry::COMPRESSED != 0 {
            // One that is in the file says neither this nor that. Text, which always has this bit, names none.
            let data = L2Entry::new(number).compressed(&self.tables.l2_format());
            return (data.offset.0 < geometry.file_length()).then_some(());
        }
        if rest > 1 || !geometry.is_aligned(offset) || offset >= geometry.file_length() {
            return None;
        }
        let cluster = offset >> geometry.cluster_bits();
        let is_in = |runs: &[Range<u64>]| {
            let behind = runs.partition_point(|run| run.end <= cluster);
            runs.get(behind).is_some_and(|run| run.contains(&cluster))
        };
        entries.all += 1;
        entries.leaked += u64::from(is_in(self.leaks));
        entries.surplus += u64::from(is_in(self.surplus));
        Some(())
    }
}

/// Entries that name clusters, and of these those that have lost their only reference, or one of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::qcow2) struct Entries {
    all: u64,
    leaked: u64,
    surplus: u64,
}

impl Entries {
    /// Whether they are those of a lost table. Where all that they name is somebody else's as well, nothing is lost: a
    /// snapshot that was not finished leaves such a table behind.
    pub(in crate::qcow2) fn are_a_table(self) -> bool {
        self.leaked > 0 && (self.leaked + self.surplus) * 2 >= self.all
    }
}

#[cfg(test)]
mod tests {
    use crate::generate::{Qcow2, Snapshot};
    use crate::qcow2::Tables;
    use crate::qcow2::check::check;
    use crate::qcow2::geometry::OFFSET_MASK;

    fn set(image: &mut [u8], at: u64, value: u64) {
        image[at as usize..][..8].copy_from_slice(&value.to_be_bytes());
    }

    /// All but one of its clusters are the disk's as well: they are not leaked, but their refcounts are too high.
    #[test]
    fn a_table_of_a_snapshot_that_shares_its_clusters() {
        let disk = Qcow2::new(1 << 20).cluster_bits(14).data(0, vec![1; 1 << 18]);
        let mut image = disk.snapshot(Snapshot::new("1", "hurt")).data(0, vec![2; 1 << 14]).build().unwrap();
        let l1 = Tables::new(&image).unwrap().snapshots().next().unwrap().unwrap().l1_table().offset.0;
        set(&mut image, l1, 0);
        let check = check(&image).unwrap();
        assert_eq!((check.leaks, check.lost_mappings), (1 + 16, 1), "{:#?}", check.report);
        assert!(check.report.has("lost-table") && check.is_corrupt());
    }

    /// What a crash leaves behind in which a snapshot was about to be taken: an L1 table of its own, and higher refcounts.
    #[test]
    fn a_table_whose_clusters_are_all_there() {
        let disk = Qcow2::new(1 << 20).cluster_bits(14).data(0, vec![1; 1 << 18]);
        let mut image = disk.snapshot(Snapshot::new("1", "begun")).build().unwrap();
        image[60..72].fill(0); // nb_snapshots, snapshots_offset
        let check = check(&image).unwrap();
        assert!(check.leaks > 16 && check.lost_mappings == 0, "{:#?}", check.report);
    }

    /// Of an L2 table with a refcount block over it, nothing is left but the leaks behind it.
    #[test]
    fn a_table_that_something_else_lies_over() {
        let mut image = Qcow2::new(1 << 20).cluster_bits(14).data(0, vec![1; 1 << 18]).build().unwrap();
        let (table, refcount_table) = {
            let tables = Tables::new(&image).unwrap();
            let l1 = tables.geometry().l1_table();
            (tables.l1_entry(l1, 0).unwrap().l2_table().0, tables.geometry().refcount_table().offset.0)
        };
        let block = Tables::new(&image).unwrap().refcount_table_entry(0).unwrap().block().0 as usize;
        image.copy_within(block..block + (1 << 14), table as usize);
        set(&mut image, refcount_table, table);
        let check = check(&image).unwrap();
        assert!(check.report.has("overwritten-table"), "{:#?}", check.report);
        assert_eq!(check.lost_mappings, 1);
    }

    /// Two tables at the end of a file that was cut off there, or within the first of them.
    #[test]
    fn tables_that_the_file_has_lost() {
        let disk =
            Qcow2::new(64 << 20).cluster_bits(14).data(0, vec![1; 1 << 18]).data(32 << 20, vec![2; 1 << 18]);
        let whole = disk.build().unwrap();
        let l1 = Tables::new(&whole).unwrap().geometry().l1_table();
        let tables = Tables::new(&whole).unwrap();
        let old: Vec<_> = tables.l1_entries(l1).map(|(_, entry)| entry.l2_table().0).collect();
        for cut in [0, 1 << 13] {
            let mut image = whole.clone();
            let end = image.len() as u64;
            for (number, &table) in (0..).zip(&old) {
                set(&mut image, l1.offset.0 + number * 8, 1 << 63 | (end + (number << 14)));
                image[table as usize..][..1 << 14].fill(0);
            }
            image.resize(image.len() + cut, 0);
            let found = check(&image).unwrap();
            assert_eq!((found.leaks, found.lost_mappings), (2 * 17, 2), "{:#?}", found.report);
            let missing: Vec<_> =
                found.report.findings().iter().filter(|finding| finding.code == "missing-table").collect();
            let guest: Vec<_> = missing.iter().flat_map(|finding| &finding.guest).collect();
            assert_eq!(guest, [&(0..64 << 20)], "{missing:#?}");
            assert!(!found.report.has("unlinked-clusters"));
            // One that is elsewhere in the file has been found.
            let (from, to) = (old[0] as usize, old[1] as usize);
            image[from..from + (1 << 14)].copy_from_slice(&whole[from..from + (1 << 14)]);
            assert_eq!(check(&image).unwrap().lost_mappings, 2);
            image[to..to + (1 << 14)].copy_from_slice(&whole[to..to + (1 << 14)]);
            let found = check(&image).unwrap();
            assert!(found.lost_mappings == 2 && !found.report.has("missing-table"), "{:#?}", found.report);
        }
    }

    /// What a snapshot alone has is told of the snapshot; what the disk has as well, of the disk.
    #[test]
    fn tables_of_snapshots_that_the_file_has_lost() {
        let disk = Qcow2::new(1 << 20).cluster_bits(14).data(0, vec![1; 1 << 18]);
        let mut image = disk.snapshot(Snapshot::new("1", "kept")).data(0, vec![2; 1 << 18]).build().unwrap();
        let (active, snapshot) = {
            let tables = Tables::new(&image).unwrap();
            let snapshot = tables.snapshots().next().unwrap().unwrap().l1_table();
            (tables.geometry().l1_table().offset.0, snapshot.offset.0)
        };
        for (l1_tables, place) in
            [(&[snapshot][..], "L1 entry 0 of snapshot 0"), (&[snapshot, active], "L1 entry 0")]
        {
            for &l1 in l1_tables {
                let at = l1 as usize;
                let table = u64::from_be_bytes(image[at..at + 8].try_into().unwrap()) & OFFSET_MASK;
                if table < image.len() as u64 {
                    image[table as usize..][..1 << 14].fill(0);
                }
                let end = image.len() as u64;
                set(&mut image, l1, end);
            }
            let found = check(&image).unwrap();
            let missing = found.report.findings().iter().filter(|finding| finding.code == "missing-table");
            assert!(missing.map(|finding| finding.place.as_str()).eq([place]), "{:#?}", found.report);
            assert_eq!(found.lost_mappings, 1);
        }
    }

    /// A few leaks are a crash's.
    #[test]
    fn a_table_that_had_little() {
        let mut image = Qcow2::new(1 << 20).cluster_bits(14).data(0, vec![1; 14 << 14]).build().unwrap();
        let l1 = Tables::new(&image).unwrap().geometry().l1_table();
        let table = Tables::new(&image).unwrap().l1_entry(l1, 0).unwrap().l2_table().0;
        let end = image.len() as u64;
        set(&mut image, l1.offset.0, 1 << 63 | end);
        image[table as usize..][..1 << 14].fill(0);
        let check = check(&image).unwrap();
        assert_eq!((check.leaks, check.lost_mappings), (15, 0), "{:#?}", check.report);
    }

    #[test]
    fn a_table_in_which_nothing_is_an_entry() {
        let mut image = Qcow2::new(1 << 20).cluster_bits(14).data(0, vec![1; 1 << 18]).build().unwrap();
        let tables = Tables::new(&image).unwrap();
        let table = tables.l1_entry(tables.geometry().l1_table(), 0).unwrap().l2_table().0 as usize;
        image[table..table + (1 << 14)].fill(0x21);
        assert!(check(&image).unwrap().report.has("overwritten-table"));
        // One that leads to a cluster of its own: it is a table.
        set(&mut image, table as u64, 1 << 63 | (table as u64 + (1 << 14)));
        assert!(!check(&image).unwrap().report.has("overwritten-table"));
    }

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
