//! What is no table of numbers: the header, its extensions, snapshot table, bitmap directory.

use super::endings::Endings;
use super::fixed::Fixed;
use super::{Options, Redacted, Structure};
use crate::bytes::clipped;
use crate::limits::{CLUSTER_BITS, MAX_BACKING_FILE_NAME, MAX_BITMAPS};
use crate::qcow2::bitmap::{Bitmap, BitmapEntryHeader, BitmapsExtension, KNOWN_FLAGS};
use crate::qcow2::crypto::crypto_header_pointer;
use crate::qcow2::extension::{
    AreaEnd, Content, CryptoHeaderPointer, Extension, ExtensionHeader, FeatureNames, Magic,
};
use crate::qcow2::geometry::Area;
use crate::qcow2::header::{Header, HeaderV2, HeaderV3, KnownAdditional, feature_bit_name};
use crate::qcow2::tables::Tables;

/// Longer names are not there to be read, and are blanked.
const MAX_NAME: u64 = 1023;
/// Most entries of the feature name table that a check tells of.
const MAX_FEATURE_NAMES: usize = 4096;
/// Most bytes that are kept zero before the first that is not.
const MAX_UNKNOWN: usize = 4096;
/// Formats that a backing file can have: no other word is copied.
const FORMATS: [&[u8]; 16] = [
    b"raw",
    b"qcow2",
    b"qcow",
    b"qed",
    b"vmdk",
    b"vdi",
    b"vpc",
    b"vhdx",
    b"parallels",
    b"bochs",
    b"cloop",
    b"dmg",
    b"file",
    b"host_device",
    b"nbd",
    b"rbd",
];

/// Decides what is copied of them, and what stands in for the rest.
pub(super) struct Records<'f> {
    pub(super) fixed: &'f mut Fixed,
    pub(super) options: Options,
    pub(super) redacted: Redacted,
}

