use super::*;
use crate::generate::{Order, Qcow2, Snapshot as Wanted};
use crate::qcow2::l2::{Mapping, Subcluster};
use proptest::prelude::*;

const UNALLOCATED: ExtentKind = ExtentKind::Unallocated { preallocated: None };

fn all(image: &[u8]) -> Vec<(u64, u64, ExtentKind)> {
    let tables = Tables::new(image).unwrap();
    map(&tables).map(|extent| (extent.start.0, extent.length, extent.kind)).collect()
}

fn data(offset: u64) -> ExtentKind {
    ExtentKind::Data { offset: HostOffset(offset) }
}

fn invalid(why: Invalid) -> ExtentKind {
    ExtentKind::Invalid { why, offset: None }
}

/// Clusters of 512 bytes: header, L1 table of two entries, an L2 table at 0x400, and two clusters of data.
fn image(version: u8, size: u64, l2: &[u64]) -> Vec<u8> {
    let mut bytes = vec![0; 5 * 512];
    bytes[..4].copy_from_slice(b"QFI\xfb");
    (bytes[7], bytes[23], bytes[39], bytes[46]) = (version, 9, 2, 2);
    bytes[24..32].copy_from_slice(&size.to_be_bytes());
    put(&mut bytes, 512, 0x8000_0000_0000_0400);
    for (index, entry) in l2.iter().enumerate() {
        put(&mut bytes, 1024 + index * 8, *entry);
    }
    bytes
}

fn put(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
}

/// What a table's part of the disk is.
const SPAN: u64 = 64 * 512;

#[test]
fn neighbours_are_joined_and_the_disk_is_covered() {
    let zero = |preallocated: Option<u64>| ExtentKind::Zero { preallocated: preallocated.map(HostOffset) };
    let compressed = 1 << 62 | 0x600;
    let entries = [0x600, 0x800, 0x600, 1, 1, 0x801, 0, compressed, compressed + 0x200, 0x9000, 0x9200];
    assert_eq!(
        all(&image(3, 2 * SPAN, &entries)),
        [
            (0, 1024, data(0x600)),
            (1024, 512, data(0x600)),
            (1536, 1024, zero(None)),
            (2560, 512, zero(Some(0x800))),
            (3072, 512, UNALLOCATED),
            (3584, 1024, ExtentKind::Compressed),
            (4608, 1024, ExtentKind::Invalid { why: Invalid::PastEnd, offset: Some(HostOffset(0x9000)) }),
            (5632, 2 * SPAN - 5632, UNALLOCATED),
        ]
    );
}

#[test]
fn what_is_wrong_is_told() {
    let first = |version, entry| all(&image(version, SPAN, &[entry]))[0].2;
    let past_end = |offset| ExtentKind::Invalid { why: Invalid::PastEnd, offset: Some(HostOffset(offset)) };
    assert_eq!(first(3, 0xa00), past_end(0xa00));
    // A cluster that the file has in part is there.
    let mut cut = image(3, SPAN, &[0x600, 0x800]);
    cut.truncate(0x801);
    assert_eq!(all(&cut)[0], (0, 1024, data(0x600)));
    cut.truncate(0x800);
    assert_eq!(all(&cut)[..2], [(0, 512, data(0x600)), (512, 512, past_end(0x800))]);
    assert_eq!(first(3, 1 << 62 | 0xa00), invalid(Invalid::CompressedPastEnd));
    assert_eq!(first(2, 0x601), invalid(Invalid::ZeroFlag));
    assert_eq!(first(2, 1), invalid(Invalid::ZeroFlag));
    // Reserved bits change nothing.
    assert_eq!(first(3, 0x3f00_0000_0000_07fe & !0x1fe), data(0x600));
}

