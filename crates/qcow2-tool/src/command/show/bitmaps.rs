//! `show bitmaps`.

use std::io::{self, Write};

use serde::Serialize;
use tool_support::output::Lossy;
use tool_support::status::warn;
use tool_support::{Out, Outcome};
use vdisk_format::qcow2::Area;
use vdisk_format::qcow2::bitmap::{
    Bitmap, BitmapTableEntryKind, BitmapsExtension, FLAG_AUTO, FLAG_EXTRA_DATA_COMPATIBLE, FLAG_IN_USE,
    TableBudget,
};
use vdisk_format::units::HostOffset;

use super::Show;
use super::rows::{Head, Row};

/// The bitmap directory.
#[derive(Serialize)]
struct Directory {
    directory: Option<Area>,
    nb_bitmaps: u32,
    /// Whether autoclear feature bit 0 is set: without it, the bitmaps may be out of date.
    consistent: bool,
    /// Why no more of them can be read.
    error: Option<String>,
}

#[derive(Serialize)]
struct Entry<'a> {
    index: u32,
    offset: HostOffset,
    name: Lossy<'a>,
    r#type: u8,
    flags: u32,
    flag_names: Vec<String>,
    /// Bytes of the disk that a bit is for; none where that is no number of 64 bits.
    granularity: Option<u64>,
    granularity_bits: u8,
    bitmap_table: Area,
    extra_data_size: u32,
    /// None where all tables together are larger than the file.
    table_entries: Option<Entries>,
}

/// How many entries of a bitmap's table are what.
#[derive(Debug, Default, Serialize)]
struct Entries {
    serialized: u64,
    all_ones: u64,
    all_zeroes: u64,
    invalid: u64,
    not_in_file: u64,
}

pub(super) fn run(show: &Show<'_, '_>) -> Outcome {
    let header = show.tables.header();
    let extension = BitmapsExtension::of(header);
    let image = show.tables.view().bytes();
    let directory = |bitmaps: &BitmapsExtension| bitmaps.directory(image);
    let error = extension.as_ref().and_then(|bitmaps| directory(bitmaps).find_map(Result::err));
    let head = Directory {
        directory: extension.as_ref().map(BitmapsExtension::directory_area),
        nb_bitmaps: extension.as_ref().map_or(0, |bitmaps| bitmaps.nb_bitmaps),
        consistent: header.v3.autoclear_features & 1 != 0,
        error: error.map(|error| error.to_string()),
    };
    let mut budget = TableBudget::new(image);
    let bitmaps = extension.as_ref().map(directory).into_iter().flatten().map_while(Result::ok);
    let rows = (0..).zip(bitmaps).map(|(index, bitmap)| Entry::new(show, index, &bitmap, &mut budget));
    show.print(&head, rows)?;
    if let Some(error) = head.error {
        warn(&format!("{}: {error}", show.path.display()));
    }
    Ok(())
}

impl<'a> Entry<'a> {
    fn new(show: &Show<'_, 'a>, index: u32, bitmap: &Bitmap<'a>, budget: &mut TableBudget) -> Self {
        let fixed = bitmap.fixed;
        let entries = budget.spend(bitmap).ok().map(|()| Entries::of(show, fixed.table()));
        Self {
            index,
            offset: bitmap.offset,
            name: Lossy(bitmap.name),
            r#type: fixed.type_,
            flags: fixed.flags,
            flag_names: (0..32).filter(|bit| fixed.flags >> bit & 1 != 0).map(flag).collect(),
            granularity: fixed.granularity(),
            granularity_bits: fixed.granularity_bits,
            bitmap_table: fixed.table(),
            extra_data_size: fixed.extra_data_size,
            table_entries: entries,
        }
    }
}

fn flag(bit: u32) -> String {
    match 1 << bit {
        FLAG_IN_USE => "in_use".to_owned(),
        FLAG_AUTO => "auto".to_owned(),
        FLAG_EXTRA_DATA_COMPATIBLE => "extra_data_compatible".to_owned(),
        _ => format!("bit-{bit}"),
    }
}

impl Entries {
    fn of(show: &Show<'_, '_>, table: Area) -> Self {
        let mut counts = Self::default();
        for (_, entry) in show.tables.bitmap_table_entries(table) {
            match entry.kind() {
                BitmapTableEntryKind::Serialized => counts.serialized += 1,
                BitmapTableEntryKind::AllOnes => counts.all_ones += 1,
                BitmapTableEntryKind::AllZeroes => {} // but for reserved bits; counted below
                BitmapTableEntryKind::Invalid => counts.invalid += 1,
            }
        }
        let there = table.clipped(show.tables.geometry().file_length()).length / 8;
        counts.not_in_file = table.length / 8 - there;
        counts.all_zeroes = there.saturating_sub(counts.serialized + counts.all_ones + counts.invalid);
        counts
    }
}

impl Head for Directory {
    const ROWS: &'static str = "bitmaps";

    fn text(&self, out: &mut Out) -> io::Result<()> {
        let Some(directory) = self.directory else { return writeln!(out, "There are no bitmaps") };
        write!(out, "Bitmap directory at {}: {} bitmaps", directory.offset, self.nb_bitmaps)?;
        let stale = if self.consistent {
            ""
        } else {
            ", which may be out of date: autoclear feature bit 0 is not set"
        };
        writeln!(out, "{stale}")
    }
}

impl Row for Entry<'_> {
    fn text(&self, out: &mut Out) -> io::Result<()> {
        write!(out, "\nbitmap {}, entry at {}: name '", self.index, self.offset)?;
        out.name(self.name.0)?;
        let granularity = match self.granularity {
            Some(bytes) => format!("{bytes} bytes"),
            None => format!("1 << {} bytes", self.granularity_bits),
        };
        let kind = if self.r#type == 1 {
            "dirty tracking".to_owned()
        } else {
            format!("reserved ({})", self.r#type)
        };
        let flags = if self.flag_names.is_empty() { "none".to_owned() } else { self.flag_names.join(", ") };
        writeln!(out, "'\n  type {kind}, flags {flags}, granularity {granularity}")?;
        if self.extra_data_size > 0 {
            writeln!(out, "  extra data of {} bytes", self.extra_data_size)?;
        }
        let Area { offset, length, .. } = self.bitmap_table;
        write!(out, "  table at {offset}, {} entries", length / 8)?;
        match &self.table_entries {
            None => writeln!(out, ", not read: the tables together are larger than the file"),
            Some(Entries { serialized, all_ones, all_zeroes, invalid, not_in_file }) => {
                write!(out, ": {serialized} with data, {all_ones} all ones, {all_zeroes} all zeroes")?;
                for (count, what) in [(invalid, "invalid"), (not_in_file, "past the end of the file")] {
                    if *count > 0 {
                        write!(out, ", {count} {what}")?;
                    }
                }
                writeln!(out)
            }
        }
    }
}