impl Records<'_> {
    /// The header's fields, extensions and the backing file's name, wherever the cluster size may be wrong as well.
    pub(super) fn header(&mut self, header: &Header<'_>) {
        let image = header.image();
        let v3 = if header.has_v3_fields() { HeaderV3::SIZE } else { 0 };
        self.fixed.put(0, clipped(image, 0, HeaderV2::SIZE + v3), Structure::Header);
        let additional = HeaderV2::SIZE + HeaderV3::SIZE;
        if let Some(compression_type) = header.additional().compression_type() {
            self.fixed.put(additional, &[compression_type], Structure::Header);
        }
        // That there is something, and where, is a finding; what it is, is nobody's business.
        let unknown = header.additional().unknown();
        let first = unknown.iter().position(|&byte| byte != 0);
        // Behind the first, it may be a table to something else.
        let zeroes = first.unwrap_or(unknown.len()).min(MAX_UNKNOWN);
        let at = additional + KnownAdditional::SIZE;
        self.fixed.put(at, &vec![0; zeroes], Structure::Header);
        if let Some(first) = first {
            self.fixed.put(at + first as u64, &[1], Structure::Header);
            self.redacted.blanked += 1;
        }
        // Nor may there be a name where there is nothing.
        self.fixed.bar(additional, header.v3.header_length.into());
        let mut extensions = header.extensions();
        for extension in extensions.by_ref().map_while(Result::ok) {
            self.extension(&extension, header);
        }
        if let AreaEnd::Marker(at) = extensions.end() {
            self.fixed.bar(at.0, at.0 + 4);
            self.end_marker(at.0, header);
        }
        if let Some(name) = header.backing_file() {
            let (at, size) = (header.v2.backing_file_offset, header.v2.backing_file_size);
            let in_header = at.saturating_add(size.into()) <= header.cluster_size().unwrap_or(0);
            let behind = at >= header.v3.header_length.into();
            if in_header && behind && size <= MAX_BACKING_FILE_NAME {
                self.name(at, name, Structure::BackingName);
            }
        }
    }

    /// How long the end marker says that it is means nothing, but that it is longer than there is room.
    fn end_marker(&mut self, at: u64, header: &Header<'_>) {
        let bound = header.extensions().bound().0;
        if let Ok(marker) = ExtensionHeader::parse(header.image(), at) {
            let end = at + ExtensionHeader::SIZE + u64::from(marker.length);
            let length = if end > bound { u32::MAX } else { 0 };
            self.fixed.put(at + 4, &length.to_be_bytes(), Structure::Extension);
        }
    }

    /// A name, or what stands in for it.
    pub(super) fn name(&mut self, at: u64, name: &[u8], structure: Structure) {
        if name.len() as u64 > MAX_NAME {
            self.redacted.blanked += 1;
        } else if self.options.keep_names {
            self.fixed.put(at, name, structure);
        } else {
            self.stand_in_name(at, name.len() as u64, structure);
        }
    }

    /// What stands in for a name of `length` bytes.
    pub(super) fn stand_in_name(&mut self, at: u64, length: u64, structure: Structure) {
        if length > MAX_NAME {
            self.redacted.blanked += 1;
        } else {
            self.fixed.fill(at, length, structure);
            self.redacted.names += u64::from(length > 0);
        }
    }

    fn extension(&mut self, extension: &Extension<'_>, header: &Header<'_>) {
        let at = extension.data_offset().0;
        let end = at.saturating_add(extension.length.into());
        let bound = header.extensions().bound().0;
        let in_header = end <= bound.min(1 << *CLUSTER_BITS.end());
        let content = extension.content();
        // Whose length goes beyond the header is the last one, however far it goes.
        let is_unknown = matches!(content, Ok(Content::Unknown(_)));
        let is_cut = end >= header.image().len() as u64 && bound > at.saturating_add(1 << 33);
        let length = if is_unknown && (end > bound || is_cut) { u32::MAX } else { extension.length };
        self.fixed.put(extension.offset.0, &extension.magic.0.to_be_bytes(), Structure::Extension);
        self.fixed.put(extension.offset.0 + 4, &length.to_be_bytes(), Structure::Extension);
        // Behind that, nothing of the file is claimed.
        let behind = reach(header);
        match content {
            Ok(Content::BackingFormat(name)) if in_header && FORMATS.contains(&name) => {
                self.fixed.put(at, name, Structure::Extension);
            }
            Ok(Content::BackingFormat(name) | Content::DataFile(name)) if in_header => {
                self.name(at, name, Structure::Extension);
            }
            Ok(Content::FeatureNames(names)) => self.feature_names(at, names, in_header),
            Ok(Content::CryptoHeader(pointer)) => {
                let pointer = CryptoHeaderPointer {
                    offset: if pointer.offset < behind { pointer.offset } else { beyond(pointer.offset) },
                    length: if pointer.length < behind.max(1 << 24) { pointer.length } else { BEYOND },
                };
                self.fixed.put(at, &pointer.to_bytes(), Structure::Extension);
            }
            Ok(Content::Bitmaps(bitmaps)) => {
                let offset = bitmaps.bitmap_directory_offset;
                let size = bitmaps.bitmap_directory_size;
                let bitmaps = BitmapsExtension {
                    nb_bitmaps: if bitmaps.nb_bitmaps <= MAX_BITMAPS { bitmaps.nb_bitmaps } else { u32::MAX },
                    reserved32: bitmaps.reserved32.min(1),
                    bitmap_directory_size: if size < behind { size } else { BEYOND },
                    bitmap_directory_offset: if offset < behind { offset } else { beyond(offset) },
                };
                self.fixed.put(at, &bitmaps.to_bytes(), Structure::Extension);
            }
            _ if extension.data.iter().any(|&byte| byte != 0) => self.redacted.blanked += 1,
            _ => {}
        }
    }

    fn feature_names(&mut self, start: u64, names: FeatureNames<'_>, in_header: bool) {
        let entries = names.entries().take(MAX_FEATURE_NAMES);
        for (at, entry) in (start..).step_by(FeatureNames::ENTRY).zip(entries) {
            let known = entry.group().and_then(|group| feature_bit_name(group, entry.bit.into()));
            if entry.group().is_none() || entry.bit > 63 {
                self.fixed.put(at, &[3, 0], Structure::Extension); // as wrong
                self.redacted.blanked += 1;
            } else if in_header {
                self.fixed.put(at, &[entry.kind, entry.bit], Structure::Extension);
                if known.is_some_and(|known| known.as_bytes() == entry.name) {
                    self.fixed.put(at + 2, entry.name, Structure::Extension);
                } else {
                    self.name(at + 2, entry.name, Structure::Extension);
                }
            }
        }
    }

    /// Everything else that is no table of numbers.
    pub(super) fn others(&mut self, tables: &Tables<'_>, is_exclusive: &dyn Fn(Area) -> bool) {
        self.snapshots(tables, is_exclusive);
        self.bitmaps(tables.header());
        if tables.header().extensions().any(|one| one.is_ok_and(|one| one.magic == Magic::CRYPTO_HEADER))
            && let Ok(Some(pointer)) = crypto_header_pointer(tables.header())
        {
            self.luks(tables.view().bytes(), Area::new(pointer.offset, pointer.length));
        }
    }

    /// The bitmap directories: also that of an extension which another one follows, for a check looks at its entries as well.
    pub(super) fn bitmaps(&mut self, header: &Header<'_>) {
        for extension in header.extensions().map_while(Result::ok) {
            if let Ok(Content::Bitmaps(bitmaps)) = extension.content() {
                let directory = || bitmaps.directory(header.image()).map_while(Result::ok);
                let is_name = |bitmap: &Bitmap<'_>| bitmap.name.len() as u64 <= MAX_NAME;
                let names: Vec<_> = directory().filter(is_name).map(|bitmap| bitmap.name).collect();
                let mut endings = Endings::new(&names);
                for bitmap in directory() {
                    let ending = if is_name(&bitmap) { endings.of(bitmap.name) } else { Vec::new() };
                    self.bitmap(header, &bitmap, &ending);
                }
            }
        }
    }

    fn bitmap(&mut self, header: &Header<'_>, bitmap: &Bitmap<'_>, ending: &[u8]) {
        let fixed = bitmap.fixed;
        let length = header.image().len() as u64;
        let offset = fixed.bitmap_table_offset;
        // The last cluster may lie behind the file's end.
        let behind = reach(header);
        let unknown_flags = fixed.flags & !KNOWN_FLAGS;
        // So many that no other entry follows.
        let extra = u64::from(fixed.extra_data_size);
        let is_last = extra > 0 && bitmap.offset.0 + BitmapEntryHeader::SIZE + extra > length;
        let kept = BitmapEntryHeader {
            bitmap_table_offset: if offset < behind { offset } else { beyond(offset) },
            flags: fixed.flags & KNOWN_FLAGS | if unknown_flags != 0 { KNOWN_FLAGS + 1 } else { 0 },
            type_: fixed.type_.min(2),
            granularity_bits: fixed.granularity_bits.min(64),
            name_size: match fixed.name_size {
                size if !is_last => size,
                size if u64::from(size) > MAX_NAME => u16::MAX,
                size => size.min(1),
            },
            extra_data_size: if is_last { u32::MAX } else { fixed.extra_data_size },
            ..fixed
        };
        self.redacted.blanked += u64::from(kept != fixed || fixed.extra_data_size > 0);
        self.fixed.put(bitmap.offset.0, &kept.to_bytes(), Structure::BitmapDirectory);
        let name_at = bitmap.offset.0 + BitmapEntryHeader::SIZE + u64::from(fixed.extra_data_size);
        if !self.options.keep_names {
            // Two bitmaps of one name would be another finding, and no program would open the copy.
            let length = bitmap.name.len() as u64;
            self.redacted.unsettled += u64::from(ending.len() > bitmap.name.len());
            let ending = ending.get(ending.len().saturating_sub(bitmap.name.len())..).unwrap_or_default();
            self.fixed.end_with(name_at + length - ending.len() as u64, ending, Structure::BitmapDirectory);
        }
        self.name(name_at, bitmap.name, Structure::BitmapDirectory);
    }
}

/// What ends before this may be in the file, as [`Geometry::reach`](crate::qcow2::Geometry) has it.
fn reach(header: &Header<'_>) -> u64 {
    (header.image().len() as u64).next_multiple_of(512).saturating_add(header.cluster_size().unwrap_or(0))
}

/// Beyond any file, also for who takes it for an entry of a table.
const BEYOND: u64 = 1 << 62 | 1 << 54;

/// An offset beyond any file, aligned as `offset` is, to any power of two up to the largest cluster.
pub(super) const fn beyond(offset: u64) -> u64 {
    let aligned = offset.trailing_zeros();
    if aligned >= *CLUSTER_BITS.end() { BEYOND } else { BEYOND + (1 << aligned) }
}
