//! Every shape, read back by the library and by a reader that trusts nothing of it.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};

use proptest::prelude::*;

use super::Qed;
use crate::Image;
use crate::check::Verdict;
use crate::generate::{GenerateError, Order};
use crate::qed::{self, Tables};

/// Guest cluster to entry, read from the file entry by entry, and how often each cluster is named.
fn read(file: &mut (impl Read + Seek)) -> (BTreeMap<u64, u64>, BTreeMap<u64, u32>, u64) {
    let mut at = |offset: u64, length: usize| {
        let mut bytes = vec![0; length];
        file.seek(SeekFrom::Start(offset)).unwrap();
        file.read_exact(&mut bytes).unwrap();
        bytes
    };
    let head = at(0, 64);
    let number = |from: usize, width: usize| {
        head[from..from + width].iter().rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte))
    };
    let (size, table, header, l1) = (number(4, 4), number(8, 4), number(12, 4), number(40, 8));
    let length = (size * table) as usize;
    let entries = |bytes: Vec<u8>| -> Vec<u64> {
        bytes.as_chunks::<8>().0.iter().map(|entry| u64::from_le_bytes(*entry)).collect()
    };
    let (mut guest, mut used) = (BTreeMap::new(), BTreeMap::new());
    let mut claim = |offset: u64, clusters: u64| {
        assert_eq!(offset % size, 0);
        for cluster in offset / size..offset / size + clusters {
            assert!(cluster >= header, "in the header");
            *used.entry(cluster).or_insert(0) += 1;
        }
    };
    claim(l1, table);
    for (l1_index, l2) in entries(at(l1, length)).into_iter().enumerate().filter(|(_, l2)| *l2 != 0) {
        claim(l2, table);
        for (l2_index, entry) in
            entries(at(l2, length)).into_iter().enumerate().filter(|(_, entry)| *entry != 0)
        {
            if entry != 1 {
                claim(entry, 1);
            }
            guest.insert(l1_index as u64 * (size * table / 8) + l2_index as u64, entry);
        }
    }
    (guest, used, size)
}

fn sound(bytes: &[u8]) -> BTreeMap<u64, u64> {
    let (guest, used, size) = read(&mut std::io::Cursor::new(bytes));
    let clusters = bytes.len() as u64 / size;
    assert_eq!(bytes.len() as u64 % size, 0);
    let header = u64::from(u32::from_le_bytes(bytes[12..16].try_into().unwrap()));
    assert_eq!(used.keys().copied().collect::<Vec<_>>(), (header..clusters).collect::<Vec<_>>(), "no leaks");
    assert!(used.values().all(|&times| times == 1), "no cluster twice");
    let check = qed::check::check(bytes).unwrap();
    assert!(check.verdict() == Verdict::Clean && check.report.is_sound(), "{check:?}");
    guest
}

#[test]
fn every_cluster_size_and_table_size() {
    for bits in 12..=26u32 {
        for table_size in [1, 2, 4, 8, 16] {
            let cluster = 1u64 << bits;
            let wanted = Qed::new(4 * cluster)
                .cluster_size(1 << bits)
                .table_size(table_size)
                .data(cluster + 5, b"data")
                .zero(2 * cluster..3 * cluster);
            let mut file = tempfile::tempfile().unwrap();
            let length = wanted.write_to(&mut file).unwrap();
            assert_eq!(length, (1 + 2 * u64::from(table_size) + 1) * cluster);
            let mut bytes = [0; 4];
            file.seek(SeekFrom::Start(length - cluster + 5)).unwrap();
            file.read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"data");
        }
    }
}

