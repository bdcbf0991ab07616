//! `show l2`: any L2 table, or what is to be looked at as if it were one.

use std::io::{self, Write};

use serde::Serialize;
use tool_support::{Failure, Out, Outcome, number};
use vdisk_format::qcow2::claims::{Owner, claims};
use vdisk_format::qcow2::explain::EntryProblem;
use vdisk_format::qcow2::l2::Subcluster;
use vdisk_format::qcow2::{L2Entry, Mapping};
use vdisk_format::units::HostOffset;

use super::l1::Whose;
use super::rows::{Head, Row, different, indices, offsets, remarks};
use super::{Show, l1};

/// An L2 table.
#[derive(Serialize)]
struct Table<'a> {
    table: &'static str,
    offset: HostOffset,
    /// The snapshot whose L1 table that is; `None`: the disk's.
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<Whose<'a>>,
    /// The L1 entry that names it, where one does.
    l1_index: Option<u64>,
    guest_offset: Option<u64>,
    entries: u64,
    /// Those that the file has.
    entries_in_file: u64,
    extended: bool,
}

#[derive(Serialize)]
struct Run {
    index: u64,
    count: u64,
    /// The first entry.
    value: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bitmap: Option<u64>,
    /// How much further the cluster of each is than that of the one before.
    step: u64,
    mapping: Mapping,
    copied: bool,
    guest_offset: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subclusters: Vec<Subclusters>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<EntryProblem>,
}

/// Neighbouring subclusters of one state.
#[derive(Serialize)]
struct Subclusters {
    first: u32,
    count: u32,
    state: Subcluster,
}

pub(super) fn run(show: &Show<'_, '_>, which: &str, snapshot: Option<&str>) -> Outcome {
    let Found { offset, l1_index, whose } = table(show, which, snapshot)?;
    let geometry = show.tables.geometry();
    let left = geometry.file_length().saturating_sub(offset.0) / geometry.l2_entry_size();
    let head = Table {
        table: "l2",
        offset,
        snapshot: whose,
        l1_index,
        guest_offset: l1_index.and_then(|index| geometry.guest_offset(index, 0)),
        entries: geometry.l2_entries(),
        entries_in_file: left.min(geometry.l2_entries()),
        extended: geometry.extended_l2(),
    };
    show.print(&head, runs(show, offset, l1_index))
}

/// An L2 table, and the entry that names it, if one does.
struct Found<'a> {
    offset: HostOffset,
    l1_index: Option<u64>,
    whose: Option<Whose<'a>>,
}

/// The L2 table that `text` names, in whichever way.
fn table<'a>(show: &Show<'_, 'a>, text: &str, snapshot: Option<&str>) -> Outcome<Found<'a>> {
    let geometry = show.tables.geometry();
    let (l1, whose) = l1::table(show, snapshot)?;
    let parse = |text: &str| {
        let expected = "OFFSET, l1:INDEX or guest:OFFSET";
        number::bytes(text)
            .ok_or_else(|| Failure::usage(format!("L2 table: expected {expected}, found '{text}'")))
    };
    let named = |index| {
        let offset = l1::named(show, l1, index)?.l2_table();
        Ok(Found { offset, l1_index: Some(index), whose })
    };
    if let Some(index) = text.strip_prefix("l1:") {
        return named(parse(index)?);
    }
    if let Some(guest) = text.strip_prefix("guest:") {
        return named(geometry.indices(parse(guest)?).0);
    }
    let number = parse(text)?;
    if number > 0 && geometry.is_aligned(number) {
        let offset = HostOffset(number);
        let entry = show.tables.l1_entries(l1).find(|(_, entry)| entry.l2_table() == offset);
        if let (None, None) = (entry, snapshot) {
            return Ok(of_a_snapshot(show, offset));
        }
        return Ok(Found {
            offset,
            l1_index: entry.map(|(index, _)| index),
            whose: whose.filter(|_| entry.is_some()),
        });
    }
    named(if number < l1.length / 8 { number } else { geometry.indices(number).0 })
}

/// A table that the disk as it is does not have: the first snapshot's that has it.
fn of_a_snapshot<'a>(show: &Show<'_, 'a>, offset: HostOffset) -> Found<'a> {
    let cluster = offset.0 >> show.tables.geometry().cluster_bits();
    let is_wanted = |first: u64, count: u64| cluster.checked_sub(first).is_some_and(|within| within < count);
    let mut place = None;
    claims(show.tables, &is_wanted, &mut |claim| match claim.owner {
        Owner::L2Table { l1_entries } if claim.area.offset == offset => place = Some(l1_entries.first),
        _ => {}
    });
    let number = place.and_then(|place| place.snapshot);
    let mut snapshots = show.tables.snapshots().map_while(Result::ok);
    let whose =
        snapshots.find(|snapshot| Some(snapshot.index) == number).map(|snapshot| Whose::new(&snapshot));
    Found { offset, l1_index: place.map(|place| place.index), whose }
}

