//! What is wrong with a header, its extensions and what they point to. Each rule names its place in the specification
//! by the words it uses.

use std::collections::BTreeMap;

use super::bitmaps;
use crate::error::Error;
use crate::feature::FeatureGroup;
use crate::limits::{CLUSTER_BITS, MAX_BACKING_FILE_NAME};
use crate::qcow2::bitmap::BitmapsExtension;
use crate::qcow2::extension::{AreaEnd, Content, Extension, ExtensionHeader, FeatureNames, Magic};
use crate::qcow2::header::{Header, MAGIC, feature_bit_name, feature_field, known_fields};
use crate::report::{Report, Severity};

/// Longest name of a backing file's format that QEMU takes.
const MAX_BACKING_FORMAT: u32 = 15;
/// Most entries of one kind that are told apart: beyond, a hostile header would only buy itself memory.
pub(super) const MAX_DISTINCT: usize = 4096;

/// Findings about the header area: the header, its extensions, the bitmap directory and tables, the backing file name.
///
/// ```
/// use vdisk_format::qcow2::{Header, check};
/// let image = vec![0; 512];
/// let report = check::header(&Header::parse(&image)?);
/// assert!(report.has("magic"));
/// assert_eq!(
///     report.findings()[0].to_string(),
///     "magic at offset 0x0: expected 0x514649fb, found 0x0 [magic]",
/// );
/// # Ok::<(), vdisk_format::Error>(())
/// ```
#[must_use]
pub fn header(header: &Header<'_>) -> Report {
    let mut report = Report::default();
    fields(header, &mut report);
    feature_bits(header, &mut report);
    let present = extensions(header, &mut report);
    agreement(header, &present, &mut report);
    backing_file(header, &mut report);
    report
}

fn at(name: &str) -> u64 {
    known_fields().find(|field| field.name == name).map_or(0, |field| field.offset)
}

fn fields(header: &Header<'_>, report: &mut Report) {
    let (v2, v3) = (&header.v2, &header.v3);
    let mut wrong = |code, name: &'static str, expected: &str, found: String| {
        report.add(Severity::Error, code, name, at(name), expected, found);
    };
    if v2.magic != MAGIC {
        wrong("magic", "magic", &format!("{MAGIC:#x}"), format!("{:#x}", v2.magic));
    }
    if !matches!(v2.version, 2 | 3) {
        wrong("version", "version", "2 or 3", v2.version.to_string());
    }
    if !CLUSTER_BITS.contains(&v2.cluster_bits) {
        wrong("cluster-bits", "cluster_bits", "9 to 21", v2.cluster_bits.to_string());
    }
    if v2.crypt_method > 2 {
        wrong("crypt-method", "crypt_method", "0, 1 or 2", v2.crypt_method.to_string());
    }
    if v3.refcount_order > 6 {
        wrong("refcount-order", "refcount_order", "0 to 6", v3.refcount_order.to_string());
    }
    if header.has_v3_fields() && (v3.header_length < 104 || v3.header_length % 8 != 0) {
        let expected = "a multiple of 8, at least 104";
        wrong("header-length", "header_length", expected, v3.header_length.to_string());
    }
    let Some(cluster) = header.cluster_size() else { return };
    if u64::from(v3.header_length) > cluster {
        let expected = format!("at most the cluster size, {cluster}");
        wrong("header-length", "header_length", &expected, v3.header_length.to_string());
    }
    for (name, offset) in [
        ("l1_table_offset", v2.l1_table_offset),
        ("refcount_table_offset", v2.refcount_table_offset),
        ("snapshots_offset", v2.snapshots_offset),
    ] {
        if offset % cluster != 0 {
            wrong("unaligned", name, &format!("a multiple of {cluster:#x}"), format!("{offset:#x}"));
        }
    }
    // Not even without snapshots. What is behind the end of the file is noticed where it is read.
    if v2.nb_snapshots == 0 && v2.snapshots_offset > i64::MAX as u64 {
        let expected = "an offset of 63 bits";
        wrong("snapshots-offset", "snapshots_offset", expected, format!("{:#x}", v2.snapshots_offset));
    }
}

