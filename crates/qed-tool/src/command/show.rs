//! `show l1` and `show l2 TABLE`.

use std::io::Write;
use std::path::Path;

use tool_support::image::OpenArgs;
use tool_support::status::warn;
use tool_support::{Failure, Out, Outcome, number};
use vdisk_format::View;
use vdisk_format::qed::{Entry, Geometry, Tables};
use vdisk_format::table::Run;
use vdisk_format::units::HostOffset;

use crate::args::What;
use crate::documents::TableDocument;

/// A table, and whose it is.
pub(crate) struct Shown<'t, 'a> {
    pub(crate) tables: &'t Tables<'a>,
    pub(crate) offset: HostOffset,
    /// The L1 entry that names it, where it is an L2 table and one does.
    pub(crate) l1_index: Option<u64>,
    pub(crate) is_l1: bool,
}

pub(super) fn run(path: &Path, open: OpenArgs, json: bool, what: What, table: Option<&str>) -> Outcome {
    let image = open.read(path)?;
    let tables = Tables::new(View::from(&image))?;
    let shown = match (what, table) {
        (What::L2, table) => l2(&tables, table.unwrap_or_default(), path)?,
        (_, None) => l1(&tables),
        (_, Some(surplus)) => {
            return Err(Failure::usage(format!("show: expected a table for l2 only, found '{surplus}'")));
        }
    };
    let mut out = Out::stdout();
    if json {
        out.json(&TableDocument::new(path, &shown))?;
    } else {
        shown.text(&mut out)?;
    }
    out.finish()?;
    let have = shown.entries_in_file();
    let entries = tables.geometry().entries();
    if have < entries {
        warn(&format!("{}: the file has {have} of the table's {entries} entries", path.display()));
    }
    Ok(())
}

fn l1<'t, 'a>(tables: &'t Tables<'a>) -> Shown<'t, 'a> {
    Shown { tables, offset: HostOffset(tables.header().fields.l1_table_offset), l1_index: None, is_l1: true }
}

/// The L2 table that `text` names, in whichever way.
fn l2<'t, 'a>(tables: &'t Tables<'a>, text: &str, path: &Path) -> Outcome<Shown<'t, 'a>> {
    let geometry = tables.geometry();
    let parse = |text: &str| {
        let expected = "OFFSET, l1:INDEX or guest:OFFSET";
        number::bytes(text)
            .ok_or_else(|| Failure::usage(format!("L2 table: expected {expected}, found '{text}'")))
    };
    let shown = |offset, l1_index| Shown { tables, offset, l1_index, is_l1: false };
    if let Some(index) = text.strip_prefix("l1:") {
        let index = parse(index)?;
        return Ok(shown(named(tables, index, path)?, Some(index)));
    }
    if let Some(guest) = text.strip_prefix("guest:") {
        let (index, _) = geometry.indices(parse(guest)?);
        return Ok(shown(named(tables, index, path)?, Some(index)));
    }
    let number = parse(text)?;
    if number > 0 && number.is_multiple_of(geometry.cluster_size()) {
        let index = tables.l1_entries().find(|&(_, value)| value == number).map(|(index, _)| index);
        return Ok(shown(HostOffset(number), index));
    }
    let index = if number < geometry.entries() { number } else { geometry.indices(number).0 };
    Ok(shown(named(tables, index, path)?, Some(index)))
}

/// The offset in an L1 entry, wherever it points.
fn named(tables: &Tables<'_>, index: u64, path: &Path) -> Outcome<HostOffset> {
    let path = path.display();
    let entry = (index < tables.geometry().entries())
        .then(|| tables.readable_l1_table().and_then(|l1| tables.entry(l1, index)));
    match entry.flatten() {
        Some(0) => Err(Failure::failed(format!("{path}: L1 entry {index}: no L2 table is allocated"))),
        Some(offset) => Ok(HostOffset(offset)),
        None => Err(Failure::failed(format!("{path}: there is no L1 entry {index}"))),
    }
}

impl Shown<'_, '_> {
    /// The runs of entries that are not 0.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (Run, Entry)> {
        let geometry = self.tables.geometry();
        let runs = self.tables.l2_runs(self.offset).filter(|run| run.value != 0);
        // Each entry of the L1 table is judged for itself: a table is more than its first cluster.
        let is_l1 = self.is_l1;
        let runs = runs.flat_map(move |run| {
            let (times, count) = if is_l1 { (run.count, 1) } else { (1, run.count) };
            (0..times).map(move |i| {
                let value =
                    if run.value == 1 { 1 } else { run.value.wrapping_add(i * geometry.cluster_size()) };
                Run { index: run.index + i, count, value }
            })
        });
        runs.flat_map(move |run| geometry.kinds(run).map(|(entry, run)| (run, entry)))
    }

    pub(crate) fn entries_in_file(&self) -> u64 {
        let left = self.tables.view().length().saturating_sub(self.offset.0) / 8;
        left.min(self.tables.geometry().entries())
    }

    fn text(&self, out: &mut Out) -> Outcome {
        let geometry = self.tables.geometry();
        let owner = match (self.is_l1, self.l1_index) {
            (true, _) => String::new(),
            (false, None) => ", which no L1 entry names".to_owned(),
            (false, Some(index)) => {
                format!(", of L1 entry {index}, guest offset {}", guest(geometry, index, 0))
            }
        };
        let name = if self.is_l1 { "L1" } else { "L2" };
        let used: u64 = self.runs().map(|(run, _)| run.count).sum();
        writeln!(
            out,
            "{name} table at {}{owner}: {used} of {} entries are not 0",
            self.offset,
            geometry.entries()
        )?;
        for (run, entry) in self.runs() {
            let Run { index, count, value } = run;
            let last = value.wrapping_add((count - 1) * geometry.cluster_size());
            let (indices, values) = match (count, value) {
                (1, _) => (index.to_string(), format!("{value:#x}")),
                (_, 1) => (format!("{index}-{}", index + count - 1), "0x1".to_owned()),
                _ => (format!("{index}-{}", index + count - 1), format!("{value:#x}-{last:#x}")),
            };
            let l1_entry = self.is_l1.then(|| geometry.table_offset(value));
            let kind = match (l1_entry, entry) {
                (Some(Ok(_)), _) => "L2 table".to_owned(),
                (Some(Err(invalid)), _) | (None, Entry::Invalid(invalid)) => {
                    format!("wrong: {}", invalid.words())
                }
                (None, Entry::Zero) => "zero".to_owned(),
                (None, _) => "data".to_owned(),
            };
            let (l1_index, l2_index) =
                if self.is_l1 { (index, 0) } else { (self.l1_index.unwrap_or(0), index) };
            let place = (self.is_l1 || self.l1_index.is_some())
                .then(|| format!("  guest offset {}", guest(geometry, l1_index, l2_index)));
            writeln!(out, "{indices:>15}  {values:<29}  {kind}{}", place.unwrap_or_default())?;
        }
        Ok(())
    }
}

fn guest(geometry: Geometry, l1_index: u64, l2_index: u64) -> String {
    geometry
        .guest_offset(l1_index, l2_index)
        .map_or("beyond all disks".to_owned(), |guest| format!("{guest:#x}"))
}
