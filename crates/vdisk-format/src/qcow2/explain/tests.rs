#![cfg(feature = "generate")]

use proptest::prelude::*;

use super::*;
use crate::generate::{Bitmap, Luks, Qcow2, Snapshot};
use crate::qcow2::check::check;

const DISK: u64 = 128 << 10;

/// Everything that an image can have, in clusters of 512 bytes.
fn rich(order: u32) -> Vec<u8> {
    let image = Qcow2::new(DISK)
        .cluster_bits(9)
        .refcount_order(order)
        .extension(0x1234_5678, *b"unknown")
        .backing_file("base.raw", Some("raw"))
        .bitmap(Bitmap::new("b0").granularity_bits(9).dirty(0..DISK / 2))
        .data(0, vec![1; 3000])
        .snapshot(Snapshot::new("1", "first"))
        .data(0x4000, vec![2; 600])
        .compressed(0x8000, vec![3; 1024])
        .zero_preallocated(0xa000..0xa400);
    image.build().unwrap()
}

fn explained(image: &[u8], offset: u64) -> Part {
    explain(image, HostOffset(offset)).unwrap().parts.remove(0)
}

fn every_byte_is_something(image: &[u8], step: usize) {
    for offset in (0..image.len() as u64 + 1024).step_by(step) {
        let explanation = explain(image, HostOffset(offset)).unwrap();
        assert!(!explanation.parts.is_empty());
        for part in &explanation.parts {
            assert!((part.place.offset.0..part.place.end()).contains(&offset), "{offset:#x}: {part:?}");
        }
    }
}

#[test]
fn every_byte_of_a_sound_image_is_something_and_valid() {
    for order in [0, 1, 2, 3, 4, 6] {
        // A refcount of one bit counts no snapshots.
        let image = if order > 1 {
            rich(order)
        } else {
            Qcow2::new(DISK).cluster_bits(9).refcount_order(order).data(0, *b"x").build().unwrap()
        };
        for offset in (0..image.len() as u64).step_by(23) {
            let explanation = explain(&image, HostOffset(offset)).unwrap();
            let owners = explanation.owners.unwrap();
            assert_eq!(Some(owners.references), owners.refcount, "{offset:#x}: {owners:?}");
            assert!(matches!(owners.state, State::Used | State::Free), "{offset:#x}");
            for part in explanation.parts {
                assert!(part.problems.is_empty(), "{offset:#x}: {part:?}");
                assert!((part.place.offset.0..part.place.end()).contains(&offset), "{offset:#x}: {part:?}");
            }
        }
    }
}

#[test]
fn parts_are_named() {
    let image = rich(4);
    let tables = Tables::new(&image).unwrap();
    let header = tables.header().v2;
    let l1 = tables.geometry().l1_table();
    let name_of = |offset| match explained(&image, offset).subject {
        Subject::Field { name, .. } | Subject::Text { name, .. } => name.to_owned(),
        Subject::Unused { what } => what,
        other => format!("{other:?}").split(' ').next().unwrap().to_owned(),
    };
    assert_eq!(name_of(0), "magic");
    assert_eq!(name_of(102), "header_length");
    assert_eq!(name_of(106), "header: padding, or fields of a later specification");
    assert_eq!(name_of(header.backing_file_offset + 7), "backing file name");
    assert_eq!(name_of(l1.offset.0), "L1Entry");
    assert_eq!(name_of(header.refcount_table_offset), "RefcountTableEntry");
    assert_eq!(name_of(header.snapshots_offset + 39), "extra_data_size");
    assert_eq!(name_of(header.snapshots_offset + 48), "disk_size");
    assert_eq!(name_of(header.snapshots_offset + 64), "unique ID");
    assert_eq!(name_of(header.snapshots_offset + 65), "name");
    assert_eq!(name_of(image.len() as u64 + 512), "PastEnd");
    let (_, entry) = tables.refcount_table_entries().next().unwrap();
    let Subject::Refcounts { index, refcounts, .. } = explained(&image, entry.block().0 + 3).subject else {
        panic!()
    };
    assert_eq!((index, refcounts[0].cluster, refcounts[0].refcount), (1, 1, refcounts[0].references));
    let (_, l1_entry) = tables.l1_entries(l1).next().unwrap();
    let Subject::L2Entry { index, guest, mapping: Mapping::Data(host), .. } =
        explained(&image, l1_entry.l2_table().0 + 8).subject
    else {
        panic!()
    };
    assert_eq!((index, guest), (1, Some(512..1024)));
    // The byte of the guest, not only the cluster.
    let Subject::Data { guest, is_read, .. } = explained(&image, host.0 + 5).subject else { panic!() };
    assert_eq!((guest, is_read), (Some(517), true));
}

