//! [`claims`]: who says that a part of the file is his.

use std::fmt;
use std::ops::Range;

use crate::qcow2::bitmap::{BitmapTableEntryKind, BitmapsExtension};
use crate::qcow2::check::snapshot_entries;
use crate::qcow2::crypto::crypto_header_pointer;
use crate::qcow2::geometry::{Area, OFFSET_MASK};
pub use crate::qcow2::l1_tables::{L1Place, L1Places};
use crate::qcow2::l1_tables::{L1Tables, Window};
use crate::qcow2::l2::L2Entry;
use crate::qcow2::segments::{Segment, segments};
use crate::qcow2::tables::Tables;
use crate::units::HostOffset;

/// A part of the file, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Claim {
    /// Who says so.
    pub owner: Owner,
    /// What he says is his; whole clusters, but for compressed data, and tables that are cut to what they hold.
    pub area: Area,
    /// The part of the virtual disk that is there, for data and for L2 tables: of the disk as it is or, where only
    /// snapshots have it, of the first of them.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub guest: Option<Range<u64>>,
}

/// What a part of the file is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(tag = "kind", rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Owner {
    /// The header, and all of its cluster.
    Header,
    /// An L1 table.
    L1Table {
        /// Whose: `None` is the disk as it is, else the snapshot's place in the snapshot table, from 0.
        snapshot: Option<u32>,
    },
    /// An L2 table.
    L2Table {
        /// Whose it is.
        l1_entries: L1Places,
    },
    /// Data of the virtual disk.
    Data {
        /// The L2 table that names it.
        table: HostOffset,
        /// The first of the entries.
        index: u64,
        /// How many entries, whose clusters follow one another.
        count: u64,
        /// Whose table that is.
        l1_entries: L1Places,
    },
    /// Compressed data of the virtual disk.
    Compressed {
        /// The L2 table that names it.
        table: HostOffset,
        /// The entry.
        index: u64,
        /// Whose table that is.
        l1_entries: L1Places,
    },
    /// The snapshot table.
    SnapshotTable,
    /// The refcount table.
    RefcountTable,
    /// A refcount block.
    RefcountBlock {
        /// The entry of the refcount table that names it.
        index: u64,
    },
    /// The LUKS header, and the key material behind it.
    CryptoHeader,
    /// The bitmap directory.
    BitmapDirectory,
    /// A bitmap's table.
    BitmapTable {
        /// The bitmap's place in the directory, from 0.
        bitmap: u32,
    },
    /// A bitmap's data.
    BitmapData {
        /// The bitmap's place in the directory, from 0: of the first that has the entry.
        bitmap: u32,
        /// Where the entry of a bitmap's table is that names it.
        entry: HostOffset,
        /// How many bitmaps have that entry: more than one where their tables overlap.
        tables: u64,
    },
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("header"),
            Self::L1Table { snapshot: None } => f.write_str("L1 table"),
            Self::L1Table { snapshot: Some(snapshot) } => write!(f, "L1 table of snapshot {snapshot}"),
            Self::L2Table { l1_entries } => write!(f, "L2 table of {l1_entries}"),
            Self::Data { table, index, count: 0 | 1, l1_entries } => {
                write!(f, "data (L2 table {table} of {l1_entries}, entry {index})")
            }
            Self::Data { table, index, count, l1_entries } => {
                let last = index.saturating_add(count - 1);
                write!(f, "data (L2 table {table} of {l1_entries}, entries {index}-{last})")
            }
            Self::Compressed { table, index, l1_entries } => {
                write!(f, "compressed data (L2 table {table} of {l1_entries}, entry {index})")
            }
            Self::SnapshotTable => f.write_str("snapshot table"),
            Self::RefcountTable => f.write_str("refcount table"),
            Self::RefcountBlock { index } => write!(f, "refcount block {index}"),
            Self::CryptoHeader => f.write_str("LUKS header"),
            Self::BitmapDirectory => f.write_str("bitmap directory"),
            Self::BitmapTable { bitmap } => write!(f, "table of bitmap {bitmap}"),
            Self::BitmapData { bitmap, entry, tables: 1 } => {
                write!(f, "data of bitmap {bitmap} (table entry at {entry})")
            }
            Self::BitmapData { bitmap, entry, tables } => {
                write!(f, "data of bitmap {bitmap} (table entry at {entry}, in {tables} tables)")
            }
        }
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.owner)?;
        match &self.guest {
            Some(guest) if !matches!(self.owner, Owner::L2Table { .. }) => {
                write!(f, ", disk {:#x}-{:#x}", guest.start, guest.end)
            }
            _ => Ok(()),
        }
    }
}