fn feature_bits(header: &Header<'_>, report: &mut Report) {
    for group in FeatureGroup::ALL {
        let unknown = (0..64)
            .filter(|&bit| header.features(group) >> bit & 1 != 0 && feature_bit_name(group, bit).is_none())
            .map(|bit| format!("bit {bit}"))
            .collect::<Vec<_>>();
        if !unknown.is_empty() {
            report.add(
                Severity::Note,
                "unknown-feature",
                feature_field(group),
                at(feature_field(group)),
                "only bits that the specification defines",
                unknown.join(", "),
            );
        }
    }
    let incompatible = header.v3.incompatible_features;
    for (bit, code) in [(0, "dirty"), (1, "corrupt")] {
        if incompatible >> bit & 1 != 0 {
            let name = "incompatible_features";
            report.add(
                Severity::Note,
                code,
                name,
                at(name),
                format!("bit {bit} clear"),
                format!("bit {bit} set"),
            );
        }
    }
    if incompatible >> 4 & 1 != 0 && header.v2.cluster_bits < 14 {
        report.add(
            Severity::Warning,
            "extended-l2-cluster",
            "cluster_bits",
            at("cluster_bits"),
            "at least 14 with extended L2 entries",
            header.v2.cluster_bits.to_string(),
        );
    }
    let compression_type = header.additional().compression_type().unwrap_or(0);
    if (incompatible >> 3 & 1 != 0) != (compression_type != 0) {
        report.add(
            Severity::Warning,
            "compression-type",
            "compression_type",
            at("compression_type"),
            "not 0 exactly where incompatible feature bit 3 is set",
            format!("{compression_type}, bit 3 {}", if compression_type == 0 { "set" } else { "clear" }),
        );
    } else if compression_type > 1 {
        let found = compression_type.to_string();
        report.add(
            Severity::Error,
            "compression-type",
            "compression_type",
            at("compression_type"),
            "0 or 1",
            found,
        );
    }
    let padding = header.additional().unknown();
    if let Some(first) = padding.iter().position(|&byte| byte != 0) {
        report.add(
            Severity::Note,
            "unknown-additional-field",
            "additional header fields",
            105 + first as u64,
            "zeros where no field is known",
            format!("{:#04x}", padding.get(first).copied().unwrap_or(0)),
        );
    }
}

fn extensions(header: &Header<'_>, report: &mut Report) -> BTreeMap<Magic, (u64, u64)> {
    let mut seen: BTreeMap<Magic, (u64, u64)> = BTreeMap::new();
    let mut walk = header.extensions();
    let bound = walk.bound().0;
    for extension in walk.by_ref() {
        let extension = match extension {
            Ok(extension) => extension,
            Err(error) => {
                truncated(report, "extension-truncated", &error);
                continue;
            }
        };
        let offset = extension.offset.0;
        if seen.contains_key(&extension.magic) || seen.len() < MAX_DISTINCT {
            seen.entry(extension.magic).or_insert((offset, 0)).1 += 1;
        }
        if seen.get(&extension.magic).is_none_or(|&(_, count)| count == 1)
            && report.findings().len() < MAX_DISTINCT
        {
            one_extension(header, &extension, bound, report);
        }
    }
    match walk.end() {
        AreaEnd::TooMany(offset) => report.add(
            Severity::Error,
            "too-many-extensions",
            "header extensions",
            offset.0,
            "an end marker",
            "yet another extension",
        ),
        // QEMU looks at the length of each before it looks what it is.
        AreaEnd::Marker(offset) => {
            if let Ok(marker) = ExtensionHeader::parse(header.image(), offset.0) {
                overrun(offset.0, "end of the header extensions", marker.length, bound, report);
            }
        }
        _ => {}
    }
    for (magic, &(offset, count)) in seen.iter().filter(|(_, (_, count))| *count > 1) {
        let place = format!("header extension {magic}");
        report.add(
            Severity::Error,
            "repeated-extension",
            place,
            offset,
            "each type at most once",
            format!("{count} times"),
        );
    }
    seen
}

pub(super) fn truncated(report: &mut Report, code: &'static str, error: &Error) {
    match error {
        Error::Truncated { what, at, need, have } => {
            report.add(
                Severity::Error,
                code,
                *what,
                at.0,
                format!("{need} bytes"),
                format!("{have} before the end of the file"),
            );
        }
        other => {
            report.add(Severity::Error, code, "header area", 0, "what can be read", other.to_string());
        }
    }
}

fn overrun(offset: u64, place: &str, length: u32, bound: u64, report: &mut Report) {
    let end = offset + ExtensionHeader::SIZE + u64::from(length);
    if end > bound {
        report.add(
            Severity::Error,
            "extension-overrun",
            place,
            offset,
            format!("an end at or before {bound:#x}"),
            format!("length {length}, so an end at {end:#x}"),
        );
    }
}

