//! The `COPIED` flags of the active tables, where the refcounts say that some are wrong.

use super::problems::{Fault, L2Place};
use super::refcounts::Compared;
use super::walk::Walk;
use crate::qcow2::geometry::OFFSET_MASK;
use crate::qcow2::l2::L2Entry;
use crate::units::HostOffset;

impl Walk<'_, '_> {
    /// Looks at each entry of the active tables whose cluster is a suspect. There is none in a healthy image.
    pub(super) fn copied_flags(&mut self, compared: &Compared) {
        let Some(suspects) = &compared.suspects else { return };
        let bits = self.geometry.cluster_bits();
        let tables = self.tables;
        let active = self.geometry.l1_table();
        for (index, entry) in tables.l1_entries(active) {
            let cluster = entry.l2_table().0 >> bits;
            if entry.is_allocated() && suspects.intersects(cluster, 1) {
                self.flag(cluster, entry.copied(), 1, |refcount| Fault::L1Copied {
                    at: active.offset.0 + index * 8,
                    entry: entry.0,
                    refcount,
                });
            }
        }
        if self.geometry.data_file() {
            return;
        }
        let l2_tables = std::mem::take(&mut self.l2_tables);
        for (&table, by) in l2_tables.iter().filter(|(table, by)| **table != 0 && by.active > 0) {
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
        let cluster = (entry.raw & OFFSET_MASK) >> self.geometry.cluster_bits();
        if !suspects.intersects(cluster, 1) {
            return;
        }
        let Some(refcount) = self.stored_refcount(cluster) else { return };
        if (refcount == 1) != entry.copied() {
            self.check.corruptions += times;
            self.problems.l2(Fault::L2Copied { refcount }, place, entry, self.findings);
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
