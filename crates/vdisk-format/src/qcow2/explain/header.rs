//! The first cluster: the header, its extensions, the backing file's name, and what is left.

use super::{EntryProblem, Part, Subject};
use crate::limits::MAX_BACKING_FILE_NAME;
use crate::qcow2::extension::{AreaEnd, Content, Extension, ExtensionHeader, FeatureNames, Magic};
use crate::qcow2::geometry::{Area, Geometry};
use crate::qcow2::header::Header;
use crate::units::HostOffset;

/// What the byte at `offset` is to the header.
pub(super) fn part(header: &Header<'_>, offset: u64) -> Part {
    let length = u64::from(header.v3.header_length);
    if let Some(part) = Part::field("header", header.fields(), 0, offset) {
        return part;
    }
    let fields_end =
        header.fields().map(|(field, _)| field.offset + u64::from(field.width)).max().unwrap_or(0);
    if offset < length {
        return Part::unused(fields_end, length, "header: padding, or fields of a later specification");
    }
    backing_file(header, offset).unwrap_or_else(|| extension_area(header, offset))
}

fn backing_file(header: &Header<'_>, offset: u64) -> Option<Part> {
    let start = header.v2.backing_file_offset;
    let length = u64::from(header.v2.backing_file_size.min(MAX_BACKING_FILE_NAME));
    let named = start != 0;
    named.then(|| Part::text(header.image(), "header", "backing file name", (start, length), offset))?
}

fn extension_area(header: &Header<'_>, offset: u64) -> Part {
    let mut extensions = header.extensions();
    for extension in extensions.by_ref() {
        let Ok(extension) = extension else { break };
        if (extension.offset.0..extension.next.0).contains(&offset) {
            return self::extension(header, &extension, offset);
        }
    }
    let image_end = header.image().len() as u64;
    let cluster_end = header.cluster_size().unwrap_or(image_end).min(image_end);
    let end = match extensions.end() {
        AreaEnd::Marker(HostOffset(at)) if (at..at + ExtensionHeader::SIZE).contains(&offset) => {
            return marker(header, at, offset);
        }
        AreaEnd::Marker(at) => at.0 + ExtensionHeader::SIZE,
        AreaEnd::Bound(at) | AreaEnd::Truncated(at) | AreaEnd::TooMany(at) => at.0,
        AreaEnd::NotYet => 0,
    };
    let name = header.v2.backing_file_offset;
    let name_end = name.saturating_add(header.v2.backing_file_size.into());
    // The rest is before the name or behind it.
    let (start, end) = match name {
        0 => (end, cluster_end),
        _ if offset < name => (end, name.min(cluster_end)),
        _ => (name_end, cluster_end),
    };
    Part::unused(start.min(offset), end.max(offset.saturating_add(1)), "rest of the header's cluster")
}

fn marker(header: &Header<'_>, at: u64, offset: u64) -> Part {
    let fields = ExtensionHeader::parse(header.image(), at).unwrap_or_default();
    let part = Part::field("end of the header extension area", fields.fields(), at, offset);
    part.unwrap_or_else(|| Part::unused(at, at + ExtensionHeader::SIZE, "end of the header extension area"))
}

fn extension(header: &Header<'_>, extension: &Extension<'_>, offset: u64) -> Part {
    let (start, data) = (extension.offset.0, extension.data_offset().0);
    let fields = ExtensionHeader { magic: extension.magic.0, length: extension.length };
    let name = extension.magic.name().unwrap_or("header extension of an unknown type");
    if let Some(mut part) = Part::field("header extension", fields.fields(), start, offset) {
        if let Subject::Field { name: "magic", meaning, .. } = &mut part.subject {
            *meaning = format!("The extension's type: {name}.");
        }
        return part;
    }
    let length = extension.data.len() as u64;
    if offset >= data + length {
        return Part::unused(data + length, extension.next.0, format!("{name}: padding"));
    }
    let text = |what| Part::text(header.image(), name, what, (data, length), offset);
    let part = match extension.content() {
        Ok(Content::BackingFormat(_)) => text("format"),
        Ok(Content::DataFile(_)) => text("file name"),
        Ok(Content::FeatureNames(_)) => feature_name(header, data, length, offset),
        Ok(Content::Bitmaps(bitmaps)) => Part::field(name, bitmaps.fields(), data, offset),
        Ok(Content::CryptoHeader(pointer)) => Part::field(name, pointer.fields(), data, offset).map(|part| {
            let is_offset = part.place.offset.0 == data;
            let geometry = Geometry::new(header, header.image().len() as u64).ok();
            let place =
                geometry.map(|geometry| EntryProblem::of_offset(HostOffset(pointer.offset), &geometry));
            part.with(place.filter(|_| is_offset).into_iter().flatten())
        }),
        _ => None,
    };
    let what = match extension.magic {
        Magic(magic) if extension.magic.name().is_none() => format!("data of header extension {magic:#x}"),
        _ => format!("{name}: data without a meaning"),
    };
    part.unwrap_or_else(|| Part::unused(data, data + length, what))
}

/// Entries of 48 bytes: type, bit, name.
fn feature_name(header: &Header<'_>, data: u64, length: u64, offset: u64) -> Option<Part> {
    const NAME: &str = "feature name table";
    let size = FeatureNames::ENTRY as u64;
    let start = data + (offset - data) / size * size;
    if start + size > data + length {
        return None;
    }
    let byte = |at: u64| crate::bytes::clipped(header.image(), at, 1).first().copied().map(u64::from);
    let field = |name, at, meaning: &str| {
        let (value, notation) = (byte(at)?, crate::record::Notation::Dec);
        let meaning = meaning.to_owned();
        Some(Part::new(Area::new(at, 1), Subject::Field { structure: NAME, name, value, notation, meaning }))
    };
    match offset - start {
        0 => field("type", start, "Type of the feature: 0 incompatible, 1 compatible, 2 autoclear."),
        1 => field("bit", start + 1, "Number of the bit, 0 to 63."),
        _ => {
            let mut part = Part::text(header.image(), NAME, "name", (start + 2, size - 2), offset)?;
            if let Subject::Text { text, .. } = &mut part.subject {
                let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
                text.truncate(end);
            }
            Some(part)
        }
    }
}
