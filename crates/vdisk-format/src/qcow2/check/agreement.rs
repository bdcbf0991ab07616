//! What the header and the snapshot table say of sizes, beside one another.

use std::collections::BTreeMap;

use super::fault::Fault;
use super::snapshots::SnapshotEntries;
use super::walk::Walk;
use crate::limits::{MAX_SNAPSHOT_TABLE_BYTES, MAX_SNAPSHOTS};
use crate::qcow2::crypto::{Encryption, crypto_header_pointer};
use crate::qcow2::geometry::MAX_L1_BYTES;
use crate::qcow2::snapshot::SnapshotHeader;

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
        let table_end =
            SnapshotEntries::new(self.tables).last().map_or(v2.snapshots_offset, |last| last.next);
        let bytes = table_end - v2.snapshots_offset;
        if bytes > MAX_SNAPSHOT_TABLE_BYTES {
            let expected = format!("a table of at most {MAX_SNAPSHOT_TABLE_BYTES} bytes");
            let (code, name) = ("snapshot-table-size", "snapshots_offset");
            self.extra(Fault::Field { code, name, expected, found: format!("{bytes} bytes") });
        }
        self.snapshots_agree();
        self.encryption_agrees();
    }

    /// The LUKS header, with which QEMU opens no image that has something wrong in it.
    fn encryption_agrees(&mut self) {
        let header = self.tables.header();
        let Encryption::Luks(luks) = Encryption::of(header) else { return };
        let at = crypto_header_pointer(header).ok().flatten().map_or(0, |pointer| pointer.offset);
        if !self.geometry.is_aligned(at) {
            self.extra(Fault::CryptoHeaderUnaligned { at });
        }
        match luks {
            Ok(luks) => luks.problems().into_iter().for_each(|problem| self.extra(Fault::Luks(problem))),
            Err(error) => self.extra(Fault::LuksUnreadable { at, error: error.to_string() }),
        }
    }

    fn snapshots_agree(&mut self) {
        let mut ids = BTreeMap::new();
        for snapshot in self.tables.snapshots().map_while(Result::ok) {
            let (index, entry) = (snapshot.index, snapshot.offset.0);
            let earlier = *ids.entry(snapshot.id).or_insert(index);
            if earlier != index {
                let at = entry + SnapshotHeader::SIZE + snapshot.extra_data.len() as u64;
                self.extra(Fault::SnapshotId { index, at, earlier });
            }
            let size = snapshot.disk_size().unwrap_or(self.geometry.virtual_size());
            let needed = size.div_ceil(self.geometry.l2_span());
            let entries = u64::from(snapshot.fixed.l1_size);
            if entries < needed {
                self.extra(Fault::SnapshotL1Short { index, entry, entries, needed });
            }
        }
    }
}

#[cfg(test)]
#[cfg(feature = "generate")]
mod tests {
    use crate::check::Check;
    use crate::generate::{Luks, Qcow2, Snapshot};
    use crate::qcow2::check::check;
    use crate::qcow2::crypto::crypto_header_pointer;
    use crate::qcow2::{Header, Tables};

    fn found(check: &Check, code: &str) -> Vec<(u64, String)> {
        let all = check.report.findings().iter().filter(|finding| finding.code == code);
        all.map(|finding| (finding.offset.0, finding.found.clone())).collect()
    }

    /// An ID can have 65,535 bytes, and so many snapshots can share it that a report with all of them is no report.
    #[test]
    fn the_snapshot_with_the_same_id_is_named_by_its_place() {
        let names = ["0", "1", "2", "3"].map(|id| Snapshot::new(id, "name"));
        let image = names.into_iter().fold(Qcow2::new(1 << 20), Qcow2::snapshot).build().unwrap();
        let (mut image, entries) = {
            let tables = Tables::new(&image).unwrap();
            let entries: Vec<_> = tables.snapshots().map(|snapshot| snapshot.unwrap().offset.0).collect();
            (image.clone(), entries)
        };
        let id = |entry: u64| usize::try_from(entry).unwrap() + 40 + 24;
        assert_eq!(image[id(entries[2])], b'2', "the extra data have 24 bytes");
        (image[id(entries[2])], image[id(entries[3])]) = (b'1', b'1');
        let same = "that of snapshot 1".to_owned();
        assert_eq!(
            found(&check(&image).unwrap(), "snapshot-id"),
            [(id(entries[2]) as u64, same.clone()), (id(entries[3]) as u64, same)]
        );
    }

    #[test]
    fn a_luks_header_is_looked_into() {
        let image = Qcow2::new(1 << 20).luks(Luks::new(1)).build().unwrap();
        assert_eq!(check(&image).unwrap().extra_corruptions, 0);
        let start = crypto_header_pointer(&Header::parse(&image).unwrap()).unwrap().unwrap().offset;
        for (at, code) in [(0, "luks-magic"), (208 + 48, "luks-slot-state"), (104, "luks-payload-offset")] {
            let mut image = image.clone();
            let place = usize::try_from(start).unwrap() + at;
            image[place..place + 4].fill(0);
            let check = check(&image).unwrap();
            assert_eq!(check.extra_corruptions, 1, "{code}");
            assert_eq!(found(&check, code).first().map(|found| found.0), Some(start + at as u64), "{code}");
        }
    }

    #[test]
    fn a_luks_header_that_is_not_where_it_can_be() {
        let image = Qcow2::new(1 << 20).luks(Luks::new(1)).build().unwrap();
        let start = crypto_header_pointer(&Header::parse(&image).unwrap()).unwrap().unwrap().offset;
        let at = image.windows(4).position(|bytes| bytes == [0x05, 0x37, 0xbe, 0x77]).unwrap() + 8;
        let with = |offset: u64| {
            let mut image = image.clone();
            image[at..at + 8].copy_from_slice(&offset.to_be_bytes());
            check(&image).unwrap()
        };
        assert_eq!(found(&with(start + 512), "crypto-header-unaligned").len(), 1);
        let end = image.len() as u64 - 100;
        assert_eq!(found(&with(end), "luks-header").first().map(|found| found.0), Some(end));
    }
}
