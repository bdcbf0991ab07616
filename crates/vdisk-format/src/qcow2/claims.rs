//! [`claims`]: who says that a part of the file is his.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use crate::qcow2::bitmap::{BitmapTableEntryKind, BitmapsExtension};
use crate::qcow2::extension::Content;
use crate::qcow2::geometry::{Area, Geometry, MAX_L1_BYTES, OFFSET_MASK};
use crate::qcow2::l2::L2Entry;
use crate::qcow2::segments::{MOST_TABLES, Segment, segments};
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
        /// Where the entry of a bitmap's table is that names it.
        entry: HostOffset,
        /// How many bitmaps have that entry: more than one where their tables overlap.
        tables: u64,
    },
}

/// An entry of an L1 table. The disk as it is comes before the snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct L1Place {
    /// Whose table: `None` is the disk as it is, else the snapshot's place in the snapshot table, from 0.
    pub snapshot: Option<u32>,
    /// The entry.
    pub index: u64,
}

impl fmt::Display for L1Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { snapshot, index } = self;
        match snapshot {
            None => write!(f, "L1 entry {index}"),
            Some(snapshot) => write!(f, "L1 entry {index} of snapshot {snapshot}"),
        }
    }
}

/// The entries of L1 tables that name an L2 table: whatever it has belongs to all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct L1Places {
    /// The first of them.
    pub first: L1Place,
    /// The next, in order: no more than three.
    next: [Option<L1Place>; MOST_TABLES - 1],
    /// How many there are.
    pub count: u64,
}

impl L1Places {
    /// One entry.
    #[must_use]
    pub fn new(first: L1Place) -> Self {
        Self { first, next: [None; MOST_TABLES - 1], count: 1 }
    }

    /// The first of them, in order: no more than four.
    pub fn iter(&self) -> impl Iterator<Item = L1Place> + '_ {
        std::iter::once(self.first).chain(self.next.into_iter().flatten())
    }

    /// One more.
    fn add(&mut self, mut place: L1Place) {
        self.count = self.count.saturating_add(1);
        if place < self.first {
            std::mem::swap(&mut place, &mut self.first);
        }
        for next in &mut self.next {
            match next {
                Some(known) if *known < place => {}
                Some(known) => std::mem::swap(known, &mut place),
                None => {
                    *next = Some(place);
                    return;
                }
            }
        }
    }
}