#[test]
fn an_extension_is_told_field_by_field() {
    let image = rich(4);
    let header = Header::parse(&image).unwrap();
    for extension in header.extensions().map(Result::unwrap) {
        let part = explained(&image, extension.offset.0 + 6);
        let Subject::Field { structure, name, value, .. } = part.subject else { panic!() };
        assert_eq!((structure, name, value), ("header extension", "length", extension.length.into()));
        let part = explained(&image, extension.data_offset().0);
        match (extension.magic.0, part.subject) {
            (0x1234_5678, Subject::Unused { what }) => {
                assert_eq!(what, "data of header extension 0x12345678");
            }
            (0xe279_2aca, Subject::Text { text, .. }) => assert_eq!(text, b"raw"),
            (0x2385_2875, Subject::Field { name, value, .. }) => assert_eq!((name, value), ("nb_bitmaps", 1)),
            (magic, subject) => panic!("{magic:#x}: {subject:?}"),
        }
    }
}

#[test]
fn luks_is_told_without_its_secrets() {
    let image = Qcow2::new(DISK).cluster_bits(12).luks(Luks::new(1)).build().unwrap();
    let tables = Tables::new(&image).unwrap();
    let start = crate::qcow2::crypto::crypto_header_pointer(tables.header()).unwrap().unwrap().offset;
    let Subject::Text { name, text, .. } = explained(&image, start + 40).subject else { panic!() };
    assert_eq!((name, text.as_slice()), ("cipher mode", b"ecb-plain".as_slice()));
    for (at, name) in
        [(112, "master key digest"), (132, "salt of the master key digest"), (216, "salt of key slot 0")]
    {
        let part = explained(&image, start + at);
        assert_eq!(
            part.subject,
            Subject::Secret {
                structure: if at < 200 { "LUKS header" } else { "LUKS key slot" },
                name: name.to_owned()
            }
        );
    }
    let Subject::Secret { name, .. } = explained(&image, start + 4096).subject else { panic!() };
    assert_eq!(name, "key material of key slot 0");
    every_byte_is_something(&image, 509);
}

#[test]
fn what_is_wrong_with_luks_is_said_where_it_is() {
    let mut image = Qcow2::new(DISK).cluster_bits(12).luks(Luks::new(1)).build().unwrap();
    let pointer = crate::qcow2::crypto::crypto_header_pointer(Tables::new(&image).unwrap().header());
    let start = pointer.unwrap().unwrap().offset;
    let stripes = start + 208 + 48 + 44;
    for at in [8, 40, 72, 104, 108, 164, 208, 256] {
        assert_eq!(explained(&image, start + at).problems, [""; 0], "{at}");
    }
    for (at, value) in [(start + 8, 0), (stripes, 0xff)] {
        image[usize::try_from(at).unwrap()] = value;
    }
    assert_eq!(explained(&image, stripes + 3).problems, ["expected 4000, found another number"]);
    let cipher =
        "expected a cipher of LUKS, ended by a null byte, found an unknown one, or one without an end";
    assert_eq!(explained(&image, start + 9).problems, [cipher]);
    assert_eq!(explained(&image, start + 40).problems, [""; 0]);
    image[usize::try_from(start + 5).unwrap()] = 0;
    assert_eq!(explained(&image, start).problems, ["expected `LUKS`, 0xba, 0xbe, found other bytes"]);
}

#[test]
fn what_is_wrong_is_said() {
    let mut image = rich(4);
    let (l1, l2, block) = {
        let tables = Tables::new(&image).unwrap();
        let l1 = tables.geometry().l1_table();
        let (_, entry) = tables.l1_entries(l1).next().unwrap();
        let (_, block) = tables.refcount_table_entries().next().unwrap();
        (l1.offset.0, entry.l2_table().0, block.block().0)
    };
    let put = |image: &mut Vec<u8>, at: u64, value: u64| {
        let at = usize::try_from(at).unwrap();
        image[at..at + 8].copy_from_slice(&value.to_be_bytes());
    };
    put(&mut image, l2 + 16, 0x8000_0000_0000_0202); // names a table's cluster, or whose ever that is
    put(&mut image, l1 + 8, 0x7fff_0000_0000_0001);
    assert_eq!(
        explained(&image, l1 + 9).problems,
        ["reserved bits are set: bit-0, bit-56 to bit-62", "the offset is past the end of the file"]
    );
    assert!(explained(&image, l2 + 16).problems.contains(&"reserved bits are set: bit-1".to_owned()));
    let tables = Tables::new(&image).unwrap();
    let both = owners(&tables, HostOffset(0x200));
    assert_eq!((both.claims.len(), both.state), (2, State::RefcountTooLow), "{both:?}");
    assert_eq!(explain(&image, HostOffset(0x200)).unwrap().parts.len(), 2);
    let mut image = rich(4);
    let last = image.len() as u64 / 512;
    image.extend([0; 512]);
    image[usize::try_from(block + 2 * last + 1).unwrap()] = 3;
    assert_eq!(
        explained(&image, last * 512).problems,
        [format!("cluster {last}: refcount 3, references 0: a leak")]
    );
    assert_eq!(explained(&image, block + 2 * last).problems.len(), 1);
}

