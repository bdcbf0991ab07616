//! What is wrong with the header, and with the backing file's name.

use crate::feature::FeatureGroup;
use crate::limits::MAX_QED_BACKING_FILE_NAME;
use crate::qed::geometry::{CLUSTER_SIZES, Geometry, TABLE_SIZES};
use crate::qed::header::{
    FEATURE_BACKING_FILE, FEATURE_BACKING_FORMAT_NO_PROBE, Header, HeaderFields, MAGIC, feature_bit_name,
    feature_field, known_fields,
};
use crate::report::{Report, Severity};

/// Findings about the header's fields and the backing file's name. One of [`Severity::Error`] makes the image unsound.
///
/// ```
/// use vdisk_format::qed::{Header, check};
/// let image = vec![0; 64];
/// let report = check::header(&Header::parse(&image)?);
/// assert!(report.has("cluster-size"));
/// assert_eq!(report.findings()[0].to_string(), "magic at offset 0x0: expected 0x444551, found 0x0 [magic]");
/// # Ok::<(), vdisk_format::Error>(())
/// ```
#[must_use]
pub fn header(header: &Header<'_>) -> Report {
    let mut report = Report::default();
    sizes(header, &mut report);
    if let Ok(geometry) = Geometry::new(header) {
        places(header, geometry, &mut report);
    }
    feature_bits(header, &mut report);
    if header.fields.features & FEATURE_BACKING_FILE != 0 {
        backing_file(header, &mut report);
    }
    report
}

fn at(name: &str) -> u64 {
    known_fields().find(|field| field.name == name).map_or(0, |field| field.offset)
}

fn add(
    report: &mut Report,
    severity: Severity,
    code: &'static str,
    name: &str,
    expected: impl Into<String>,
    found: impl Into<String>,
) {
    report.add(severity, code, name, at(name), expected, found);
}

/// Fields that are wrong whatever the others say.
fn sizes(header: &Header<'_>, report: &mut Report) {
    let HeaderFields { magic, cluster_size, table_size, header_size, image_size, .. } = header.fields;
    let mut wrong = |code, name: &str, expected: String, found: String| {
        add(report, Severity::Error, code, name, expected, found);
    };
    if magic != MAGIC {
        wrong("magic", "magic", format!("{MAGIC:#x}"), format!("{magic:#x}"));
    }
    for (code, name, value, allowed) in [
        ("cluster-size", "cluster_size", cluster_size, CLUSTER_SIZES),
        ("table-size", "table_size", table_size, TABLE_SIZES),
    ] {
        if !value.is_power_of_two() || !allowed.contains(&value) {
            let expected = format!("a power of two from {} to {}", allowed.start(), allowed.end());
            wrong(code, name, expected, value.to_string());
        }
    }
    if header_size == 0 {
        wrong("header-size", "header_size", "at least 1 cluster".to_owned(), "0".to_owned());
    }
    if image_size % 512 != 0 {
        wrong("image-size", "image_size", "a multiple of 512".to_owned(), image_size.to_string());
    }
}

/// Fields that contradict the geometry.
fn places(header: &Header<'_>, geometry: Geometry, report: &mut Report) {
    let HeaderFields { header_size, image_size, l1_table_offset, .. } = header.fields;
    if u128::from(image_size) > geometry.max_image_size() {
        let expected = format!("at most {}, which the tables address", geometry.max_image_size());
        add(report, Severity::Error, "image-size", "image_size", expected, image_size.to_string());
    }
    // QEMU counts the header's bytes in 32 bits, and does not open what has more.
    if geometry.header_end().0 > u64::from(u32::MAX) {
        let expected = format!("at most {} clusters, 4 GiB", u64::from(u32::MAX) / geometry.cluster_size());
        add(report, Severity::Error, "header-too-large", "header_size", expected, header_size.to_string());
    }
    if let Err(invalid) = geometry.table_offset(l1_table_offset) {
        let (start, end) = (geometry.header_end(), geometry.file_end());
        let expected = format!("{} bytes of table from {start} to {end}", geometry.table_bytes());
        let found = format!("{l1_table_offset:#x}, {}", invalid.words());
        add(report, Severity::Error, "l1-table-offset", "l1_table_offset", expected, found);
    }
}

fn feature_bits(header: &Header<'_>, report: &mut Report) {
    for group in FeatureGroup::ALL {
        let bits = header.features(group);
        let unknown = (0..64)
            .filter(|&bit| bits >> bit & 1 != 0 && feature_bit_name(group, bit).is_none())
            .map(|bit| format!("bit {bit}"))
            .collect::<Vec<_>>();
        if !unknown.is_empty() {
            let expected = "only bits that the specification defines";
            add(
                report,
                Severity::Note,
                "unknown-feature",
                feature_field(group),
                expected,
                unknown.join(", "),
            );
        }
    }
    if header.need_check() {
        add(report, Severity::Note, "need-check", "features", "bit 1 clear", "bit 1 set: not closed cleanly");
    }
    let features = header.fields.features;
    if features & FEATURE_BACKING_FORMAT_NO_PROBE != 0 && features & FEATURE_BACKING_FILE == 0 {
        let (expected, found) = ("bit 2 only with bit 0, a backing file", "bit 2 alone");
        add(report, Severity::Warning, "no-backing-file", "features", expected, found);
    }
}

fn backing_file(header: &Header<'_>, report: &mut Report) {
    let HeaderFields { backing_filename_offset: offset, backing_filename_size: size, .. } = header.fields;
    let mut wrong = |severity, code, name: &str, expected: String, found: String| {
        add(report, severity, code, name, expected, found);
    };
    let (start, end) = (u64::from(offset), u64::from(offset) + u64::from(size));
    let name_at = "backing_filename_offset";
    if start < HeaderFields::SIZE && size > 0 {
        let expected = format!("at least {}, behind the header's fields", HeaderFields::SIZE);
        wrong(Severity::Error, "backing-filename-over-header", name_at, expected, offset.to_string());
    }
    if let Ok(geometry) = Geometry::new(header)
        && end > geometry.header_end().0
    {
        let expected = format!("a name inside the header's clusters, before {}", geometry.header_end());
        wrong(
            Severity::Error,
            "backing-filename-outside-header",
            name_at,
            expected,
            format!("one up to {end:#x}"),
        );
    } else if end > header.image().len() as u64 {
        let expected = format!("a name inside the file, of {:#x} bytes", header.image().len());
        wrong(
            Severity::Error,
            "backing-filename-outside-file",
            name_at,
            expected,
            format!("one up to {end:#x}"),
        );
    }
    let name_size = "backing_filename_size";
    if size > MAX_QED_BACKING_FILE_NAME {
        let expected = format!("at most {MAX_QED_BACKING_FILE_NAME}");
        wrong(Severity::Error, "backing-filename-too-long", name_size, expected, size.to_string());
    } else if size == 0 {
        wrong(Severity::Warning, "backing-filename-empty", name_size, "a name".to_owned(), "none".to_owned());
    }
}
