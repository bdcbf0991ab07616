//! `show snapshots`.

use std::io::{self, Write};

use serde::Serialize;
use tool_support::output::Lossy;
use tool_support::status::warn;
use tool_support::{Out, Outcome};
use vdisk_format::bytes::{Hex, clipped};
use vdisk_format::qcow2::{Area, Snapshot};
use vdisk_format::units::HostOffset;

use super::Show;
use super::rows::{Head, Row};

/// Most bytes of extra data that are shown: none that are known have more than 24.
const MAX_EXTRA: u64 = 1 << 10;

#[derive(Serialize)]
struct Table {
    offset: HostOffset,
    nb_snapshots: u32,
    /// Why no more of them can be read.
    error: Option<String>,
}

#[derive(Serialize)]
struct Entry<'a> {
    index: u32,
    offset: HostOffset,
    id: Lossy<'a>,
    name: Lossy<'a>,
    date: String,
    date_sec: u32,
    date_nsec: u32,
    vm_clock_nsec: u64,
    vm_state_size: u64,
    disk_size: Option<u64>,
    icount: Option<u64>,
    l1_table: Area,
    l1_entries: u32,
    extra_data_size: u32,
    /// The first KiB of what is behind the known extra data.
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown_extra_data: Option<Hex<'a>>,
}

pub(super) fn run(show: &Show<'_, '_>) -> Outcome {
    let header = show.tables.header().v2;
    let error = show.tables.snapshots().find_map(Result::err).map(|error| error.to_string());
    let head =
        Table { offset: HostOffset(header.snapshots_offset), nb_snapshots: header.nb_snapshots, error };
    let snapshots = show.tables.snapshots().map_while(Result::ok);
    show.print(&head, snapshots.map(|snapshot| Entry::new(&snapshot)))?;
    if let Some(error) = head.error {
        warn(&format!("{}: {error}", show.path.display()));
    }
    Ok(())
}

impl<'a> Entry<'a> {
    fn new(snapshot: &Snapshot<'a>) -> Self {
        let unknown = clipped(snapshot.unknown_extra(), 0, MAX_EXTRA);
        let fixed = snapshot.fixed;
        Self {
            index: snapshot.index,
            offset: snapshot.offset,
            id: Lossy(snapshot.id),
            name: Lossy(snapshot.name),
            date: date(fixed.date_sec),
            date_sec: fixed.date_sec,
            date_nsec: fixed.date_nsec,
            vm_clock_nsec: fixed.vm_clock_nsec,
            vm_state_size: snapshot.vm_state_size(),
            disk_size: snapshot.disk_size(),
            icount: snapshot.icount(),
            l1_table: snapshot.l1_table(),
            l1_entries: fixed.l1_size,
            extra_data_size: fixed.extra_data_size,
            unknown_extra_data: (!unknown.is_empty()).then_some(Hex(unknown)),
        }
    }
}

/// Seconds since the Epoch as ISO 8601 writes them, in UTC.
fn date(seconds: u32) -> String {
    let (days, rest) = (seconds / 86400, seconds % 86400);
    // Years begin in March, so that the leap day is their last one; day 0 is 0000-03-01.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u32::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

impl Head for Table {
    const ROWS: &'static str = "snapshots";

    fn text(&self, out: &mut Out) -> io::Result<()> {
        writeln!(out, "Snapshot table at {}: {} snapshots", self.offset, self.nb_snapshots)
    }
}

impl Row for Entry<'_> {
    fn text(&self, out: &mut Out) -> io::Result<()> {
        write!(out, "\nsnapshot {}, entry at {}: ID ", self.index, self.offset)?;
        out.name(self.id.0)?;
        out.write_all(b", name '")?;
        out.name(self.name.0)?;
        let Self { date, date_nsec, vm_clock_nsec, l1_entries, .. } = self;
        writeln!(out, "'\n  taken {date} and {date_nsec} ns, after the guest ran {vm_clock_nsec} ns")?;
        let disk = self.disk_size.map_or("as the image's".to_owned(), |size| format!("{size} bytes"));
        write!(out, "  disk size {disk}, VM state {} bytes", self.vm_state_size)?;
        self.icount.map_or(Ok(()), |icount| write!(out, ", icount {icount}"))?;
        writeln!(out, "\n  L1 table at {}, {l1_entries} entries", self.l1_table.offset)?;
        match &self.unknown_extra_data {
            Some(hex) => writeln!(out, "  unknown extra data {hex}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (u32::MAX, "2106-02-07T06:28:15Z"),
        ] {
            assert_eq!(date(seconds), expected);
        }
    }
}
