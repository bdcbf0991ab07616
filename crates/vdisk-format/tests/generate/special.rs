//! Shapes that need a test of their own.

use std::ffi::OsStr;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::Command;

use vdisk_format::generate::{Bitmap, GenerateError, Luks, Order, Qcow2, Snapshot};

use crate::support::{folder, qemu_img, values, write};

#[test]
fn unusual_disks() {
    let folder = folder();
    let path = folder.path();
    for (wanted, size) in [
        (Qcow2::new(0), 0),
        (Qcow2::new(0).snapshot(Snapshot::new("1", "nothing")), 0),
        (Qcow2::new(512).data(0, [1; 512]), 512),
        (Qcow2::new(1 << 20).dirty(true).lazy_refcounts(true).data(0, b"x"), 1 << 20),
        (Qcow2::new(1 << 20).version(2).snapshot(Snapshot::new("1", "old").extra_data_size(0)), 1 << 20),
        (Qcow2::new(1 << 20).snapshot(Snapshot::new("1", "new").extra_data_size(40).icount(7)), 1 << 20),
        (
            Qcow2::new(1 << 20).snapshot(Snapshot::new("12", "").date_sec(5).date_nsec(6).vm_clock_nsec(7)),
            1 << 20,
        ),
    ] {
        write(&wanted, path, "image.qcow2");
        qemu_img(path, &["check", "image.qcow2"]);
        let info = qemu_img(path, &["info", "--output=json", "image.qcow2"]);
        let size: u64 = size;
        assert!(values(&info, "virtual-size").contains(&size.to_string().as_str()), "{info}");
    }
}

#[test]
fn a_backing_chain_of_generated_images() {
    let folder = folder();
    let path = folder.path();
    write(&Qcow2::new(1 << 20).data(0, [1; 65536]).data(1 << 19, [2; 10]), path, "base.qcow2");
    let overlay = Qcow2::new(1 << 20)
        .backing_file("base.qcow2", Some("qcow2"))
        .extension(7, b"one")
        .extension(7, b"two")
        .data(1 << 19, [3; 5]);
    write(&overlay, path, "top.qcow2");
    qemu_img(path, &["check", "top.qcow2"]);
    qemu_img(path, &["convert", "-O", "raw", "top.qcow2", "read.raw"]);
    let read = fs::read(path.join("read.raw")).unwrap();
    assert_eq!(read[..65537], [[1; 65536].as_slice(), &[0]].concat());
    assert_eq!(read[1 << 19..(1 << 19) + 10], [3, 3, 3, 3, 3, 0, 0, 0, 0, 0]);
}

/// What QEMU sees of a bitmap's contents: dirty ranges do not hold "data" then.
#[test]
fn bitmap_contents() {
    let folder = folder();
    let path = folder.path();
    // At 512 byte clusters and granularity, a cluster of the bitmap stands for 2 MiB.
    let dirty = [512..1024, 3 << 20..(9 << 20) + 512, (10 << 20) - 512..10 << 20];
    for cluster_bits in [9, 16] {
        let mut bitmap = Bitmap::new("b").granularity_bits(9);
        for range in &dirty {
            bitmap = bitmap.dirty(range.start + 1..range.end - 1);
        }
        let wanted = Qcow2::new(10 << 20).cluster_bits(cluster_bits).bitmap(bitmap);
        write(&wanted, path, "image.qcow2");
        // Each server its own: the first one removes its socket when it ends, which may be after the second has begun.
        let socket = path.join(format!("socket{cluster_bits}"));
        let server = ["--fork", "-r", "-f", "qcow2", "-B", "b", "-k"].map(OsStr::new);
        let args = [&server[..], &[socket.as_os_str(), OsStr::new("image.qcow2")]].concat();
        // Its daemon keeps standard output open, so that must not be a pipe.
        let status = Command::new("qemu-nbd").current_dir(path).args(args).status();
        assert!(status.expect("qemu-nbd is needed, as is qemu-img").success());
        let options = format!(
            "driver=nbd,server.type=unix,server.path={},x-dirty-bitmap=qemu:dirty-bitmap:b",
            socket.display()
        );
        let map = qemu_img(path, &["map", "--output=json", "--image-opts", &options]);
        let found: Vec<Range<u64>> = map
            .lines()
            .filter(|line| line.contains("\"data\": false"))
            .map(|line| {
                let field = |key: &str| -> u64 {
                    let rest = line.split_once(&format!("\"{key}\": ")).unwrap().1;
                    rest.split(',').next().unwrap().parse().unwrap()
                };
                field("start")..field("start") + field("length")
            })
            .collect();
        assert_eq!(found, dirty, "{map}");
    }
}

