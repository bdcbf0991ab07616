//! Disks whose metadata is large.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use vdisk_format::generate::{Bitmap, Order, Qcow2, Snapshot};

use crate::support::{folder, qemu_img, write};

/// Checks a large sparse disk, and that qemu-img reads `data` from it.
fn large(wanted: &Qcow2, size: u64, data: &[(u64, &[u8])]) {
    let folder = folder();
    let path = folder.path();
    write(wanted, path, "image.qcow2");
    qemu_img(path, &["check", "image.qcow2"]);
    qemu_img(path, &["convert", "-O", "raw", "image.qcow2", "read.raw"]);
    let mut read = File::open(path.join("read.raw")).unwrap();
    assert_eq!(read.metadata().unwrap().len(), size);
    for (at, expected) in data {
        let mut bytes = vec![0; expected.len()];
        read.seek(SeekFrom::Start(*at)).unwrap();
        read.read_exact(&mut bytes).unwrap();
        assert!(bytes == *expected, "at {at:#x}");
    }
}

#[test]
fn large_sparse_disks() {
    let end = [7; 5000];
    for (size, cluster_bits, refcount_order) in [
        (1 << 40, 16, 4),
        (1 << 40, 16, 0),
        (8 << 30, 9, 4),
        (8 << 30, 9, 6),
        (1 << 40, 21, 6),
        (8 << 40, 12, 4),
    ] {
        let data: [(u64, &[u8]); 3] = [(0, b"start"), (size / 3, b"middle"), (size - 5000, &end)];
        let mut wanted = Qcow2::new(size).cluster_bits(cluster_bits).refcount_order(refcount_order);
        for (at, bytes) in data {
            wanted = wanted.data(at, bytes);
        }
        wanted = wanted.bitmap(Bitmap::new("b").granularity_bits(20).dirty(0..size / 2));
        large(&wanted, size, &data);
    }
}

#[test]
fn refcount_tables_of_several_clusters() {
    let folder = folder();
    for (size, order) in [(80 << 20, 6), (80 << 20, 5), (300 << 20, 4), (4 << 20, 6), (2 << 20, 6)] {
        let wanted = Qcow2::new(size).cluster_bits(9).refcount_order(order).allocate(0..size);
        let length = write(&wanted, folder.path(), "image.qcow2");
        assert!(length > size);
        qemu_img(folder.path(), &["check", "image.qcow2"]);
    }
}

/// A full disk that has everything else, but in less than a second of `qemu-img check`.
#[test]
fn full_disks_in_any_order() {
    let folder = folder();
    for order in [Order::InOrder, Order::TablesFirst, Order::Random(9)] {
        for (cluster_bits, refcount_order, extended) in
            [(16, 4, false), (16, 0, false), (16, 6, true), (12, 1, false), (9, 5, false)]
        {
            let size = 20_000 << cluster_bits;
            let wanted = Qcow2::new(size).cluster_bits(cluster_bits).refcount_order(refcount_order);
            let wanted = wanted.extended_l2(extended).order(order).allocate(0..size);
            let data = [(0, &b"start"[..]), (size / 3, b"middle"), (size - 3, b"end")];
            let wanted = data.into_iter().fold(wanted, |wanted, (at, bytes)| wanted.data(at, bytes));
            large(&wanted, size, &data);
        }
    }
    write(&Qcow2::new(1 << 40).allocate(0..1 << 40).refcount_order(0), folder.path(), "image.qcow2");
    qemu_img(folder.path(), &["check", "image.qcow2"]);
}

#[test]
fn a_thousand_snapshots() {
    let folder = folder();
    let size = 4 << 30;
    let shared = (1..=1000_u32).fold(Qcow2::new(size).allocate(0..size), |wanted, id| {
        wanted.snapshot(Snapshot::new(id.to_string(), format!("snapshot {id}")))
    });
    write(&shared, folder.path(), "image.qcow2");
    qemu_img(folder.path(), &["check", "image.qcow2"]);
    let own = (1..=200_u64).fold(Qcow2::new(size).allocate(0..size), |wanted, id| {
        let at = ((id * 7919) << 16) % size;
        wanted.snapshot(Snapshot::new(id.to_string(), "")).data(at, id.to_be_bytes())
    });
    for order in [Order::InOrder, Order::Random(2)] {
        write(&own.clone().order(order), folder.path(), "image.qcow2");
        qemu_img(folder.path(), &["check", "image.qcow2"]);
        let last = ["convert", "-l", "snapshot.id=200", "-O", "raw", "image.qcow2", "read.raw"];
        qemu_img(folder.path(), &last);
        let mut read = File::open(folder.path().join("read.raw")).unwrap();
        for id in 1..=200_u64 {
            let mut bytes = [0; 8];
            read.seek(SeekFrom::Start(((id * 7919) << 16) % size)).unwrap();
            read.read_exact(&mut bytes).unwrap();
            assert_eq!(u64::from_be_bytes(bytes), if id < 200 { id } else { 0 }, "of {id}");
        }
    }
}

#[test]
fn five_hundred_bitmaps() {
    let folder = folder();
    let size = 1 << 40;
    let bitmaps = (0..500_u64).fold(Qcow2::new(size), |wanted, index| {
        let bitmap = Bitmap::new(format!("bitmap {index}")).dirty(index << 20..(index << 20) + 1);
        wanted.bitmap(if index % 2 == 0 { bitmap.dirty(size / 4..size) } else { bitmap })
    });
    write(&bitmaps, folder.path(), "image.qcow2");
    qemu_img(folder.path(), &["check", "image.qcow2"]);
}
