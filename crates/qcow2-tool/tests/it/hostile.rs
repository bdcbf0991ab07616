//! Files of 1 MiB that were made to hurt, and sparse ones of terabytes: a check ends soon, in little memory.

use crate::support::bytes::{Bytes, at, extension, magic};
use crate::support::program::QCOW2;
use crate::support::tables::COPIED;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use test_support::measure::{Cost, measure};
use test_support::random::Random;
use test_support::scratch::{scratch, text};
use test_support::threads;
use vdisk_format::generate::Qcow2;

/// The most seconds of a processor that a check may take. Release builds take 0.1 at most.
const SECONDS: f64 = 3.0;
const KIB: u64 = 32 << 10;
/// The same for a file of 16 TiB with a hundred thousand tables, as far from one another as can be.
const SPARSE_KIB: u64 = 64 << 10;

/// Checks the image as text and as JSON, and scrubs it, with all the memory there is and with little of it.
fn check(name: &str, image: &Path, is_small: bool) {
    let program = QCOW2.path();
    let image = text(image);
    let limited = format!("ulimit -v 200000; exec {program} {image} check --json");
    let mut lines = vec![vec![program, image, "check"], vec![program, image, "check", "--json"]];
    let out = format!("{image}.copy");
    let scrub = format!("ulimit -v 200000; exec {program} {image} scrub {out} --force");
    if is_small {
        lines.push(vec!["sh", "-c", &limited]);
        lines.push(vec!["sh", "-c", &scrub]);
    }
    for (cost, line) in measure(&lines).into_iter().zip(&lines) {
        let Cost { status, seconds, peak, stderr } = cost;
        assert!(matches!(status, 0 | 1 | 2 | 3 | 63), "{name}: {line:?}: status {status}: {stderr}");
        assert!(!stderr.contains("panicked"), "{name}: {line:?}: {stderr}");
        // A copy is checked as its image is, and made and read between.
        let most_seconds =
            if line.iter().any(|word| word.contains("scrub")) { 4.0 * SECONDS } else { SECONDS };
        assert!(seconds < most_seconds, "{name}: {line:?}: {seconds} s");
        let most = if is_small { KIB } else { SPARSE_KIB };
        assert!(peak <= most, "{name}: {line:?}: {peak} KiB");
        if seconds > 0.1 || peak > KIB / 2 {
            println!("{seconds:.3} s, {peak} KiB: {}: {name}", line.last().unwrap());
        }
    }
}

const LENGTH: usize = 1 << 20;

/// A header, and behind it 1 MiB of nothing: the L1 table behind the header's cluster, refcounts at half of the file.
fn blank(bits: u32, l1_size: u32) -> Bytes {
    let size = 1u64 << bits;
    Bytes(vec![0; LENGTH])
        .with(at::MAGIC, b"QFI\xfb")
        .with_u32(at::VERSION, 3)
        .with_u32(at::CLUSTER_BITS, bits)
        .with_u64(at::SIZE, u64::MAX >> 8)
        .with_u32(at::L1_SIZE, l1_size)
        .with_u64(at::L1_TABLE_OFFSET, size)
        .with_u64(at::REFCOUNT_TABLE_OFFSET, LENGTH as u64 / 2)
        .with_u32(at::REFCOUNT_TABLE_CLUSTERS, u32::try_from(LENGTH as u64 / 4 / size).unwrap().max(1))
        .with_u32(at::REFCOUNT_ORDER, 4)
        .with_u32(at::HEADER_LENGTH, 104)
}

/// Fills a part of the file with entries.
fn fill(mut bytes: Bytes, range: std::ops::Range<usize>, entry: impl Fn(u64) -> u64) -> Bytes {
    for (index, at) in range.step_by(8).enumerate().take_while(|(_, at)| at + 8 <= LENGTH) {
        bytes.0[at..at + 8].copy_from_slice(&entry(index as u64).to_be_bytes());
    }
    bytes
}

