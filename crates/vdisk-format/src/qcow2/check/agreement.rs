//! What the header and the snapshot table say of sizes, beside one another.

use std::collections::BTreeSet;

use super::problems::Fault;
use super::snapshots::SnapshotEntries;
use super::walk::Walk;
use crate::bytes::clipped;
use crate::limits::MAX_SNAPSHOTS;
use crate::qcow2::crypto::Encryption;
use crate::qcow2::geometry::MAX_L1_BYTES;

/// The largest refcount table that QEMU takes, in bytes.
const MAX_REFCOUNT_TABLE_BYTES: u64 = 8 << 20;

/// The largest snapshot table that QEMU takes, in bytes: 1 KiB for each of the most snapshots.
const MAX_SNAPSHOT_TABLE_BYTES: u64 = 1024 * MAX_SNAPSHOTS as u64;

/// So much of a snapshot's ID is shown: it may have 64 KiB, and there may be many of them. In bytes.
const MAX_ID_SHOWN: u64 = 64;

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
        let table_end =
            SnapshotEntries::new(self.tables).last().map_or(v2.snapshots_offset, |last| last.next);
        let bytes = table_end - v2.snapshots_offset;
        if bytes > MAX_SNAPSHOT_TABLE_BYTES {
            let expected = format!("a table of at most {MAX_SNAPSHOT_TABLE_BYTES} bytes");
            let (code, name) = ("snapshot-table-size", "snapshots_offset");
            self.extra(Fault::Field { code, name, expected, found: format!("{bytes} bytes") });
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
                let id = String::from_utf8_lossy(clipped(snapshot.id, 0, MAX_ID_SHOWN)).into_owned();
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
