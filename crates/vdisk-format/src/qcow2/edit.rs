//! Changes to the header area, each as a [`Plan`]: of one field's bytes, or of the extension area and what is behind it.

use crate::bytes::{clipped, exactly, round_up_8};
use crate::edit;
use crate::error::{Error, Reason, Result};
use crate::feature::FeatureGroup;
use crate::limits::CLUSTER_BITS;
use crate::plan::Plan;
use crate::qcow2::extension::{AreaEnd, Extension, ExtensionHeader, Magic};
use crate::qcow2::header::{Header, feature_field, known_fields};
use crate::units::HostOffset;

/// Sets the header field called `name`: its bytes, and nothing else, whatever the image is then worth.
///
/// # Errors
/// A refusal: [`Reason::NoSuchField`] where this header has no such field (a version 2 header has none of those that
/// begin with version 3), [`Reason::OutOfRange`] where the value is too large for it.
pub fn set_field(image: &[u8], name: &str, value: u64) -> Result<Plan> {
    let header = Header::parse(image)?;
    edit::set_field(image, header.fields(), name, value)?.ok_or_else(|| no_such_field(&header, name))
}

fn no_such_field(header: &Header<'_>, name: &str) -> Error {
    let known = known_fields().find(|field| field.name == name);
    let expected = known.map_or("a header field".to_owned(), |field| {
        let least = if field.offset < 104 { "version 3 or later" } else { "a longer header_length" };
        format!("{least}, which has this field")
    });
    Error::refused(
        Reason::NoSuchField,
        format!("header field {name}"),
        known.map(|field| HostOffset(field.offset)),
        expected,
        format!("version {}, header_length {}", header.v2.version, header.v3.header_length),
    )
}

/// Sets (`on`) or clears one feature bit.
///
/// # Errors
/// As [`set_field`]; also [`Reason::OutOfRange`] for a bit number over 63.
pub fn set_feature_bit(image: &[u8], group: FeatureGroup, bit: u32, on: bool) -> Result<Plan> {
    let old = Header::parse(image)?.features(group);
    set_field(image, feature_field(group), edit::with_bit(group, old, bit, on)?)
}

/// Adds a header extension behind the others. The backing file's name moves as needed. The data are not judged: a
/// bitmaps extension of a wrong length, of which every reader makes something else, can be added as well.
///
/// # Errors
/// [`Error::Truncated`] where the file ends inside the backing file's name.
/// A refusal: [`Reason::NoRoom`] where the first cluster is too small, [`Reason::BadExtensionArea`] where the area
/// cannot be rewritten without losing bytes that nothing explains, [`Reason::OutOfRange`] for type 0, which ends the
/// area, or for data that no length field can describe.
pub fn add_extension(image: &[u8], magic: Magic, data: &[u8]) -> Result<Plan> {
    let out_of_range = |expected: &str, found: String| {
        Error::refused(Reason::OutOfRange, "new header extension", None, expected, found)
    };
    if magic == Magic::END {
        return Err(out_of_range("a type other than 0, which ends the area", "type 0".to_owned()));
    }
    let length = u32::try_from(data.len())
        .map_err(|_| out_of_range("a length of at most 32 bits", format!("{} bytes", data.len())))?;
    let header = Header::parse(image)?;
    let area = Area::read(&header)?;
    let mut body = Vec::new();
    for extension in &area.extensions {
        area.keep(extension, &mut body)?;
    }
    body.extend(ExtensionHeader { magic: magic.0, length }.to_bytes());
    body.extend(data);
    body.resize(usize::try_from(round_up_8(body.len() as u64)).unwrap_or(body.len()), 0);
    let mut plan = Plan::new(image);
    area.replace(body, &format!("add header extension {magic}, {length} bytes"), &mut plan)?;
    Ok(plan)
}

/// Deletes every header extension of type `magic`. Without a bitmaps extension, autoclear bit 0 must not be set, so
/// that deleting the one clears the other.
///
/// # Errors
/// A refusal: [`Reason::NoSuchExtension`]; [`Reason::BadExtensionArea`] as for [`add_extension`].
pub fn delete_extensions(image: &[u8], magic: Magic) -> Result<Plan> {
    let header = Header::parse(image)?;
    let area = Area::read(&header)?;
    let mut body = Vec::new();
    let mut deleted = 0u64;
    for extension in &area.extensions {
        if extension.magic == magic {
            deleted += 1;
        } else {
            area.keep(extension, &mut body)?;
        }
    }
    if deleted == 0 {
        let what = format!("header extension {magic}");
        return Err(Error::refused(Reason::NoSuchExtension, what, None, "at least one", "none"));
    }
    let mut plan = Plan::new(image);
    let autoclear = header.v3.autoclear_features;
    if magic == Magic::BITMAPS && autoclear & 1 != 0 {
        let new = (autoclear & !1).to_be_bytes();
        plan.set(image, FIELD_AUTOCLEAR, &new, "clear autoclear feature bit 0 (bitmaps)".to_owned())?;
    }
    let times = if deleted == 1 { String::new() } else { format!(" ({deleted} times)") };
    area.replace(body, &format!("delete header extension {magic}{times}"), &mut plan)?;
    Ok(plan)
}

const FIELD_BACKING_FILE_OFFSET: u64 = 8;
const FIELD_AUTOCLEAR: u64 = 88;

