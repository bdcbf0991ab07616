//! Which leaks look like what lost tables have left behind, told as plainly as can be.

use std::collections::BTreeSet;

use super::image::{COPIED, OFFSET};
use super::model::Model;

impl Model<'_> {
    /// Leaks that read as a table of leaks; tables in which nothing is right, or that are somebody else's, with leaks behind
    /// them; and parts of tables that are empty, where as many clusters leak.
    pub(super) fn lost(&mut self) {
        let stale = self.stale_bitmap_tables();
        let in_file =
            (0..self.image.length().div_ceil(self.image.cluster_size())).filter(|n| !stale.contains(n));
        let mut found = in_file.filter(|&n| self.leaked(n) && self.reads_as_table(n)).count();
        // With a data file, there are no data here that could be lost.
        if !self.image.data_file() {
            let of_disk = self.missing_tables.iter().filter(|(active, _)| *active).count();
            let missing = if of_disk > 0 { of_disk } else { self.missing_tables.len() };
            let leaked = (0..self.clusters).filter(|&cluster| self.leaked(cluster)).count();
            found += missing.saturating_sub(found).min(leaked / 16);
            let mut runs = self.emptied();
            for (&table, &(times, active)) in &self.l2_tables {
                let behind = (table >> self.image.cluster_bits) + 1;
                // In version 2, discards leave empty tables.
                let is_lost = || match self.l2_entries(table).all(|entry| entry == (0, 0)) {
                    true => self.image.version >= 3 || self.is_shared(table, times),
                    false => !self.has_sound_entry(table) || self.is_shared(table, times),
                };
                if active && self.all_leaked(behind, 16) && is_lost() {
                    runs.insert(behind);
                }
            }
            found += runs.len();
        }
        self.found.lost_mappings = found as u64;
    }

    fn leaked(&self, cluster: u64) -> bool {
        let has_refcount = || self.image.refcount(cluster).is_some_and(|count| count > 0);
        cluster < self.clusters && self.referred(cluster) == 0 && has_refcount()
    }

    fn all_leaked(&self, first: u64, count: u64) -> bool {
        (first..first + count).all(|cluster| self.leaked(cluster))
    }

    /// Whether a cluster has had more references than there are.
    fn surplus(&self, cluster: u64) -> bool {
        let references = self.referred(cluster).min(self.most());
        references > 0 && self.image.refcount(cluster).is_some_and(|count| count > references)
    }

    fn is_shared(&self, table: u64, times: u64) -> bool {
        let clusters = self.clusters((table, self.image.cluster_size()));
        clusters.is_some_and(|(first, last)| (first..=last).any(|cluster| self.referred(cluster) > times))
    }

    fn has_sound_entry(&self, table: u64) -> bool {
        let size = self.image.cluster_size();
        self.l2_entries(table).filter(|&entry| entry != (0, 0)).any(|(entry, bitmap)| {
            let (allocated, zeroes) = (bitmap & 0xffff_ffff, bitmap >> 32);
            if entry >> 62 & 1 != 0 {
                let split = 62 - (self.image.cluster_bits - 8);
                let offset = entry & ((1 << split) - 1);
                let sectors = (entry >> split & ((1 << (62 - split)) - 1)) + 1;
                let is_there = self.clusters((offset, sectors * 512 - offset % 512)).is_some();
                return entry & COPIED == 0 && offset >> 56 == 0 && bitmap == 0 && is_there;
            }
            let has_no_zero_flag = self.image.version == 2 || self.image.extended_l2();
            let reserved = 0x3f00_0000_0000_01fe | u64::from(has_no_zero_flag);
            let is_sound = if self.has_cluster(entry) {
                let offset = entry & OFFSET;
                let is_there = self.clusters((offset, size)).is_some();
                allocated & zeroes == 0 && self.image.is_aligned(offset) && is_there
            } else {
                allocated == 0
            };
            entry & reserved == 0 && is_sound
        })
    }

    /// Runs of leaks before the cluster of an entry that are as many as the empty entries before that, which are whole sectors.
    fn emptied(&self) -> BTreeSet<u64> {
        let mut found = BTreeSet::new();
        let tables = self.l2_tables.keys().filter(|&&table| table != 0 && self.image.is_aligned(table));
        for &table in tables.filter(|_| self.image.version >= 3) {
            let in_sector = 512 / (self.image.cluster_size() / self.image.l2_entries());
            let mut start = 0;
            for (index, entry) in (0..).zip(self.l2_entries(table)) {
                if entry == (0, 0) {
                    continue;
                }
                let count: u64 = index - start;
                let is_large = count << self.image.cluster_bits >= 4 << 20;
                let are_sectors = is_large && start % in_sector == 0 && index % in_sector == 0;
                let has_cluster = entry.0 >> 62 & 1 == 0 && self.has_cluster(entry.0);
                let first = ((entry.0 & OFFSET) >> self.image.cluster_bits).checked_sub(count);
                if let Some(first) = first.filter(|_| are_sectors && has_cluster) {
                    let is_before = |cluster: u64| self.leaked(cluster);
                    let is_run = self.all_leaked(first, count) && !is_before(first + count);
                    if is_run && !first.checked_sub(1).is_some_and(is_before) {
                        found.insert(first);
                    }
                }
                start = index + 1;
            }
        }
        found
    }

    /// Leaked clusters of tables that leaked bitmap directories name.
    fn stale_bitmap_tables(&self) -> BTreeSet<u64> {
        let (size, mut found, mut done) = (self.image.cluster_size(), BTreeSet::new(), 0);
        for cluster in (0..self.clusters).filter(|&cluster| self.leaked(cluster)) {
            if cluster < done {
                continue;
            }
            let mut at = cluster * size;
            while let Some((table, length, next)) = self.image.bitmap_entry(at) {
                let is_leaked = |end: u64| self.all_leaked(cluster, end.div_ceil(size) - cluster);
                if !is_leaked(next) {
                    break;
                }
                found.extend(table / size..table.saturating_add(length).div_ceil(size).min(self.clusters));
                at = next;
                done = next.div_ceil(size);
            }
        }
        found
    }

    fn reads_as_table(&self, cluster: u64) -> bool {
        let (size, bits) = (self.image.cluster_size(), self.image.cluster_bits);
        let length = self.image.length();
        let end = ((cluster + 1) * size).min(length);
        let words: Vec<u64> =
            (cluster * size..end - end % 8).step_by(8).map(|at| self.image.entry(at)).collect();
        // Those of an L1 table have 8 bytes, those of an L2 table perhaps 16.
        [1, 2].into_iter().take(if self.image.extended_l2() { 2 } else { 1 }).any(|step| {
            let entries = words.iter().step_by(step).filter(|&&entry| entry > 1);
            let (compressed, standard): (Vec<u64>, Vec<u64>) =
                entries.partition(|&entry| entry >> 62 & 1 != 0);
            let split = 62 - (self.image.cluster_bits - 8);
            let is_none = |entry: &u64| {
                entry & !(OFFSET | COPIED | 1) != 0
                    || !self.image.is_aligned(entry & OFFSET)
                    || entry & OFFSET >= length
            };
            let clusters: Vec<u64> = standard.iter().map(|&entry| (entry & OFFSET) >> bits).collect();
            let leaked = clusters.iter().filter(|&&cluster| self.leaked(cluster)).count();
            let surplus = clusters.iter().filter(|&&cluster| self.surplus(cluster)).count();
            compressed.iter().all(|entry| entry & ((1 << split) - 1) < length)
                && !standard.iter().any(is_none)
                && leaked > 0
                && (leaked + surplus) * 2 >= standard.len()
        })
    }
}
