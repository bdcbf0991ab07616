//! What a [`Fault`] is called, what should be in its place, and what is there.

use std::ops::Range;

use super::fault::{Fault, L1Fault, L2Fault, RefcountFault};
use super::walk::Region;
use crate::qcow2::geometry::{MAX_L1_BYTES, OFFSET_MASK};
use crate::qcow2::header::known_fields;
use crate::qcow2::l2::L2Entry;
use crate::qcow2::tables::Tables;
use crate::report::Finding;

impl L2Fault {
    /// What an entry of an L2 table should be, and is, in an image of clusters with so many `bits`.
    pub(super) fn expected_and_found(&self, entry: L2Entry, bits: u32) -> (String, String) {
        let raw = format!("{:#x}", entry.raw);
        let expected = match self {
            Self::Reserved | Self::CompressedReserved => "reserved bits that are 0",
            Self::ZeroFlag => "bit 0 clear, which is reserved here",
            Self::Copied { refcount: 1 } | Self::NotCopied => "bit 63 set, for the refcount is 1",
            Self::Copied { refcount } => {
                return (format!("bit 63 clear, for the refcount is {refcount}"), raw);
            }
            Self::DataUnaligned => "a multiple of the cluster size",
            Self::DataMisplaced { is_shared: false } => "the offset that the cluster has in the disk",
            Self::DataMisplaced { .. } => {
                "the offset that the cluster has in the disk, where the table has one place"
            }
            Self::DataOutside => {
                return ("a cluster in the file".to_owned(), format!("{:#x}", entry.raw & OFFSET_MASK));
            }
            #[cfg(feature = "decompress")]
            Self::Undecodable(why) => {
                return ("data that can be decoded".to_owned(), format!("{raw}: {why}"));
            }
            Self::Emptied { leaked, .. } => {
                let found = format!("none, and as many leaked: {}", range(leaked, bits));
                return ("clusters".to_owned(), found);
            }
            Self::SubclustersWithoutCluster => "no allocated subclusters, for there is no cluster",
            Self::SubclustersInvalid => "subclusters that are allocated or zero, not both",
            Self::CompressedCopied => "bit 63 clear, for the cluster is compressed",
            Self::CompressedWithDataFile => "no compressed cluster, for the data are in an external file",
            Self::CompressedSubclusters => "no subclusters, for the cluster is compressed",
        };
        let found = match self {
            Self::SubclustersWithoutCluster | Self::SubclustersInvalid | Self::CompressedSubclusters => {
                format!("{raw}, subclusters {:#x}", entry.bitmap.0)
            }
            _ => raw,
        };
        (expected.to_owned(), found)
    }
}

impl RefcountFault {
    /// What a cluster's refcount should be, and is.
    fn expected_and_found(&self) -> (String, String) {
        match self {
            Self::TooLow { refcount, references } | Self::TooHigh { refcount, references } => {
                (format!("refcount {references}, for so many references were found"), refcount.to_string())
            }
            Self::Overflow { count, most } => {
                (format!("at most {most} references, for more fit no refcount"), count.to_string())
            }
            Self::Leak { refcount } => {
                let expected = "a reference to it, or refcount 0";
                (expected.to_owned(), format!("refcount {refcount} and no reference"))
            }
        }
    }
}

