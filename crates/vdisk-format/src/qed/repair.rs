//! [`repair`]: what can be mended without a guess, as a [`Plan`].

use crate::error::{Error, Reason, Result};
use crate::feature::FeatureGroup;
use crate::plan::Plan;
use crate::qed::check;
use crate::qed::geometry::{Entry, Geometry};
use crate::qed::header::{
    FEATURE_NEED_CHECK, Header, KNOWN_AUTOCLEAR_FEATURES, KNOWN_FEATURES, feature_field, known_fields,
};
use crate::qed::tables::Tables;
use crate::qed::walk::{Event, walk};
use crate::report::{Finding, Severity};
use crate::units::HostOffset;

/// Faults of a header by which no entry looks wrong that is not, and with which QEMU repairs as well.
const HARMLESS: [&str; 3] = ["header-size", "backing-filename-over-header", "backing-filename-outside-file"];
/// Entries this close to one another, in bytes, are written in one go.
const NEAR: u64 = 64;

/// A repair to be.
#[derive(Debug)]
#[non_exhaustive]
pub struct Repair {
    /// The change.
    pub plan: Plan,
    /// Entries that name nothing that is in the file, and that it clears.
    pub cleared: u64,
    /// Corruptions, as a check counts them, that it leaves: which of two owners has a cluster, nobody can tell.
    pub left: u64,
}

/// Plans what `qemu-img check -r all` does: entries that name nothing in the file become 0, which is unallocated, and
/// where no corruption is left, the need-check bit is cleared. Before all, the autoclear bits are that are not known here,
/// as whoever writes to an image has to. Leaks stay: they do no harm, and what they hold may be all that is left of
/// something.
///
/// The data that such an entry once named are gone already. With a backing file, the guest reads the backing file's
/// there.
///
/// ```
/// use vdisk_format::qed::{self, Tables, check::check, repair::repair};
/// # let mut image = qed::HeaderFields { magic: qed::header::MAGIC, cluster_size: 4096, table_size: 1, header_size: 1,
/// #     l1_table_offset: 4096, image_size: 8192, ..Default::default() }.to_bytes();
/// # image.resize(4 * 4096, 0);
/// # image[4096..4104].copy_from_slice(&8192u64.to_le_bytes());
/// image[8192..8200].copy_from_slice(&0x70000u64.to_le_bytes()); // past the end of the file
/// assert_eq!(check(&image)?.corruptions, 1);
/// let repair = repair(&Tables::new(&image)?)?;
/// assert_eq!((repair.cleared, repair.left), (1, 0));
/// repair.plan.apply_to(&mut image);
/// assert_eq!(check(&image)?.corruptions, 0);
/// # Ok::<(), vdisk_format::Error>(())
/// ```
///
/// # Errors
/// A refusal with [`Reason::UnsoundHeader`] where a header field is wrong, or a feature unknown: entries that only look
/// wrong because of it would be lost.
pub fn repair(tables: &Tables<'_>) -> Result<Repair> {
    let header = tables.header();
    refuse_unsound(header)?;
    let l1 = header.fields.l1_table_offset;
    let mut wrong = Wrong::default();
    let mut left = 0;
    let mut table = 0;
    walk(tables, |event| match event {
        Event::NoTable { l1_index, .. } => wrong.add(Level::L1, l1 + l1_index * 8, 1),
        Event::Overlap { clusters, .. } => left += clusters,
        Event::Table { table: HostOffset(offset), .. } => table = offset,
        Event::Run(run, Entry::Invalid(_)) => wrong.add(Level::L2, table + run.index * 8, run.count),
        Event::Run(..) | Event::Scattered(_) => {}
        Event::Again { clusters, .. } => left += clusters.end - clusters.start,
    });
    let image = tables.view().bytes();
    let mut plan = Plan::new(image);
    // First: what such a bit promises of the image may not be true of one that is written to.
    let unknown = header.fields.autoclear_features & !KNOWN_AUTOCLEAR_FEATURES;
    clear_bits(
        &mut plan,
        header,
        FeatureGroup::Autoclear,
        unknown,
        "autoclear bits that are not known here",
    )?;
    for range in &wrong.ranges {
        let new = range.cleared(tables);
        let table = if range.level == Level::L1 { "the L1 table" } else { "an L2 table" };
        let entries =
            if range.count == 1 { "an entry".to_owned() } else { format!("{} entries", range.count) };
        let why = format!("clear {entries} of {table}: nothing in the file is there");
        plan.set(image, range.start, &new, why)?;
    }
    if left == 0 && header.need_check() {
        // Last: a repair that ends half-way leaves an image that says so.
        let group = FeatureGroup::Incompatible;
        clear_bits(&mut plan, header, group, FEATURE_NEED_CHECK, "the need-check bit")?;
    }
    Ok(Repair { plan, cleared: wrong.ranges.iter().map(|range| range.count).sum(), left })
}

/// Clears `bits` of a feature group, which are called `what`.
fn clear_bits(
    plan: &mut Plan,
    header: &Header<'_>,
    group: FeatureGroup,
    bits: u64,
    what: &str,
) -> Result<()> {
    let old = header.features(group);
    let field = known_fields().find(|field| field.name == feature_field(group));
    match field.filter(|_| old & bits != 0) {
        Some(field) => {
            let new = field.encode(old & !bits)?;
            plan.set(header.image(), field.offset, &new, format!("clear {what}"))
        }
        None => Ok(()),
    }
}

