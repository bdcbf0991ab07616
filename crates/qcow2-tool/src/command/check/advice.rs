//! What to do next with an image that is corrupt: it follows from what was found.

use vdisk_format::check::Check;
use vdisk_format::qcow2::Header;
use vdisk_format::qcow2::extension::Magic;
use vdisk_format::report::{Finding, Severity};

/// Faults of the header, or of what it says of sizes and places, for which QEMU does not open an image.
const NOT_OPENED: [&str; 31] = [
    "backing-file-place",
    "backing-file-size",
    "backing-format-size",
    "bitmap-directory-entry",
    "bitmap-directory-size",
    "bitmap-directory-truncated",
    "bitmap-name",
    "bitmap-table",
    "bitmap-table-entry",
    "cluster-bits",
    "compression-type",
    "crypt-method",
    "crypto-header-missing",
    "crypto-header-outside",
    "crypto-header-unexpected",
    "extended-l2-cluster",
    "extension-overrun",
    "extension-truncated",
    "header-length",
    "l1-size",
    "luks-header",
    "magic",
    "nb-bitmaps",
    "nb-snapshots",
    "raw-external-bit",
    "refcount-order",
    "refcount-table-size",
    "snapshot-table",
    "snapshots-with-data-file",
    "unaligned",
    "version",
];

const MEND_THE_HEADER: &str =
    "qemu-img may not open it until the header is mended: on a copy, with `set-header` or `del-header-ext`";
const REPAIR: &str =
    "work on a copy; `qemu-img check -r all` repairs refcounts, and may lose data where tables are damaged";
/// QEMU 10.0 opens an image for a repair without its snapshots, and where it has bitmaps, writes a header that has none.
const KEEP_THE_SNAPSHOTS: &str = "\
    work on a copy, and remove its bitmaps (`qemu-img bitmap --remove`): `qemu-img check -r all` repairs refcounts, \
    and loses all snapshots of an image that has bitmaps";
const SAVE: &str = "\
    `qemu-img check -r all` does not mend this: save what can be read, with `qemu-img convert` into a new image";
const SAVE_FIRST: &str = "\
    `qemu-img check -r all` mends the refcounts, and leaves clusters with two owners: save what can be read first, \
    with `qemu-img convert` into a new image";
/// For a QED image of the chain.
pub(super) const QED: &str = "`qed FILE repair` shows what can be repaired";

/// For a qcow2 image, with or without a header that can be read. Where tables are lost, another advice comes before it.
pub(super) fn qcow2(check: &Check, header: Option<&Header<'_>>) -> &'static str {
    let has = |is: fn(&Finding) -> bool| check.report.findings().iter().any(is);
    let is_dirty = has(|finding| matches!(finding.code, "dirty" | "corrupt"));
    let counts_wrong = check.corruptions > 0 || check.check_errors > 0;
    if has(|finding| finding.severity == Severity::Error && NOT_OPENED.contains(&finding.code)) {
        MEND_THE_HEADER
    } else if !counts_wrong && !is_dirty {
        SAVE
    } else if has(|finding| finding.code == "overlap") {
        SAVE_FIRST
    } else if header.is_some_and(has_snapshots_and_bitmaps) {
        KEEP_THE_SNAPSHOTS
    } else {
        REPAIR
    }
}

fn has_snapshots_and_bitmaps(header: &Header<'_>) -> bool {
    let mut extensions = header.extensions().map_while(Result::ok);
    header.v2.nb_snapshots > 0 && extensions.any(|extension| extension.magic == Magic::BITMAPS)
}