/// Entries of the snapshot table, each 64 bytes: where its L1 table is, and how many entries it has.
fn snapshots(bytes: Bytes, start: usize, count: u32, l1: impl Fn(u32) -> (u64, u32)) -> Bytes {
    let bytes = bytes.with_u64(at::SNAPSHOTS_OFFSET, start as u64).with_u32(at::NB_SNAPSHOTS, count);
    (0..count).fold(bytes, |mut bytes, index| {
        let entry = start + 64 * index as usize;
        let (offset, size) = l1(index);
        bytes.0[entry..entry + 8].copy_from_slice(&offset.to_be_bytes());
        bytes.0[entry + 8..entry + 12].copy_from_slice(&size.to_be_bytes());
        bytes.0[entry + 36..entry + 40].copy_from_slice(&16u32.to_be_bytes());
        bytes.0[entry + 12..entry + 14].copy_from_slice(&8u16.to_be_bytes());
        bytes.0[entry + 56..entry + 64].copy_from_slice(&u64::from(index).to_be_bytes());
        bytes
    })
}

/// Bitmaps whose tables all begin at `table`, or near it.
fn bitmaps(bytes: Bytes, directory: usize, count: u32, table: impl Fn(u32) -> u64, entries: u32) -> Bytes {
    let data = [
        &count.to_be_bytes()[..],
        &[0; 4],
        &u64::from(count * 32).to_be_bytes(),
        &(directory as u64).to_be_bytes(),
    ]
    .concat();
    let bytes = bytes.with_u64(at::AUTOCLEAR_FEATURES, 1).with(104, &extension(magic::BITMAPS, &data));
    (0..count).fold(bytes, |mut bytes, index| {
        let entry = directory + 32 * index as usize;
        bytes.0[entry..entry + 8].copy_from_slice(&table(index).to_be_bytes());
        bytes.0[entry + 8..entry + 12].copy_from_slice(&entries.to_be_bytes());
        bytes.0[entry + 16..entry + 24].copy_from_slice(&[1, 16, 0, 4, 0, 0, 0, 0]);
        bytes.0[entry + 24..entry + 28].copy_from_slice(&index.to_be_bytes());
        bytes
    })
}

