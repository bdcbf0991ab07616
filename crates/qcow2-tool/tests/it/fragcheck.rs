//! `fragcheck` counts what `qemu-img check` counts, over the whole disk.

use crate::map::made::{OPTIONS, SIZE, generated, written};
use crate::support::bytes::{Bytes, at};
use crate::support::program::qcow2;
use crate::support::qemu;
use serde_json::Value;
use std::path::Path;
use test_support::random::{Random, seed};
use test_support::scratch::{scratch, text};

const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// Clusters that are allocated, fragmented and compressed, by a count that is as plain as can be.
fn plainly(bytes: &Bytes, words: usize) -> (u64, u64, u64) {
    let (l1, entries) = (bytes.u64(at::L1_TABLE_OFFSET) as usize, bytes.u32(at::L1_SIZE) as usize);
    let size = bytes.cluster_size();
    let (mut clusters, mut fragmented, mut compressed, mut next) = (0, 0, 0, None);
    for index in 0..entries {
        let table = (bytes.u64(l1 + index * 8) & OFFSET) as usize;
        for at in (table..table + size).step_by(8 * words).filter(|_| table != 0) {
            let entry = bytes.u64(at);
            if entry & 1 << 62 != 0 {
                compressed += 1;
            } else if entry & OFFSET != 0 {
                clusters += 1;
                fragmented += u64::from(next.is_some_and(|next| next != entry & OFFSET));
                next = Some((entry & OFFSET) + size as u64);
            }
        }
    }
    (clusters + compressed, fragmented + compressed, compressed)
}

#[track_caller]
fn counts(image: &Path, options: &str, size: u64) {
    let bytes = Bytes::read(image);
    let words = if options.contains("extended") { 2 } else { 1 };
    let (allocated, fragmented, compressed) = plainly(&bytes, words);
    let total = size.div_ceil(bytes.cluster_size() as u64);
    let percent = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 };
    let line = format!(
        "{allocated}/{total} = {:.2}% allocated, {:.2}% fragmented\n",
        percent(allocated, total),
        percent(fragmented, allocated)
    );
    assert_eq!(qcow2(image, &["fragcheck"]).expect(0).out(), line, "{options}");
    let run = qcow2(image, &["frag-check", "--json"]).expect(0);
    let document: Value = serde_json::from_slice(&run.stdout).unwrap();
    let expected = serde_json::json!({
        "schema": 1, "image": text(image), "total_clusters": total, "allocated_clusters": allocated,
        "fragmented_clusters": fragmented, "compressed_clusters": compressed, "skipped_tables": 0,
    });
    assert_eq!(document, expected, "{options}");
    // QEMU counts the same clusters, and starts anew with each table.
    let run = qemu::img(&["check", "-f", "qcow2", "--output=json", text(image)]);
    let theirs: Value = serde_json::from_slice(&run.stdout).unwrap();
    let count = |key| theirs.get(key).map_or(0, |count: &Value| count.as_u64().unwrap());
    assert_eq!(count("allocated-clusters"), allocated, "{options}");
    assert_eq!(count("compressed-clusters"), compressed, "{options}");
    assert!(count("fragmented-clusters") <= fragmented, "{options}");
}

#[test]
fn what_qemu_wrote() {
    let (seed, folder) = (seed(), scratch());
    for (number, options) in (0..).zip(OPTIONS) {
        let image = folder.path().join(format!("{number}"));
        qemu::create(&image, options, &SIZE.to_string());
        counts(&image, options, SIZE);
        written(&image, options, &mut Random::new(seed ^ (number << 16)));
        counts(&image, options, SIZE);
    }
}

#[test]
fn what_is_generated() {
    let folder = scratch();
    for (name, wanted) in generated().into_iter().filter(|(name, _)| *name != "large") {
        let image = folder.path().join("image");
        std::fs::write(&image, wanted.build().unwrap()).unwrap();
        counts(&image, name, SIZE);
    }
}

#[test]
fn of_a_snapshot() {
    let folder = scratch();
    let image = folder.path().join("image");
    qemu::create(&image, "", "1M");
    qemu::io(&image, &["write 0 128k"]);
    qemu::img(&["snapshot", "-c", "one", text(&image)]);
    qemu::io(&image, &["write 0 64k", "write 512k 64k"]);
    let of = |args: &[&str]| qcow2(&image, &[&["fragcheck"], args].concat()).expect(0).out();
    assert_eq!(of(&["--snapshot", "one"]), "2/16 = 12.50% allocated, 0.00% fragmented\n");
    assert_eq!(of(&[]), "3/16 = 18.75% allocated, 66.67% fragmented\n");
}

#[test]
fn tables_that_are_not_there_are_told() {
    let folder = scratch();
    let image = folder.path().join("image");
    qemu::create(&image, "", "1M");
    let bytes = Bytes::read(&image);
    let l1 = bytes.u64(at::L1_TABLE_OFFSET) as usize;
    bytes.with_u64(l1, 1 << 40).write(&image);
    let run = qcow2(&image, &["fragcheck"]).expect(0);
    assert_eq!(run.out(), "0/16 = 0.00% allocated, 0.00% fragmented\n");
    assert!(run.err().contains("1 L1 entries name no table"), "{run}");
}
