//! Images of all shapes that the format has, small.

use super::bytes::Bytes;
use super::qemu;
use std::path::Path;
use test_support::random::Random;
use test_support::scratch::text;
use vdisk_format::generate::{Bitmap, Luks, Order, Qcow2, Snapshot};

/// A sound image, and what it is.
#[derive(Debug, Clone)]
pub(crate) struct Sound {
    pub(crate) what: String,
    pub(crate) bytes: Bytes,
}

/// Makes the file that images with an external data file name: its path, which QEMU takes as seen from where it runs.
pub(crate) fn data_file(folder: &Path) -> String {
    let path = folder.join("external.raw");
    std::fs::write(&path, vec![7; 4 << 20]).unwrap();
    text(&path).to_owned()
}

/// What QEMU itself makes: with snapshots, bitmaps, compressed clusters and all that.
pub(crate) fn of_qemu(folder: &Path) -> Vec<Sound> {
    let mut images = Vec::new();
    let path = folder.join("image");
    let snapshot = |name: &str| drop(qemu::img(&["snapshot", "-c", name, text(&path)]));
    for (options, size) in [
        ("cluster_size=512", "4M"),
        ("cluster_size=4k,refcount_bits=1", "8M"),
        ("cluster_size=4k,refcount_bits=64", "8M"),
        ("cluster_size=4k,compat=0.10", "8M"),
        ("cluster_size=16k,extended_l2=on", "8M"),
        ("cluster_size=64k", "64M"),
        ("cluster_size=2M", "16M"),
        ("cluster_size=1k,refcount_bits=2,lazy_refcounts=on", "3M"),
        ("cluster_size=4k,compression_type=zstd", "8M"),
    ] {
        qemu::create(&path, options, size);
        let has_snapshots = !options.contains("refcount_bits=1") && !options.contains("2M");
        qemu::io(&path, &["write -P 1 0 300k", "write -P 2 1M 100k"]);
        if has_snapshots {
            snapshot("one");
        }
        if !options.contains("2M") {
            qemu::io(&path, &["write -P 3 64k 70k", "discard 128k 64k"]);
        }
        if !options.contains("compat") {
            qemu::io(&path, &["write -z 1536k 128k"]);
            qemu::img(&["bitmap", "--add", "-g", "64k", text(&path), "b0"]);
        }
        if options.contains("zstd") || options.contains("512") {
            qemu::io(&path, &["write -c -P 4 2M 64k"]);
        }
        if has_snapshots && !options.contains("refcount_bits=2") {
            snapshot("two");
            qemu::io(&path, &["write -P 5 0 5k"]);
        }
        images.push(Sound { what: format!("qemu-img, {options}"), bytes: Bytes::read(&path) });
    }
    std::fs::remove_file(&path).unwrap();
    images
}

/// An image of our own writer, of a shape that `random` chooses.
pub(crate) fn generated(random: &mut Random, data_file: &str) -> Sound {
    loop {
        let image = wanted(random, data_file);
        // Some of what is wished for does not go together.
        if let Ok(bytes) = image.build() {
            return Sound { what: format!("{image:?}").chars().take(600).collect(), bytes: Bytes(bytes) };
        }
    }
}

fn wanted(random: &mut Random, data_file: &str) -> Qcow2 {
    let bits = *random.pick(&[9, 9, 10, 11, 12, 12, 12, 13, 14, 15, 16, 16, 18, 21]);
    let cluster = 1u64 << bits;
    // A few L2 tables of small clusters; a few clusters of large ones.
    let disk = if bits >= 18 { 4 * cluster } else { (cluster * cluster / 8).min(512 * cluster) * 2 + 512 };
    let version = if random.below(5) == 0 { 2 } else { 3 };
    let order = *random.pick(&[Order::InOrder, Order::TablesFirst, Order::Random(1), Order::Random(2)]);
    let mut image = Qcow2::new(disk).version(version).cluster_bits(bits).order(order);
    if version == 3 {
        image = image.refcount_order(*random.pick(&[0, 1, 2, 3, 4, 4, 4, 5, 6]));
        image = image.extended_l2(bits >= 14 && random.below(2) == 0);
        image = image.compression_type(u8::try_from(random.below(2)).unwrap());
    }
    let has_data_file = version == 3 && random.below(8) == 0;
    for part in 0..1 + random.below(4) as u64 {
        image = contents(image, random, part, disk, cluster, version, has_data_file);
        if random.below(4) == 0 && !has_data_file {
            image = image.snapshot(Snapshot::new(part.to_string(), "snapshot"));
        }
    }
    if has_data_file {
        return image.data_file(data_file, random.below(2) == 0);
    }
    if version == 3 && random.below(4) == 0 {
        let granularity = u8::try_from(*random.pick(&[9, 12, 16])).unwrap();
        image = image.bitmap(Bitmap::new("b0").granularity_bits(granularity).dirty(0..disk / 2));
        image = image.bitmap(Bitmap::new("b1").dirty(disk / 4..disk / 3));
    }
    if bits < 16 && random.below(12) == 0 { image.luks(Luks::new(random.number())) } else { image }
}

fn contents(
    image: Qcow2,
    random: &mut Random,
    part: u64,
    disk: u64,
    cluster: u64,
    version: u32,
    has_data_file: bool,
) -> Qcow2 {
    let clusters = disk / cluster;
    let first = random.number() % clusters;
    let count = 1 + random.number() % 40.min(clusters - first);
    let range = first * cluster..(first + count) * cluster;
    match random.below(6) {
        0 if version == 3 => image.zero(range),
        1 if version == 3 => image.zero_preallocated(range),
        2 if !has_data_file => {
            let length = usize::try_from(count.min(20) * cluster).unwrap();
            image.compressed(range.start, vec![u8::try_from(part).unwrap() + 1; length])
        }
        3 => image.data(range.start + 7, *b"data"),
        _ => image.allocate(range),
    }
}
