//! Images of many shapes.

use crate::support::qemu;
use std::path::{Path, PathBuf};
use test_support::random::Random;
use test_support::scratch::text;
use vdisk_format::generate::{Order, Qcow2};

/// Size of the disks: the last cluster is not whole.
pub(crate) const SIZE: u64 = (9 << 20) + 512;

/// Options of `qemu-img create`.
pub(crate) const OPTIONS: [&str; 17] = [
    "",
    "cluster_size=512",
    "cluster_size=4k",
    "cluster_size=2M",
    "compat=0.10",
    "extended_l2=on",
    "extended_l2=on,cluster_size=16k",
    "extended_l2=on,cluster_size=2M",
    "lazy_refcounts=on,refcount_bits=1",
    "refcount_bits=64,cluster_size=4k",
    "compression_type=zstd",
    "preallocation=metadata",
    "preallocation=metadata,cluster_size=512",
    "preallocation=metadata,extended_l2=on",
    "preallocation=metadata,compat=0.10",
    "preallocation=falloc",
    "preallocation=full",
];

/// Writes to an image of these options, in all of the ways that `qemu-io` has.
pub(crate) fn written(image: &Path, options: &str, random: &mut Random) {
    let cluster = match options.split(',').find_map(|option| option.strip_prefix("cluster_size=")) {
        None => 65536,
        Some("512") => 512,
        Some("4k") => 4096,
        Some("16k") => 16384,
        Some(_) => 2 << 20,
    };
    let has_compression = !options.contains("refcount_bits=1");
    let commands: Vec<String> = (0..25)
        .map(|_| {
            let first = random.number() % (SIZE / 512);
            let count = (1 + random.number() % 300).min(SIZE / 512 - first);
            let (at, length) = (first * 512, count * 512);
            match random.below(9) {
                0..4 => format!("write {at} {length}"),
                4 => format!("write -z {at} {length}"),
                5 => format!("write -z -u {at} {length}"),
                6 => format!("discard {at} {length}"),
                7 if has_compression => {
                    let at = at / cluster * cluster;
                    format!("write -c {at} {}", cluster.min(SIZE - at))
                }
                _ => format!(
                    "write -z {} {}",
                    at / cluster * cluster,
                    cluster.min(SIZE - at / cluster * cluster)
                ),
            }
        })
        .collect();
    // A compressed write onto a cluster that has data fails: the next ones go on.
    let lines = commands.iter().flat_map(|command| ["-c", command]);
    let mut io = qemu::program("qemu-io");
    test_support::process::run(io.args(["-f", "qcow2", "-d", "unmap"]).args(lines).arg(image), b"");
}

/// Images of our own writer.
pub(crate) fn generated() -> Vec<(&'static str, Qcow2)> {
    let plain = |bits| Qcow2::new(SIZE).cluster_bits(bits);
    let mixed = |wanted: Qcow2| {
        wanted
            .data(0, vec![1; 300_000])
            .zero(1 << 20..2 << 20)
            .zero_preallocated(2 << 20..3 << 20)
            .allocate(4 << 20..5 << 20)
            .data(6 << 20, vec![2; 100_000])
            .compressed(7 << 20, vec![3; 2 << 16])
    };
    vec![
        ("in-order", plain(16).allocate(0..SIZE)),
        ("random", plain(16).order(Order::Random(1)).allocate(0..SIZE)),
        ("random-512", plain(9).order(Order::Random(2)).data(0, vec![5; SIZE as usize])),
        ("tables-first-512", plain(9).order(Order::TablesFirst).data(0, vec![5; SIZE as usize])),
        ("mixed", mixed(plain(16))),
        ("mixed-512", mixed(plain(9))),
        ("mixed-random", mixed(plain(12)).order(Order::Random(3))),
        ("mixed-extended", mixed(plain(14).extended_l2(true)).order(Order::Random(4))),
        ("mixed-zstd", mixed(plain(16).compression_type(1))),
        ("refcounts-1", mixed(plain(16).refcount_order(0))),
        ("large", Qcow2::new(1 << 40).data(1 << 39, [1; 512]).allocate((1 << 30)..(5 << 30))),
    ]
}

/// An image on qcow2 on QED on raw, each larger than the one below, and the files.
pub(crate) fn chain(folder: &Path) -> (PathBuf, Vec<PathBuf>) {
    let raw = folder.join("raw");
    std::fs::write(&raw, vec![7; 300_000 / 512 * 512]).unwrap();
    std::fs::OpenOptions::new().write(true).open(&raw).unwrap().set_len(900 << 10).unwrap();
    let mut files = vec![raw];
    for (format, size, commands) in [
        ("qed", "2M", ["write 64k 64k", "write -z 192k 64k", "write 1M 10k"]),
        ("qcow2", "3M", ["write 160k 70k", "write -z 1M 30k", "write 2M 64k"]),
        ("qcow2", "4M", ["write 16k 7k", "write -z 2M 64k", "write 3M 64k"]),
    ] {
        let (base, path) = (files.last().unwrap().clone(), folder.join(format!("{format}-{size}")));
        let base_format = if files.len() == 1 {
            "raw"
        } else if files.len() == 2 {
            "qed"
        } else {
            "qcow2"
        };
        qemu::img(&["create", "-q", "-f", format, "-b", text(&base), "-F", base_format, text(&path), size]);
        test_support::qemu::io(format, &path, &commands);
        files.push(path);
    }
    (files.last().unwrap().clone(), files)
}