fn refuse_unsound(header: &Header<'_>) -> Result<()> {
    let report = check::header(header);
    let in_the_way =
        |finding: &&Finding| finding.severity == Severity::Error && !HARMLESS.contains(&finding.code);
    let error = report.findings().iter().find(in_the_way);
    let (place, at, expected, found) = match error {
        Some(finding) => (&*finding.place, finding.offset, finding.expected.clone(), finding.found.clone()),
        None if header.fields.features & !KNOWN_FEATURES != 0 => {
            let found = format!("{:#x}", header.fields.features);
            ("features", HostOffset(16), "only bits that are known here".to_owned(), found)
        }
        None => return Ok(()),
    };
    let what = format!("repair, before the header is: {place}");
    Err(Error::refused(Reason::UnsoundHeader, what, Some(at), expected, found))
}

/// Entries to clear, in ranges.
#[derive(Default)]
struct Wrong {
    ranges: Vec<Range>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    L1,
    L2,
}

/// Bytes of a table in which entries are wrong; not all of them need be.
struct Range {
    level: Level,
    start: u64,
    end: u64,
    /// Wrong entries.
    count: u64,
}

impl Wrong {
    fn add(&mut self, level: Level, start: u64, count: u64) {
        let end = start + count * 8;
        // The tables' ranges come in turns: what is near the last of its own level.
        let near = self
            .ranges
            .iter_mut()
            .rev()
            .take(2)
            .find(|range| range.level == level && start >= range.end && start - range.end <= NEAR);
        match near {
            Some(range) => {
                range.end = end;
                range.count += count;
            }
            None => self.ranges.push(Range { level, start, end, count }),
        }
    }
}

impl Range {
    /// Its bytes, the wrong entries cleared.
    fn cleared(&self, tables: &Tables<'_>) -> Vec<u8> {
        let geometry = tables.geometry();
        let entries = tables.view().clipped(self.start, self.end - self.start).as_chunks::<8>().0;
        let mend = |entry: &[u8; 8]| {
            let wrong = self.level.is_wrong(geometry, u64::from_le_bytes(*entry));
            if wrong { [0; 8] } else { *entry }
        };
        entries.iter().flat_map(mend).collect()
    }
}

impl Level {
    fn is_wrong(self, geometry: Geometry, value: u64) -> bool {
        match self {
            Self::L1 => value != 0 && geometry.table_offset(value).is_err(),
            Self::L2 => matches!(geometry.entry(value), Entry::Invalid(_)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qed::header::{HeaderFields, MAGIC};

    /// Clusters of 4 KiB, tables of one: header, L1, an L2, two clusters of data; not closed cleanly.
    fn image(l1: &[u64], l2: &[u64]) -> Vec<u8> {
        let fields = HeaderFields {
            magic: MAGIC,
            cluster_size: 4096,
            table_size: 1,
            header_size: 1,
            features: FEATURE_NEED_CHECK,
            l1_table_offset: 4096,
            image_size: 1 << 20,
            ..HeaderFields::default()
        };
        let mut bytes = fields.to_bytes();
        bytes.resize(5 * 4096, 0);
        for (at, entries) in [(4096, l1), (8192, l2)] {
            for (index, entry) in entries.iter().enumerate() {
                bytes[at + index * 8..][..8].copy_from_slice(&entry.to_le_bytes());
            }
        }
        bytes
    }

    #[test]
    fn what_names_nothing_is_cleared_and_nothing_else_is() {
        let before = image(&[0x2000, 0x9000, 0, 3], &[0x3000, 0x3001, 1, 0x9000, 0x4000]);
        let repair = repair(&Tables::new(&before).unwrap()).unwrap();
        assert_eq!((repair.cleared, repair.left), (4, 0));
        let mut after = before.clone();
        repair.plan.apply_to(&mut after);
        let mut expected = image(&[0x2000], &[0x3000, 0, 1, 0, 0x4000]);
        expected[16] = 0;
        assert_eq!(after, expected);
        assert_eq!(check::check(&after).unwrap().verdict(), crate::check::Verdict::Clean);
    }

    #[test]
    fn with_a_corruption_left_the_image_still_needs_a_check() {
        let before = image(&[0x2000], &[0x3000, 0x3000, 5]);
        let repair = repair(&Tables::new(&before).unwrap()).unwrap();
        assert_eq!((repair.cleared, repair.left, repair.plan.writes().len()), (1, 1, 1));
    }

    #[test]
    fn autoclear_bits_go_first_whatever_is_left() {
        for l2 in [&[0x3000][..], &[0x3000, 0x3000], &[5]] {
            let mut before = image(&[0x2000], l2);
            before[16] = 0; // closed cleanly
            before[24..32].fill(0xff); // what can be ignored
            before[32..40].fill(0x81);
            let repair = repair(&Tables::new(&before).unwrap()).unwrap();
            let first = repair.plan.writes().first().unwrap();
            assert_eq!((first.offset.0, first.new.as_slice()), (32, &[0; 8][..]));
            assert_eq!(first.why, "clear autoclear bits that are not known here");
            let others = repair.plan.writes().len() as u64 - 1;
            assert_eq!(others, repair.cleared);
            assert_eq!(repair.cleared + repair.left, l2.len() as u64 - u64::from(l2[0] == 0x3000));
        }
    }

    #[test]
    fn nothing_is_repaired_under_a_wrong_header() {
        let mut bytes = image(&[0x2000], &[0x3000]);
        bytes[12] = 3; // the header's clusters take in all of the tables
        let error = repair(&Tables::new(&bytes).unwrap()).unwrap_err();
        assert_eq!(error.reason(), Some(Reason::UnsoundHeader));
    }
}
