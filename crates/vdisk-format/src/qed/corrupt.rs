//! Damage on purpose: one entry of a table made a copy of another, or made to point nowhere. Each as a [`Plan`].

use std::fmt;

use crate::cluster_set::ClusterSet;
use crate::error::{Error, Reason, Result};
use crate::plan::Plan;
use crate::qed::contested::Contested;
use crate::qed::edit::l2_table;
use crate::qed::geometry::{Entry, Geometry};
use crate::qed::tables::Tables;
use crate::random::Random;
use crate::table::Run;
use crate::units::HostOffset;

/// Which table to corrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The L1 table.
    L1,
    /// An L2 table: that of this L1 entry, or one that chance picks among those that can be corrupted. Never one whose
    /// clusters another entry names for something else, which may be a guest's data.
    L2(Option<u64>),
}

/// What to corrupt. What is left open is left to chance: the same seed makes the same choices on the same image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Which table.
    pub level: Level,
    /// Index of the entry in it.
    pub index: Option<u64>,
    /// The seed.
    pub seed: u64,
}

/// A corruption to be.
#[derive(Debug)]
#[non_exhaustive]
pub struct Corruption {
    /// The change: of one entry.
    pub plan: Plan,
    /// Offset of the table.
    pub table: HostOffset,
    /// The L1 entry that names it, where it is an L2 table.
    pub l1_index: Option<u64>,
    /// Index of the entry that is overwritten.
    pub index: u64,
    /// Its value so far.
    pub old: u64,
    /// Its value to be.
    pub new: u64,
    /// The entry whose value it gets, where it is a copy.
    pub copied_from: Option<u64>,
}

/// Makes one entry a copy of another, different one, so that two entries have one table or one cluster of data.
///
/// ```
/// use vdisk_format::qed::{self, Tables, corrupt::{Level, Target, duplicate}};
/// let mut image = vdisk_format::generate::Qed::new(1 << 20).allocate(0..1 << 20).build()?;
/// let target = Target { level: Level::L2(None), index: Some(3), seed: 1 };
/// let corruption = duplicate(&Tables::new(&image)?, target)?;
/// assert_eq!(corruption.index, 3);
/// corruption.plan.apply_to(&mut image);
/// assert_eq!(qed::check::check(&image)?.corruptions, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// A refusal that says why it cannot be done: [`Reason::NoTable`], [`Reason::Contested`], [`Reason::NoSuchEntry`].
pub fn duplicate(tables: &Tables<'_>, target: Target) -> Result<Corruption> {
    let mut random = Random::new(target.seed);
    let is_right = |value| is_right(tables, target.level, value);
    let (table, source, index) = in_a_table(tables, target, &mut random, "duplicate", |table, random| {
        // Chance picks among the sources first, as the original does, then among the entries that differ from it.
        let overwritten = target.index.and_then(|index| table.at(index));
        let differs = |value| target.index.is_none() || overwritten != Some(value);
        let source = table.pick(random, |value| is_right(value) && differs(value));
        let source = source.or_else(|| table.pick(random, |value| value > 1 && differs(value)));
        let source = source.ok_or("an offset, in another entry than the one to overwrite")?;
        let value = table.at(source);
        let index = match target.index {
            Some(index) => index,
            None => table.pick(random, |other| Some(other) != value).ok_or("two entries that differ")?,
        };
        Ok((source, index))
    })?;
    let new = table.at(source).unwrap_or(0);
    let mut corruption =
        table.overwrite(tables, index, new, &format!("entry {index} made a copy of entry {source}"))?;
    corruption.copied_from = Some(source);
    Ok(corruption)
}