impl fmt::Display for L1Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let omitted = self.count.saturating_sub(self.iter().count() as u64);
        let last = self.iter().last().filter(|_| omitted == 0);
        for place in self.iter() {
            match (place == self.first, Some(place) == last) {
                (true, _) => write!(f, "{place}")?,
                (_, true) => write!(f, " and {place}")?,
                _ => write!(f, ", {place}")?,
            }
        }
        if omitted > 0 { write!(f, " and {omitted} more") } else { Ok(()) }
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for L1Places {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut places = serializer.serialize_struct("L1Places", 2)?;
        places.serialize_field("first", &self.iter().collect::<Vec<_>>())?;
        places.serialize_field("count", &self.count)?;
        places.end()
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("header"),
            Self::L1Table { snapshot: None } => f.write_str("L1 table"),
            Self::L1Table { snapshot: Some(snapshot) } => write!(f, "L1 table of snapshot {snapshot}"),
            Self::L2Table { l1_entries } => write!(f, "L2 table of {l1_entries}"),
            Self::Data { table, index, l1_entries } => {
                write!(f, "data (L2 table {table} of {l1_entries}, entry {index})")
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
            Self::BitmapData { entry, tables: 1 } => write!(f, "bitmap data (table entry at {entry})"),
            Self::BitmapData { entry, tables } => {
                write!(f, "bitmap data (table entry at {entry}, in {tables} tables)")
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

    /// The part of it that is in `length` bytes from `start` on: of a run of data, the entries concerned.
    #[must_use]
    pub fn within(&self, start: u64, length: u64) -> Self {
        let mut part = self.clone();
        let Owner::Data { index, .. } = &mut part.owner else { return part };
        let skipped = start.saturating_sub(self.area.offset.0) / length.max(1);
        let first = self.area.offset.0 + skipped * length;
        part.area = Area::new(first, length.min(self.area.end().saturating_sub(first)));
        *index += skipped;
        part.guest = self.guest.clone().and_then(|guest| {
            let start = guest.start + skipped * length;
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
    walk.tell(Claim::new(Owner::Header, Area::new(0, tables.geometry().cluster_size())));
    let l2_tables = walk.l1_tables();
    let mut unaligned_left = tables.unaligned_l2_tables();
    for (table, l1_entries) in l2_tables {
        let is_free = tables.geometry().is_aligned(table) || table >= tables.geometry().file_length();
        if is_free || unaligned_left > 0 {
            walk.l2_table(table, l1_entries);
            unaligned_left -= u64::from(!is_free);
        }
    }
    walk.others();
}

/// The L2 tables by their offsets, each with the entries that name it.
type L2Tables = BTreeMap<u64, L1Places>;

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

    fn l1_tables(&mut self) -> L2Tables {
        let tables = self.tables;
        let mut areas = vec![(None, tables.geometry().l1_table())];
        let snapshots = tables.snapshots().map_while(Result::ok);
        areas.extend(snapshots.map(|snapshot| (Some(snapshot.index), snapshot.l1_table())));
        for &(snapshot, area) in &areas {
            self.tell(Claim::new(Owner::L1Table { snapshot }, area));
        }
        areas.retain(|(_, area)| is_read(&tables.geometry(), *area));
        let mut l2_tables = L2Tables::new();
        for Segment { area, times, tables: named } in segments(areas.iter().map(|(_, area)| *area)) {
            let in_table = |number: usize| {
                let (snapshot, table) = *areas.get(number)?;
                Some((snapshot, (area.offset.0 - table.offset.0) / 8))
            };
            let in_tables: Vec<_> = named.into_iter().filter_map(in_table).collect();
            for (index, entry) in tables.l1_entries(area).filter(|(_, entry)| entry.is_allocated()) {
                let places =
                    in_tables.iter().map(|&(snapshot, first)| L1Place { snapshot, index: first + index });
                note(&mut l2_tables, entry.l2_table().0, places, times);
            }
        }
        l2_tables
    }

    fn l2_table(&mut self, table: u64, l1_entries: L1Places) {
        let geometry = self.tables.geometry();
        let guest = |first: u64, count: u64| {
            let start = geometry.guest_offset(l1_entries.first.index, first)?;
            Some(start..start.saturating_add(count << geometry.cluster_bits()))
        };
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
                    let owner = Owner::Data { table, index, l1_entries };
                    let area = Area::new(raw & OFFSET_MASK, length << geometry.cluster_bits());
                    self.tell(Claim { owner, area, guest: guest(index, length) });
                }
            }
        }
    }

    fn others(&mut self) {
        let tables = self.tables;
        let mut snapshots = tables.snapshots();
        snapshots.by_ref().for_each(drop);
        self.tell(Claim::new(Owner::SnapshotTable, snapshots.area()));
        self.tell(Claim::new(Owner::RefcountTable, tables.geometry().refcount_table()));
        for (index, entry) in tables.refcount_table_entries().filter(|(_, entry)| entry.block().0 != 0) {
            let area = Area::new(entry.block().0, tables.geometry().cluster_size());
            self.tell(Claim::new(Owner::RefcountBlock { index }, area));
        }
        for extension in tables.header().extensions().map_while(Result::ok) {
            match extension.content() {
                Ok(Content::CryptoHeader(pointer)) if tables.geometry().crypt_method() == 2 => {
                    let area = Area::new(pointer.offset, pointer.length);
                    self.tell(Claim::new(Owner::CryptoHeader, area));
                }
                Ok(Content::Bitmaps(bitmaps)) => self.bitmaps(&bitmaps),
                _ => {}
            }
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
                areas.push(table);
            }
        }
        for Segment { area, times, .. } in segments(areas) {
            for (index, entry) in tables.bitmap_table_entries(area) {
                if entry.kind() == BitmapTableEntryKind::Serialized {
                    let entry_at = HostOffset(area.offset.0 + index * 8);
                    let data = Area::new(entry.cluster().0, tables.geometry().cluster_size());
                    self.tell(Claim::new(Owner::BitmapData { entry: entry_at, tables: times }, data));
                }
            }
        }
    }
}

/// Whether what an L1 table names is looked at: QEMU takes no larger ones of snapshots, nor any that are not aligned.
fn is_read(geometry: &Geometry, l1_table: Area) -> bool {
    geometry.is_aligned(l1_table.offset.0) && l1_table.length <= MAX_L1_BYTES
}

/// Notes that `times` entries name an L2 table, of which these are the first.
fn note(l2_tables: &mut L2Tables, table: u64, places: impl Iterator<Item = L1Place>, times: u64) {
    let mut told = 0;
    for place in places {
        told += 1;
        l2_tables.entry(table).and_modify(|known| known.add(place)).or_insert_with(|| L1Places::new(place));
    }
    if let Some(known) = l2_tables.get_mut(&table) {
        known.count = known.count.saturating_add(times.saturating_sub(told));
    }
}
