//! A visit to an L2 table.

use super::fault::L2Fault;
use super::l2_tables::Referrers;
use super::lost::MOST_RUNS;
use super::problems::L2Place;
use super::walk::Walk;
use crate::check::Check;
use crate::cluster_counts::ClusterCounts;
use crate::qcow2::geometry::{Area, OFFSET_MASK};
use crate::qcow2::l2::{L2Entry, L2Format};
use crate::table::follow;
use crate::units::HostOffset;

/// Entries that follow one another in such a number are better counted as a run.
const MANY: usize = 16;
/// What QEMU's check takes for reserved in an entry that is not compressed.
const RESERVED: u64 = 0x3f00_0000_0000_01fe;

/// A table that is being visited.
struct Visit {
    table: u64,
    by: Referrers,
    /// Where the next cluster is, if it follows the one before; 0 before the first.
    next: u64,
    /// Whether an entry is not 0.
    is_used: bool,
    /// Whether one of these is what an entry can be.
    is_sound: bool,
    allocated: u64,
    fragmented: u64,
    compressed: u64,
}

impl Walk<'_, '_> {
    /// Counts what the entries of the L2 table at `table` refer to, and looks for faults in them.
    pub(super) fn l2_table(&mut self, table: u64, by: Referrers) {
        let mut visit = Visit {
            table,
            by,
            next: 0,
            is_used: false,
            is_sound: false,
            allocated: 0,
            fragmented: 0,
            compressed: 0,
        };
        if self.tables.l2_format().extended() {
            self.extended(&mut visit);
        } else {
            self.standard(&mut visit);
        }
        self.problems.end_of_table(self.findings);
        let without_data = if visit.is_used { &mut self.overwritten_tables } else { &mut self.empty_tables };
        if !visit.is_sound && by.active > 0 && without_data.len() < MOST_RUNS {
            without_data.push(table);
        }
        // Only the disk as it is counts.
        self.check.allocated_clusters += visit.allocated.saturating_mul(by.active);
        self.check.fragmented_clusters += visit.fragmented.saturating_mul(by.active);
        self.check.compressed_clusters += visit.compressed.saturating_mul(by.active);
    }

    fn standard(&mut self, visit: &mut Visit) {
        let tables = self.tables;
        let mut reader = std::mem::take(&mut self.reader);
        let table = reader.l2_table(tables.view(), visit.table, self.geometry.cluster_size());
        if let Some(table) = table {
            self.entries(visit, 0, table.as_chunks::<8>().0);
            reader.note(visit.is_used);
            self.reader = reader;
            return;
        }
        self.reader = reader;
        for (first, entries) in tables.l2_pieces(HostOffset(visit.table)) {
            self.entries(visit, first, entries);
        }
    }

    /// Entries of 8 bytes, the first of which has number `index`.
    fn entries(&mut self, visit: &mut Visit, mut index: u64, mut rest: &[[u8; 8]]) {
        let format = self.tables.l2_format();
        while let Some(entry) = rest.first() {
            let raw = u64::from_be_bytes(*entry);
            visit.is_used |= raw != 0;
            let taken = if raw == 0 {
                follow::<true>(rest, 0, 0)
            } else if let Some(host) = self.plain(raw) {
                let count = follow::<true>(rest, raw, self.geometry.cluster_size());
                self.run(visit, index, host, count as u64, raw & L2Entry::COPIED != 0);
                // Behind a short run, the next ones are as short.
                let behind = rest.get(count..).unwrap_or_default();
                let is_single = visit.by == Referrers { active: 1, snapshots: 0 };
                let more = is_single && count < MANY && !self.geometry.data_file();
                count + if more { self.scattered(visit, behind) } else { 0 }
            } else {
                self.odd(visit, index, L2Entry::new(raw), &format);
                1
            };
            index += taken as u64;
            rest = rest.get(taken..).unwrap_or_default();
        }
    }

    fn extended(&mut self, visit: &mut Visit) {
        let format = self.tables.l2_format();
        let tables = self.tables;
        for run in tables.l2_runs(HostOffset(visit.table)) {
            let L2Entry { raw, bitmap } = run.first;
            visit.is_used |= raw != 0 || bitmap.0 != 0;
            if raw == 0 && bitmap.allocated() == 0 {
                visit.is_sound |= bitmap.0 != 0;
                continue;
            }
            match self.plain(raw) {
                Some(host) if bitmap.invalid() == 0 => {
                    self.run(visit, run.index, host, run.count, raw & L2Entry::COPIED != 0);
                }
                _ => run.entries().for_each(|(index, entry)| self.odd(visit, index, entry, &format)),
            }
        }
    }