/// Where the first cluster ends: also of a header with an impossible cluster size, and never behind what the header
/// says is in another cluster.
fn room(header: &Header<'_>) -> u64 {
    let cluster = header.cluster_size().unwrap_or(u64::MAX).min(1 << *CLUSTER_BITS.end());
    let v2 = &header.v2;
    let tables = [v2.l1_table_offset, v2.refcount_table_offset, v2.snapshots_offset];
    let behind_the_header = |&offset: &u64| offset > u64::from(header.v3.header_length);
    tables.into_iter().filter(behind_the_header).fold(cluster, u64::min)
}

/// The header extension area: from the end of the header to the end-of-extensions marker, with the backing file's name
/// behind it where it stands in the first cluster.
struct Area<'a> {
    image: &'a [u8],
    start: u64,
    bound: u64,
    cluster: u64,
    end: AreaEnd,
    extensions: Vec<Extension<'a>>,
    /// The backing file's name and its offset, where the area may move it.
    name: Option<(u64, &'a [u8])>,
}

impl<'a> Area<'a> {
    fn read(header: &Header<'a>) -> Result<Self> {
        let image = header.image();
        let start = u64::from(header.v3.header_length);
        let cluster = room(header);
        let fields_end = if header.has_v3_fields() { 104 } else { 72 };
        let mut walk = header.extensions();
        let bound = walk.bound().0;
        let bad = |at, expected: String, found: String| {
            Err(Error::refused(
                Reason::BadExtensionArea,
                "header extension area",
                Some(HostOffset(at)),
                expected,
                found,
            ))
        };
        if start < fields_end {
            let found = format!("header_length {start}");
            return bad(start, format!("a start behind the header fields, from {fields_end} on"), found);
        }
        let extensions = walk.by_ref().collect::<Result<Vec<_>>>()?;
        if let AreaEnd::TooMany(at) = walk.end() {
            return bad(at.0, "an end marker".to_owned(), "yet another extension".to_owned());
        }
        let (name_at, size) = (header.v2.backing_file_offset, u64::from(header.v2.backing_file_size));
        let movable = name_at >= start && name_at.saturating_add(size) <= cluster;
        let name = match movable {
            true => Some((name_at, exactly(image, name_at, size, "backing file name")?)),
            false => None,
        };
        if name.is_none() && bound < start {
            let found = format!("cluster size {cluster}, backing_file_offset {name_at:#x}");
            return bad(start, format!("an area that ends behind its start {start:#x}"), found);
        }
        Ok(Self { image, start, bound, cluster, end: walk.end(), extensions, name })
    }

    /// Appends an extension's bytes as they are, padding included.
    fn keep(&self, extension: &Extension<'_>, body: &mut Vec<u8>) -> Result<()> {
        let data_at = extension.data_offset().0;
        let data_end = match extension.magic {
            Magic::BITMAPS => extension.next.0,
            _ => data_at + u64::from(extension.length),
        };
        if data_end > self.bound || data_end > self.image.len() as u64 {
            return Err(Error::refused(
                Reason::BadExtensionArea,
                format!("header extension {}", extension.magic),
                Some(extension.offset),
                format!("an end inside the extension area, at or before {:#x}", self.bound),
                format!(
                    "length {}, so an end at {data_end:#x}; it may be missing its end marker",
                    extension.length
                ),
            ));
        }
        let stop = extension.next.0.min(self.bound);
        body.extend(clipped(self.image, extension.offset.0, stop - extension.offset.0));
        body.resize(usize::try_from(round_up_8(body.len() as u64)).unwrap_or(body.len()), 0);
        Ok(())
    }

    /// Plans the area anew: `body`, the end marker, the name, and zeros over what the old area leaves behind.
    fn replace(&self, mut body: Vec<u8>, why: &str, plan: &mut Plan) -> Result<()> {
        body.extend([0; 8]);
        let new_name_at = self.start + body.len() as u64;
        body.extend(self.name.map_or(&[][..], |(_, name)| name));
        let limit = if self.name.is_some() { self.cluster } else { self.bound.min(self.cluster) };
        let new_end = self.start + body.len() as u64;
        if new_end > limit {
            return Err(Error::refused(
                Reason::NoRoom,
                "header, extensions and backing file name",
                Some(HostOffset(self.start)),
                format!("an end at or before {limit:#x}"),
                format!("{} bytes, so an end at {new_end:#x}", body.len()),
            ));
        }
        let left_over = self.old_end().saturating_sub(new_end);
        body.resize(body.len() + usize::try_from(left_over).unwrap_or(0), 0);
        plan.set(self.image, self.start, &body, why.to_owned())?;
        if let Some((old, _)) = self.name.filter(|&(old, _)| old != new_name_at) {
            let why = format!("backing file name moved from {old:#x} to {new_name_at:#x}");
            plan.set(self.image, FIELD_BACKING_FILE_OFFSET, &new_name_at.to_be_bytes(), why)?;
        }
        Ok(())
    }

    /// Where the bytes end that the old area certainly owned: nothing past the end marker (or the name behind it), and
    /// nothing at all where an extension overruns the area, for then the bytes may be somebody else's.
    fn old_end(&self) -> u64 {
        let file_end = self.image.len() as u64;
        let marker_end = match self.end {
            AreaEnd::Marker(at) => at.0 + ExtensionHeader::SIZE,
            AreaEnd::Bound(at) if at.0 <= self.bound => at.0,
            _ => return 0,
        };
        let name_end = self.name.map_or(0, |(at, name)| at + name.len() as u64);
        // Between a marker and a name that stands further on there may be bytes that are not the area's.
        let adjacent = self.name.is_some_and(|(at, _)| at <= round_up_8(marker_end));
        let end = if adjacent { marker_end.max(name_end) } else { marker_end };
        let limit = if self.name.is_some() && adjacent { self.cluster } else { self.bound };
        end.min(limit).min(file_end)
    }
}
