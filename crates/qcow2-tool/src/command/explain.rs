//! `explain`: what a byte of the file is.

use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

use serde::Serialize;
use tool_support::image::{OpenArgs, line};
use tool_support::{Failure, Out, Outcome};
use vdisk_format::View;
use vdisk_format::qcow2::explain::{Explanation, Part, Refcount, Subject, explain};
use vdisk_format::units::HostOffset;

use super::lookup::expect_qcow2_unless;
use super::owner;
use super::show::mapping;

#[derive(Serialize)]
struct Document<'d> {
    schema: u32,
    image: String,
    #[serde(flatten)]
    explanation: &'d Explanation,
}

pub(super) fn run(path: &Path, open: OpenArgs, json: bool, offset: HostOffset, force: bool) -> Outcome {
    let image = open.read(path)?;
    expect_qcow2_unless(force, path, image.bytes())?;
    let explanation =
        explain(View::from(&image), offset).map_err(|error| Failure::from(error).about(path))?;
    let mut out = Out::stdout();
    if json {
        out.json(&Document { schema: 1, image: path.display().to_string(), explanation: &explanation })?;
    } else {
        text(&mut out, &explanation)?;
    }
    Ok(out.finish()?)
}

fn text(out: &mut Out, explanation: &Explanation) -> io::Result<()> {
    explanation.parts.iter().try_for_each(|part| self::part(out, explanation.offset, part))?;
    match &explanation.owners {
        Some(owners) => writeln!(out, "cluster {}: {}", owners.cluster, owner::verdict(owners)),
        None => writeln!(out, "the header's cluster_bits is wrong, and nothing but the header can be read"),
    }
}

fn part(out: &mut Out, offset: HostOffset, part: &Part) -> io::Result<()> {
    let place = part.place;
    write!(out, "{offset}: ")?;
    subject(out, part)?;
    writeln!(out)?;
    if !matches!(part.subject, Subject::PastEnd) {
        writeln!(out, "  {} at {}-{:#x}", bytes(place.length), place.offset, place.end())?;
    }
    // Of the others there is nothing to be valid.
    let is_checked = !matches!(
        part.subject,
        Subject::Unused { .. }
            | Subject::Nothing
            | Subject::PastEnd
            | Subject::Secret { .. }
            | Subject::Data { .. }
            | Subject::Compressed { .. }
            | Subject::BitmapBits { .. }
            | Subject::Text { .. }
    );
    for problem in &part.problems {
        // It may hold a text of the image.
        out.write_all(b"  wrong: ")?;
        out.name(problem.as_bytes())?;
        writeln!(out)?;
    }
    if part.problems.is_empty() && is_checked { writeln!(out, "  valid") } else { Ok(()) }
}

fn bytes(length: u64) -> String {
    if length == 1 { "1 byte".to_owned() } else { format!("{length} bytes") }
}

fn subject(out: &mut Out, part: &Part) -> io::Result<()> {
    match &part.subject {
        Subject::Field { structure, name, value, notation, meaning } => {
            write!(out, "{structure}, field {name}: {}", line::number(*notation, *value))?;
            write!(out, "\n  {meaning}")
        }
        Subject::Text { structure, name, text } => {
            write!(out, "{structure}, {name}: '")?;
            out.name(text)?;
            out.write_all(b"'")
        }
        Subject::Secret { structure, name } => write!(out, "{structure}, {name}, which is not shown"),
        Subject::L1Entry { entry, value, l2_table, copied, guest } => {
            write!(out, "{entry}: {value:#x}\n  ")?;
            match l2_table.0 {
                0 => write!(out, "no L2 table: nothing is allocated")?,
                _ => write!(out, "L2 table at {l2_table}{}", flag(*copied))?,
            }
            write!(out, "; {}", disk(guest.as_ref()))
        }
        Subject::L2Entry { table, index, l1_entry, value, bitmap, mapping, copied, guest } => {
            write!(out, "entry {index} of the L2 table at {table}, of {l1_entry}: {value:#x}")?;
            bitmap.map_or(Ok(()), |bitmap| write!(out, ", subclusters {bitmap:#x}"))?;
            let says = self::mapping(*mapping, 1, 0);
            write!(out, "\n  {says}{}; {}", flag(*copied), disk(guest.as_ref()))
        }
        Subject::RefcountTableEntry { index, value, block, clusters } => {
            write!(out, "refcount table entry {index}: {value:#x}\n  ")?;
            match block.0 {
                0 => write!(out, "no refcount block: all refcounts are 0")?,
                _ => write!(out, "refcount block at {block}")?,
            }
            let range = clusters.as_ref().map(|range| format!("clusters {}-{}", range.start, range.end - 1));
            write!(out, "; {}", range.unwrap_or_else(|| "clusters that no file has".to_owned()))
        }
        Subject::Refcounts { block, index, refcounts } => {
            write!(out, "refcount block {block}, from entry {index} on")?;
            for &Refcount { cluster, refcount, references, .. } in refcounts {
                write!(out, "\n  cluster {cluster}: refcount {refcount}, references {references}")?;
            }
            Ok(())
        }
        Subject::BitmapTableEntry { bitmap, index, value, says, cluster, guest } => {
            write!(out, "entry {index} of the table of bitmap {bitmap}: {value:#x}\n  {}", says.name())?;
            if cluster.0 != 0 {
                write!(out, " at {cluster}")?;
            }
            write!(out, "; {}", disk(guest.as_ref()))
        }
        Subject::BitmapBits { bitmap, bits, guest } => {
            let whose = bitmap.map_or("a bitmap".to_owned(), |bitmap| format!("bitmap {bitmap}"));
            write!(out, "data of {whose}: {bits:#010b}\n  {}", disk(guest.as_ref()))
        }
        Subject::Data { guest, table, index, l1_entry, is_read } => {
            let guest = match (guest, l1_entry.snapshot) {
                (Some(guest), _) => format!("byte {guest:#x} of the disk"),
                // Behind its disk, a snapshot has the state of its machine.
                (None, Some(snapshot)) => format!("VM state of snapshot {snapshot}"),
                (None, None) => "a byte beyond all disks".to_owned(),
            };
            let unread = if *is_read { "" } else { ", which the guest does not read from here" };
            write!(out, "data: {guest}{unread}\n  entry {index} of the L2 table at {table}, of {l1_entry}")
        }
        Subject::Compressed { guest, table, index, l1_entry } => {
            let guest = disk(guest.as_ref());
            write!(out, "compressed data: {guest}\n  entry {index} of the L2 table at {table}, of {l1_entry}")
        }
        Subject::Unused { what } => write!(out, "{what}"),
        Subject::Nothing => write!(out, "nothing: nobody claims the cluster"),
        Subject::PastEnd => write!(out, "nothing: the file ends before it"),
        _ => write!(out, "something"),
    }
}

fn flag(copied: bool) -> &'static str {
    if copied { ", refcount exactly one" } else { "" }
}

fn disk(guest: Option<&Range<u64>>) -> String {
    match guest {
        Some(guest) => format!("disk {:#x}-{:#x}", guest.start, guest.end),
        None => "beyond all disks".to_owned(),
    }
}
