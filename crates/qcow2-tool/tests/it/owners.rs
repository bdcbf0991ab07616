//! What a check says of the cause: findings name both owners of a cluster, and the part of the disk concerned.

use crate::support::bytes::{Bytes, at};
use crate::support::program::{json, qcow2};
use crate::support::qemu;
use crate::support::tables::{COPIED, OFFSET};
use serde_json::Value;
use std::path::Path;
use test_support::scratch::{scratch, text};
use vdisk_format::generate::{Qcow2, Snapshot};
use vdisk_format::qcow2::Tables;

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

/// The owners that the findings about the cluster at `offset` name, and the parts of the disk.
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

fn guest<const N: usize>(parts: [(u64, u64); N]) -> Value {
    parts.map(|(start, end)| serde_json::json!({ "start": start, "end": end })).into_iter().collect()
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
        assert!(owners.iter().any(|owner| owner.starts_with("L2 table of L1 entry 1, disk ")), "{owners:?}");
        assert!(owners.iter().any(|owner| owner == "refcount block 0"), "{owners:?}");
        // All that the table is for, or what one of its entries is.
        let (start, end) = (range[0]["start"].as_u64().unwrap(), range[0]["end"].as_u64().unwrap());
        assert!(start >= 2 << 20 && end <= 4 << 20 && start < end, "{range}");
        assert_eq!(range.as_array().map(Vec::len), Some(1), "{range}");
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
        assert!(owners.iter().any(|owner| owner.starts_with("L2 table of L1 entry 1, disk ")), "{owners:?}");
        assert_eq!(range, guest([(0x5000, 0x6000), (2 << 20, 4 << 20)]));
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
        assert!(owners.contains(&format!("L2 table of {}, disk 0x0-0x200000", both(0))), "{owners:?}");
        let data = format!("data (L2 table {table:#x} of {}, entry 0), disk 0x200000-0x201000", both(1));
        assert!(owners.contains(&data), "{owners:?}");
        assert_eq!(range, guest([(0, (2 << 20) + 4096)]));
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

/// The first finding with `code`: where it is, its owners, and the parts of the disk.
fn first(path: &Path, code: &str) -> (String, Value, Value) {
    let (_, document) = json(path, &["check"]);
    let findings = document["findings"].as_array().unwrap();
    let finding = findings.iter().find(|finding| finding["code"] == code);
    let finding = finding.unwrap_or_else(|| panic!("no {code}: {document:#}"));
    (finding["where"].as_str().unwrap().to_owned(), finding["owners"].clone(), finding["guest"].clone())
}

#[test]
fn entries_of_a_table_that_only_snapshots_have() {
    let folder = scratch();
    let path = folder.path().join("image");
    let bytes = two_snapshots(&path);
    let l1 = bytes.place(bytes.place(at::SNAPSHOTS_OFFSET));
    let table = usize::try_from(bytes.u64(l1 + 8) & OFFSET).unwrap();
    // Two entries lead out of the file, each also with a reserved bit.
    let far = 1 << 40;
    bytes.with_u64(table + 3 * 8, far | 1 << 60).with_u64(table + 4 * 8, (far + 4096) | 1 << 60).write(&path);
    for code in ["data-outside", "l2-entry-reserved"] {
        let (place, owners, range) = first(&path, code);
        assert_eq!(place, format!("L2 table {table:#x}, entries 3-4"));
        assert_eq!(
            owners,
            serde_json::json!([
                "L2 table of L1 entry 1 of snapshot 0 and L1 entry 1 of snapshot 1, disk 0x200000-0x400000"
            ])
        );
        assert_eq!(range, guest([(0x20_3000, 0x20_5000)]));
    }
    let document = json(&path, &["check"]).1;
    let snapshots = serde_json::json!([
        { "index": 0, "id": "1", "name": "one" },
        { "index": 1, "id": "2", "name": "two" },
    ]);
    assert_eq!(document["snapshots"], snapshots);
    assert!(qcow2(&path, &["check"]).out().contains("snapshot 1: ID 2, name 'two'\n"));
}

#[test]
fn an_entry_of_a_snapshots_l1_table() {
    let folder = scratch();
    let path = folder.path().join("image");
    let bytes = two_snapshots(&path);
    let second = bytes.place(bytes.place(at::SNAPSHOTS_OFFSET) + (40 + 24 + 4usize).next_multiple_of(8));
    for (entry, code) in
        [(0x3000 | 1, "l1-entry-reserved"), (1 << 40, "l2-table-outside"), (0x3200, "l2-table-unaligned")]
    {
        bytes.clone().with_u64(second + 8, entry).write(&path);
        let (place, _, range) = first(&path, code);
        assert_eq!(
            (place.as_str(), range),
            ("L1 entry 1 of snapshot 1", guest([(2 << 20, 4 << 20)])),
            "{code}"
        );
    }
}

#[test]
fn all_owners_of_a_range_of_clusters() {
    let folder = scratch();
    let path = folder.path().join("image");
    let bytes = base(&path);
    // The header, the tables and some data: none of them has a refcount any more.
    let block = bytes.place(bytes.refcount_table());
    bytes.with(block, &[0; 32]).write(&path);
    let (place, owners, _) = first(&path, "refcount-too-low");
    assert_eq!(place, "16 clusters 0x0-0x10000");
    let owners: Vec<&str> = owners.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for owner in ["header", "L1 table", "refcount table", "refcount block 0"] {
        assert!(owners.contains(&owner), "{owner}: {owners:?}");
    }
    let is_data = |owner: &&str| {
        owner.starts_with("data (") && owner.contains("entries 0-") && owner.contains(", disk 0x0-")
    };
    assert!(owners.iter().any(is_data), "{owners:?}");
}

#[test]
fn owners_beyond_eight_are_others() {
    let folder = scratch();
    let path = folder.path().join("image");
    let bytes = base(&path);
    let (entry, host) = (bytes.l2_entry(0), bytes.host(0));
    // So many entries name the first one's cluster; none of them follows another.
    let with = |count: usize| {
        let entries = (1..count).map(|index| entry + 16 * index);
        let image = entries.fold(bytes.clone(), |image, at| image.with_u64(at, host as u64 | COPIED));
        image.write(&path);
        let told = told(&path, host);
        let (owners, guest) = told.first().cloned().unwrap();
        (owners.len(), owners.last().cloned().unwrap(), guest.as_array().map(Vec::len))
    };
    let (count, last, parts) = with(8);
    assert_eq!((count, parts), (8, Some(8)));
    assert!(last.starts_with("data ("), "{last}");
    assert_eq!(with(9), (9, "others".to_owned(), Some(8)));
}

#[test]
fn owners_of_many_clusters_may_have_others() {
    let folder = scratch();
    let path = folder.path().join("image");
    let bytes = base(&path);
    let (block, host) = (bytes.place(bytes.refcount_table()), bytes.host(0));
    for (count, last) in [(64, "data ("), (65, "perhaps others")] {
        let refcounts = [0, 2].repeat(count);
        bytes.clone().with(block + host / 4096 * 2, &refcounts).write(&path);
        let owners = first(&path, "refcount-too-high").1;
        let owners: Vec<&str> = owners.as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(owners.last().is_some_and(|owner| owner.starts_with(last)), "{owners:?}");
    }
}

#[test]
fn snapshots_beyond_forty_are_in_the_document() {
    let folder = scratch();
    let path = folder.path().join("image");
    let wanted = (1..=41).fold(Qcow2::new(1 << 20).data(0, b"data"), |wanted, id| {
        wanted.snapshot(Snapshot::new(id.to_string(), format!("s{id}")))
    });
    let image = wanted.build().unwrap();
    let l1_tables = Tables::new(&image).unwrap().snapshots();
    let l1_tables: Vec<_> = l1_tables.map(|snapshot| snapshot.unwrap().l1_table()).collect();
    let with = |count: usize| {
        let places = l1_tables.iter().take(count).map(|l1| usize::try_from(l1.offset.0).unwrap());
        // A reserved bit in each.
        places
            .fold(Bytes(image.clone()), |image, at| image.clone().with_u64(at, image.u64(at) | 1))
            .write(&path);
        let named = json(&path, &["check"]).1["snapshots"].as_array().map(Vec::len);
        (named, qcow2(&path, &["check"]).expect(2).out())
    };
    let (named, text) = with(40);
    assert!(text.ends_with("snapshot 39: ID 40, name 's40'\n"), "{text}");
    assert_eq!(named, Some(40));
    let (named, text) = with(41);
    assert!(text.ends_with("name 's40'\n… and more snapshots; --json names up to 256\n"), "{text}");
    assert_eq!(named, Some(41));
}

#[test]
fn a_bitmap_by_its_number() {
    let folder = scratch();
    let path = folder.path().join("image");
    base(&path);
    for name in ["a", "b"] {
        qemu::img(&["bitmap", "--add", text(&path), name]);
    }
    let bytes = Bytes::read(&path);
    let table = show_bitmaps(&path)["bitmaps"][1]["bitmap_table"]["offset"].as_u64().unwrap();
    let table = usize::try_from(table).unwrap();
    bytes.clone().with_u64(table, 2).write(&path);
    assert_eq!(first(&path, "bitmap-table-entry").0, "entry of the table of bitmap 1");
    bytes.with_u64(table, 1 << 40).write(&path);
    let place = format!("data of bitmap 1 (table entry at {table:#x})");
    assert_eq!(first(&path, "bitmap-data-outside").0, place);
    assert_eq!(json(&path, &["check"]).1["bitmaps"], serde_json::json!([{ "index": 1, "name": "b" }]));
}

fn show_bitmaps(path: &Path) -> Value {
    json(path, &["show", "bitmaps"]).1
}

fn qcow2_owner(path: &Path, offset: usize) -> Value {
    json(path, &["owner", &offset.to_string()]).1
}
