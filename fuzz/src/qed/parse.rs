//! Any bytes as an image of QED: everything that reads the header.

use std::collections::BTreeSet;

use vdisk_format::bytes::clipped;
use vdisk_format::error::Reason;
use vdisk_format::qed::header::{FEATURE_BACKING_FILE, HeaderFields, feature_bit_name, feature_field};
use vdisk_format::qed::{self, Header, Tables, check};
use vdisk_format::report::Severity;
use vdisk_format::units::HostOffset;
use vdisk_format::{FeatureGroup, Image, limits};

use super::model::Model;

/// Reads the header, what its sizes make together, and checks it.
///
/// # Panics
/// Where the library breaks a promise: any header parses if its bytes are there, what is read is what the bytes say, and
/// tables are read of those sizes only that the specification allows.
pub fn qed_parse(image: &[u8]) {
    let Ok(header) = Header::parse(image) else {
        assert!((image.len() as u64) < HeaderFields::SIZE, "{} bytes did not parse", image.len());
        assert!(Tables::new(image).is_err() && check::check(image).is_err());
        return;
    };
    fields(&header);
    report(&header);
    geometry(&header);
    let twin = Image::from_bytes(image.to_vec());
    assert_eq!(qed::fingerprint(&twin), qed::fingerprint(&twin));
}

fn fields(header: &Header<'_>) {
    let image = header.image();
    assert_eq!(header.fields.to_bytes(), clipped(image, 0, HeaderFields::SIZE));
    let mut names = BTreeSet::new();
    let mut at = 0;
    for (field, value) in header.fields() {
        assert!(names.insert(field.name), "{} twice", field.name);
        assert_eq!((field.offset, header.get(field.name)), (at, Some(value)), "{}", field.name);
        let bytes = clipped(image, field.offset, field.width.into());
        assert_eq!(field.encode(value).ok().as_deref(), Some(bytes), "{}", field.name);
        at += u64::from(field.width);
    }
    assert_eq!((names.len(), at), (11, HeaderFields::SIZE));
    for group in FeatureGroup::ALL {
        assert_eq!(header.get(feature_field(group)), Some(header.features(group)));
    }
    assert_eq!(header.need_check(), header.fields.features & 2 != 0);
    assert_eq!(header.backing_file().is_some(), header.fields.features & FEATURE_BACKING_FILE != 0);
    if let Some(name) = header.backing_file() {
        let HeaderFields { backing_filename_offset: at, backing_filename_size: size, .. } = header.fields;
        assert_eq!(name, clipped(image, at.into(), size.min(limits::MAX_QED_BACKING_FILE_NAME).into()));
    }
}

fn report(header: &Header<'_>) {
    let report = check::header(header);
    let sound = report.findings().iter().all(|finding| finding.severity != Severity::Error);
    assert_eq!(report.is_sound(), sound);
    for finding in report.findings() {
        assert!(report.has(finding.code) && finding.to_string().contains(finding.code));
        assert!(finding.offset.0 < HeaderFields::SIZE, "{finding}");
    }
    let unknown = FeatureGroup::ALL.iter().any(|&group| {
        (0..64).any(|bit| header.features(group) >> bit & 1 != 0 && feature_bit_name(group, bit).is_none())
    });
    assert_eq!(report.has("unknown-feature"), unknown);
    assert_eq!(report.has("need-check"), header.need_check());
}

fn geometry(header: &Header<'_>) {
    let image = header.image();
    let (tables, model) = (Tables::new(image), Model::new(image));
    let Some(model) = model else {
        assert_eq!(tables.err().and_then(|error| error.reason()), Some(Reason::BadGeometry));
        assert!(!check::header(header).is_sound());
        return;
    };
    assert!(tables.is_ok(), "sizes that the specification allows are refused");
    let Ok(tables) = tables else { return };
    let geometry = tables.geometry();
    assert_eq!(geometry.cluster_size(), model.cluster_size);
    assert_eq!(geometry.table_bytes(), model.table_bytes);
    assert_eq!(geometry.table_clusters() * geometry.cluster_size(), geometry.table_bytes());
    assert_eq!(geometry.entries(), model.entries());
    assert_eq!(geometry.header_end(), HostOffset(model.header_end));
    assert_eq!(geometry.file_end(), HostOffset(model.file_end));
    assert_eq!(geometry.clusters() * geometry.cluster_size(), model.file_end);
    assert_eq!(geometry.guest_clusters(), model.guest_clusters());
    assert_eq!(geometry.image_size(), header.fields.image_size);
    assert_eq!(tables.l1_table().err(), model.wrong_table(model.l1_at));
    assert_eq!(tables.readable_l1_table(), model.has_l1().then_some(HostOffset(model.l1_at)));
    let bounds = [geometry.image_size(), u64::MAX, 0].map(|end| end.saturating_sub(1));
    for guest in bounds {
        let (l1_index, l2_index) = geometry.indices(guest);
        assert!(l2_index < geometry.entries());
        let start = guest / geometry.cluster_size() * geometry.cluster_size();
        assert_eq!(geometry.guest_offset(l1_index, l2_index), Some(start));
    }
}
