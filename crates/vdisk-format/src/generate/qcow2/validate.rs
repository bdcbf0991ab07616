//! What the format does not allow.

use std::collections::HashSet;

use super::geometry::Geometry;
use super::header;
use super::{Bitmap, Qcow2};
use crate::generate::GenerateError;
use crate::generate::error::field;
use crate::generate::guest::Operation;

/// A backing file name has at most this many bytes.
const BACKING_FILE_SIZE_MAX: u64 = 1023;

/// Checks all fields, and gives the geometry that they describe.
pub(super) fn geometry(wanted: &Qcow2) -> Result<Geometry, GenerateError> {
    fields(wanted)?;
    if wanted.version < 3 {
        version_2(wanted)?;
    } else {
        version_3(wanted)?;
    }
    data_file(wanted)?;
    names(wanted)?;
    Ok(Geometry {
        size: wanted.size,
        cluster_bits: wanted.cluster_bits,
        refcount_order: wanted.refcount_order,
        extended_l2: wanted.extended_l2,
    })
}

/// Refuses a header that does not fit in the first cluster.
pub(super) fn header_fits(wanted: &Qcow2, g: &Geometry) -> Result<(), GenerateError> {
    let need = header::length(wanted);
    if need <= g.cluster_size() {
        return Ok(());
    }
    Err(GenerateError::HeaderTooLong { need, have: g.cluster_size() })
}

/// The number of entries of a table, as the u32 that its field has.
pub(super) fn narrow(what: &'static str, entries: u64) -> Result<u32, GenerateError> {
    let max = u64::from(u32::MAX);
    u32::try_from(entries).map_err(|_| GenerateError::TableTooLong { what, entries, max })
}

fn fields(wanted: &Qcow2) -> Result<(), GenerateError> {
    let cluster_bits = u64::from(wanted.cluster_bits);
    field("version", wanted.version.into(), (2..=3).contains(&wanted.version), "2 or 3")?;
    field("cluster_bits", cluster_bits, (9..=21).contains(&cluster_bits), "9 to 21")?;
    let valid = "14 to 21 with extended L2 entries";
    field("cluster_bits", cluster_bits, !wanted.extended_l2 || cluster_bits >= 14, valid)?;
    let refcount_order = u64::from(wanted.refcount_order);
    field("refcount_order", refcount_order, refcount_order <= 6, "0 to 6")?;
    let compression_type = u64::from(wanted.compression_type);
    field("compression_type", compression_type, compression_type <= 1, "0 or 1")?;
    for (extension_type, _) in &wanted.extensions {
        let value = u64::from(*extension_type);
        field("extension type", value, value != 0, "anything but 0, which ends the extensions")?;
    }
    Ok(())
}

fn version_2(wanted: &Qcow2) -> Result<(), GenerateError> {
    let length = wanted.header_length.unwrap_or(header::LENGTH_V2);
    field("header_length", length.into(), length == header::LENGTH_V2, "72 in version 2")?;
    let order = u64::from(wanted.refcount_order);
    field("refcount_order", order, order == 4, "4 in version 2")?;
    let zero = wanted.contents.iter().any(Operation::is_zero);
    for (has, feature) in [
        (wanted.lazy_refcounts, "lazy_refcounts"),
        (wanted.dirty, "dirty"),
        (wanted.compression_type != 0, "compression_type"),
        (wanted.extended_l2, "extended_l2"),
        (wanted.feature_name_table == Some(true), "feature_name_table"),
        (wanted.data_file.is_some(), "data_file"),
        (!wanted.bitmaps.is_empty(), "bitmap"),
        (zero, "zero"),
    ] {
        if has {
            return Err(GenerateError::NeedsVersion3 { feature });
        }
    }
    Ok(())
}

fn version_3(wanted: &Qcow2) -> Result<(), GenerateError> {
    let length = wanted.header_length.unwrap_or(header::LENGTH_V3);
    let valid = "a multiple of 8 from 104";
    field("header_length", length.into(), length >= 104 && length.is_multiple_of(8), valid)?;
    let valid = "at least 112 with a compression type";
    let has_room = length >= 112 || wanted.compression_type == 0;
    field("header_length", length.into(), has_room, valid)
}

