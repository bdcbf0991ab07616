//! `show refcount-table` and `show refcount-block`.

use std::io::{self, Write};

use serde::Serialize;
use tool_support::{Failure, Out, Outcome, number};
use vdisk_format::qcow2::RefcountTableEntry;
use vdisk_format::qcow2::explain::EntryProblem;
use vdisk_format::units::HostOffset;

use super::rows::{Head, Row, different, indices, offsets, remarks};
use super::{Show, runs};

/// The refcount table.
#[derive(Serialize)]
struct Table {
    table: &'static str,
    offset: HostOffset,
    entries: u64,
    /// Those that the file has.
    entries_in_file: u64,
    refcount_bits: Option<u32>,
}

#[derive(Serialize)]
struct BlocksRun {
    index: u64,
    count: u64,
    /// The first entry.
    value: u64,
    /// How much further the block of each is than that of the one before.
    step: u64,
    block: Option<HostOffset>,
    first_cluster: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<EntryProblem>,
}

pub(super) fn table(show: &Show<'_, '_>) -> Outcome {
    let geometry = show.tables.geometry();
    let area = geometry.refcount_table();
    let there = area.clipped(geometry.file_length()).length / 8;
    let head = Table {
        table: "refcount-table",
        offset: area.offset,
        entries: area.length / 8,
        entries_in_file: there,
        refcount_bits: geometry.refcount_order().map(|order| 1 << order),
    };
    show.print(&head, table_runs(show, there))
}

fn table_runs<'s>(show: &'s Show<'_, '_>, there: u64) -> impl Iterator<Item = BlocksRun> + 's {
    let geometry = show.tables.geometry();
    let entries = show.tables.refcount_table_entries().map(|(index, entry)| (index, entry.0));
    let block = |entry| RefcountTableEntry(entry).block().0;
    runs::runs(entries, there, geometry.cluster_size(), block).filter_map(move |run| {
        let run = run.part(show.wanted(run.index, run.count, run.first == 0)?);
        let entry = RefcountTableEntry(run.first);
        let problems = [run.first, run.last()]
            .map(|entry| EntryProblem::of_refcount_table(RefcountTableEntry(entry), &geometry));
        Some(BlocksRun {
            index: run.index,
            count: run.count,
            value: entry.0,
            step: run.step,
            block: (entry.block().0 != 0).then(|| entry.block()),
            first_cluster: geometry.refcounted_cluster(run.index, 0),
            problems: different(problems),
        })
    })
}

/// A refcount block.
#[derive(Serialize)]
struct Block {
    table: &'static str,
    offset: HostOffset,
    /// The entry of the refcount table that names it, where one does.
    table_index: Option<u64>,
    first_cluster: Option<u64>,
    refcount_bits: u32,
    entries: u64,
}

#[derive(Serialize)]
struct RefcountsRun {
    index: u64,
    count: u64,
    refcount: u64,
    first_cluster: Option<u64>,
    /// Where that cluster is in the file.
    offset: Option<HostOffset>,
    #[serde(skip)]
    cluster_size: u64,
}

pub(super) fn block(show: &Show<'_, '_>, which: &str) -> Outcome {
    let geometry = show.tables.geometry();
    let (offset, table_index) = find(show, which)?;
    let (Some(order), Some(block)) = (geometry.refcount_order(), show.tables.refcount_block(offset)) else {
        return Err(show.failed("refcount_order is above 6: nobody can tell what is a refcount"));
    };
    let cluster = move |index| table_index.and_then(|table| geometry.refcounted_cluster(table, index));
    let head = Block {
        table: "refcount-block",
        offset,
        table_index,
        first_cluster: cluster(0),
        refcount_bits: 1 << order,
        entries: block.entries(),
    };
    let rows = block.runs().filter_map(|run| {
        let (index, count) = show.wanted(run.index, run.count, run.refcount == 0)?;
        let first_cluster = cluster(index);
        Some(RefcountsRun {
            index,
            count,
            refcount: run.refcount,
            first_cluster,
            offset: first_cluster
                .and_then(|cluster| cluster.checked_mul(geometry.cluster_size()))
                .map(HostOffset),
            cluster_size: geometry.cluster_size(),
        })
    });
    show.print(&head, rows)
}