fn images() -> Vec<(String, Bytes)> {
    let mut images = Vec::new();
    let mut random = Random::new(1);
    for bits in [9, 12, 16, 18] {
        let size = 1u64 << bits;
        let clusters = LENGTH as u64 / size;
        let (start, half) = (size as usize, LENGTH / 2);
        let quarter = u32::try_from(half / 2 / 8).unwrap();
        let mut add = |name: &str, bytes: Bytes| images.push((format!("{name}, cluster_bits {bits}"), bytes));

        let noise = random.bytes(LENGTH - start);
        add("random bytes", blank(bits, quarter).with(start, &noise));
        add("random bytes, and all counts at their largest", {
            let bytes = blank(bits, u32::MAX).with(start, &noise).with_u32(at::NB_SNAPSHOTS, u32::MAX);
            bytes.with_u32(at::REFCOUNT_TABLE_CLUSTERS, u32::MAX).with_u64(at::SNAPSHOTS_OFFSET, size)
        });
        let table = 0x40000;
        let one_table = fill(blank(bits, quarter), start..table, |_| table as u64 | COPIED);
        add("all L1 entries name one L2 table", {
            fill(one_table.clone(), table..table + start, |index| (index % clusters * size) | COPIED)
        });
        add("all L1 entries name one L2 table of wrong entries", {
            fill(one_table.clone(), table..table + start, |_| 0x3f00_0000_0000_01ff)
        });
        add("all L1 entries name one L2 table of compressed clusters", {
            fill(one_table, table..table + start, |index| 1 << 62 | (0x1ff << 53) | (index * 999))
        });
        add("every cluster is an L2 table of everything", {
            let bytes = fill(blank(bits, quarter), start..LENGTH, |index| {
                (index.wrapping_mul(0x9e37_79b9) % clusters * size) | COPIED
            });
            bytes.with_u64(at::REFCOUNT_TABLE_OFFSET, size)
        });
        add("every entry is wrong", fill(blank(bits, quarter), start..LENGTH, |_| 3));
        add("every entry is compressed", {
            let scattered = |index: u64| 1 << 62 | index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 2;
            fill(blank(bits, quarter), start..LENGTH, scattered)
        });
        // Each of its tables has all that is behind it, too.
        let l1 = start..start + (1 << 14);
        let overlapping = fill(blank(bits, 1 << 11), l1.clone(), |index| (index * 512) | COPIED);
        add("L2 tables that are not aligned, of compressed clusters", {
            let scattered = |index: u64| 1 << 62 | index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 2;
            fill(overlapping.clone(), l1.end..LENGTH, scattered)
        });
        add("L2 tables that are not aligned, of wrong entries", {
            fill(overlapping, l1.end..LENGTH, |index| 0x3f00_0000_0000_0001 | index << 9)
        });
        add("the refcount table's entries name one block", {
            fill(blank(bits, 1), half..LENGTH, |_| half as u64)
        });
        add("the refcount table's entries name one block of random bytes", {
            let noise = random.bytes(start);
            fill(blank(bits, 1), half..LENGTH, |_| size).with(start, &noise)
        });
        add("refcount blocks without order", {
            fill(blank(bits, 1), half..LENGTH, |index| index.wrapping_mul(0x9e37_79b9) % clusters * size)
        });
        let entries = fill(blank(bits, quarter), start..table, |index| table as u64 + index % 64 * size);
        add("snapshots that share an L1 table", snapshots(entries.clone(), half, 8000, |_| (size, quarter)));
        add("snapshots whose L1 tables overlap", {
            let l1 = |index: u32| (size * (1 + u64::from(index) % (clusters / 4)), quarter);
            snapshots(entries.clone(), half, 8000, l1)
        });
        add("snapshots whose L1 tables are as large as QEMU takes", {
            snapshots(entries, half, 8000, |index| (size * u64::from(1 + index % 2), 4 << 20))
        });
        add("as many snapshots as QEMU takes, behind the end", {
            snapshots(blank(bits, quarter), half, 0, |_| (0, 0)).with_u32(at::NB_SNAPSHOTS, 65_536)
        });
        let entries = fill(blank(bits, 1), start..table, |index| (index % clusters) * size);
        add("bitmaps that share a table", bitmaps(entries.clone(), half, 16_000, |_| size, quarter));
        add("bitmaps whose tables overlap", {
            bitmaps(entries.clone(), half, 16_000, |index| size * (1 + u64::from(index) % 64), quarter)
        });
        add("bitmaps whose tables overlap, and are long", {
            bitmaps(entries, half, 16_000, |index| size + 8 * u64::from(index), u32::MAX)
        });
        for order in [0, 1, 3, 6, 7, 255] {
            let name = format!("random refcounts, refcount_order {order}");
            let bytes = fill(blank(bits, 1), half..LENGTH, |index| (index % clusters) * size);
            add(&name, bytes.with(start, &noise[..half - start]).with_u32(at::REFCOUNT_ORDER, order));
        }
    }
    images
}

#[test]
fn files_of_1_mib() {
    let images = images();
    threads::each(images.len() as u64, |number| {
        let (name, bytes) = &images[usize::try_from(number).unwrap()];
        let folder = scratch();
        let path = folder.path().join("image");
        bytes.write(&path);
        check(name, &path, true);
    });
}

/// Who has a byte, and what it is, where thousands say that it is theirs.
#[test]
fn explanations_of_files_of_1_mib() {
    let (size, half) = (512, LENGTH / 2);
    let noise = Random::new(1).bytes(half);
    let entries = blank(9, 1 << 14).with(size, &noise[size..]).with_u32(at::REFCOUNT_ORDER, 0);
    let block = size as u64;
    let one_block = fill(entries.clone(), half..LENGTH, |_| block);
    let tables = |index: u32| (u64::from(1 + index % 255) * block, 1000 + index);
    let overlapping = snapshots(entries.clone(), half, 8000, tables);
    let bitmaps = bitmaps(entries, half, 16_000, |_| block, 1 << 14);
    for (name, bytes) in [("one block", one_block), ("snapshots", overlapping), ("bitmaps", bitmaps)] {
        let folder = scratch();
        let path = folder.path().join("image");
        bytes.write(&path);
        let places = ["0", "0x200", "0x208", "0x20000", "0x80000", "0xfffff"];
        let lines = places
            .iter()
            .flat_map(|place| ["owner", "explain"].map(|verb| vec![QCOW2.path(), text(&path), verb, place]));
        let lines: Vec<_> = lines.collect();
        for (Cost { status, seconds, peak, stderr }, line) in measure(&lines).into_iter().zip(&lines) {
            assert!(status == 0 && stderr.is_empty(), "{name}: {line:?}: status {status}: {stderr}");
            assert!(seconds < SECONDS, "{name}: {line:?}: {seconds} s");
            assert!(peak <= KIB, "{name}: {line:?}: {peak} KiB");
        }
    }
}