#[test]
fn random_is_random_and_in_order_is_in_order() {
    let disk = 64 << 20;
    let wanted = Qed::new(disk).cluster_size(4096).table_size(2).allocate(0..disk);
    let fragments = |order| {
        let image = wanted.clone().order(order).build().unwrap();
        sound(&image);
        qed::check::check(&image).unwrap().fragmented_clusters
    };
    assert_eq!(fragments(Order::InOrder), 0);
    assert_eq!(fragments(Order::TablesFirst), 0);
    assert!(fragments(Order::Random(3)) > 16_000, "of 16384");
    let image = |seed| wanted.clone().order(Order::Random(seed)).build().unwrap();
    assert_eq!(image(3), image(3));
    assert_ne!(image(3), image(4));
}

#[test]
fn a_full_disk_in_random_order() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let disk = 1 << 34;
    let wanted = Qed::new(disk).order(Order::Random(1)).allocate(0..disk);
    wanted.write_to(&mut file.reopen().unwrap()).unwrap();
    let image = Image::open(file.path()).unwrap();
    assert_eq!(qed::check::check(&image).unwrap().verdict(), Verdict::Clean);
}

#[test]
fn what_the_specification_does_not_allow() {
    let field = |wanted: Qed| match wanted.build() {
        Err(GenerateError::Field { field, .. }) => field,
        other => panic!("{:?}", other.map(|image| image.len())),
    };
    assert_eq!(field(Qed::new(100)), "image_size");
    assert_eq!(field(Qed::new((512 * 512 * 4096) + 512).cluster_size(4096).table_size(1)), "image_size");
    assert_eq!(field(Qed::new(512).cluster_size(2048)), "cluster_size");
    assert_eq!(field(Qed::new(512).table_size(3)), "table_size");
    assert_eq!(field(Qed::new(512).table_size(0)), "table_size");
    assert_eq!(field(Qed::new(512).header_size(0)), "header_size");
    let named = Qed::new(512).backing_file("base", false);
    assert_eq!(field(named.clone().backing_filename_offset(63)), "backing_filename_offset");
    assert_eq!(field(named.clone().backing_filename_offset(65533)), "backing_filename_offset");
    assert!(named.backing_filename_offset(65532).build().is_ok());
    assert!(matches!(Qed::new(512).data(510, b"abc").build(), Err(GenerateError::OutOfRange { .. })));
    assert!(matches!(Qed::new(1 << 20).zero(5..65536).build(), Err(GenerateError::Unaligned { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_shape_is_sound_and_holds_what_was_asked_for(
        table_size in prop_oneof![Just(1), Just(2), Just(16)],
        header_size in 1..4u32,
        order in prop_oneof![Just(Order::InOrder), Just(Order::TablesFirst), any::<u64>().prop_map(Order::Random)],
        l1_last: bool,
        data in proptest::collection::vec((0..4000u64, proptest::collection::vec(1..=255u8, 1..9000)), 0..6),
        zero in proptest::collection::vec((0..4000u64, 1..9u64), 0..4),
    ) {
        const CLUSTER: u64 = 4096;
        let disk = 4096 * CLUSTER;
        let mut wanted = Qed::new(disk).cluster_size(4096).table_size(table_size).header_size(header_size)
            .order(order).backing_file("base", true).need_check(true);
        if l1_last {
            wanted = wanted.l1_last();
        }
        let mut model = BTreeMap::new();
        for (cluster, bytes) in &data {
            let at = cluster * CLUSTER + 77;
            wanted = wanted.data(at, bytes);
            (0..).zip(bytes).for_each(|(i, &byte)| { model.insert(at + i, byte); });
        }
        for &(cluster, count) in &zero {
            wanted = wanted.zero(cluster * CLUSTER..(cluster + count) * CLUSTER);
            model.retain(|at, _| !(cluster * CLUSTER..(cluster + count) * CLUSTER).contains(at));
        }
        let image = wanted.build().unwrap();
        let guest = sound(&image);
        for (at, byte) in model {
            let host = guest[&(at / CLUSTER)] + at % CLUSTER;
            prop_assert_eq!(image[host as usize], byte);
        }
        let tables = Tables::new(&image).unwrap();
        prop_assert_eq!(tables.header().backing_file(), Some(&b"base"[..]));
        prop_assert!(tables.header().need_check());
    }
}