/// Compressed clusters of the disk, and what they make together.
fn compressible(cluster: usize, count: usize) -> Vec<u8> {
    let runs = |index: usize| (0..cluster).map(move |at| ((at / (3 + index * 50)) ^ index) as u8);
    (0..count).flat_map(runs).collect()
}

/// Checks a disk of compressed clusters, one of which a later call touches.
fn read_back_compressed(path: &Path, compression_type: u8, cluster_bits: u32, order: Order) {
    let cluster = 1 << cluster_bits;
    let count = if cluster_bits == 21 { 5 } else { 40 };
    let mut disk = compressible(cluster, count);
    // The last cluster of the disk is only a part of one.
    disk.truncate((count - 1) * cluster + 512);
    let wanted = Qcow2::new(disk.len() as u64)
        .compression_type(compression_type)
        .cluster_bits(cluster_bits)
        .order(order)
        .compressed(0, disk.clone())
        .snapshot(Snapshot::new("1", "before"))
        .data(cluster as u64 * 2 + 7, b"not compressed any more");
    write(&wanted, path, "image.qcow2");
    let check = qemu_img(path, &["check", "--output=json", "image.qcow2"]);
    let compressed: usize = values(&check, "compressed-clusters")[0].parse().unwrap();
    assert!(compressed > count / 2, "{compressed} of {count}: {check}");
    qemu_img(path, &["convert", "-l", "before", "-O", "raw", "image.qcow2", "read.raw"]);
    assert!(fs::read(path.join("read.raw")).unwrap() == disk);
    disk[cluster * 2 + 7..][..23].copy_from_slice(b"not compressed any more");
    qemu_img(path, &["convert", "-O", "raw", "image.qcow2", "read.raw"]);
    assert!(fs::read(path.join("read.raw")).unwrap() == disk);
    qemu_img(path, &["snapshot", "-d", "before", "image.qcow2"]);
    qemu_img(path, &["check", "image.qcow2"]);
}

#[test]
fn compressed_clusters() {
    let folder = folder();
    for (compression_type, cluster_bits, order) in [
        (0, 9, Order::InOrder),
        (1, 9, Order::Random(4)),
        (0, 12, Order::Random(5)),
        (1, 12, Order::TablesFirst),
        (0, 16, Order::TablesFirst),
        (1, 16, Order::InOrder),
        (0, 21, Order::InOrder),
        (1, 21, Order::Random(6)),
    ] {
        read_back_compressed(folder.path(), compression_type, cluster_bits, order);
    }
}

#[test]
fn refcounts_of_one_bit_do_not_let_streams_share() {
    let folder = folder();
    let disk = compressible(512, 300);
    let wanted = Qcow2::new(disk.len() as u64).cluster_bits(9).compressed(0, disk.clone());
    for (refcount_order, clusters) in [(0, 300), (1, 100)] {
        let narrow = wanted.clone().refcount_order(refcount_order);
        assert!(narrow.build().unwrap().len() > clusters * 512);
        write(&narrow, folder.path(), "image.qcow2");
        qemu_img(folder.path(), &["check", "image.qcow2"]);
    }
    let shared = wanted.refcount_order(3).snapshot(Snapshot::new("1", ""));
    let many = (2..100_u32).fold(shared, |wanted, id| wanted.snapshot(Snapshot::new(id.to_string(), "")));
    assert!(matches!(many.build(), Err(GenerateError::RefcountTooLarge { bits: 8, .. })));
}

#[test]
fn luks_headers() {
    let folder = folder();
    let path = folder.path();
    for (wanted, slots) in [
        (Qcow2::new(1 << 20), 1),
        (Qcow2::new(1 << 20).version(2).data(0, b"x"), 3),
        (Qcow2::new(4 << 20).cluster_bits(9).data(0, b"x").bitmap(Bitmap::new("b")), 8),
        (Qcow2::new(1 << 20).cluster_bits(21).data(0, b"x").snapshot(Snapshot::new("1", "")), 2),
        (Qcow2::new(1 << 20).extended_l2(true).zero(0..65536).order(Order::Random(5)), 8),
    ] {
        write(&wanted.luks(Luks::new(7).key_slots(slots)), path, "image.qcow2");
        let secret = format!("secret,id=s,data={}", Luks::PASSPHRASE);
        let image = "driver=qcow2,file.filename=image.qcow2,encrypt.key-secret=s";
        qemu_img(path, &["check", "--object", &secret, "--image-opts", image]);
        let info = qemu_img(path, &["info", "--output=json", "image.qcow2"]);
        let active = values(&info, "active").iter().filter(|&&active| active == "true").count();
        assert_eq!(active, slots as usize, "{info}");
        assert_eq!(values(&info, "cipher-mode"), ["ecb"], "{info}");
    }
}