impl Claim {
    fn new(owner: Owner, area: Area) -> Self {
        Self { owner, area, guest: None }
    }

    /// The part of it that is in `bytes` of the file: of a run of data in clusters of `size` bytes, the entries concerned.
    pub(in crate::qcow2) fn within(&self, bytes: &Range<u64>, size: u64) -> Self {
        let mut part = self.clone();
        let Owner::Data { index, count, .. } = &mut part.owner else { return part };
        let start = self.area.offset.0;
        let skipped = (bytes.start.saturating_sub(start) / size.max(1)).min(count.saturating_sub(1));
        let start = start.saturating_add(skipped * size);
        *index += skipped;
        *count = bytes.end.saturating_sub(start).div_ceil(size.max(1)).clamp(1, *count - skipped);
        let length = *count * size;
        part.area = Area::new(start, length);
        part.guest = self.guest.clone().and_then(|guest| {
            let start = guest.start + skipped * size;
            (start < guest.end).then(|| start..guest.end.min(start + length))
        });
        part
    }
}

/// Tells `visit` of all claims on clusters that are `wanted`, which is asked for ranges of them: the first, and how many.
///
/// Each table is read once, however many refer to it. What is not in the file is claimed as well.
///
/// ```
/// use vdisk_format::{generate::Qcow2, qcow2::{Tables, claims::claims}};
/// let image = Qcow2::new(1 << 20).data(0x30000, b"data").build()?;
/// let tables = Tables::new(&image)?;
/// let mut owners = Vec::new();
/// claims(&tables, &|_, _| true, &mut |claim| owners.push(claim.to_string()));
/// assert!(owners.contains(&"header".to_owned()));
/// assert!(owners.iter().any(|owner| owner.ends_with("entry 3), disk 0x30000-0x40000")), "{owners:?}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn claims(tables: &Tables<'_>, wanted: &dyn Fn(u64, u64) -> bool, visit: &mut dyn FnMut(Claim)) {
    let mut walk = Walk { tables, wanted, visit };
    let l1_tables = L1Tables::new(tables);
    walk.tell(Claim::new(Owner::Header, Area::new(0, tables.geometry().cluster_size())));
    for table in l1_tables.iter() {
        walk.tell(Claim::new(Owner::L1Table { snapshot: table.snapshot }, table.area));
    }
    let (geometry, mut unaligned_left) = (tables.geometry(), tables.unaligned_l2_tables());
    // Those behind the file are nothing but their own clusters.
    let is_told = |table| {
        let clusters = geometry.clusters(Area::new(table, geometry.cluster_size()));
        table < geometry.file_length() || wanted(clusters.start, clusters.end - clusters.start)
    };
    for (table, l1_entries) in l1_tables.l2_tables(tables, is_told) {
        let is_free = geometry.is_aligned(table) || table >= geometry.file_length();
        if is_free || unaligned_left > 0 {
            walk.l2_table(table, l1_entries, l1_tables.window(l1_entries.first));
            unaligned_left -= u64::from(!is_free);
        }
    }
    walk.others();
}

struct Walk<'t, 'a> {
    tables: &'t Tables<'a>,
    wanted: &'t dyn Fn(u64, u64) -> bool,
    visit: &'t mut dyn FnMut(Claim),
}

impl Walk<'_, '_> {
    fn tell(&mut self, claim: Claim) {
        let clusters = self.tables.geometry().clusters(claim.area);
        if !clusters.is_empty() && (self.wanted)(clusters.start, clusters.end - clusters.start) {
            (self.visit)(claim);
        }
    }