fn one_extension(header: &Header<'_>, extension: &Extension<'_>, bound: u64, report: &mut Report) {
    let offset = extension.offset.0;
    let place = format!("header extension {}", extension.magic);
    overrun(offset, &place, extension.length, bound, report);
    let fixed = |size: u64, report: &mut Report| {
        if u64::from(extension.length) != size {
            let found = extension.length.to_string();
            report.add(
                Severity::Error,
                "extension-length",
                place.as_str(),
                offset + 4,
                format!("length {size}"),
                found,
            );
        }
    };
    match extension.content() {
        Err(error) => truncated(report, "extension-truncated", &error),
        Ok(Content::FeatureNames(names)) => feature_names(names, extension, report),
        Ok(Content::CryptoHeader(pointer)) => {
            fixed(16, report);
            let end = pointer.offset.checked_add(pointer.length);
            if end.is_none_or(|end| end > header.image().len() as u64) {
                report.add(
                    Severity::Error,
                    "crypto-header-outside",
                    "full disk encryption header",
                    pointer.offset,
                    format!("{} bytes inside the file", pointer.length),
                    format!("a file of {} bytes", header.image().len()),
                );
            }
        }
        Ok(Content::Bitmaps(bitmaps)) => {
            fixed(BitmapsExtension::SIZE, report);
            bitmaps::directory(header, &bitmaps, extension.data_offset().0, report);
        }
        Ok(Content::BackingFormat(_)) if extension.length > MAX_BACKING_FORMAT => report.add(
            Severity::Error,
            "backing-format-size",
            "backing format",
            extension.offset.0 + 4,
            format!("at most {MAX_BACKING_FORMAT} bytes, which QEMU takes"),
            extension.length.to_string(),
        ),
        Ok(Content::BackingFormat(_) | Content::DataFile(_) | Content::Unknown(_)) => {}
    }
}

fn feature_names(names: FeatureNames<'_>, extension: &Extension<'_>, report: &mut Report) {
    if !extension.length.is_multiple_of(48) {
        report.add(
            Severity::Note,
            "feature-name-table",
            "feature name table",
            extension.offset.0 + 4,
            "a length that is a multiple of 48",
            extension.length.to_string(),
        );
    }
    let mut entry_at = extension.data_offset().0;
    for name in names.entries().take(MAX_DISTINCT) {
        if name.group().is_none() || name.bit > 63 {
            report.add(
                Severity::Note,
                "feature-name-table",
                "feature name table entry",
                entry_at,
                "a type from 0 to 2 and a bit number from 0 to 63",
                format!("type {}, bit {}", name.kind, name.bit),
            );
        }
        entry_at += FeatureNames::ENTRY as u64;
    }
}

/// Header fields and extensions that ask for each other.
fn agreement(header: &Header<'_>, present: &BTreeMap<Magic, (u64, u64)>, report: &mut Report) {
    let has = |magic| present.contains_key(&magic);
    let autoclear = header.v3.autoclear_features;
    if autoclear & 1 != 0 && !has(Magic::BITMAPS) {
        report.add(
            Severity::Warning,
            "bitmaps-bit",
            "autoclear_features",
            at("autoclear_features"),
            "bit 0 clear, or a bitmaps extension",
            "bit 0 set, and no bitmaps extension",
        );
    }
    let data_file = header.v3.incompatible_features >> 2 & 1 != 0;
    if autoclear >> 1 & 1 != 0 && !data_file {
        report.add(
            Severity::Warning,
            "raw-external-bit",
            "autoclear_features",
            at("autoclear_features"),
            "bit 1 clear, or incompatible feature bit 2 (external data file)",
            "bit 1 set without it",
        );
    }
    if has(Magic::DATA_FILE) && !data_file {
        report.add(
            Severity::Warning,
            "data-file-name",
            "external data file name",
            present.get(&Magic::DATA_FILE).map_or(0, |found| found.0),
            "incompatible feature bit 2 (external data file)",
            "the bit clear",
        );
    }
    if header.v2.crypt_method == 2 && !has(Magic::CRYPTO_HEADER) {
        report.add(
            Severity::Warning,
            "crypto-header-missing",
            "crypt_method",
            at("crypt_method"),
            "a full disk encryption header pointer with method 2 (LUKS)",
            "none",
        );
    }
    if header.v2.crypt_method != 2 && has(Magic::CRYPTO_HEADER) {
        report.add(
            Severity::Warning,
            "crypto-header-unexpected",
            "full disk encryption header pointer",
            present.get(&Magic::CRYPTO_HEADER).map_or(0, |found| found.0),
            "crypt_method 2 (LUKS)",
            header.v2.crypt_method.to_string(),
        );
    }
}

fn backing_file(header: &Header<'_>, report: &mut Report) {
    let (offset, size) = (header.v2.backing_file_offset, header.v2.backing_file_size);
    if offset == 0 {
        return;
    }
    if size > MAX_BACKING_FILE_NAME {
        let name = "backing_file_size";
        report.add(Severity::Error, "backing-file-size", name, at(name), "at most 1023", size.to_string());
    }
    let wrong = |severity, expected: String, report: &mut Report| {
        let found = format!("{offset:#x} to {:#x}", offset.saturating_add(size.into()));
        report.add(severity, "backing-file-place", "backing file name", offset, expected, found);
    };
    if offset < header.v3.header_length.into() {
        // A name of no bytes is none.
        let severity = if size == 0 { Severity::Warning } else { Severity::Error };
        wrong(severity, format!("a place behind the header, from {:#x} on", header.v3.header_length), report);
    }
    if header.cluster_size().is_some_and(|cluster| offset.saturating_add(size.into()) > cluster) {
        wrong(Severity::Error, "a place inside the first cluster".to_owned(), report);
    }
}
