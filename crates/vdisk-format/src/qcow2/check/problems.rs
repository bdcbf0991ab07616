//! What a walk finds wrong, gathered into ranges, and told as findings at its end.

use std::collections::BTreeMap;
use std::ops::Range;

use super::walk::Region;
use crate::check::Findings;
use crate::cluster_set::ClusterSet;
use crate::qcow2::claims::{Claim, Owner, claims};
use crate::qcow2::crypto::LuksProblem;
use crate::qcow2::geometry::{Area, MAX_L1_BYTES, OFFSET_MASK};
use crate::qcow2::header::known_fields;
use crate::qcow2::l2::L2Entry;
use crate::qcow2::tables::Tables;
use crate::report::{Finding, Severity};

/// Most owners that a finding names.
const MOST_OWNERS: usize = 8;

/// Something that is wrong. Offsets and indices are those of the entries concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    // The L1 tables.
    L1Reserved {
        at: u64,
        entry: u64,
    },
    L1Copied {
        at: u64,
        entry: u64,
        refcount: u64,
    },
    L2Outside {
        at: u64,
        table: u64,
    },
    L2Unaligned {
        at: u64,
        table: u64,
    },
    L2Unread {
        tables: u64,
    },
    // Entries of L2 tables.
    L2Reserved,
    L2ZeroFlag,
    L2Copied {
        refcount: u64,
    },
    DataUnaligned,
    DataOutside,
    DataMisplaced {
        is_shared: bool,
    },
    SubclustersWithoutCluster,
    SubclustersInvalid,
    NotCopied,
    CompressedCopied,
    CompressedReserved,
    CompressedWithDataFile,
    CompressedSubclusters,
    #[cfg(feature = "decompress")]
    Undecodable(String),
    // The others.
    RegionOutside(Region),
    SnapshotsWithDataFile,
    SnapshotL1Unaligned {
        index: u32,
        entry: u64,
        offset: u64,
    },
    SnapshotL1Size {
        index: u32,
        entry: u64,
        entries: u64,
    },
    SnapshotExtraData {
        entry: u64,
        size: u32,
    },
    SnapshotTable(String),
    BitmapTableEntry {
        at: u64,
        entry: u64,
    },
    // Refcounts.
    RefcountTableReserved {
        index: u64,
        entry: u64,
    },
    RefcountBlockUnaligned {
        index: u64,
        block: u64,
    },
    RefcountBlockOutside {
        index: u64,
        block: u64,
    },
    RefcountBlockShared {
        index: u64,
        block: u64,
        count: u64,
    },
    RefcountTooLow {
        clusters: Range<u64>,
        refcount: u64,
        references: u64,
    },
    RefcountTooHigh {
        clusters: Range<u64>,
        refcount: u64,
        references: u64,
    },
    Overflow {
        clusters: Range<u64>,
        count: u64,
        most: u64,
    },
    Leak {
        clusters: Range<u64>,
        refcount: u64,
    },
    // What QEMU does not look for.
    Overlap {
        clusters: Range<u64>,
    },
    TableCut {
        area: Area,
    },
    Field {
        code: &'static str,
        name: &'static str,
        expected: String,
        found: String,
    },
    SnapshotId {
        entry: u64,
        /// The place in the table of the first snapshot with that ID.
        earlier: usize,
    },
    SnapshotL1Short {
        entry: u64,
        entries: u64,
        needed: u64,
    },
    CryptoHeaderUnaligned {
        at: u64,
    },
    LuksUnreadable {
        at: u64,
        error: String,
    },
    Luks(LuksProblem),
    LostTable {
        cluster: u64,
        entries: u64,
    },
    EmptyTable {
        table: u64,
        clusters: Range<u64>,
    },
}

/// An entry of an L2 table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct L2Place {
    pub(super) table: u64,
    pub(super) index: u64,
}

/// Neighbouring entries of an L2 table with the same fault.
#[derive(Debug, Clone, PartialEq, Eq)]
struct L2Problem {
    fault: Fault,
    place: L2Place,
    count: u64,
    /// The first of them.
    entry: L2Entry,
}

/// The problems of one walk.
#[derive(Debug, Default)]
pub(super) struct Problems {
    kept: Vec<Fault>,
    in_l2_tables: Vec<L2Problem>,
    /// May still grow.
    last: Option<L2Problem>,
}

impl Problems {
    /// Something is wrong.
    pub(super) fn add(&mut self, fault: Fault, findings: &mut Findings) {
        if findings.admits(fault.code()) {
            self.kept.push(fault);
        }
    }

    /// Something is wrong with an entry of the L2 table that is being visited.
    pub(super) fn l2(&mut self, fault: Fault, place: L2Place, entry: L2Entry, findings: &mut Findings) {
        self.l2_run(fault, place, 1, entry, findings);
    }