    fn l2_table(&mut self, table: u64, l1_entries: L1Places, window: Option<Window>) {
        let geometry = self.tables.geometry();
        let guest = |first: u64, count: u64| window?.guest(&geometry, first, count);
        let owner = Owner::L2Table { l1_entries };
        let area = Area::new(table, geometry.cluster_size());
        self.tell(Claim { owner, area, guest: guest(0, geometry.l2_entries()) });
        let (tables, format, table) = (self.tables, self.tables.l2_format(), HostOffset(table));
        for run in tables.l2_runs(table) {
            let L2Entry { raw, .. } = run.first;
            if run.first.is_compressed() {
                for (index, entry) in run.entries() {
                    let data = entry.compressed(&format);
                    let owner = Owner::Compressed { table, index, l1_entries };
                    let area = Area { offset: data.offset, length: data.length };
                    self.tell(Claim { owner, area, guest: guest(index, 1) });
                }
            } else if raw & OFFSET_MASK != 0 && !geometry.data_file() {
                let size = geometry.cluster_size();
                let (length, parts) = if run.step == size { (run.count, 1) } else { (1, run.count) };
                for index in (run.index..).take(usize::try_from(parts).unwrap_or(usize::MAX)) {
                    let owner = Owner::Data { table, index, count: length, l1_entries };
                    let area = Area::new(raw & OFFSET_MASK, length << geometry.cluster_bits());
                    self.tell(Claim { owner, area, guest: guest(index, length) });
                }
            }
        }
    }

    fn others(&mut self) {
        let tables = self.tables;
        // As QEMU has it, with entries that go on behind the file's end.
        let start = tables.header().v2.snapshots_offset;
        let end = snapshot_entries(tables).last().map_or(start, |last| last.end);
        self.tell(Claim::new(Owner::SnapshotTable, Area::new(start, end - start)));
        self.tell(Claim::new(Owner::RefcountTable, tables.geometry().refcount_table()));
        for (index, entry) in tables.refcount_table_entries().filter(|(_, entry)| entry.block().0 != 0) {
            let area = Area::new(entry.block().0, tables.geometry().cluster_size());
            self.tell(Claim::new(Owner::RefcountBlock { index }, area));
        }
        let crypto_header = crypto_header_pointer(tables.header()).ok().flatten();
        if let Some(pointer) = crypto_header.filter(|_| tables.geometry().crypt_method() == 2) {
            self.tell(Claim::new(Owner::CryptoHeader, Area::new(pointer.offset, pointer.length)));
        }
        if let Some(bitmaps) = BitmapsExtension::of(tables.header()) {
            self.bitmaps(&bitmaps);
        }
    }

    fn bitmaps(&mut self, extension: &BitmapsExtension) {
        let tables = self.tables;
        self.tell(Claim::new(Owner::BitmapDirectory, extension.directory_area()));
        let directory = extension.directory(tables.view().bytes()).map_while(Result::ok);
        let mut areas = Vec::new();
        for (bitmap, entry) in (0..).zip(directory) {
            let table = entry.fixed.table();
            self.tell(Claim::new(Owner::BitmapTable { bitmap }, table));
            if table.offset.0.is_multiple_of(8) {
                areas.push((bitmap, table));
            }
        }
        for Segment { area, times, tables: named } in segments(areas.iter().map(|&(_, area)| area)) {
            let bitmap = named.first().and_then(|&first| areas.get(first)).map_or(0, |&(number, _)| number);
            for (index, entry) in tables.bitmap_table_entries(area) {
                if entry.kind() == BitmapTableEntryKind::Serialized {
                    let entry_at = HostOffset(area.offset.0 + index * 8);
                    let data = Area::new(entry.cluster().0, tables.geometry().cluster_size());
                    self.tell(Claim::new(Owner::BitmapData { bitmap, entry: entry_at, tables: times }, data));
                }
            }
        }
    }
}