/// What claims to be as long as the file, and is a hole.
#[test]
fn lengths_of_terabytes_in_sparse_files() {
    let length = 2u64 << 40;
    let pointer = |length: u64| [0x2000u64.to_be_bytes(), length.to_be_bytes()].concat();
    let luks = blank(9, 1).with_u32(at::CRYPT_METHOD, 2);
    let luks = luks.with(104, &extension(magic::ENCRYPTION, &pointer(length - 0x2000)));
    let refcounts = blank(9, 1).with_u32(at::REFCOUNT_TABLE_CLUSTERS, u32::MAX);
    let directory = bitmaps(blank(9, 1), 0x2000, 1, |_| 0x4000, u32::MAX);
    let tables = bitmaps(blank(9, 1), LENGTH / 2, 16_000, |index| u64::from(index) << 26, u32::MAX);
    for (name, bytes) in
        [("luks", luks), ("refcounts", refcounts), ("directory", directory), ("bitmap tables", tables)]
    {
        let folder = scratch();
        let path = folder.path().join("image");
        bytes.write(&path);
        File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
        check(&format!("sparse, {name}"), &path, false);
    }
}

/// One compressed cluster of 2 MiB that all entries of the largest table name: it is decoded once.
#[test]
fn one_cluster_of_a_whole_table() {
    let folder = scratch();
    let path = folder.path().join("image");
    let image = Qcow2::new(512 << 30).cluster_bits(21).compressed(0, vec![0; 2 << 20]).build().unwrap();
    let bytes = Bytes(image);
    let (table, entry) = (bytes.l2(0), bytes.u64(bytes.l2(0)));
    let entries: Vec<u8> = (0..1 << 18).flat_map(|_| entry.to_be_bytes()).collect();
    bytes.with(table, &entries).write(&path);
    for threads in ["1", "3"] {
        let line = vec![QCOW2.path(), text(&path), "check", "--deep", "--threads", threads, "--json"];
        let [cost] = measure(&[line]).try_into().unwrap();
        assert!(cost.seconds < SECONDS && cost.status == 2, "{cost:?}");
        assert!(cost.peak <= KIB, "{cost:?}");
    }
}

/// Holes are not read.
#[test]
fn sparse_files_of_16_tib() {
    for bits in [9, 16, 21] {
        let folder = scratch();
        let path = folder.path().join("image");
        let size = 1u64 << bits;
        let l1_size = 1 << 16;
        let header = blank(bits, l1_size)
            .with_u32(at::REFCOUNT_TABLE_CLUSTERS, u32::try_from((8 << 20) / size).unwrap());
        let tables = 16 << 20;
        let header = header.with_u64(at::REFCOUNT_TABLE_OFFSET, tables);
        let file = File::create(&path).unwrap();
        file.write_all_at(&header.0[..112], 0).unwrap();
        // Tables all over the file, each of them a hole.
        let step = (16u64 << 40) / u64::from(l1_size) / size * size;
        let entries: Vec<u8> =
            (1..u64::from(l1_size)).flat_map(|index| (index * step).to_be_bytes()).collect();
        file.write_all_at(&entries, size).unwrap();
        let blocks: Vec<u8> = (1..1u64 << 16).flat_map(|index| (index * step + size).to_be_bytes()).collect();
        file.write_all_at(&blocks, tables).unwrap();
        file.set_len(16 << 40).unwrap();
        drop(file);
        check(&format!("sparse, cluster_bits {bits}"), &path, false);
    }
}
