//! Files of 2 MiB that were made to hurt, and sparse ones of terabytes: every command ends soon, in little memory.

use crate::support::bytes::{Bytes, at};
use crate::support::images::{Shape, by_hand};
use crate::support::program::QED;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use test_support::measure::{Cost, measure};
use test_support::random::Random;
use test_support::scratch::{scratch, text};
use test_support::threads;

const LINES: [&[&str]; 19] = [
    &["show", "header"],
    &["show", "l1"],
    &["show", "l1", "--json"],
    &["show", "l2", "l1:0"],
    &["show", "l2", "l1:0", "--json"],
    &["fragcheck"],
    &["check"],
    &["check", "--json"],
    &["map", "--output", "human"],
    &["map", "--output", "json"],
    &["map", "--json"],
    &["repair"],
    &["duplicate", "l1", "--seed", "1", "--dry-run"],
    &["duplicate", "l2", "--seed", "2", "--dry-run"],
    &["invalidate", "l2", "--seed", "3", "--no-undo"],
    // A record would have a fingerprint, for which the holes of tables are read: that makes them data on a tmpfs.
    &["need_check", "on", "--no-undo"],
    &["zerocluster", "0", "100000", "--dry-run"],
    &["set-header", "image_size", "512", "--dry-run"],
    &["copy_metadata"],
];

/// The most seconds of a processor that a command may take. Release builds take 0.1 at most.
const SECONDS: f64 = 3.0;
const KIB: u64 = 32 << 10;

/// Runs every command on the image.
fn every_command(name: &str, image: &Path) {
    let out = image.with_extension("copy");
    let lines: Vec<Vec<&str>> = LINES
        .iter()
        .map(|line| {
            let out = (line[0] == "copy_metadata").then_some(text(&out));
            [QED.path(), text(image)].into_iter().chain(line.iter().copied()).chain(out).collect()
        })
        .collect();
    for (cost, line) in measure(&lines).into_iter().zip(LINES) {
        let Cost { status, seconds, peak, stderr } = cost;
        assert!(matches!(status, 0 | 1 | 2 | 3 | 63), "{name}: {line:?}: status {status}: {stderr}");
        assert!(!stderr.contains("panicked"), "{name}: {line:?}: {stderr}");
        assert!(seconds < SECONDS, "{name}: {line:?}: {seconds} s");
        assert!(peak <= KIB, "{name}: {line:?}: {peak} KiB");
        if seconds > 0.05 || peak > KIB / 2 {
            println!("{seconds:.3} s, {peak} KiB: {line:?}: {name}");
        }
    }
}

const LENGTH: usize = 2 << 20;

/// A header for a shape, and behind it 2 MiB of nothing.
fn blank(shape: Shape) -> Bytes {
    let mut bytes = by_hand(shape, u64::MAX / 1024 * 512, 0);
    bytes.0.resize(LENGTH.max(bytes.0.len()), 0);
    bytes
}

/// Fills the table at `offset`, as far as the file has it.
fn fill(bytes: &mut Bytes, offset: usize, entry: impl Fn(u64) -> u64) {
    let end = (offset + bytes.table_bytes()).min(bytes.0.len());
    for (index, at) in (offset..end).step_by(8).enumerate() {
        bytes.put_u64(at, entry(index as u64));
    }
}

