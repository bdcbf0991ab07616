//! Any bytes as an image: everything that reads the header area.

use std::collections::BTreeSet;

use vdisk_format::bytes::clipped;
use vdisk_format::qcow2::bitmap::{BitmapsExtension, TableBudget};
use vdisk_format::qcow2::extension::{AreaEnd, ExtensionHeader};
use vdisk_format::qcow2::{self, Content, Extension, FeatureGroup, Header, HeaderV2, HeaderV3, check};
use vdisk_format::report::Severity;
use vdisk_format::{Image, limits};

/// Reads the header, walks the extensions and the bitmaps, and checks it all.
///
/// # Panics
/// Where the library breaks a promise: any header parses if its bytes are there, what is read is what the bytes say,
/// and every walk ends and stays inside the image.
pub fn header(image: &[u8]) {
    let Ok(header) = Header::parse(image) else {
        let version_2 = clipped(image, 4, 4) == [0, 0, 0, 2];
        let needed = if version_2 { HeaderV2::SIZE } else { HeaderV2::SIZE + HeaderV3::SIZE };
        assert!((image.len() as u64) < needed, "{} bytes did not parse", image.len());
        return;
    };
    fields(&header);
    extensions(&header);
    report(&header);
    let twin = Image::from_bytes(image.to_vec());
    assert_eq!(qcow2::fingerprint(&twin), qcow2::fingerprint(&twin));
}

fn fields(header: &Header<'_>) {
    let image = header.image();
    assert_eq!(header.v2.to_bytes(), clipped(image, 0, HeaderV2::SIZE));
    if header.has_v3_fields() {
        assert_eq!(header.v3.to_bytes(), clipped(image, HeaderV2::SIZE, HeaderV3::SIZE));
    }
    let mut names = BTreeSet::new();
    for (field, value) in header.fields() {
        assert!(names.insert(field.name), "{} twice", field.name);
        assert_eq!(header.get(field.name), Some(value), "{}", field.name);
        let bytes = clipped(image, field.offset, field.width.into());
        assert_eq!(field.encode(value).ok().as_deref(), Some(bytes), "{}", field.name);
    }
    for group in FeatureGroup::ALL {
        assert_eq!(header.get(qcow2::header::feature_field(group)), Some(header.features(group)));
    }
    let additional = header.additional();
    assert_eq!(additional.compression_type().map(u64::from), header.get("compression_type"));
    let first = usize::from(additional.compression_type().is_some());
    let end = u64::from(header.v3.header_length).min(image.len() as u64);
    assert_eq!((first + additional.unknown().len()) as u64, end.saturating_sub(104));
    if let Some(name) = header.backing_file() {
        let (at, size) = (header.v2.backing_file_offset, header.v2.backing_file_size);
        assert_eq!(name, clipped(image, at, size.into()));
    }
}

fn extensions(header: &Header<'_>) {
    let mut budget = TableBudget::new(header.image());
    let mut walk = header.extensions();
    let (mut at, mut count) = (u64::from(header.v3.header_length), 0);
    for extension in walk.by_ref() {
        let Ok(extension) = extension else { continue };
        assert_eq!(extension.offset.0, at, "the walk leaves gaps");
        assert!(extension.next > extension.offset, "the walk stands still");
        (at, count) = (extension.next.0, count + 1);
        one_extension(header, &extension, &mut budget);
    }
    assert!(count <= limits::MAX_EXTENSIONS);
    assert!(walk.next().is_none(), "the walk goes on behind its end");
    match walk.end() {
        AreaEnd::NotYet => assert_eq!(walk.end(), AreaEnd::Bound(walk.bound()), "the walk has no end"),
        AreaEnd::Bound(end) => assert!(end >= walk.bound() && end.0 == at),
        AreaEnd::Marker(end) | AreaEnd::TooMany(end) => assert!(end < walk.bound() && end.0 == at),
        AreaEnd::Truncated(_) => {}
    }
}

fn one_extension(header: &Header<'_>, extension: &Extension<'_>, budget: &mut TableBudget) {
    let image = header.image();
    let Extension { magic, length, .. } = *extension;
    let bytes = ExtensionHeader { magic: magic.0, length }.to_bytes();
    assert_eq!(bytes, clipped(image, extension.offset.0, ExtensionHeader::SIZE));
    let data_at = extension.data_offset().0;
    assert_eq!(extension.data, clipped(image, data_at, extension.data.len() as u64));
    let _ = magic.to_string();
    match extension.content() {
        Ok(Content::CryptoHeader(pointer)) => assert_eq!(pointer.to_bytes(), clipped(image, data_at, 16)),
        Ok(Content::Bitmaps(bitmaps)) => {
            assert_eq!(bitmaps.to_bytes(), clipped(image, data_at, BitmapsExtension::SIZE));
            directory(image, &bitmaps, budget);
        }
        Ok(Content::FeatureNames(names)) => {
            assert_eq!(names.entries().count(), extension.data.len() / 48);
            for name in names.entries() {
                assert_eq!(name.group().is_some(), name.kind < 3);
                assert!(!name.name.contains(&0));
            }
        }
        Ok(Content::BackingFormat(data) | Content::DataFile(data) | Content::Unknown(data)) => {
            assert_eq!(data, extension.data);
        }
        Ok(_) | Err(_) => {}
    }
}

fn directory(image: &[u8], extension: &BitmapsExtension, budget: &mut TableBudget) {
    let mut at = extension.bitmap_directory_offset;
    // Many extensions may name one long directory: the budget ends what would otherwise be quadratic.
    for bitmap in extension.directory(image).map_while(Result::ok) {
        if budget.spend(&bitmap).is_err() {
            return;
        }
        assert_eq!(bitmap.offset.0, at, "the directory has gaps");
        assert!(bitmap.next.0 > at);
        at = bitmap.next.0;
        let bytes = bitmap.fixed.to_bytes();
        assert_eq!(bytes, clipped(image, bitmap.offset.0, bytes.len() as u64));
        assert!(bitmap.name.len() <= usize::from(bitmap.fixed.name_size));
        let Ok(table) = bitmap.table() else { continue };
        assert_eq!(table.entries().len() as u64, u64::from(bitmap.fixed.bitmap_table_size));
        for entry in table.entries() {
            // Bits 0 and 9 to 55 have a meaning, all others are reserved: the accessors share the word out.
            assert_eq!(entry.cluster().0 | entry.reserved() | entry.0 & 1, entry.0);
            let _ = entry.kind().name();
        }
    }
}

fn report(header: &Header<'_>) {
    let report = check::header(header);
    let sound = report.findings().iter().all(|finding| finding.severity != Severity::Error);
    assert_eq!(report.is_sound(), sound);
    for finding in report.findings() {
        assert!(report.has(finding.code));
        assert!(finding.to_string().contains(finding.code));
    }
}
