//! What is wrong with an image: its header by [`header`], all of it by [`check`].

mod agreement;
mod bitmaps;
mod copied;
#[cfg(feature = "decompress")]
mod deep;
mod emptied;
mod fault;
mod header;
mod l2;
mod l2_tables;
mod lost;
mod misplaced;
mod named;
mod overlaps;
mod owners;
mod problems;
mod refcounts;
mod regions;
mod snapshots;
mod stale_bitmaps;
mod survey;
mod walk;
mod words;

pub use header::header;

use crate::check::{Check, Findings};
use crate::error::{Error, Result};
use crate::qcow2::geometry::KNOWN_INCOMPATIBLE_FEATURES;
use crate::qcow2::header::Header;
use crate::qcow2::tables::Tables;
use crate::report::{Report, Severity};
use crate::view::View;
pub(in crate::qcow2) use l2_tables::Referrers;
pub(in crate::qcow2) use lost::{Entries, LostTable, LostTables};
pub(in crate::qcow2) use refcounts::{is_readable, stored_refcount};
pub(in crate::qcow2) use snapshots::SnapshotEntry;
pub(in crate::qcow2) use survey::{Survey, snapshot_entries, survey};
use walk::Walk;

/// What a header says that makes the image unsound.
const FATAL: [&str; 7] = [
    "dirty",
    "corrupt",
    "compression-type",
    "raw-external-bit",
    "crypto-header-missing",
    "crypto-header-unexpected",
    "extended-l2-cluster",
];

/// Checks an image, whatever is wrong with it, to the end.
///
/// `corruptions`, `leaks` and the counts are those of `qemu-img check`, also where that goes on after a fault. What QEMU
/// does not look for, or does not open the image for, is counted apart, as `extra_corruptions`. Nothing but the image
/// itself is read: no file that it names is opened.
///
/// ```
/// use vdisk_format::{check::Verdict, generate::Qcow2, qcow2};
/// let mut image = Qcow2::new(1 << 20).data(0, b"data").build()?;
/// assert_eq!(qcow2::check::check(&image)?.verdict(), Verdict::Clean);
/// let table = image.len() - 2 * 65536; // the L2 table
/// image[table..table + 8].copy_from_slice(&0x8000_0000_0003_0000u64.to_be_bytes()); // names itself
/// let check = qcow2::check::check(&image)?;
/// assert_eq!(check.verdict(), Verdict::Corrupt);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Truncated`] where there is no header.
pub fn check<'a>(image: impl Into<View<'a>>) -> Result<Check> {
    check_with(image, Options::default())
}

/// What a check is to do beyond what it always does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Options {
    /// How many threads decode all compressed clusters; 0: nobody does.
    #[cfg(feature = "decompress")]
    pub decode: usize,
}

/// As [`check`], and more.
///
/// # Errors
/// As for [`check`].
pub fn check_with<'a>(image: impl Into<View<'a>>, options: Options) -> Result<Check> {
    let view = image.into();
    let header = Header::parse(view.bytes())?;
    let mut report = self::header(&header);
    // Of a header alone they are worth a word; of an image, QEMU says with them that it is not to be trusted, or does not
    // open it.
    report.raise(&FATAL, Severity::Error);
    let mut check = Check {
        extra_corruptions: errors(&report),
        unsupported: header.v3.incompatible_features & !KNOWN_INCOMPATIBLE_FEATURES != 0,
        ..Check::default()
    };
    let mut findings = Findings::new(report);
    match Tables::new(view) {
        Ok(tables) => tables_of(&tables, options, &mut check, &mut findings),
        Err(Error::Refused { .. }) => {} // the header's findings say why
        Err(error) => return Err(error),
    }
    (check.report, check.omitted_findings) = findings.finish();
    Ok(check)
}

fn errors(report: &Report) -> u64 {
    report.findings().iter().filter(|finding| finding.severity == Severity::Error).count() as u64
}

/// What is wrong with fields of the header, of the snapshot table and of the bitmap directory, each for itself: nobody looks
/// where they lead.
pub(in crate::qcow2) fn fields(tables: &Tables<'_>) -> Report {
    let mut report = header(tables.header());
    report.raise(&FATAL, Severity::Error);
    let (mut check, mut findings) = (Check::default(), Findings::new(report));
    let mut walk = Walk::new(tables, &mut check, &mut findings);
    walk.agreement();
    walk.snapshot_fields();
    walk.tell();
    findings.finish().0
}

/// Counts who refers to what, compares that with the refcounts, and says what follows.
fn tables_of(tables: &Tables<'_>, options: Options, check: &mut Check, findings: &mut Findings) {
    let geometry = tables.geometry();
    // QEMU leaves out what is behind the last whole sector of a disk.
    check.total_clusters = (geometry.virtual_size() / 512 * 512).div_ceil(geometry.cluster_size());
    let mut walk = Walk::new(tables, check, findings);
    walk.references();
    let compared = walk.compare();
    walk.copied_flags(&compared);
    walk.agreement();
    walk.misplaced();
    #[cfg(feature = "decompress")]
    if options.decode > 0 {
        walk.decode(options.decode);
    }
    #[cfg(not(feature = "decompress"))]
    let Options {} = options;
    walk.overlaps();
    walk.lost_mappings();
    walk.tell();
    named::names(tables, findings.report(), check);
}