/// Makes one entry point past the end of the file, or off the cluster boundary. Left to chance, it is one that is not 0,
/// and if there is one that is right, such a one.
///
/// ```
/// use vdisk_format::qed::{self, Tables, corrupt::{Level, Target, invalidate}};
/// # let mut image = qed::HeaderFields { magic: qed::header::MAGIC, cluster_size: 4096, table_size: 1, header_size: 1,
/// #     l1_table_offset: 4096, image_size: 8192, ..Default::default() }.to_bytes();
/// # image.resize(4 * 4096, 0);
/// # image[4096..4104].copy_from_slice(&8192u64.to_le_bytes());
/// let tables = Tables::new(&image)?;
/// let corruption = invalidate(&tables, Target { level: Level::L1, index: None, seed: 7 })?;
/// assert_eq!((corruption.index, corruption.old), (0, 8192)); // the only entry that is not 0
/// assert!(tables.geometry().table_offset(corruption.new).is_err());
/// # Ok::<(), vdisk_format::Error>(())
/// ```
///
/// # Errors
/// As [`duplicate`].
pub fn invalidate(tables: &Tables<'_>, target: Target) -> Result<Corruption> {
    let mut random = Random::new(target.seed);
    let geometry = tables.geometry();
    let (table, _, index) = in_a_table(tables, target, &mut random, "invalidate", |table, random| {
        if let Some(index) = target.index {
            return Ok((0, index));
        }
        let index = table
            .pick(random, |value| is_right(tables, target.level, value))
            .or_else(|| table.pick(random, |value| value != 0));
        Ok((0, index.ok_or("an entry that is not 0")?))
    })?;
    let old = table.at(index).unwrap_or(0);
    let new = invalid_offset(geometry, old, &mut random);
    let kind = if new.is_multiple_of(geometry.cluster_size()) {
        "past the end of the file"
    } else {
        "off the cluster boundary"
    };
    table.overwrite(tables, index, new, &format!("entry {index} made to point {kind}"))
}

/// Whether an entry names a table, or a cluster of data, as it should.
fn is_right(tables: &Tables<'_>, level: Level, value: u64) -> bool {
    let geometry = tables.geometry();
    match level {
        Level::L1 => geometry.table_offset(value).is_ok(),
        Level::L2(_) => matches!(geometry.entry(value), Entry::Data(_)),
    }
}

/// Past the end of the file by up to 100 TiB, or inside it and off the cluster boundary. Never `old`.
fn invalid_offset(geometry: Geometry, old: u64, random: &mut Random) -> u64 {
    let size = geometry.cluster_size();
    let clusters = geometry.clusters();
    loop {
        let new = if random.below(2) == 0 {
            (clusters + random.below((100 << 40) / size)) * size
        } else {
            // At least 2: 0 and 1 mean something else.
            random.below(clusters.max(1)) * size + 2 + random.below(size - 2)
        };
        if new != old {
            return new;
        }
    }
}

/// A table of which an entry will be overwritten.
struct Victim<'t, 'a> {
    tables: &'t Tables<'a>,
    l1_index: Option<u64>,
    offset: HostOffset,
}

/// Finds a table in which `choose` finds what it needs: a source and the entry to overwrite.
fn in_a_table<'t, 'a>(
    tables: &'t Tables<'a>,
    target: Target,
    random: &mut Random,
    what: &str,
    mut choose: impl FnMut(&Victim<'t, 'a>, &mut Random) -> Result<(u64, u64), &'static str>,
) -> Result<(Victim<'t, 'a>, u64, u64)> {
    let refused = |level: &str, expected: &str| {
        let found = "no such entry";
        Err(Error::refused(Reason::NoSuchEntry, format!("{what} {level}"), None, expected, found))
    };
    let entries = tables.geometry().entries();
    if let Some(index) = target.index.filter(|&index| index >= entries) {
        let (what, expected) = (format!("{what}, entry {index}"), format!("0 to {}", entries - 1));
        return Err(Error::refused(Reason::NoSuchEntry, what, None, expected, index.to_string()));
    }
    let victim = |l1_index, offset| Victim { tables, l1_index, offset };
    match target.level {
        Level::L1 => {
            let Some(l1) = tables.readable_l1_table() else {
                return refused("l1", "an L1 table, which the header does not say rightly");
            };
            let table = victim(None, l1);
            match choose(&table, random) {
                Ok((source, index)) => Ok((table, source, index)),
                Err(expected) => refused("l1", expected),
            }
        }
        Level::L2(Some(l1_index)) => {
            let offset = l2_table(tables, l1_index)?;
            Contested::new(tables).refuse(l1_index, offset)?;
            let table = victim(Some(l1_index), offset);
            match choose(&table, random) {
                Ok((source, index)) => Ok((table, source, index)),
                Err(expected) => refused(&format!("l2 of L1 entry {l1_index}"), expected),
            }
        }
        Level::L2(None) => {
            let contested = Contested::new(tables);
            let named = || {
                let of =
                    |value| tables.geometry().table_offset(value).ok().filter(|&table| !contested.has(table));
                tables.l1_entries().filter_map(move |(l1_index, value)| Some((l1_index, of(value)?)))
            };
            let count = named().count();
            if count == 0 {
                return refused("l2", "an L1 entry that names an L2 table, whose clusters nothing else has");
            }
            let start = random.below(count as u64) as usize;
            let mut expected = "an L2 table";
            // A table that entry after entry names is tried once.
            let bits = tables.geometry().cluster_bits();
            let mut tried = ClusterSet::new(tables.geometry().clusters());
            for (l1_index, offset) in named().skip(start).chain(named().take(start)) {
                if tried.insert(offset.0 >> bits, 1, |_| {}) > 0 {
                    continue;
                }
                let table = victim(Some(l1_index), offset);
                match choose(&table, random) {
                    Ok((source, index)) => return Ok((table, source, index)),
                    Err(missing) => expected = missing,
                }
                tables.was_visited(l1_index);
            }
            refused("l2 of any L1 entry", expected)
        }
    }
}