impl Fault {
    /// It, as a finding without owners.
    pub(super) fn finding(&self, tables: &Tables<'_>) -> Finding {
        let geometry = tables.geometry();
        let bits = geometry.cluster_bits();
        let table_entry = |index: u64| geometry.refcount_table().offset.0.saturating_add(index * 8);
        let aligned = || format!("a multiple of {:#x}", geometry.cluster_size());
        let in_file = || format!("a place in the file of {:#x} bytes", geometry.file_length());
        let hex = |value: &u64| format!("{value:#x}");
        let owned = str::to_owned;
        let (place, offset, expected, found) = match self {
            Self::L1Entry { at, fault } => {
                let (expected, found) = match fault {
                    L1Fault::Reserved { entry } => (owned("reserved bits that are 0"), hex(entry)),
                    L1Fault::Copied { entry, refcount } => {
                        let flag = if *refcount == 1 { "set" } else { "clear" };
                        (format!("bit 63 {flag}, for the refcount is {refcount}"), hex(entry))
                    }
                    L1Fault::TableOutside { table } => (in_file(), hex(table)),
                    L1Fault::TableUnaligned { table } => (aligned(), hex(table)),
                };
                (owned("L1 entry"), *at, expected, found)
            }
            Self::L2Unread { tables: unread } => {
                let at = geometry.l1_table().offset.0;
                let expected = "L2 tables that are aligned, or few that are not";
                (owned("L2 tables"), at, owned(expected), format!("{unread} more, which were not read"))
            }
            Self::RegionOutside(region) => {
                let Region { owner, area } = region;
                let found = format!("{:#x}-{:#x}", area.offset.0, area.end());
                (owner.to_string(), area.offset.0, in_file(), found)
            }
            Self::SnapshotsWithDataFile => {
                let count = tables.header().v2.nb_snapshots;
                let expected = "0, for the data are in an external file";
                (owned("nb_snapshots"), 60, owned(expected), count.to_string())
            }
            Self::SnapshotL1Unaligned { index, entry, offset } => {
                (format!("L1 table offset of snapshot {index}"), *entry, aligned(), hex(offset))
            }
            Self::SnapshotL1Size { index, entry, entries } => {
                let expected = format!("at most {}", MAX_L1_BYTES / 8);
                (
                    format!("L1 table size of snapshot {index}"),
                    entry.saturating_add(8),
                    expected,
                    entries.to_string(),
                )
            }
            Self::SnapshotExtraData { index, entry, size } => {
                let expected = "at least 16 in version 3, and at most the 1024 that QEMU takes";
                let at = entry.saturating_add(36);
                (format!("extra_data_size of snapshot {index}"), at, owned(expected), size.to_string())
            }
            Self::SnapshotTable(error) => {
                let at = tables.header().v2.snapshots_offset;
                (owned("snapshot table"), at, owned("all of its entries"), error.clone())
            }
            Self::BitmapTableEntry { bitmap, at, entry } => {
                let expected = "an aligned offset, and no other bits; or 0 or 1";
                (format!("entry of the table of bitmap {bitmap}"), *at, owned(expected), hex(entry))
            }
            Self::RefcountTableReserved { index, entry } => {
                let place = format!("refcount table entry {index}");
                (place, table_entry(*index), owned("reserved bits that are 0"), hex(entry))
            }
            Self::RefcountBlockUnaligned { index, block } => {
                (format!("refcount table entry {index}"), table_entry(*index), aligned(), hex(block))
            }
            Self::RefcountBlockOutside { index, block } => {
                (format!("refcount table entry {index}"), table_entry(*index), in_file(), hex(block))
            }
            Self::RefcountBlockShared { index, block, count } => {
                let found = format!("{count} references to it");
                (format!("refcount block {index}"), *block, owned("no other owner of its cluster"), found)
            }
            Self::Refcounts { clusters, fault } => {
                let (expected, found) = fault.expected_and_found();
                (range(clusters, bits), clusters.start << bits, expected, found)
            }
            Self::Overlap { clusters, is_compressed } => {
                let (expected, found) = if *is_compressed {
                    ("nothing but compressed data, for there are some", "other data or a table as well")
                } else {
                    ("one owner, for one is a table", "several")
                };
                (range(clusters, bits), clusters.start << bits, owned(expected), owned(found))
            }
            Self::TableCut { area } => {
                let found = format!("its end at {:#x}", area.end());
                (format!("table at {:#x}", area.offset.0), area.offset.0, in_file(), found)
            }
            Self::Field { name, expected, found, .. } => {
                let at = known_fields().find(|field| field.name == *name).map_or(0, |field| field.offset);
                (owned(name), at, expected.clone(), found.clone())
            }
            Self::SnapshotId { index, at, earlier } => {
                let found = format!("that of snapshot {earlier}");
                (format!("ID of snapshot {index}"), *at, owned("one that no other snapshot has"), found)
            }
            Self::SnapshotL1Short { index, entry, entries, needed } => {
                let expected = format!("{needed} entries, for so many its disk needs");
                (
                    format!("L1 table of snapshot {index}"),
                    entry.saturating_add(8),
                    expected,
                    entries.to_string(),
                )
            }
            Self::CryptoHeaderUnaligned { at } => {
                (owned("full disk encryption header"), *at, aligned(), hex(at))
            }
            Self::LuksUnreadable { at, error } => {
                (owned("LUKS header"), *at, owned("one that can be read"), error.clone())
            }
            Self::Luks(problem) => {
                let (expected, found) = (problem.fault.expected(), problem.fault.found());
                (problem.field(), problem.place.offset.0, owned(expected), owned(found))
            }
            Self::LostTable { cluster, entries } => {
                let found = format!("a table of {entries} entries, whose clusters lack references");
                (
                    range(&(*cluster..cluster + 1), bits),
                    cluster << bits,
                    owned("nothing, for it is leaked"),
                    found,
                )
            }
            Self::MissingTables { entries, leaked } => {
                let (at, table) = entries.first().map_or((0, 0), |first| (first.at, first.table));
                let more =
                    if entries.len() > 1 { format!(", {} more", entries.len() - 1) } else { String::new() };
                let expected = format!("an L2 table in the file of {:#x} bytes", geometry.file_length());
                let found = format!("one at {table:#x}{more}, and {leaked} leaked clusters");
                (owned("L1 entry"), at, expected, found)
            }
            Self::EmptyTables { first, count, leaked } => {
                let tables = if *count > 1 { format!(", as in {} others", count - 1) } else { String::new() };
                let found = format!("none{tables}, and {leaked} leaked clusters in the file");
                (format!("L2 table {first:#x}"), *first, owned("entries"), found)
            }
            Self::WithoutData { table, clusters, is_overwritten } => {
                let what = if *is_overwritten { "those of something else" } else { "none" };
                let found = format!("{what}, and {} leaked behind it", range(clusters, bits));
                (format!("L2 table {table:#x}"), *table, owned("entries"), found)
            }
        };
        Finding::new(self.severity(), self.code(), place, offset, expected, found)
    }
}

fn range(clusters: &Range<u64>, bits: u32) -> String {
    let (start, end) = (clusters.start << bits, clusters.end << bits);
    match clusters.end - clusters.start {
        1 => format!("cluster {start:#x}"),
        count => format!("{count} clusters {start:#x}-{end:#x}"),
    }
}