    /// The cluster of an entry that is data and nothing odd; `None` for any other.
    #[inline]
    fn plain(&self, raw: u64) -> Option<u64> {
        let host = raw & !L2Entry::COPIED;
        let end = if self.geometry.data_file() { u64::MAX } else { self.geometry.file_length() };
        let is_plain = host != 0 && self.geometry.is_aligned(host) && host < end.min(1 << 54);
        is_plain.then_some(host)
    }

    /// Entries that name `count` clusters, one behind the other, the first of which is in the file.
    fn run(&mut self, visit: &mut Visit, index: u64, host: u64, count: u64, copied: bool) {
        let bits = self.geometry.cluster_bits();
        visit.is_sound = true;
        visit.allocated += count;
        visit.fragmented += u64::from(visit.next != 0 && visit.next != host);
        visit.next = host + (count << bits);
        let is_active = visit.by.active > 0;
        if self.geometry.data_file() {
            self.in_data_file(host + ((count - 1) << bits));
            if !copied && self.has_flags(visit) {
                self.not_copied(visit, index, count);
            }
            return;
        }
        let first = host >> bits;
        let there = count.min(self.geometry.file_clusters() - first);
        self.counts.add(first, there, visit.by.all(), is_active && copied);
        if is_active && !copied {
            self.uncopied.insert(first, there, |_| {});
        }
        if there < count {
            self.outside(visit, index + there, count - there, (first + there) << bits, copied);
        }
    }

    /// Counts the clusters of entries one by one, up to the first one that is not plain, or whose cluster something has
    /// already, or behind which a long run begins: how many.
    ///
    /// This is where a check of an image in no order spends its time: on the memory in which the references are counted. The
    /// loop is so short that the processor waits for several of them at once.
    fn scattered(&mut self, visit: &mut Visit, entries: &[[u8; 8]]) -> usize {
        let (bits, size) = (self.geometry.cluster_bits(), self.geometry.cluster_size());
        // Not the first cluster: that is the header's.
        let length = self.geometry.file_length().saturating_sub(size);
        let (mut count, mut breaks, mut streak, mut next) = (0, 0, 0, visit.next);
        for entry in entries {
            let host = u64::from_be_bytes(*entry) ^ L2Entry::COPIED;
            let is_plain = host & (size - 1) == 0 && host.wrapping_sub(size) < length;
            if !is_plain || !self.counts.add_new_marked(host >> bits) {
                break;
            }
            count += 1;
            let follows = host == next;
            breaks += u64::from(!follows);
            streak = if follows { streak + 1 } else { 0 };
            next = host + size;
            if streak > MANY {
                break;
            }
        }
        self.counts.note_added(count as u64);
        visit.allocated += count as u64;
        visit.fragmented += breaks;
        visit.next = next;
        count
    }

    /// Any entry.
    fn odd(&mut self, visit: &mut Visit, index: u64, entry: L2Entry, format: &L2Format) {
        let faults = |check: &Check| (check.corruptions, check.extra_corruptions);
        let before = faults(self.check);
        self.any_entry(visit, index, entry, format);
        visit.is_sound |= faults(self.check) == before;
    }

    /// By the rules of QEMU's check; and what that does not look for.
    fn any_entry(&mut self, visit: &mut Visit, index: u64, entry: L2Entry, format: &L2Format) {
        let times = visit.by.all();
        let place = L2Place { table: visit.table, index };
        if entry.is_compressed() {
            self.compressed_entry(visit, place, entry, format);
            return;
        }
        if entry.raw & RESERVED != 0 {
            self.check.corruptions += times;
            self.problems.l2(L2Fault::Reserved, place, entry, self.findings);
        } else if entry.reserved(format) != 0 {
            self.check.extra_corruptions += 1;
            self.problems.l2(L2Fault::ZeroFlag, place, entry, self.findings);
        }
        let offset = entry.raw & OFFSET_MASK;
        if entry.host_cluster(format).is_none() {
            if format.extended() && entry.bitmap.allocated() != 0 {
                self.check.corruptions += times;
                self.problems.l2(L2Fault::SubclustersWithoutCluster, place, entry, self.findings);
            }
            return;
        }
        if entry.bitmap.invalid() != 0 {
            self.check.corruptions += times;
            self.problems.l2(L2Fault::SubclustersInvalid, place, entry, self.findings);
        }
        if !self.geometry.is_aligned(offset) {
            self.check.corruptions += times;
            self.problems.l2(L2Fault::DataUnaligned, place, entry, self.findings);
        }
        visit.allocated += 1;
        visit.fragmented += u64::from(visit.next != 0 && visit.next != offset);
        visit.next = offset + self.geometry.cluster_size();
        let (is_active, copied) = (visit.by.active > 0, entry.copied());
        if self.geometry.data_file() {
            self.in_data_file(offset);
            if !copied && self.has_flags(visit) {
                self.not_copied(visit, index, 1);
            }
            return;
        }
        let area = Area::new(offset, self.geometry.cluster_size());
        if !self.claim(area, times, is_active && copied) {
            self.outside(visit, index, 1, offset, copied);
        } else if is_active && !copied {
            self.uncopied.insert(offset >> self.geometry.cluster_bits(), 1, |_| {});
        }
    }

