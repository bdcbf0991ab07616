//! What is wrong with an image: its header's fields by [`header`], all of it by [`check`].

mod header;
mod owners;
mod problems;

pub use header::header;

use crate::check::{Check, Findings};
use crate::error::{Error, Result};
use crate::qed::geometry::Entry;
use crate::qed::header::{Header, KNOWN_FEATURES};
use crate::qed::tables::Tables;
use crate::qed::walk::{Event, claims};
use crate::report::Severity;
use crate::view::View;
use problems::{Kind, Problem, Problems};

/// Checks an image, whatever is wrong with it, to the end.
///
/// The counts are those of `qemu-img check`, also where its advice stops: fragmentation is counted within each L2
/// table, a table that overlaps another is not looked into. What QEMU does not look for, or does not open the image
/// for, is counted apart, as `extra_corruptions`.
///
/// ```
/// use vdisk_format::{check::Verdict, generate::Qed, qed};
/// let mut image = Qed::new(1 << 20).data(0, b"data").build()?;
/// assert_eq!(qed::check::check(&image)?.verdict(), Verdict::Clean);
/// image.truncate(image.len() - 65536); // the data's cluster is gone
/// let check = qed::check::check(&image)?;
/// assert_eq!((check.verdict(), check.corruptions), (Verdict::Corrupt, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Truncated`] where there is no header.
pub fn check<'a>(image: impl Into<View<'a>>) -> Result<Check> {
    let view = image.into();
    let header = Header::parse(view.bytes())?;
    let report = self::header(&header);
    let mut check = Check {
        extra_corruptions: count(
            report.findings().iter().filter(|finding| finding.severity == Severity::Error),
        ),
        unsupported: header.fields.features & !KNOWN_FEATURES != 0,
        ..Check::default()
    };
    let mut findings = Findings::new(report);
    match Tables::new(view) {
        Ok(tables) => self::tables(&tables, &mut check, &mut findings),
        Err(Error::Refused(_)) => {} // the header's findings say why
        Err(error) => return Err(error),
    }
    (check.report, check.omitted_findings) = findings.finish();
    Ok(check)
}

fn count<T>(iterator: impl Iterator<Item = T>) -> u64 {
    iterator.count() as u64
}

fn tables(tables: &Tables<'_>, check: &mut Check, findings: &mut Findings) {
    let geometry = tables.geometry();
    check.total_clusters = geometry.guest_clusters();
    let mut problems = Problems::new(geometry);
    let mut last = None;
    let used = claims(tables, |event| match event {
        Event::NoTable { l1_index, invalid } => {
            check.corruptions += 1;
            problems.l1(l1_index, Kind::Invalid(invalid), findings);
        }
        Event::Overlap { l1_index, table, clusters, first } => {
            check.corruptions += clusters;
            problems.l1(l1_index, Kind::Overlap { table, first }, findings);
        }
        Event::Table { l1_index, table } => {
            last = None;
            problems.table(l1_index, table);
        }
        Event::Run(run, entry) => {
            check.allocated_clusters += run.count;
            let end = run.value.wrapping_add(run.count << geometry.cluster_bits());
            check.fragmented_clusters += u64::from(last.is_some_and(|last| last != run.value));
            last = Some(end);
            if let Entry::Invalid(invalid) = entry {
                check.corruptions += run.count;
                problems.l2(run.index, run.count, Kind::Invalid(invalid), findings);
            }
        }
        Event::Scattered(scattered) => {
            check.allocated_clusters += scattered.count;
            check.fragmented_clusters += u64::from(last.is_some_and(|last| last != scattered.first));
            check.fragmented_clusters += scattered.breaks;
            last = Some(scattered.last.wrapping_add(geometry.cluster_size()));
        }
        Event::Again { from, clusters } => {
            let count = clusters.end - clusters.start;
            check.corruptions += count;
            problems.l2(from, count, Kind::Again { first: clusters.start }, findings);
        }
    });
    problems.tell(tables, findings);
    let header_clusters = geometry.header_end().0 >> geometry.cluster_bits();
    check.leaks = used.gaps(header_clusters..geometry.clusters(), |clusters| {
        Problem::leak(clusters, geometry, findings);
    });
}
