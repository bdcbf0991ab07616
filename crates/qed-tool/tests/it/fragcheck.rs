//! `fragcheck` counts as the original does: over the whole disk.

use crate::support::bytes::Bytes;
use crate::support::images::{SMALLEST, Shape, for_each, shapes};
use crate::support::program::{json, qed};
use crate::support::qemu;
use std::path::Path;
use test_support::random::{Random, seed};
use test_support::scratch::scratch;

/// Clusters that are allocated, and fragmented, by a count that is as plain as can be.
fn plainly(image: &Bytes) -> (u64, u64) {
    let size = image.cluster_size() as u64;
    let tables = image.l2_tables();
    let offsets = tables.iter().flat_map(|&table| image.used_entries(table)).map(|(_, value)| value);
    let offsets: Vec<u64> = offsets.filter(|&offset| offset >= size).collect();
    let breaks = offsets.windows(2).filter(|pair| pair[1] != pair[0] + size).count();
    (offsets.len() as u64, breaks as u64)
}

#[track_caller]
fn counts(file: &Path, size: u64) {
    let image = Bytes::read(file);
    let (allocated, fragmented) = plainly(&image);
    let total = size.div_ceil(image.cluster_size() as u64);
    let percent = |part: u64, whole: u64| part as f64 * 100.0 / whole as f64;
    let line = format!(
        "{allocated}/{total} = {:.2}% allocated, {:.2}% fragmented\n",
        percent(allocated, total),
        percent(fragmented, allocated)
    );
    assert_eq!(qed(file, &["fragcheck"]).expect(0).out(), line);
    let (_, document) = json(file, &["fragcheck"]);
    assert_eq!(document["total_clusters"], total);
    assert_eq!(document["allocated_clusters"], allocated);
    assert_eq!(document["fragmented_clusters"], fragmented);
    let keys: Vec<&String> = document.as_object().unwrap().keys().collect();
    let expected =
        ["allocated_clusters", "fragmented_clusters", "image", "schema", "skipped_tables", "total_clusters"];
    assert_eq!(keys, expected);
}

#[test]
fn every_shape() {
    for_each(&shapes(), |shape, image| {
        counts(image, shape.size());
        // QEMU counts the same clusters, and starts anew with each table.
        let (theirs, (allocated, fragmented)) = (qemu::check(image), plainly(&Bytes::read(image)));
        assert_eq!(theirs.allocated, allocated);
        assert!(theirs.fragmented <= fragmented);
    });
}

#[test]
fn in_random_order() {
    let seed = seed();
    for (number, shape) in [SMALLEST, Shape::new(4096, 4), Shape::new(16384, 2)].into_iter().enumerate() {
        let mut random = Random::new(seed ^ ((number as u64) << 32));
        let folder = scratch();
        let image = folder.path().join("image");
        shape.create(&image, "", 2 * shape.span());
        let clusters = usize::try_from(2 * shape.span() / shape.cluster_size).unwrap();
        let writes: Vec<String> = (0..200)
            .map(|_| {
                let (start, count) = (random.below(clusters - 4) as u64, 1 + random.below(4) as u64);
                format!("write {} {}", start * shape.cluster_size, count * shape.cluster_size)
            })
            .collect();
        qemu::io(&image, &writes.iter().map(String::as_str).collect::<Vec<_>>());
        counts(&image, 2 * shape.span());
    }
}

/// The original divides by zero.
#[test]
fn an_empty_image() {
    let folder = scratch();
    let image = folder.path().join("image");
    SMALLEST.create(&image, "", 1 << 20);
    let run = qed(&image, &["fragcheck"]).expect(0);
    assert_eq!(run.out(), "0/256 = 0.00% allocated, 0.00% fragmented\n");
    SMALLEST.create(&image, "", 0);
    let run = qed(&image, &["fragcheck"]).expect(0);
    assert_eq!(run.out(), "0/0 = 0.00% allocated, 0.00% fragmented\n");
}

/// Zero clusters are none.
#[test]
fn nothing_but_zero_clusters() {
    let folder = scratch();
    let image = folder.path().join("image");
    SMALLEST.create(&image, "", 1 << 20);
    qemu::io(&image, &["write -z 0 64k"]);
    let run = qed(&image, &["fragcheck"]).expect(0);
    assert_eq!(run.out(), "0/256 = 0.00% allocated, 0.00% fragmented\n");
}

/// Entries are counted, right or wrong; tables that are not there are not, and are told of.
#[test]
fn damaged_images() {
    let folder = scratch();
    let image = folder.path().join("image");
    SMALLEST.filled(&image);
    let mut bytes = Bytes::read(&image);
    let entry = bytes.l2_entry(0);
    for (index, value) in [(0, 1 << 50), (1, 0x3003), (2, 0x3003), (20, 4095), (21, 4096)] {
        bytes.put_u64(entry + index * 8, value);
    }
    // One table twice.
    let table = bytes.u64(bytes.l1());
    let free = bytes.l1() + 50 * 8;
    bytes.put_u64(free, table);
    bytes.write(&image);
    counts(&image, SMALLEST.size());
    bytes.put_u64(free + 8, 1 << 40);
    bytes.write(&image);
    let run = qed(&image, &["fragcheck"]).expect(0);
    assert!(run.err().contains("1 L1 entries name no table"), "{run}");
    assert_eq!(json(&image, &["fragcheck"]).1["skipped_tables"], 1);
}