fn data_file(wanted: &Qcow2) -> Result<(), GenerateError> {
    let Some(data_file) = &wanted.data_file else { return Ok(()) };
    if !wanted.snapshots.is_empty() {
        return Err(GenerateError::Conflict { one: "snapshot", other: "data_file" });
    }
    if wanted.contents.iter().any(Operation::is_compressed) {
        return Err(GenerateError::Conflict { one: "compressed", other: "data_file" });
    }
    if data_file.raw && wanted.backing_file.is_some() {
        return Err(GenerateError::Conflict { one: "backing_file", other: "a raw data_file" });
    }
    Ok(())
}

fn names(wanted: &Qcow2) -> Result<(), GenerateError> {
    if let Some(backing_file) = &wanted.backing_file {
        let (length, max) = (backing_file.name.len() as u64, BACKING_FILE_SIZE_MAX);
        if !(1..=max).contains(&length) {
            let what = "the backing file's name";
            return Err(GenerateError::Length { what, length, min: 1, max });
        }
    }
    for bitmap in &wanted.bitmaps {
        bitmap.validate()?;
    }
    if let Some(luks) = &wanted.luks {
        luks.validate()?;
    }
    for (_, snapshot) in &wanted.snapshots {
        snapshot.validate(wanted.version)?;
    }
    narrow("the bitmap directory", wanted.bitmaps.len() as u64)?;
    narrow("the snapshot table", wanted.snapshots.len() as u64)?;
    unique("bitmaps", wanted.bitmaps.iter().map(Bitmap::name))?;
    unique("snapshots", wanted.snapshots.iter().map(|(_, snapshot)| snapshot.id()))
}