#[test]
fn wrong_tables_are_told() {
    let mut bytes = image(3, 3 * SPAN, &[0x600]);
    put(&mut bytes, 520, 0x8000_0000_0010_0000);
    assert_eq!(
        all(&bytes)[2..],
        [(SPAN, SPAN, invalid(Invalid::TablePastEnd)), (2 * SPAN, SPAN, invalid(Invalid::NoL1Entry))]
    );
    // The file ends inside the L2 table, and inside the L1 table.
    let mut bytes = image(3, SPAN, &[0x400]);
    bytes.truncate(1024 + 16);
    assert_eq!(all(&bytes)[0], (0, 512, data(0x400)));
    let mut bytes = image(3, 1 << 40, &[]);
    bytes[36..40].fill(0xff);
    assert_eq!(all(&bytes).last().unwrap().2, invalid(Invalid::TablePastEnd));
}

#[test]
fn the_disk_ends_where_it_ends() {
    assert_eq!(all(&image(3, 0, &[])), []);
    assert_eq!(all(&image(3, 511, &[])), []);
    assert_eq!(all(&image(3, 1023, &[0x600])), [(0, 512, data(0x600))]);
    let whole = all(&image(3, u64::MAX, &[]));
    let rest = u64::MAX - 511 - 2 * SPAN;
    assert_eq!(whole, [(0, 2 * SPAN, UNALLOCATED), (2 * SPAN, rest, invalid(Invalid::NoL1Entry))]);
}

#[test]
fn an_external_data_file_is_the_disk() {
    let mut bytes = image(3, SPAN, &[1 << 63, 1 << 63 | 512, 1 << 63 | 512, 1 << 62, 0]);
    bytes[79] = 4;
    assert_eq!(
        all(&bytes),
        [
            (0, 1024, data(0)),
            (1024, 512, invalid(Invalid::Misplaced)),
            (1536, 512, invalid(Invalid::CompressedElsewhere)),
            (2048, SPAN - 2048, UNALLOCATED),
        ]
    );
}

#[test]
fn a_table_that_everybody_names_is_not_read_for_hours() {
    let mut bytes = image(3, 512 * SPAN, &[0x600]);
    (bytes[38], bytes[39], bytes[46]) = (1, 0, 20);
    bytes.resize(5120 + 256 * 8, 0);
    for index in 0..256 {
        put(&mut bytes, 5120 + index * 8, 0x400);
    }
    let found = all(&bytes);
    let rest = found.iter().find(|(_, _, kind)| *kind == invalid(Invalid::TooOften)).unwrap();
    assert!(rest.0 >= 4 * SPAN && rest.0 + rest.1 == 256 * SPAN, "{rest:?}");
}

#[test]
fn snapshots_have_their_own_disk() {
    let wanted = Qcow2::new(1 << 20).data(0, b"old").snapshot(Wanted::new("1", "one")).data(0, b"new");
    let bytes = wanted.build().unwrap();
    let tables = Tables::new(&bytes).unwrap();
    let snapshot = tables.snapshots().next().unwrap().unwrap();
    let old: Vec<_> = map_snapshot(&tables, &snapshot).collect();
    let new: Vec<_> = map(&tables).collect();
    assert_ne!(old[0].kind, new[0].kind);
    assert_eq!(old[1..], new[1..]);
}