/// The block that `text` names, in whichever way.
fn find(show: &Show<'_, '_>, text: &str) -> Outcome<(HostOffset, Option<u64>)> {
    let geometry = show.tables.geometry();
    let parse = |text: &str| {
        let expected = "OFFSET, INDEX or host:OFFSET";
        number::bytes(text)
            .ok_or_else(|| Failure::usage(format!("refcount block: expected {expected}, found '{text}'")))
    };
    let index = if let Some(host) = text.strip_prefix("host:") {
        let cluster = parse(host)? >> geometry.cluster_bits();
        let found = geometry.refcount_indices(cluster);
        found.ok_or_else(|| show.failed("refcount_order is above 6: nobody can tell which block that is"))?.0
    } else {
        let number = parse(text)?;
        if number > 0 && geometry.is_aligned(number) {
            let mut entries = show.tables.refcount_table_entries();
            let index = entries.find(|(_, entry)| entry.block().0 == number);
            return Ok((HostOffset(number), index.map(|(index, _)| index)));
        }
        number
    };
    match show.tables.refcount_table_entry(index) {
        None => Err(show.failed(&format!("there is no refcount table entry {index}"))),
        Some(entry) if entry.block().0 == 0 => {
            Err(show.failed(&format!("refcount table entry {index}: no refcount block is allocated")))
        }
        Some(entry) => Ok((entry.block(), Some(index))),
    }
}

impl Head for Table {
    const ROWS: &'static str = "runs";

    fn text(&self, out: &mut Out) -> io::Result<()> {
        write!(out, "Refcount table at {}: {} entries", self.offset, self.entries)?;
        if self.entries_in_file < self.entries {
            write!(out, ", {} of them in the file", self.entries_in_file)?;
        }
        match self.refcount_bits {
            Some(bits) => writeln!(out, ", refcounts of {bits} bits"),
            None => writeln!(out, ", refcounts of an unknown width"),
        }
    }
}

impl Row for BlocksRun {
    fn text(&self, out: &mut Out) -> io::Result<()> {
        let &Self { index, count, step, .. } = self;
        let block = self.block.map(|block| format!("refcount block {}", offsets(block.0, count, step)));
        let block = block.unwrap_or_else(|| "no refcount block".to_owned());
        let clusters = self.first_cluster.map_or(String::new(), |first| format!("clusters {first} on"));
        let remarks = remarks(false, &self.problems);
        writeln!(out, "{:>15}  {clusters:<22}  {block}{remarks}", indices(index, count))
    }
}

impl Head for Block {
    const ROWS: &'static str = "runs";

    fn text(&self, out: &mut Out) -> io::Result<()> {
        write!(out, "Refcount block at {}", self.offset)?;
        match (self.table_index, self.first_cluster) {
            (None, _) => write!(out, ", which no refcount table entry names")?,
            (Some(index), Some(first)) => {
                write!(out, ", of refcount table entry {index}, for clusters {first} on")?;
            }
            (Some(index), None) => write!(out, ", of refcount table entry {index}, beyond all files")?,
        }
        writeln!(out, ": {} refcounts of {} bits", self.entries, self.refcount_bits)
    }
}

impl Row for RefcountsRun {
    fn text(&self, out: &mut Out) -> io::Result<()> {
        let &Self { index, count, refcount, .. } = self;
        let clusters = match (self.first_cluster, self.offset) {
            (Some(first), Some(offset)) => {
                let end = offset.0.saturating_add(count.saturating_mul(self.cluster_size));
                let plural = if count == 1 { "" } else { "s" };
                format!("cluster{plural} {} at {offset}-{end:#x}", indices(first, count))
            }
            _ => String::new(),
        };
        writeln!(out, "{:>15}  refcount {refcount:<8}  {clusters}", indices(index, count))
    }
}