fn images() -> Vec<(String, Bytes)> {
    let mut images = Vec::new();
    let mut add = |name: &str, bytes: Bytes| images.push((name.to_owned(), bytes));
    let mut random = Random::new(1);
    for shape in [Shape::new(4096, 1), Shape::new(65536, 8)] {
        let name = |what: &str| format!("{what}, {shape:?}");
        let table = (shape.table_size * shape.cluster_size) as usize;
        let size = shape.cluster_size;

        let mut bytes = blank(shape);
        let start = shape.cluster_size as usize;
        let noise = random.bytes(LENGTH - start);
        bytes.put(start, &noise);
        add(&name("random bytes"), bytes);

        let mut bytes = blank(shape);
        fill(&mut bytes, start, |_| size + table as u64);
        fill(&mut bytes, start + table, |index| if index % 2 == 0 { size + 2 * table as u64 } else { 0 });
        add(&name("all L1 entries name one L2 table"), bytes);

        let mut bytes = blank(shape);
        fill(&mut bytes, start, |_| size);
        add(&name("all L1 entries name the L1 table"), bytes);

        let mut bytes = blank(shape);
        fill(&mut bytes, start + table, |_| size + table as u64);
        add(&name("every L2 entry names its table"), bytes);

        let clusters = (LENGTH as u64) / size;
        let mut bytes = blank(shape);
        fill(&mut bytes, start, |index| (1 + index % clusters) * size);
        add(&name("tables that overlap"), bytes);

        let mut bytes = blank(shape);
        for at in (start..LENGTH).step_by(8) {
            bytes.put_u64(at, (at as u64 / 8).wrapping_mul(0x9e37_79b9) % clusters * size);
        }
        add(&name("everything is an entry that names a cluster"), bytes);

        let mut bytes = blank(shape);
        for at in (start..LENGTH).step_by(8) {
            bytes.put_u64(at, 3);
        }
        add(&name("every entry is wrong"), bytes);
    }
    let shape = Shape::new(4096, 2);
    for (field, bytes) in [
        (at::CLUSTER_SIZE, 4),
        (at::TABLE_SIZE, 4),
        (at::HEADER_SIZE, 4),
        (at::L1_TABLE_OFFSET, 8),
        (at::IMAGE_SIZE, 8),
        (at::BACKING_FILENAME_OFFSET, 8),
        (at::FEATURES, 8),
    ] {
        for value in [0u64, 1 << 26, u64::MAX, u64::MAX << 12] {
            let mut image = blank(shape);
            image.put_u64(at::FEATURES, 1);
            image.put(field, &value.to_le_bytes()[..bytes]);
            add(&format!("{value:#x} at {field}"), image);
        }
    }
    let mut largest = blank(shape);
    largest.put_u32(at::CLUSTER_SIZE, 64 << 20);
    largest.put_u32(at::TABLE_SIZE, 16);
    add("the largest clusters and tables", largest);
    images
}

#[test]
fn files_of_2_mib() {
    let images = images();
    threads::each(images.len() as u64, |number| {
        let (name, bytes) = &images[usize::try_from(number).unwrap()];
        let folder = scratch();
        let path = folder.path().join("image");
        bytes.write(&path);
        every_command(name, &path);
    });
}

/// Holes are not read: not by those who check, and not by those who copy.
#[test]
fn sparse_files_of_terabytes() {
    let shapes = [Shape::new(65536, 4), Shape::new(64 << 20, 16)];
    threads::each(shapes.len() as u64, |number| {
        let shape = shapes[usize::try_from(number).unwrap()];
        let folder = scratch();
        let path = folder.path().join("image");
        let table = shape.table_size * shape.cluster_size;
        let header = by_hand(Shape::new(4096, 1), 1 << 50, 0);
        let mut header = Bytes(header.0[..64].to_vec());
        header.put_u32(at::CLUSTER_SIZE, u32::try_from(shape.cluster_size).unwrap());
        header.put_u32(at::TABLE_SIZE, u32::try_from(shape.table_size).unwrap());
        header.put_u64(at::L1_TABLE_OFFSET, shape.cluster_size);
        let file = File::create(&path).unwrap();
        file.write_all_at(&header.0, 0).unwrap();
        // As many tables as fit, each of them a hole.
        let entries: Vec<u8> =
            (1..4096u64).flat_map(|index| (shape.cluster_size + index * table).to_le_bytes()).collect();
        file.write_all_at(&entries, shape.cluster_size).unwrap();
        file.set_len((4096 * table + shape.cluster_size).max(1 << 40)).unwrap();
        drop(file);
        every_command(&format!("sparse, {shape:?}"), &path);
    });
}