    /// The same, with `count` entries.
    pub(super) fn l2_run(
        &mut self,
        fault: Fault,
        place: L2Place,
        count: u64,
        entry: L2Entry,
        findings: &mut Findings,
    ) {
        if let Some(last) = &mut self.last
            && last.fault == fault
            && last.place.table == place.table
            && last.place.index + last.count == place.index
        {
            last.count += count;
            return;
        }
        self.end_of_table(findings);
        self.last = Some(L2Problem { fault, place, count, entry });
    }

    /// A visit to an L2 table ends.
    pub(super) fn end_of_table(&mut self, findings: &mut Findings) {
        self.in_l2_tables.extend(self.last.take().filter(|problem| findings.admits(problem.fault.code())));
    }

    /// Makes findings of all.
    pub(super) fn tell(mut self, tables: &Tables<'_>, findings: &mut Findings) {
        self.end_of_table(findings);
        let owners = self.owners(tables);
        let guest = self.guest_ranges(tables);
        for fault in &self.kept {
            let mut finding = fault.finding(tables);
            if let Some(claims) = fault.contested(tables).and_then(|cluster| owners.get(&cluster)) {
                finding.owners = claims.iter().map(ToString::to_string).collect();
                finding.guest = claims.iter().find_map(|claim| claim.guest.clone());
            }
            findings.push(finding);
        }
        for problem in &self.in_l2_tables {
            findings.push(problem.finding(tables, guest.get(&problem.place.table).copied()));
        }
    }

    /// Who claims the clusters that are contested.
    fn owners(&self, tables: &Tables<'_>) -> BTreeMap<u64, Vec<Claim>> {
        let mut owners: BTreeMap<u64, Vec<Claim>> =
            self.kept.iter().filter_map(|fault| Some((fault.contested(tables)?, Vec::new()))).collect();
        let Some((&last, _)) = owners.last_key_value() else { return owners };
        let mut wanted = ClusterSet::new(last + 1);
        for &cluster in owners.keys() {
            wanted.insert(cluster, 1, |_| {});
        }
        let bits = tables.geometry().cluster_bits();
        let mut told = BTreeMap::new();
        claims(tables, &|first, count| wanted.intersects(first, count), &mut |claim| {
            let clusters = tables.geometry().clusters(claim.area);
            let mut full = Vec::new();
            for (&cluster, claims) in owners.range_mut(clusters) {
                claims.push(claim.within(cluster << bits, 1 << bits));
                if claims.len() >= MOST_OWNERS {
                    full.push(cluster);
                }
            }
            // There may be thousands more: they are not looked at.
            told.extend(full.into_iter().filter_map(|cluster| owners.remove_entry(&cluster)));
        });
        owners.append(&mut told);
        owners
    }

    /// The first L1 entry of each L2 table with a problem.
    fn guest_ranges(&self, tables: &Tables<'_>) -> BTreeMap<u64, u64> {
        let wanted: std::collections::BTreeSet<u64> =
            self.in_l2_tables.iter().map(|problem| problem.place.table).collect();
        let mut found = BTreeMap::new();
        if wanted.is_empty() {
            return found;
        }
        for (index, entry) in tables.l1_entries(tables.geometry().l1_table()) {
            if wanted.contains(&entry.l2_table().0) {
                found.entry(entry.l2_table().0).or_insert(index);
            }
        }
        found
    }
}

fn range(clusters: &Range<u64>, bits: u32) -> String {
    let (start, end) = (clusters.start << bits, clusters.end << bits);
    match clusters.end - clusters.start {
        1 => format!("cluster {start:#x}"),
        count => format!("{count} clusters {start:#x}-{end:#x}"),
    }
}

impl L2Problem {
    fn finding(&self, tables: &Tables<'_>, l1_index: Option<u64>) -> Finding {
        let geometry = tables.geometry();
        let L2Place { table, index } = self.place;
        let entries = match self.count {
            1 => format!("entry {index}"),
            count => format!("entries {index}-{}", index + count - 1),
        };
        let place = format!("L2 table {table:#x}, {entries}");
        let offset = table + index * geometry.l2_entry_size();
        let (expected, found) = self.fault.of_entry(self.entry);
        let guest = l1_index.and_then(|l1_index| {
            let start = geometry.guest_offset(l1_index, index)?;
            Some(start..start.saturating_add(self.count << geometry.cluster_bits()))
        });
        let severity = self.fault.severity();
        Finding { guest, ..Finding::new(severity, self.fault.code(), place, offset, expected, found) }
    }
}

