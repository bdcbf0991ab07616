//! [`L1Tables`]: whose an entry of an L1 table is, and which of them name an L2 table.

use std::fmt;
use std::ops::Range;

use crate::qcow2::geometry::{Area, Geometry, MAX_L1_BYTES};
use crate::qcow2::segments::{MOST_TABLES, Segment, segments};
use crate::qcow2::tables::Tables;

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

/// The L1 tables of an image: the disk's, then those of the snapshots.
pub(in crate::qcow2) struct L1Tables {
    tables: Vec<L1Table>,
    /// Of those that are read.
    segments: Vec<Segment>,
}

/// One of them.
pub(in crate::qcow2) struct L1Table {
    /// Whose it is.
    pub(in crate::qcow2) snapshot: Option<u32>,
    pub(in crate::qcow2) area: Area,
    /// Bytes of that disk. What is behind them is no part of it, but the state of a machine.
    disk_size: u64,
}

impl L1Tables {
    /// Those of all snapshots up to the first that cannot be read.
    pub(in crate::qcow2) fn new(tables: &Tables<'_>) -> Self {
        let geometry = tables.geometry();
        let disk_size = geometry.virtual_size();
        let active = L1Table { snapshot: None, area: geometry.l1_table(), disk_size };
        let snapshots = tables.snapshots().map_while(Result::ok).map(|snapshot| L1Table {
            snapshot: Some(snapshot.index),
            area: snapshot.l1_table(),
            disk_size: snapshot.disk_size().unwrap_or(disk_size),
        });
        let tables: Vec<_> = std::iter::once(active).chain(snapshots).collect();
        // QEMU takes no larger ones of snapshots, nor any that are not aligned.
        let is_read = |area: Area| geometry.is_aligned(area.offset.0) && area.length <= MAX_L1_BYTES;
        let read = tables.iter().map(|table| if is_read(table.area) { table.area } else { Area::new(0, 0) });
        let segments = segments(read);
        Self { tables, segments }
    }

    pub(in crate::qcow2) fn iter(&self) -> impl Iterator<Item = &L1Table> {
        self.tables.iter()
    }

    /// Whose entry is at the offset `at`.
    pub(in crate::qcow2) fn places(&self, at: u64) -> Option<L1Places> {
        let behind = self.segments.partition_point(|segment| segment.area.offset.0 <= at);
        let segment = self.segments.get(behind.checked_sub(1)?)?;
        let mut places = self.places_in(segment, at);
        let mut all = L1Places::new(places.next().filter(|_| at < segment.area.end())?);
        places.for_each(|place| all.add(place));
        all.count = segment.times;
        Some(all)
    }

    /// The first of those whose entry is at `at`, which is in `segment`.
    fn places_in<'l>(&'l self, segment: &'l Segment, at: u64) -> impl Iterator<Item = L1Place> + 'l {
        segment.tables.iter().filter_map(move |&number| {
            let L1Table { snapshot, area, .. } = *self.tables.get(number)?;
            Some(L1Place { snapshot, index: (at - area.offset.0) / 8 })
        })
    }

    /// The L2 tables whose offsets are `wanted`, in order, each with the entries that name it.
    pub(in crate::qcow2) fn l2_tables(
        &self,
        tables: &Tables<'_>,
        wanted: impl Fn(u64) -> bool,
    ) -> impl Iterator<Item = (u64, L1Places)> {
        let mut named = Vec::new();
        for segment in &self.segments {
            // An offset of 0 with a flag is the header's cluster, as a check counts it.
            for (index, entry) in tables.l1_entries(segment.area) {
                let table = entry.l2_table().0;
                if wanted(table) {
                    named.push((table, segment.area.offset.0 + index * 8));
                }
            }
        }
        named.sort_unstable();
        let mut left = named.into_iter().peekable();
        std::iter::from_fn(move || {
            let (table, at) = left.next()?;
            let mut all = self.places(at)?;
            while let Some((_, at)) = left.next_if(|(next, _)| *next == table) {
                let count = all.count;
                if let Some(places) = self.places(at) {
                    places.iter().for_each(|place| all.add(place));
                    all.count = count.saturating_add(places.count);
                }
            }
            Some((table, all))
        })
    }

    /// What `count` entries from `first` on are for, of an L2 table that `places` name: of each of those that are known.
    pub(in crate::qcow2) fn guest<'l>(
        &'l self,
        geometry: &'l Geometry,
        places: &'l L1Places,
        first: u64,
        count: u64,
    ) -> impl Iterator<Item = Range<u64>> + 'l {
        places.iter().filter_map(move |place| self.window(place)?.guest(geometry, first, count))
    }

    /// What an L2 table is for that the entry at `place` names.
    pub(in crate::qcow2) fn window(&self, place: L1Place) -> Option<Window> {
        let L1Place { snapshot, index } = place;
        let number = snapshot.map_or(Some(0), |snapshot| usize::try_from(snapshot).ok()?.checked_add(1))?;
        let disk_size = self.tables.get(number)?.disk_size;
        Some(Window { index, disk_size })
    }
}

/// The part of a disk that an L2 table is for.
#[derive(Debug, Clone, Copy)]
pub(in crate::qcow2) struct Window {
    /// Of the L1 entry.
    index: u64,
    disk_size: u64,
}

impl Window {
    /// What `count` of its entries from `first` on are for. `None` where that is no part of the disk.
    pub(in crate::qcow2) fn guest(&self, geometry: &Geometry, first: u64, count: u64) -> Option<Range<u64>> {
        let end = self.disk_size;
        let start = geometry.guest_offset(self.index, first).filter(|&start| start < end)?;
        Some(start..start.saturating_add(count.saturating_mul(geometry.cluster_size())).min(end))
    }
}
