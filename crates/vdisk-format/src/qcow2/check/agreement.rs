//! What the header and the snapshot table say of sizes, beside one another.

use std::collections::BTreeSet;

use super::problems::Fault;
use super::walk::Walk;
use crate::limits::MAX_SNAPSHOTS;
use crate::qcow2::crypto::Encryption;
use crate::qcow2::geometry::MAX_L1_BYTES;

/// The largest refcount table that QEMU takes, in bytes.
const MAX_REFCOUNT_TABLE_BYTES: u64 = 8 << 20;

impl Walk<'_, '_> {
    /// Sizes that do not go together. QEMU opens no such image.
    pub(super) fn agreement(&mut self) {
        let geometry = self.geometry;
        let v2 = self.tables.header().v2;
        let (entries, needed) = (geometry.l1_size(), geometry.l1_entries_needed());
        if entries < needed || entries * 8 > MAX_L1_BYTES {
            let expected = format!("{needed} to {}", MAX_L1_BYTES / 8);
            self.extra(Fault::Field {
                code: "l1-size",
                name: "l1_size",
                expected,
                found: entries.to_string(),
            });
        }
        let (table, clusters) = (geometry.refcount_table(), u64::from(v2.refcount_table_clusters));
        if clusters == 0 || table.length > MAX_REFCOUNT_TABLE_BYTES {
            let most = MAX_REFCOUNT_TABLE_BYTES >> geometry.cluster_bits();
            let (code, name) = ("refcount-table-size", "refcount_table_clusters");
            let (expected, found) = (format!("1 to {most}"), clusters.to_string());
            self.extra(Fault::Field { code, name, expected, found });
        }
        if table.offset.0 == 0 {
            let (expected, found) = ("an offset behind the header".to_owned(), "0x0".to_owned());
            let (code, name) = ("refcount-table-offset", "refcount_table_offset");
            self.extra(Fault::Field { code, name, expected, found });
        }
        if v2.nb_snapshots > MAX_SNAPSHOTS {
            let (expected, found) = (format!("at most {MAX_SNAPSHOTS}"), v2.nb_snapshots.to_string());
            self.extra(Fault::Field { code: "nb-snapshots", name: "nb_snapshots", expected, found });
        }
        self.snapshots_agree();
        if let Encryption::Luks(Err(error)) = Encryption::of(self.tables.header()) {
            self.extra(Fault::Luks(error.to_string()));
        }
    }

    fn snapshots_agree(&mut self) {
        let mut ids = BTreeSet::new();
        for snapshot in self.tables.snapshots().map_while(Result::ok) {
            let entry = snapshot.offset.0;
            if !ids.insert(snapshot.id) {
                let id = String::from_utf8_lossy(snapshot.id).into_owned();
                self.extra(Fault::SnapshotId { entry, id });
            }
            let size = snapshot.disk_size().unwrap_or(self.geometry.virtual_size());
            let needed = size.div_ceil(self.geometry.l2_span());
            let entries = u64::from(snapshot.fixed.l1_size);
            if entries < needed {
                self.extra(Fault::SnapshotL1Short { entry, entries, needed });
            }
        }
    }
}