fn unique<'a>(what: &'static str, names: impl Iterator<Item = &'a str>) -> Result<(), GenerateError> {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(GenerateError::Duplicate { what, name: name.to_owned() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::qcow2::layout::Layout;
    use crate::generate::{Luks, Snapshot};
    use std::io::Cursor;

    fn error(wanted: &Qcow2) -> String {
        wanted.build().unwrap_err().to_string()
    }

    fn new() -> Qcow2 {
        Qcow2::new(1 << 20)
    }

    #[test]
    fn fields_out_of_range_are_named() {
        assert_eq!(error(&new().version(4)), "version is 4, but must be 2 or 3");
        assert_eq!(error(&new().cluster_bits(8)), "cluster_bits is 8, but must be 9 to 21");
        assert_eq!(error(&new().cluster_bits(22)), "cluster_bits is 22, but must be 9 to 21");
        assert!(error(&new().cluster_bits(13).extended_l2(true)).contains("14 to 21"));
        assert!(error(&new().refcount_order(7)).contains("0 to 6"));
        assert!(error(&new().compression_type(2)).contains("0 or 1"));
        assert!(error(&new().header_length(96)).contains("a multiple of 8"));
        assert!(error(&new().header_length(107)).contains("a multiple of 8"));
        assert!(error(&new().header_length(104).compression_type(1)).contains("at least 112"));
        assert!(error(&new().extension(0, b"")).contains("anything but 0"));
    }

    #[test]
    fn version_2_has_no_features() {
        let v2 = || new().version(2);
        assert!(error(&v2().refcount_order(5)).contains("4 in version 2"));
        assert!(error(&v2().header_length(104)).contains("72 in version 2"));
        for wanted in [
            v2().lazy_refcounts(true),
            v2().dirty(true),
            v2().compression_type(1),
            v2().extended_l2(true),
            v2().feature_name_table(true),
            v2().data_file("d", false),
            v2().bitmap(Bitmap::new("b")),
            v2().zero(0..65536),
        ] {
            assert!(error(&wanted).contains("needs version 3"), "{wanted:?}");
        }
        assert!(v2().header_length(72).feature_name_table(false).build().is_ok());
    }

    #[test]
    fn what_excludes_each_other_is_refused() {
        let snapshot = || Snapshot::new("1", "s");
        assert!(error(&new().data_file("d", false).snapshot(snapshot())).contains("snapshot"));
        let compressed = new().data_file("d", false).compressed(0, [0; 65536]);
        assert_eq!(error(&compressed), "compressed cannot be combined with data_file");
        assert!(error(&new().luks(Luks::new(1).key_slots(9))).contains("1 to 8"));
        let raw = new().data_file("d", true).backing_file("b", None);
        assert!(error(&raw).contains("backing_file"));
        assert!(new().data_file("d", false).backing_file("b", None).build().is_ok());
        let twice = new().snapshot(snapshot()).snapshot(snapshot());
        assert_eq!(error(&twice), "two snapshots are called \"1\"");
        let twice = new().bitmap(Bitmap::new("b")).bitmap(Bitmap::new("b"));
        assert_eq!(error(&twice), "two bitmaps are called \"b\"");
    }

    #[test]
    fn refcounts_that_are_too_narrow_are_refused() {
        let shared = |order, snapshots| {
            (0..snapshots).fold(new().refcount_order(order).data(0, b"x"), |wanted, id: u32| {
                wanted.snapshot(Snapshot::new(id.to_string(), ""))
            })
        };
        assert!(shared(1, 2).build().is_ok());
        assert!(error(&shared(1, 3)).contains("4 references"));
        assert!(error(&shared(0, 1)).contains("2 references"));
        // Each host cluster has as many streams as fit, of which each snapshot has one more reference.
        let packed = new().refcount_order(3).cluster_bits(9).compressed(0, vec![0; 100 << 9]);
        assert!(packed.build().is_ok());
        let packed =
            (0..20_u32).fold(packed, |wanted, id| wanted.snapshot(Snapshot::new(id.to_string(), "")));
        assert!(error(&packed).contains("do not fit in a refcount of 8 bits"));
        let nothing_is_shared = new().refcount_order(0).snapshot(Snapshot::new("1", ""));
        assert!(nothing_is_shared.build().is_ok());
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let long = "n".repeat(1024);
        assert!(error(&new().backing_file(&long, None)).contains("1023"));
        assert!(error(&new().backing_file("", None)).contains("1 to 1023"));
        let name = "n".repeat(600);
        assert!(error(&new().cluster_bits(9).backing_file(name, None)).contains("a cluster has 512"));
        let error_of = |size| error(&Qcow2::new(size).cluster_bits(9));
        assert!(error_of(1 << 50).contains("L1 table would have"));
        let full = Qcow2::new(1 << 56).cluster_bits(21).allocate(0..1 << 56);
        assert!(matches!(full.build(), Err(GenerateError::FileTooLarge { .. })));
        let external = Qcow2::new(1 << 57).cluster_bits(21).data_file("d", false);
        assert!(external.clone().data((1 << 56) - 1, b"x").write_to(&mut Cursor::new(Vec::new())).is_ok());
        assert!(matches!(external.data(1 << 56, b"x").build(), Err(GenerateError::FileTooLarge { .. })));
        // The descriptor of a compressed cluster of 2 MiB has an offset of 49 bits.
        let full = Qcow2::new(1 << 50).cluster_bits(21).allocate(1 << 21..1 << 49);
        assert!(Layout::plan(&full).is_ok());
        let error = Layout::plan(&full.compressed(0, vec![0; 1 << 21])).unwrap_err();
        assert!(matches!(error, GenerateError::FileTooLarge { bits: 49, .. }));
        let beyond = new().data((1 << 20) - 1, b"ab");
        assert!(matches!(beyond.build(), Err(GenerateError::OutOfRange { .. })));
        let beyond = new().data(u64::MAX, b"ab");
        assert!(matches!(beyond.build(), Err(GenerateError::OutOfRange { .. })));
    }
}