fn runs<'s>(
    show: &'s Show<'_, '_>,
    table: HostOffset,
    l1_index: Option<u64>,
) -> impl Iterator<Item = Run> + 's {
    let (geometry, format) = (show.tables.geometry(), show.tables.l2_format());
    show.tables.l2_runs(table).filter_map(move |run| {
        let (index, count) = show.wanted(run.index, run.count, run.first == L2Entry::default())?;
        let entry = run.entry(index - run.index);
        let last = run.entry(index - run.index + count - 1);
        let problems = [entry, last].map(|entry| EntryProblem::of_l2(entry, &geometry));
        let is_split = format.extended() && !entry.is_compressed() && entry.bitmap.0 != 0;
        let subclusters = entry.bitmap.runs().filter(|_| is_split);
        Some(Run {
            index,
            count,
            value: entry.raw,
            bitmap: format.extended().then_some(entry.bitmap.0),
            step: run.step,
            mapping: entry.mapping(&format),
            copied: entry.copied(),
            guest_offset: l1_index.and_then(|l1_index| geometry.guest_offset(l1_index, index)),
            subclusters: subclusters
                .map(|(first, count, state)| Subclusters { first, count, state })
                .collect(),
            problems: different(problems),
        })
    })
}

impl Head for Table<'_> {
    const ROWS: &'static str = "runs";

    fn text(&self, out: &mut Out) -> io::Result<()> {
        write!(out, "L2 table at {}", self.offset)?;
        match (self.l1_index, self.guest_offset) {
            (None, _) => write!(out, ", which no L1 entry names")?,
            (Some(index), Some(guest)) => write!(out, ", of L1 entry {index}, guest offset {guest:#x}")?,
            (Some(index), None) => write!(out, ", of L1 entry {index}, beyond all disks")?,
        }
        if let Some(whose) = self.snapshot {
            whose.text(out)?;
        }
        write!(out, ": {} entries", self.entries)?;
        if self.entries_in_file < self.entries {
            write!(out, ", {} of them in the file", self.entries_in_file)?;
        }
        writeln!(out, "{}", if self.extended { ", with subclusters" } else { "" })
    }
}

impl Row for Run {
    fn text(&self, out: &mut Out) -> io::Result<()> {
        let &Self { index, count, step, .. } = self;
        let guest = self.guest_offset.map_or(String::new(), |guest| format!("guest {guest:#x}"));
        let mapping = mapping(self.mapping, count, step);
        let remarks = remarks(self.copied, &self.problems);
        writeln!(out, "{:>15}  {guest:<22}  {mapping}{remarks}", indices(index, count))?;
        if !self.subclusters.is_empty() {
            let runs: Vec<String> = self.subclusters.iter().map(Subclusters::words).collect();
            writeln!(out, "{:>15}  subclusters: {}", "", runs.join(", "))?;
        }
        Ok(())
    }
}

impl Subclusters {
    fn words(&self) -> String {
        let state = match self.state {
            Subcluster::Unallocated => "unallocated",
            Subcluster::Zero => "zero",
            Subcluster::Data => "data",
            Subcluster::Invalid => "invalid",
        };
        format!("{} {state}", indices(self.first.into(), self.count.into()))
    }
}

/// What entries say, in words.
pub(in crate::command) fn mapping(mapping: Mapping, count: u64, step: u64) -> String {
    let at = |host: HostOffset| offsets(host.0, count, step);
    match mapping {
        Mapping::Unallocated { preallocated: None } => "unallocated".to_owned(),
        Mapping::Unallocated { preallocated: Some(host) } => format!("unallocated, cluster {}", at(host)),
        Mapping::Zero { preallocated: None } => "zero".to_owned(),
        Mapping::Zero { preallocated: Some(host) } => format!("zero, preallocated {}", at(host)),
        Mapping::Data(host) => format!("data {}", at(host)),
        Mapping::Compressed(data) => {
            format!("compressed {}, up to {} bytes in {} sectors", data.offset, data.length, data.sectors)
        }
        Mapping::Subclusters { host: Some(host) } => format!("subclusters {}", at(host)),
        Mapping::Subclusters { host: None } => "subclusters, no cluster".to_owned(),
        _ => "unknown".to_owned(),
    }
}