    fn compressed_entry(&mut self, visit: &mut Visit, place: L2Place, entry: L2Entry, format: &L2Format) {
        let times = visit.by.all();
        if entry.copied() {
            self.check.corruptions += times;
            self.problems.l2(L2Fault::CompressedCopied, place, entry, self.findings);
        }
        if entry.reserved(format) != 0 {
            self.check.extra_corruptions += 1;
            self.problems.l2(L2Fault::CompressedReserved, place, entry, self.findings);
        }
        if self.geometry.data_file() {
            self.check.corruptions += times;
            self.problems.l2(L2Fault::CompressedWithDataFile, place, entry, self.findings);
            return;
        }
        if entry.bitmap.0 != 0 {
            self.check.corruptions += times;
            self.problems.l2(L2Fault::CompressedSubclusters, place, entry, self.findings);
            return;
        }
        let data = entry.compressed(format);
        let area = Area { offset: data.offset, length: data.length };
        if self.claim(area, times, false) {
            let clusters = self.geometry.clusters(area);
            let end = self.counts.end();
            let compressed = self.compressed.get_or_insert_with(|| ClusterCounts::new(end));
            compressed.extend(end);
            compressed.add(clusters.start, clusters.end - clusters.start, times, false);
        } else {
            self.check.corruptions += times;
            self.problems.l2(L2Fault::DataOutside, place, entry, self.findings);
        }
        visit.allocated += 1;
        visit.compressed += 1;
        // QEMU says of each that it is fragmented, for it shares sectors.
        visit.fragmented += 1;
    }

    /// `count` entries from `index` on whose clusters, the first at `host`, the file does not have.
    fn outside(&mut self, visit: &Visit, index: u64, count: u64, host: u64, copied: bool) {
        self.check.corruptions += count.saturating_mul(visit.by.all());
        let flag = if copied { L2Entry::COPIED } else { 0 };
        let bits = self.geometry.cluster_bits();
        let place = L2Place { table: visit.table, index };
        self.problems.l2_run(L2Fault::DataOutside, place, count, L2Entry::new(host | flag), self.findings);
        // What lies outside has a refcount all the same, which the flag has to agree with.
        if self.has_flags(visit) {
            let wrong = (0..count).filter(|i| {
                let refcount = self.stored_refcount((host >> bits) + i);
                refcount.is_some_and(|refcount| (refcount == 1) != copied)
            });
            self.check.corruptions += (wrong.count() as u64).saturating_mul(visit.by.active);
        }
    }

    /// Whether the table's `COPIED` flags are to agree with the refcounts: QEMU does not look at those of a table whose
    /// own refcount it cannot read.
    fn has_flags(&self, visit: &Visit) -> bool {
        let Visit { table, by, .. } = visit;
        by.active > 0 && *table != 0 && self.stored_refcount(table >> self.geometry.cluster_bits()).is_some()
    }

    /// A cluster of the external data file is referred to.
    fn in_data_file(&mut self, host: u64) {
        let last = &mut self.check.last_in_data_file;
        *last = (*last).max(Some(host));
    }

    /// Entries without the flag in an image with an external data file, whose clusters have no refcounts.
    fn not_copied(&mut self, visit: &Visit, index: u64, count: u64) {
        self.check.corruptions += count.saturating_mul(visit.by.active);
        let place = L2Place { table: visit.table, index };
        self.problems.l2_run(L2Fault::NotCopied, place, count, L2Entry::new(0), self.findings);
    }
}
