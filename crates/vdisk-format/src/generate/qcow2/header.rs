//! The first cluster: header, header extensions, backing file name.

use super::layout::Layout;
use super::luks::Luks;
use super::{Bitmap, Qcow2};

/// The length of a version 2 header in bytes.
pub(super) const LENGTH_V2: u32 = 72;
/// The length of a version 3 header in bytes: up to `compression_type` and its padding.
pub(super) const LENGTH_V3: u32 = 112;

const MAGIC: u32 = 0x5146_49fb;
const BACKING_FORMAT: u32 = 0xe279_2aca;
const DATA_FILE: u32 = 0x4441_5441;
const FEATURE_NAME_TABLE: u32 = 0x6803_f857;
const BITMAPS: u32 = 0x2385_2875;
const FULL_DISK_ENCRYPTION: u32 = 0x0537_be77;
const END: u32 = 0;

const CRYPT_METHOD_LUKS: u32 = 2;

/// With clusters of at most this many bytes there is no feature name table by default.
const SMALL_CLUSTER: u64 = 4096;
/// The length of a feature name table entry in bytes.
const FEATURE_NAME_SIZE: usize = 48;
/// Feature bitmap (0 incompatible, 1 compatible, 2 autoclear), bit, name.
const FEATURE_NAMES: [(u8, u8, &str); 8] = [
    (0, 0, "dirty bit"),
    (0, 1, "corrupt bit"),
    (0, 2, "external data file"),
    (0, 3, "compression type"),
    (0, 4, "extended L2 entries"),
    (1, 0, "lazy refcounts"),
    (2, 0, "bitmaps"),
    (2, 1, "raw external data"),
];

/// How many bytes the header, its extensions and the backing file name take.
pub(super) fn length(wanted: &Qcow2) -> u64 {
    let extensions: u64 = sizes(wanted, wanted.feature_name_table == Some(true));
    let backing_file = wanted.backing_file.as_ref().map_or(0, |file| file.name.len() as u64);
    u64::from(header_length(wanted)) + extensions + backing_file
}

/// The header, its extensions and the backing file name.
pub(super) fn encode(wanted: &Qcow2, layout: &Layout) -> Vec<u8> {
    let extensions = extensions(wanted, layout);
    let end = u64::from(header_length(wanted)) + extensions.len() as u64;
    let mut header = fields(wanted, layout, end);
    header.extend(extensions);
    if let Some(backing_file) = &wanted.backing_file {
        header.extend(backing_file.name.as_bytes());
    }
    header
}

fn header_length(wanted: &Qcow2) -> u32 {
    let default = if wanted.version < 3 { LENGTH_V2 } else { LENGTH_V3 };
    wanted.header_length.unwrap_or(default)
}

/// The header itself. `end` is where the extensions end, in bytes.
fn fields(wanted: &Qcow2, layout: &Layout, end: u64) -> Vec<u8> {
    let g = &layout.geometry;
    let backing_file_size = wanted.backing_file.as_ref().map_or(0, |file| file.name.len());
    let backing_file_offset = if wanted.backing_file.is_some() { end } else { 0 };
    // A table without an entry has no place, as qemu-img has it.
    let l1_table_offset = if layout.l1_size == 0 { 0 } else { layout.l1_table.offset(g) };
    let snapshots_offset = if wanted.snapshots.is_empty() { 0 } else { layout.snapshot_table.offset(g) };

    let mut header = Vec::new();
    header.extend(MAGIC.to_be_bytes());
    header.extend(wanted.version.to_be_bytes());
    header.extend(backing_file_offset.to_be_bytes());
    header.extend((backing_file_size as u32).to_be_bytes());
    header.extend(wanted.cluster_bits.to_be_bytes());
    header.extend(wanted.size.to_be_bytes());
    header.extend(if wanted.luks.is_some() { CRYPT_METHOD_LUKS } else { 0 }.to_be_bytes());
    header.extend(layout.l1_size.to_be_bytes());
    header.extend(l1_table_offset.to_be_bytes());
    header.extend(layout.refcount_table.offset(g).to_be_bytes());
    header.extend((layout.refcount_table.count as u32).to_be_bytes());
    header.extend((wanted.snapshots.len() as u32).to_be_bytes());
    header.extend(snapshots_offset.to_be_bytes());
    if wanted.version >= 3 {
        header.extend(incompatible_features(wanted).to_be_bytes());
        header.extend(u64::from(wanted.lazy_refcounts).to_be_bytes());
        header.extend(autoclear_features(wanted).to_be_bytes());
        header.extend(wanted.refcount_order.to_be_bytes());
        header.extend(header_length(wanted).to_be_bytes());
        header.push(wanted.compression_type);
        header.resize(header_length(wanted) as usize, 0);
    }
    header
}

fn incompatible_features(wanted: &Qcow2) -> u64 {
    u64::from(wanted.dirty)
        | u64::from(wanted.data_file.is_some()) << 2
        | u64::from(wanted.compression_type != 0) << 3
        | u64::from(wanted.extended_l2) << 4
}

fn autoclear_features(wanted: &Qcow2) -> u64 {
    let raw = wanted.data_file.as_ref().is_some_and(|file| file.raw);
    u64::from(!wanted.bitmaps.is_empty()) | u64::from(raw) << 1
}

