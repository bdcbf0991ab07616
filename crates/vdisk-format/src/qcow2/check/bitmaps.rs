//! What is wrong with the bitmaps extension and the bitmap directory.

use std::collections::BTreeSet;

use super::header::{MAX_DISTINCT, truncated};
use crate::bytes::up_to_zero;
use crate::limits::{BITMAP_GRANULARITY_BITS, MAX_BITMAP_BYTES, MAX_BITMAP_NAME, MAX_BITMAPS};
use crate::qcow2::bitmap::{AUTOCLEAR_BITMAPS, Bitmap, BitmapEntryHeader, BitmapsExtension};
use crate::qcow2::header::Header;
use crate::report::{Report, Severity};

/// Looks at the extension's fields, at `data_at`, and at the directory.
pub(super) fn directory(
    header: &Header<'_>,
    extension: &BitmapsExtension,
    data_at: u64,
    report: &mut Report,
) {
    if extension.nb_bitmaps == 0 || extension.nb_bitmaps > MAX_BITMAPS {
        let found = extension.nb_bitmaps.to_string();
        report.add(Severity::Error, "nb-bitmaps", "nb_bitmaps", data_at, "1 to 65535", found);
    }
    if extension.reserved32 != 0 {
        report.add(
            Severity::Error,
            "reserved",
            "bitmaps extension, reserved field",
            data_at + 4,
            "0",
            extension.reserved32.to_string(),
        );
    }
    let start = extension.bitmap_directory_offset;
    let mut end = start;
    let mut names = BTreeSet::new();
    // QEMU looks at the bitmaps only where the header says that they are as the disk is.
    let are_loaded = header.v3.autoclear_features & AUTOCLEAR_BITMAPS != 0;
    for bitmap in extension.directory(header.image()) {
        let bitmap = match bitmap {
            Ok(bitmap) => bitmap,
            Err(error) => return truncated(report, "bitmap-directory-truncated", &error),
        };
        end = bitmap.next.0;
        bitmap_findings(header, &bitmap, are_loaded, report);
        // Longer ones are wrong in any case.
        let is_name = bitmap.fixed.name_size <= MAX_BITMAP_NAME;
        if is_name && !names.insert(up_to_zero(bitmap.name)) {
            let at = bitmap.offset.0 + BitmapEntryHeader::SIZE + u64::from(bitmap.fixed.extra_data_size);
            let expected = "a name that no other bitmap has";
            let name = String::from_utf8_lossy(bitmap.name);
            let severity = if are_loaded { Severity::Error } else { Severity::Warning };
            report.add(severity, "bitmap-name", "name of a bitmap", at, expected, format!("'{name}'"));
        }
        if report.findings().len() >= MAX_DISTINCT {
            return;
        }
    }
    if end - start != extension.bitmap_directory_size {
        report.add(
            Severity::Error,
            "bitmap-directory-size",
            "bitmap_directory_size",
            data_at + 8,
            format!("{:#x}, the size of its {} entries", end - start, extension.nb_bitmaps),
            format!("{:#x}", extension.bitmap_directory_size),
        );
    }
}

fn bitmap_findings(header: &Header<'_>, bitmap: &Bitmap<'_>, are_loaded: bool, report: &mut Report) {
    let fixed = &bitmap.fixed;
    let offset = bitmap.offset.0;
    let mut wrong = |field: &str, expected: &str, found: String| {
        let field = fixed.fields().map(|(known, _)| known).find(|known| known.name == field);
        debug_assert!(field.is_some(), "a field of the entry");
        let at = offset.saturating_add(field.map_or(0, |field| field.offset));
        let (code, place) = ("bitmap-directory-entry", "bitmap directory entry");
        report.add(Severity::Error, code, place, at, expected, found);
    };
    if fixed.type_ != 1 {
        wrong("type", "type 1 (dirty tracking bitmap)", format!("type {}", fixed.type_));
    }
    if !BITMAP_GRANULARITY_BITS.contains(&fixed.granularity_bits) {
        wrong(
            "granularity_bits",
            "granularity_bits 9 to 31, which QEMU takes",
            fixed.granularity_bits.to_string(),
        );
    }
    if fixed.name_size == 0 {
        wrong("name_size", "a name", "name_size 0".to_owned());
    }
    if fixed.name_size > MAX_BITMAP_NAME {
        wrong("name_size", "a name of 1023 bytes, which QEMU takes", fixed.name_size.to_string());
    }
    if fixed.flags >> 3 != 0 {
        wrong("flags", "flags with bits 3 to 31 clear", format!("{:#x}", fixed.flags));
    }
    if header.cluster_size().is_some_and(|cluster| !fixed.bitmap_table_offset.is_multiple_of(cluster)) {
        let found = format!("bitmap_table_offset {:#x}", fixed.bitmap_table_offset);
        wrong("bitmap_table_offset", "a bitmap table at a cluster boundary", found);
    }
    if fixed.extra_data_size != 0 {
        wrong(
            "extra_data_size",
            "no extra data, for QEMU takes none",
            format!("extra_data_size {}", fixed.extra_data_size),
        );
    }
    // QEMU looks at the sizes of those that it loads.
    let is_loaded = fixed.flags & 1 == 0 && are_loaded;
    let needed = header.cluster_size().and_then(|size| fixed.table_entries_needed(header.v2.size, size));
    let entries = u64::from(fixed.bitmap_table_size);
    let is_wrong = needed.is_some_and(|needed| is_loaded && entries != needed);
    if header.cluster_size().is_some_and(|cluster| entries.saturating_mul(cluster) > MAX_BITMAP_BYTES) {
        wrong(
            "bitmap_table_size",
            "a bitmap of 512 MiB at most, which QEMU takes",
            format!("{entries} clusters"),
        );
    }
    if is_wrong || entries == 0 || fixed.bitmap_table_offset == 0 {
        let found = format!("{entries} entries at {:#x}", fixed.bitmap_table_offset);
        let field = if fixed.bitmap_table_offset == 0 { "bitmap_table_offset" } else { "bitmap_table_size" };
        wrong(field, &format!("a bitmap table of {} entries", needed.unwrap_or(1)), found);
    }
    if let Err(error) = bitmap.table() {
        truncated(report, "bitmap-table", &error);
    }
}