impl Victim<'_, '_> {
    fn at(&self, index: u64) -> Option<u64> {
        self.tables.entry(self.offset, index)
    }

    /// The index of an entry that is `wanted`, each with the same chance: one that the disk reaches, if there is one.
    fn pick(&self, random: &mut Random, wanted: impl Fn(u64) -> bool) -> Option<u64> {
        let geometry = self.tables.geometry();
        let clusters = geometry.guest_clusters();
        let reached = match self.l1_index {
            None => clusters.div_ceil(geometry.entries()),
            Some(l1_index) => clusters.saturating_sub(l1_index.saturating_mul(geometry.entries())),
        };
        let mut pick = |entries| self.pick_below(entries, random, &wanted);
        pick(reached.min(geometry.entries())).or_else(|| pick(geometry.entries()))
    }

    fn pick_below(&self, entries: u64, random: &mut Random, wanted: impl Fn(u64) -> bool) -> Option<u64> {
        let bits = self.tables.geometry().cluster_bits();
        let matching = |run: Run| {
            // A run of 0 or of 1 is of one value; any other has a value of its own for each entry.
            let each = if run.value < 2 { 1 } else { run.count };
            let found = (0..each).filter(|&i| wanted(run.entry(i, bits))).count() as u64;
            if run.value < 2 { found * run.count } else { found }
        };
        let total: u64 = self.tables.runs(self.offset, entries).map(matching).sum();
        let mut left = random.below(total.max(1));
        for run in self.tables.runs(self.offset, entries) {
            let here = matching(run);
            if left >= here {
                left -= here;
                continue;
            }
            let nth = if run.value < 2 {
                Some(left)
            } else {
                (0..run.count).filter(|&i| wanted(run.entry(i, bits))).nth(usize::try_from(left).ok()?)
            };
            return nth.map(|i| run.index + i);
        }
        None
    }

    fn overwrite(&self, tables: &Tables<'_>, index: u64, new: u64, what: &str) -> Result<Corruption> {
        let Self { offset, l1_index, .. } = *self;
        let image = tables.view().bytes();
        let at = offset.0 + index * 8;
        let is_there = at.checked_add(8).is_some_and(|end| end <= image.len() as u64);
        let old = self.at(index).filter(|_| is_there).ok_or_else(|| Error::Truncated {
            what: "table entry",
            at: HostOffset(at),
            need: 8,
            have: (image.len() as u64).saturating_sub(at),
        })?;
        let table = if l1_index.is_some() { "L2 table" } else { "L1 table" };
        let mut plan = Plan::new(image);
        plan.set(image, at, &new.to_le_bytes(), format!("corrupt the {table} at {offset}: {what}"))?;
        Ok(Corruption { plan, table: offset, l1_index, index, old, new, copied_from: None })
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, l1_index, index, old, new, copied_from, .. } = self;
        match l1_index {
            Some(l1_index) => write!(f, "L2 table at {table} (L1 entry {l1_index})")?,
            None => write!(f, "L1 table at {table}")?,
        }
        write!(f, ", entry {index}: {old:#x} to {new:#x}")?;
        match copied_from {
            Some(source) => write!(f, ", as entry {source}"),
            None => Ok(()),
        }
    }
}
