//! What a check says of the cause: findings name both owners of a cluster, and the part of the disk concerned.

use crate::support::bytes::{Bytes, at};
use crate::support::program::json;
use crate::support::qemu;
use crate::support::tables::{COPIED, OFFSET};
use serde_json::Value;
use std::path::Path;
use test_support::scratch::{scratch, text};

/// 4 KiB clusters, so that an L2 table is for 2 MiB; data from 0 to 3 MiB.
fn base(path: &Path) -> Bytes {
    qemu::create(path, "cluster_size=4k", "8M");
    qemu::io(path, &["write -P 1 0 3M"]);
    Bytes::read(path)
}

/// The same with two snapshots; the disk goes on with tables of its own.
fn two_snapshots(path: &Path) -> Bytes {
    base(path);
    for name in ["one", "two"] {
        qemu::img(&["snapshot", "-c", name, text(path)]);
    }
    qemu::io(path, &["write -P 2 0 4k", "write -P 2 2M 4k"]);
    Bytes::read(path)
}

/// The owners that the findings about the cluster at `offset` name, and the range of the disk.
fn told(path: &Path, offset: usize) -> Vec<(Vec<String>, Value)> {
    let (status, document) = json(path, &["check"]);
    assert_eq!(status, Some(2), "{document:#}");
    let findings = document["findings"].as_array().unwrap().iter();
    let about = findings.filter(|finding| finding["offset"] == offset && finding["owners"].is_array());
    let owners = |finding: &Value| serde_json::from_value(finding["owners"].clone()).unwrap();
    let told: Vec<_> = about.map(|finding| (owners(finding), finding["guest"].clone())).collect();
    assert!(!told.is_empty(), "{document:#}");
    told
}

fn guest(start: u64, end: u64) -> Value {
    serde_json::json!({ "start": start, "end": end })
}

#[test]
fn an_l2_table_overwritten_by_a_refcount_block() {
    let folder = scratch();
    let path = folder.path().join("image");
    let bytes = base(&path);
    let (table, refcount_table) = (bytes.l2(1), bytes.refcount_table());
    let block = bytes.0[bytes.place(refcount_table)..][..4096].to_vec();
    // The refcounts moved to where the table is.
    bytes.with(table, &block).with_u64(refcount_table, table as u64).write(&path);
    for (owners, range) in told(&path, table) {
        assert!(owners.iter().any(|owner| owner == "L2 table of L1 entry 1"), "{owners:?}");
        assert!(owners.iter().any(|owner| owner == "refcount block 0"), "{owners:?}");
        assert_eq!(range, guest(2 << 20, 4 << 20));
    }
}

#[test]
fn a_cluster_that_is_data_and_an_l2_table() {
    let folder = scratch();
    let path = folder.path().join("image");
    let bytes = base(&path);
    let (table, entry) = (bytes.l2(1), bytes.l2_entry(0x5000));
    bytes.clone().with_u64(entry, table as u64 | COPIED).write(&path);
    for (owners, range) in told(&path, table) {
        let data = format!("data (L2 table {:#x} of L1 entry 0, entry 5), disk 0x5000-0x6000", bytes.l2(0));
        assert!(owners.contains(&data), "{owners:?}");
        assert!(owners.iter().any(|owner| owner == "L2 table of L1 entry 1"), "{owners:?}");
        assert!(range == guest(0x5000, 0x6000) || range == guest(2 << 20, 4 << 20), "{range}");
    }
}

#[test]
fn two_snapshots_that_share_a_wrong_table() {
    let folder = scratch();
    let path = folder.path().join("image");
    let bytes = two_snapshots(&path);
    let first = bytes.place(at::SNAPSHOTS_OFFSET);
    let l1 = bytes.place(first);
    let table = usize::try_from(bytes.u64(l1 + 8) & OFFSET).unwrap();
    // Their second table begins with an entry that names their first.
    let other = bytes.u64(l1) & OFFSET;
    bytes.with_u64(table, other).write(&path);
    let other = usize::try_from(other).unwrap();
    for (owners, range) in told(&path, other) {
        let both = |index| format!("L1 entry {index} of snapshot 0 and L1 entry {index} of snapshot 1");
        assert!(owners.contains(&format!("L2 table of {}", both(0))), "{owners:?}");
        let data = format!("data (L2 table {table:#x} of {}, entry 0), disk 0x200000-0x201000", both(1));
        assert!(owners.contains(&data), "{owners:?}");
        assert!(range == guest(2 << 20, (2 << 20) + 4096) || range == guest(0, 2 << 20), "{range}");
    }
}

#[test]
fn two_snapshots_that_share_an_l1_table() {
    let folder = scratch();
    let path = folder.path().join("image");
    let bytes = two_snapshots(&path);
    let (first, length) = (bytes.place(at::SNAPSHOTS_OFFSET), 40 + 24);
    let second = (first + length + 1 + 3).next_multiple_of(8);
    let l1 = bytes.u64(first);
    let table = usize::try_from(bytes.u64(bytes.place(first)) & OFFSET).unwrap();
    assert!(
        bytes.u64(second) > 0 && bytes.u64(second) != l1,
        "the second snapshot's entry is at {second:#x}"
    );
    // The second one's L1 table is the first one's now: its tables have as many references as before.
    let refcount = qcow2_owner(&path, table)["refcount"].clone();
    bytes.with_u64(second, l1).write(&path);
    let found = qcow2_owner(&path, table);
    assert_eq!((&found["refcount"], &found["references"]), (&refcount, &refcount), "{found:#}");
    let places = found["shared_tables"][0]["named_by"].as_array().unwrap();
    let snapshots: Vec<_> = places.iter().map(|place| &place["snapshot"]).collect();
    assert_eq!(snapshots, [0, 1], "{found:#}");
}

fn qcow2_owner(path: &Path, offset: usize) -> Value {
    json(path, &["owner", &offset.to_string()]).1
}