impl Fault {
    fn severity(&self) -> Severity {
        match self {
            Self::Leak { .. } | Self::RefcountTooHigh { .. } | Self::L2Unread { .. } => Severity::Warning,
            _ => Severity::Error,
        }
    }

    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::L1Reserved { .. } => "l1-entry-reserved",
            Self::L1Copied { .. } => "l1-entry-copied",
            Self::L2Outside { .. } => "l2-table-outside",
            Self::L2Unaligned { .. } => "l2-table-unaligned",
            Self::L2Unread { .. } => "l2-tables-unread",
            Self::L2Reserved => "l2-entry-reserved",
            Self::L2ZeroFlag => "l2-entry-zero-flag",
            Self::L2Copied { .. } | Self::NotCopied => "l2-entry-copied",
            Self::DataUnaligned => "data-unaligned",
            Self::DataOutside => "data-outside",
            Self::DataMisplaced { .. } => "data-misplaced",
            Self::SubclustersWithoutCluster => "subclusters-without-cluster",
            Self::SubclustersInvalid => "subclusters-invalid",
            Self::CompressedCopied => "compressed-copied",
            Self::CompressedReserved => "compressed-reserved",
            Self::CompressedWithDataFile => "compressed-with-data-file",
            Self::CompressedSubclusters => "compressed-subclusters",
            #[cfg(feature = "decompress")]
            Self::Undecodable(_) => "compressed-undecodable",
            Self::RegionOutside(region) => code_outside(region.owner),
            Self::SnapshotsWithDataFile => "snapshots-with-data-file",
            Self::SnapshotL1Unaligned { .. } => "snapshot-l1-unaligned",
            Self::SnapshotL1Size { .. } => "snapshot-l1-size",
            Self::SnapshotExtraData { .. } => "snapshot-extra-data",
            Self::SnapshotTable(_) => "snapshot-table",
            Self::BitmapTableEntry { .. } => "bitmap-table-entry",
            Self::RefcountTableReserved { .. } => "refcount-table-reserved",
            Self::RefcountBlockUnaligned { .. } => "refcount-block-unaligned",
            Self::RefcountBlockOutside { .. } => "refcount-block-outside",
            Self::RefcountBlockShared { .. } => "refcount-block-shared",
            Self::RefcountTooLow { .. } => "refcount-too-low",
            Self::RefcountTooHigh { .. } => "refcount-too-high",
            Self::Overflow { .. } => "refcount-overflow",
            Self::Leak { .. } => "leak",
            Self::Overlap { .. } => "overlap",
            Self::TableCut { .. } => "table-cut",
            Self::Field { code, .. } => code,
            Self::SnapshotId { .. } => "snapshot-id",
            Self::SnapshotL1Short { .. } => "snapshot-l1-size",
            Self::CryptoHeaderUnaligned { .. } => "crypto-header-unaligned",
            Self::LuksUnreadable { .. } => "luks-header",
            Self::Luks(problem) => problem.fault.code(),
            Self::LostTable { .. } => "lost-table",
            Self::EmptyTable { .. } => "empty-table",
        }
    }

    /// The cluster whose owners are worth knowing.
    fn contested(&self, tables: &Tables<'_>) -> Option<u64> {
        match self {
            Self::RefcountTooLow { clusters, .. }
            | Self::RefcountTooHigh { clusters, .. }
            | Self::Overflow { clusters, .. }
            | Self::Overlap { clusters } => Some(clusters.start),
            Self::TableCut { area } => Some(area.offset.0 >> tables.geometry().cluster_bits()),
            Self::RefcountBlockShared { block, .. } => Some(block >> tables.geometry().cluster_bits()),
            _ => None,
        }
    }

    /// What an entry of an L2 table should be, and is.
    fn of_entry(&self, entry: L2Entry) -> (String, String) {
        let raw = format!("{:#x}", entry.raw);
        let expected = match self {
            Self::L2Reserved | Self::CompressedReserved => "reserved bits that are 0",
            Self::L2ZeroFlag => "bit 0 clear, which is reserved here",
            Self::L2Copied { refcount: 1 } | Self::NotCopied => "bit 63 set, for the refcount is 1",
            Self::L2Copied { refcount } => {
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
            Self::SubclustersWithoutCluster => "no allocated subclusters, for there is no cluster",
            Self::SubclustersInvalid => "subclusters that are allocated or zero, not both",
            Self::CompressedCopied => "bit 63 clear, for the cluster is compressed",
            Self::CompressedWithDataFile => "no compressed cluster, for the data are in an external file",
            Self::CompressedSubclusters => "no subclusters, for the cluster is compressed",
            _ => "an entry",
        };
        let found = match self {
            Self::SubclustersWithoutCluster | Self::SubclustersInvalid | Self::CompressedSubclusters => {
                format!("{raw}, subclusters {:#x}", entry.bitmap.0)
            }
            _ => raw,
        };
        (expected.to_owned(), found)
    }

    fn finding(&self, tables: &Tables<'_>) -> Finding {
        let geometry = tables.geometry();
        let bits = geometry.cluster_bits();
        let table_entry = |index: u64| geometry.refcount_table().offset.0.saturating_add(index * 8);
        let aligned = || format!("a multiple of {:#x}", geometry.cluster_size());
        let in_file = || format!("a place in the file of {:#x} bytes", geometry.file_length());
        let hex = |value: &u64| format!("{value:#x}");
        let owned = str::to_owned;
        let (place, offset, expected, found) = match self {
            Self::L1Reserved { at, entry } => {
                (owned("L1 entry"), *at, owned("reserved bits that are 0"), hex(entry))
            }
            Self::L1Copied { at, entry, refcount } => {
                let flag = if *refcount == 1 { "set" } else { "clear" };
                let expected = format!("bit 63 {flag}, for the refcount is {refcount}");
                (owned("L1 entry"), *at, expected, hex(entry))
            }
            Self::L2Outside { at, table } => (owned("L1 entry"), *at, in_file(), hex(table)),
            Self::L2Unaligned { at, table } => (owned("L1 entry"), *at, aligned(), hex(table)),
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
            Self::SnapshotExtraData { entry, size } => {
                let expected = "at least 16 in version 3, and at most the 1024 that QEMU takes";
                let at = entry.saturating_add(36);
                (owned("extra_data_size of a snapshot"), at, owned(expected), size.to_string())
            }
            Self::SnapshotTable(error) => {
                let at = tables.header().v2.snapshots_offset;
                (owned("snapshot table"), at, owned("all of its entries"), error.clone())
            }
            Self::BitmapTableEntry { at, entry } => {
                let expected = "an aligned offset, and no other bits; or 0 or 1";
                (owned("bitmap table entry"), *at, owned(expected), hex(entry))
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
            Self::RefcountTooLow { clusters, refcount, references }
            | Self::RefcountTooHigh { clusters, refcount, references } => {
                let expected = format!("refcount {references}, for so many references were found");
                (range(clusters, bits), clusters.start << bits, expected, refcount.to_string())
            }
            Self::Overflow { clusters, count, most } => {
                let expected = format!("at most {most} references, for more fit no refcount");
                (range(clusters, bits), clusters.start << bits, expected, count.to_string())
            }
            Self::Leak { clusters, refcount } => {
                let expected = "a reference to it, or refcount 0";
                let found = format!("refcount {refcount} and no reference");
                (range(clusters, bits), clusters.start << bits, owned(expected), found)
            }
            Self::Overlap { clusters } => {
                let (expected, found) = ("one owner, for one is a table", "several");
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
            Self::SnapshotId { entry, earlier } => {
                let found = format!("that of snapshot {earlier}");
                (owned("ID of a snapshot"), *entry, owned("one that no other snapshot has"), found)
            }
            Self::SnapshotL1Short { entry, entries, needed } => {
                let expected = format!("{needed} entries, for so many its disk needs");
                (owned("L1 table of a snapshot"), *entry, expected, entries.to_string())
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
                let found = format!("a table of {entries} entries that name leaked clusters");
                (
                    range(&(*cluster..cluster + 1), bits),
                    cluster << bits,
                    owned("nothing, for it is leaked"),
                    found,
                )
            }
            Self::EmptyTable { table, clusters } => {
                let found = format!("none, and {} leaked behind it", range(clusters, bits));
                (format!("L2 table {table:#x}"), *table, owned("entries"), found)
            }
            // Those of L2 entries have findings of their own.
            _ => (owned("L2 entry"), 0, String::new(), String::new()),
        };
        Finding::new(self.severity(), self.code(), place, offset, expected, found)
    }
}

fn code_outside(owner: Owner) -> &'static str {
    match owner {
        Owner::Header => "header-outside",
        Owner::L1Table { snapshot: None } => "l1-table-outside",
        Owner::L1Table { .. } => "snapshot-l1-outside",
        Owner::SnapshotTable => "snapshot-table-outside",
        Owner::RefcountTable => "refcount-table-outside",
        Owner::RefcountBlock { .. } => "refcount-block-outside",
        Owner::CryptoHeader => "crypto-header-outside",
        Owner::BitmapDirectory => "bitmap-directory-outside",
        Owner::BitmapTable { .. } => "bitmap-table-outside",
        Owner::BitmapData { .. } => "bitmap-data-outside",
        Owner::L2Table { .. } => "l2-table-outside",
        Owner::Data { .. } | Owner::Compressed { .. } => "data-outside",
    }
}
