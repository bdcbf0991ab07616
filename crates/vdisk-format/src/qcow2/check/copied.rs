//! The `COPIED` flags of the active tables, where the refcounts say that some are wrong.

use super::fault::{Fault, L1Fault, L2Fault};
use super::problems::L2Place;
use super::refcounts::Compared;
use super::walk::Walk;
use crate::qcow2::geometry::{Area, OFFSET_MASK};
use crate::qcow2::l2::L2Entry;
use crate::units::HostOffset;

impl Walk<'_, '_> {
    /// Looks at each entry of the active tables whose cluster is a suspect. There is none in a healthy image.
    ///
    /// Of what ends outside the file the flags were looked at when that was found: also where it starts, unaligned, inside.
    pub(super) fn copied_flags(&mut self, compared: &Compared) {
        let Some(suspects) = &compared.suspects else { return };
        let bits = self.geometry.cluster_bits();
        let tables = self.tables;
        let active = self.geometry.l1_table();
        for (index, entry) in tables.l1_entries(active) {
            let cluster = entry.l2_table().0 >> bits;
            let is_there = self.is_there(Area::new(entry.l2_table().0, self.geometry.cluster_size()));
            if entry.is_allocated() && is_there && suspects.intersects(cluster, 1) {
                self.flag(cluster, entry.copied(), 1, |refcount| Fault::L1Entry {
                    at: active.offset.0 + index * 8,
                    fault: L1Fault::Copied { entry: entry.0, refcount },
                });
            }
        }
        if self.geometry.data_file() {
            return;
        }
        let l2_tables = std::mem::take(&mut self.l2_tables);
        for (table, by) in l2_tables.iter().filter(|&(table, by)| table != 0 && by.active > 0) {
            if self.stored_refcount(table >> bits).is_none() {
                continue;
            }
            for run in tables.l2_runs(HostOffset(table)) {
                let host = run.first.raw & OFFSET_MASK;
                let clusters = if run.step == 0 { 1 } else { run.count };
                if run.first.is_compressed() || host == 0 || !suspects.intersects(host >> bits, clusters) {
                    continue;
                }
                for (index, entry) in run.entries() {
                    self.l2_flag(L2Place { table, index }, entry, by.active, suspects);
                }
            }
            self.problems.end_of_table(self.findings);
        }
        self.l2_tables = l2_tables;
    }

    fn l2_flag(
        &mut self,
        place: L2Place,
        entry: L2Entry,
        times: u64,
        suspects: &crate::cluster_set::ClusterSet,
    ) {
        let offset = entry.raw & OFFSET_MASK;
        let cluster = offset >> self.geometry.cluster_bits();
        let is_there = self.is_there(Area::new(offset, self.geometry.cluster_size()));
        if !is_there || !suspects.intersects(cluster, 1) {
            return;
        }
        let Some(refcount) = self.stored_refcount(cluster) else { return };
        if (refcount == 1) != entry.copied() {
            self.check.corruptions += times;
            self.problems.l2(L2Fault::Copied { refcount }, place, entry, self.findings);
        }
    }

    /// Counts a flag that does not agree with its cluster's refcount.
    pub(super) fn flag(&mut self, cluster: u64, copied: bool, times: u64, fault: impl Fn(u64) -> Fault) {
        if let Some(refcount) = self.stored_refcount(cluster)
            && (refcount == 1) != copied
        {
            self.check.corruptions += times;
            self.problems.add(fault(refcount), self.findings);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::generate::Qcow2;
    use crate::qcow2::check::check;
    use crate::qcow2::tables::Tables;

    /// An image of 1 KiB clusters whose file ends 256 bytes into its last one, of which an L2 entry says without the flag that
    /// it is its own; so does what is written at `at`, 512 bytes further on.
    fn cut(at: impl Fn(u64, u64) -> u64) -> Vec<u8> {
        let mut image = Qcow2::new(1 << 18).cluster_bits(10).allocate(0..1 << 12).build().unwrap();
        let last = image.len() as u64 - 1024;
        let tables = Tables::new(&image).unwrap();
        let l1 = tables.geometry().l1_table();
        let l2 = tables.l1_entry(l1, 0).unwrap().l2_table().0;
        for (at, entry) in [(l2 + 3 * 8, last), (at(l1.offset.0, l2), last + 512)] {
            image[at as usize..at as usize + 8].copy_from_slice(&entry.to_be_bytes());
        }
        image.truncate(last as usize + 256);
        image
    }

    #[test]
    fn a_flag_of_what_starts_in_the_file_and_ends_outside_counts_once() {
        for (image, codes) in [
            (cut(|l1, _| l1 + 8), ["l2-table-outside", "l2-table-unaligned", "l1-entry-copied"]),
            (cut(|_, l2| l2), ["data-outside", "data-unaligned", "l2-entry-copied"]),
        ] {
            let check = check(&image).unwrap();
            for code in codes {
                assert!(check.report.has(code), "{code}");
            }
            // Two of the entry itself, and one for each flag that is missing.
            assert_eq!(check.corruptions, 4, "{:#?}", check.report);
        }
    }
}