/// All header extensions, with the one that ends them.
fn extensions(wanted: &Qcow2, layout: &Layout) -> Vec<u8> {
    let mut area = Vec::new();
    if let Some(format) = backing_format(wanted) {
        push(&mut area, BACKING_FORMAT, format.as_bytes());
    }
    if let Some(name) = data_file_name(wanted) {
        push(&mut area, DATA_FILE, name.as_bytes());
    }
    if wanted.luks.is_some() {
        let place = [layout.luks.offset(&layout.geometry), Luks::length()];
        push(&mut area, FULL_DISK_ENCRYPTION, &place.map(u64::to_be_bytes).concat());
    }
    if has_feature_name_table(wanted, layout.geometry.cluster_size()) {
        push(&mut area, FEATURE_NAME_TABLE, &feature_name_table());
    }
    if !wanted.bitmaps.is_empty() {
        let size: u64 = wanted.bitmaps.iter().map(Bitmap::entry_length).sum();
        let mut data = Vec::new();
        data.extend((wanted.bitmaps.len() as u32).to_be_bytes());
        data.extend([0; 4]);
        data.extend(size.to_be_bytes());
        data.extend(layout.bitmap_directory.offset(&layout.geometry).to_be_bytes());
        push(&mut area, BITMAPS, &data);
    }
    for (extension_type, data) in &wanted.extensions {
        push(&mut area, *extension_type, data);
    }
    push(&mut area, END, &[]);
    area
}

/// The length of [`extensions`] in bytes.
fn sizes(wanted: &Qcow2, feature_name_table: bool) -> u64 {
    let size = |data: usize| 8 + (data as u64).next_multiple_of(8);
    let strings = [backing_format(wanted), data_file_name(wanted)];
    strings.iter().flatten().map(|text| size(text.len())).sum::<u64>()
        + if feature_name_table { size(FEATURE_NAMES.len() * FEATURE_NAME_SIZE) } else { 0 }
        + if wanted.luks.is_some() { size(16) } else { 0 }
        + if wanted.bitmaps.is_empty() { 0 } else { size(24) }
        + wanted.extensions.iter().map(|(_, data)| size(data.len())).sum::<u64>()
        + size(0)
}

/// Unless the caller says so, there is a feature name table if there is room for it, and as with
/// qemu-img not in clusters of up to [`SMALL_CLUSTER`].
fn has_feature_name_table(wanted: &Qcow2, cluster_size: u64) -> bool {
    wanted.feature_name_table.unwrap_or_else(|| {
        let more = sizes(wanted, true) - sizes(wanted, false);
        wanted.version >= 3 && cluster_size > SMALL_CLUSTER && length(wanted) + more <= cluster_size
    })
}

fn backing_format(wanted: &Qcow2) -> Option<&str> {
    wanted.backing_file.as_ref()?.format.as_deref()
}

fn data_file_name(wanted: &Qcow2) -> Option<&str> {
    let name = wanted.data_file.as_ref()?.name.as_str();
    (!name.is_empty()).then_some(name)
}

fn feature_name_table() -> Vec<u8> {
    let mut table = Vec::new();
    for (bitmap, bit, name) in FEATURE_NAMES {
        let end = table.len() + FEATURE_NAME_SIZE;
        table.extend([bitmap, bit]);
        table.extend(name.as_bytes());
        table.resize(end, 0);
    }
    table
}

/// Appends a header extension with its padding.
fn push(area: &mut Vec<u8>, extension_type: u32, data: &[u8]) {
    area.extend(extension_type.to_be_bytes());
    area.extend((data.len() as u32).to_be_bytes());
    area.extend(data);
    area.resize(area.len().next_multiple_of(8), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(wanted: &Qcow2) -> Vec<u8> {
        let layout = Layout::plan(wanted).unwrap();
        let header = encode(wanted, &layout);
        let table = has_feature_name_table(wanted, layout.geometry.cluster_size());
        let other = table && wanted.feature_name_table.is_none();
        assert_eq!(header.len() as u64, length(wanted) + if other { 392 } else { 0 });
        header
    }

    #[test]
    fn the_length_is_what_was_said() {
        for length in [104, 112, 120, 200] {
            let wanted = Qcow2::new(1 << 20).header_length(length);
            let header = header(&wanted.backing_file("base", Some("raw")));
            assert_eq!(header[100..104], length.to_be_bytes());
            let at = length as usize;
            assert_eq!(header[at..at + 12], *b"\xe2\x79\x2a\xca\0\0\0\x03raw\0");
            assert!(header.ends_with(b"\0\0\0\0\0\0\0\0base"));
        }
        let v2 = header(&Qcow2::new(1 << 20).version(2).extension(7, b"123456789"));
        assert_eq!(v2[72..], *b"\0\0\0\x07\0\0\0\x09123456789\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    }

    #[test]
    fn the_feature_name_table_gives_way_unless_it_is_wanted() {
        let small = || Qcow2::new(1 << 20).cluster_bits(9);
        assert_eq!(header(&small()).len(), 120);
        assert_eq!(header(&small().feature_name_table(true)).len(), 512);
        let wanted = small().backing_file("b", None).feature_name_table(true);
        assert!(Layout::plan(&wanted).is_err());
        let large = || Qcow2::new(1 << 20).cluster_bits(13);
        assert_eq!(header(&large()).len(), 512);
        assert_eq!(header(&large().feature_name_table(false)).len(), 120);
        assert_eq!(header(&large().extension(7, [1; 8000])).len(), 120 + 8 + 8000);
        assert!(Layout::plan(&large().extension(7, [1; 8000]).feature_name_table(true)).is_err());
    }

    #[test]
    fn features_are_bits() {
        let wanted = Qcow2::new(1 << 20).dirty(true).lazy_refcounts(true).compression_type(1);
        let wanted = wanted.extended_l2(true).data_file("d", true).bitmap(Bitmap::new("b"));
        let header = header(&wanted);
        let features: Vec<u8> = header[72..96].chunks(8).map(|field| field[7]).collect();
        assert_eq!((features, header[104]), (vec![0b11101, 1, 0b11], 1));
    }
}
