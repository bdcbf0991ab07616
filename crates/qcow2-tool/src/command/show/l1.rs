//! `show l1`: the active L1 table, or a snapshot's.

use std::io::{self, Write};

use serde::Serialize;
use tool_support::output::Lossy;
use tool_support::{Out, Outcome};
use vdisk_format::qcow2::explain::EntryProblem;
use vdisk_format::qcow2::{Area, L1Entry, Snapshot};
use vdisk_format::units::HostOffset;

use super::rows::{Head, Row, different, indices, offsets, remarks};
use super::{Failure, Show, runs};
use crate::command::lookup;

/// An L1 table.
#[derive(Serialize)]
struct Table<'a> {
    table: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<Whose<'a>>,
    offset: HostOffset,
    entries: u64,
    /// Those that the file has.
    entries_in_file: u64,
}

/// A snapshot.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Whose<'a> {
    index: u32,
    id: Lossy<'a>,
    name: Lossy<'a>,
}

impl<'a> Whose<'a> {
    pub(super) fn new(snapshot: &Snapshot<'a>) -> Self {
        Self { index: snapshot.index, id: Lossy(snapshot.id), name: Lossy(snapshot.name) }
    }

    /// As a check names it, by its number.
    pub(super) fn text(&self, out: &mut Out) -> io::Result<()> {
        let Self { index, id: Lossy(id), name: Lossy(name) } = self;
        write!(out, " of snapshot {index} (ID ")?;
        out.name(id)?;
        out.write_all(b", name '")?;
        out.name(name)?;
        out.write_all(b"')")
    }
}

#[derive(Serialize)]
struct Run {
    index: u64,
    count: u64,
    /// The first entry.
    value: u64,
    /// How much further the table of each is than that of the one before.
    step: u64,
    l2_table: Option<HostOffset>,
    copied: bool,
    guest_offset: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<EntryProblem>,
}

pub(super) fn run(show: &Show<'_, '_>, snapshot: Option<&str>) -> Outcome {
    let (area, whose) = table(show, snapshot)?;
    let there = area.clipped(show.tables.geometry().file_length()).length / 8;
    let head = Table {
        table: "l1",
        snapshot: whose,
        offset: area.offset,
        entries: area.length / 8,
        entries_in_file: there,
    };
    show.print(&head, runs(show, area, there))
}

/// The L1 table, and whose it is where that is a snapshot.
pub(super) fn table<'a>(show: &Show<'_, 'a>, snapshot: Option<&str>) -> Outcome<(Area, Option<Whose<'a>>)> {
    let Some(wanted) = snapshot else { return Ok((show.tables.geometry().l1_table(), None)) };
    let snapshot = lookup::snapshot(show.path, show.tables, wanted)?;
    Ok((snapshot.l1_table(), Some(Whose::new(&snapshot))))
}

/// Entry `index` of an L1 table, which must have an L2 table.
pub(super) fn named(show: &Show<'_, '_>, area: Area, index: u64) -> Outcome<L1Entry> {
    match show.tables.l1_entry(area, index) {
        Some(entry) if entry.is_allocated() => Ok(entry),
        Some(_) => Err(show.failed(&format!("L1 entry {index}: no L2 table is allocated"))),
        None => Err::<_, Failure>(show.failed(&format!("there is no L1 entry {index}"))),
    }
}

/// All runs that are wanted. Entries of 0 are not read where the file has a hole.
fn runs<'s>(show: &'s Show<'_, '_>, area: Area, there: u64) -> impl Iterator<Item = Run> + 's {
    let geometry = show.tables.geometry();
    let entries = show.tables.l1_entries(area).map(|(index, entry)| (index, entry.0));
    let all = runs::runs(entries, there, geometry.cluster_size(), |entry| L1Entry(entry).l2_table().0);
    all.filter_map(move |run| {
        let run = run.part(show.wanted(run.index, run.count, run.first == 0)?);
        let entry = L1Entry(run.first);
        let problems = [run.first, run.last()].map(|entry| EntryProblem::of_l1(L1Entry(entry), &geometry));
        Some(Run {
            index: run.index,
            count: run.count,
            value: entry.0,
            step: run.step,
            l2_table: entry.is_allocated().then(|| entry.l2_table()),
            copied: entry.copied(),
            guest_offset: geometry.guest_offset(run.index, 0),
            problems: different(problems),
        })
    })
}

impl Head for Table<'_> {
    const ROWS: &'static str = "runs";

    fn text(&self, out: &mut Out) -> io::Result<()> {
        write!(out, "L1 table at {}", self.offset)?;
        if let Some(whose) = self.snapshot {
            whose.text(out)?;
        }
        write!(out, ": {} entries", self.entries)?;
        if self.entries_in_file < self.entries {
            write!(out, ", {} of them in the file", self.entries_in_file)?;
        }
        writeln!(out)
    }
}

impl Row for Run {
    fn text(&self, out: &mut Out) -> io::Result<()> {
        let &Self { index, count, step, .. } = self;
        let table = match self.l2_table {
            Some(table) => format!("L2 table {}", offsets(table.0, count, step)),
            None => "no L2 table".to_owned(),
        };
        let guest = self.guest_offset.map_or("beyond all disks".to_owned(), |guest| format!("{guest:#x}"));
        let remarks = remarks(self.copied, &self.problems);
        writeln!(out, "{:>15}  guest {guest:<16}  {table}{remarks}", indices(index, count))
    }
}