#[test]
fn the_external_data_file_has_its_own_claims() {
    let image = Qcow2::new(1 << 20).data_file("image.data", false).data(0x30000, *b"data").build().unwrap();
    let tables = Tables::new(&image).unwrap();
    let host = tables
        .l2_entries(tables.l1_entries(tables.geometry().l1_table()).next().unwrap().1.l2_table())
        .next()
        .unwrap();
    let found = owners(&tables, HostOffset(host.1.offset().0 + 7));
    assert_eq!(found.external.len(), 1);
    assert_eq!(found.external[0].guest, Some(0x30000..0x40000));
    assert!(found.claims.iter().all(|claim| !matches!(claim.owner, Owner::Data { .. })));
}

#[test]
fn a_header_without_a_cluster_size_is_explained() {
    let mut image = rich(4);
    image[23] = 3;
    let explanation = explain(&image, HostOffset(22)).unwrap();
    assert_eq!(explanation.owners, None);
    assert_eq!(explanation.parts[0].problems.len(), 1, "{explanation:?}");
    every_byte_is_something(&image, 101);
    assert!(explain(&image[..50], HostOffset(0)).is_err());
}

#[test]
fn claims_are_no_more_than_are_kept() {
    let mut image = Qcow2::new(DISK).cluster_bits(9).data(0, *b"x").build().unwrap();
    let table = {
        let tables = Tables::new(&image).unwrap();
        tables.l1_entries(tables.geometry().l1_table()).next().unwrap().1.l2_table().0
    };
    let at = usize::try_from(table).unwrap();
    for (index, entry) in image[at..at + 512].as_chunks_mut::<8>().0.iter_mut().enumerate() {
        *entry = (table | u64::from(index % 2 == 0) << 63).to_be_bytes();
    }
    // All of them, and one more that the table has of itself.
    let found = owners(&Tables::new(&image).unwrap(), HostOffset(table));
    assert_eq!((found.claims.len(), found.omitted, found.references), (MOST_CLAIMS, 1, 65));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn damaged_images_are_explained(
        order in 2u32..=6,
        damage in proptest::collection::vec((any::<u32>(), prop_oneof![any::<u64>(), 0..64u64, (0..64u64).prop_map(|cluster| (cluster * 512) | (1 << 63))]), 0..12),
        cut in 0..600usize,
        offsets in proptest::collection::vec(any::<u32>(), 40),
    ) {
        let mut image = rich(order);
        for (at, value) in damage {
            let at = at as usize % (image.len() / 8 - 3) * 8 + 24;
            image[at..at + 8].copy_from_slice(&value.to_be_bytes());
        }
        image.truncate(image.len() - cut);
        let length = image.len() as u64;
        for offset in offsets {
            let offset = u64::from(offset) % (length + 600);
            let explanation = explain(&image, HostOffset(offset)).unwrap();
            for part in explanation.parts {
                prop_assert!((part.place.offset.0..part.place.end()).contains(&offset), "{:#x}: {:?}", offset, part);
            }
        }
    }

    /// Who refers to a cluster is counted as a check counts.
    #[test]
    fn references_are_those_of_a_check(entry in 0..40u64, cluster in 1..60u64) {
        let mut image = rich(4);
        let (l1, table) = {
            let tables = Tables::new(&image).unwrap();
            let l1 = tables.geometry().l1_table();
            (l1, tables.l1_entries(l1).next().unwrap().1.l2_table().0)
        };
        prop_assume!(cluster != l1.offset.0 / 512);
        let at = usize::try_from(table + entry * 8).unwrap();
        image[at..at + 8].copy_from_slice(&((cluster * 512) | (1 << 63)).to_be_bytes());
        let report = check(&image).unwrap();
        let tables = Tables::new(&image).unwrap();
        let (mut leaks, mut too_low) = (0, 0);
        for cluster in 0..tables.geometry().file_clusters() {
            match owners(&tables, HostOffset(cluster * 512)).state {
                State::Leaked | State::RefcountTooHigh => leaks += 1,
                State::RefcountTooLow => too_low += 1,
                _ => {}
            }
        }
        prop_assert_eq!(leaks, report.leaks);
        prop_assert!(too_low <= report.corruptions);
    }
}