/// What the tables say of one byte of the disk, looked up alone.
fn plainly(tables: &Tables<'_>, guest: u64) -> ExtentKind {
    let (geometry, format) = (tables.geometry(), tables.l2_format());
    let (l1_index, l2_index) = geometry.indices(guest);
    let Some(l1_entry) = tables.l1_entry(geometry.l1_table(), l1_index) else {
        let is_there = l1_index < geometry.l1_size();
        return invalid(if is_there { Invalid::TablePastEnd } else { Invalid::NoL1Entry });
    };
    if !l1_entry.is_allocated() {
        return UNALLOCATED;
    }
    if !geometry.is_aligned(l1_entry.l2_table().0) {
        return invalid(Invalid::TableUnaligned);
    }
    let Some(entry) = tables.l2_entry(l1_entry.l2_table(), l2_index) else {
        return invalid(Invalid::TablePastEnd);
    };
    let from = guest % geometry.cluster_size();
    let at = |host: HostOffset| Some(HostOffset(host.0 + from));
    let data = |host: HostOffset| match host.0 < geometry.file_length() {
        true => ExtentKind::Data { offset: HostOffset(host.0 + from) },
        false => ExtentKind::Invalid { why: Invalid::PastEnd, offset: at(host) },
    };
    if !entry.is_compressed() && !geometry.is_aligned(entry.offset().0) {
        return invalid(Invalid::Unaligned);
    }
    match entry.mapping(&format) {
        Mapping::Compressed(at) if at.offset.0 >= geometry.file_length() => {
            invalid(Invalid::CompressedPastEnd)
        }
        Mapping::Compressed(_) => ExtentKind::Compressed,
        Mapping::Data(host) => data(host),
        Mapping::Zero { preallocated } => ExtentKind::Zero { preallocated: preallocated.and_then(at) },
        Mapping::Unallocated { preallocated } => {
            ExtentKind::Unallocated { preallocated: preallocated.and_then(at) }
        }
        Mapping::Subclusters { host } => {
            match (entry.bitmap.state((from / geometry.subcluster_size()) as u32), host) {
                (Subcluster::Unallocated, host) => {
                    ExtentKind::Unallocated { preallocated: host.and_then(at) }
                }
                (Subcluster::Zero, host) => ExtentKind::Zero { preallocated: host.and_then(at) },
                (Subcluster::Data, Some(host)) => data(host),
                _ => invalid(Invalid::Subclusters),
            }
        }
    }
}

/// The extents cover the disk, cannot be joined, and say what the tables say.
fn agrees(image: &[u8], step: u64) -> Result<(), TestCaseError> {
    let tables = Tables::new(image).unwrap();
    let mut end = 0;
    let mut last: Option<Extent> = None;
    for extent in map(&tables) {
        prop_assert_eq!(extent.start.0, end);
        prop_assert!(extent.length > 0);
        prop_assert!(!last.is_some_and(|last| last.goes_on_in(&extent)), "{:?}, {:?}", last, extent);
        if extent.kind != invalid(Invalid::TooOften) {
            for at in (extent.start.0..extent.end()).step_by(step as usize).take(2000) {
                let expected = extent.kind.moved_by(at - extent.start.0);
                prop_assert_eq!(Some(plainly(&tables, at)), expected, "{:#x}", at);
            }
        }
        end = extent.end();
        last = Some(extent);
    }
    prop_assert_eq!(end, tables.geometry().virtual_size() / 512 * 512);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn tables_of_any_entries_are_mapped(
        l2 in proptest::collection::vec(
            prop_oneof![Just(0), Just(1), (0..12u64).prop_map(|n| n << 9), (0..6u64).prop_map(|n| 1 << 63 | n << 9),
                (0..6u64).prop_map(|n| 1 << 62 | n << 8), any::<u64>()],
            0..64,
        ),
        l1 in proptest::collection::vec(prop_oneof![Just(0), Just(0x400), (0..9u64).prop_map(|n| n << 8), any::<u64>()], 2),
        size in 0..3 * SPAN,
        cut in 0..2000usize,
    ) {
        let mut bytes = image(3, size, &l2);
        put(&mut bytes, 512, l1[0]);
        put(&mut bytes, 520, l1[1]);
        bytes.truncate(bytes.len() - cut);
        agrees(&bytes, 256)?;
    }

    #[test]
    fn extended_entries_are_mapped(
        entries in proptest::collection::vec(
            (prop_oneof![Just(0), (0..9u64).prop_map(|n| n << 14), any::<u64>()],
             prop_oneof![Just(0), Just(u64::MAX << 32), Just(0xffff_ffff), Just(0xff00_00ff), any::<u64>()]),
            1..40,
        )
    ) {
        let built = Qcow2::new(16 << 20).cluster_bits(14).extended_l2(true).data(0, [1; 512]).order(Order::TablesFirst);
        let mut bytes = built.build().unwrap();
        let table = Tables::new(&bytes).unwrap();
        let l1 = table.geometry().l1_table();
        let at = table.l1_entry(l1, 0).unwrap().l2_table().0 as usize;
        for (index, (raw, bitmap)) in entries.into_iter().enumerate() {
            put(&mut bytes, at + index * 16, raw);
            put(&mut bytes, at + index * 16 + 8, bitmap);
        }
        agrees(&bytes, 512)?;
    }
}
