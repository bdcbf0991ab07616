//! Damage to images, by chance.

use super::bytes::{Bytes, at};
use super::images::{Shape, backed};
use test_support::random::Random;
use test_support::scratch::scratch;

/// Sound images to damage: small, with several L2 tables, one with a backing file.
pub(crate) fn sources() -> Vec<Bytes> {
    let folder = scratch();
    let path = folder.path().join("image");
    let shapes = [Shape::new(4096, 2), Shape::new(4096, 4), Shape::new(8192, 2), Shape::new(16384, 2)];
    let mut sources: Vec<Bytes> = shapes
        .iter()
        .map(|shape| {
            shape.filled(&path);
            Bytes::read(&path)
        })
        .collect();
    let overlay = backed(folder.path(), "overlay");
    let mut bytes = Bytes::read(&overlay);
    // The file that it names goes with its folder.
    bytes.put_u64(at::FEATURES, 0);
    sources.push(bytes);
    sources
}

/// Which damage is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Any.
    Any,
    /// To tables, and the need-check bit: QEMU opens what comes of it.
    Tables,
}

/// A sound image with one to three faults.
pub(crate) fn damaged(sources: &[Bytes], random: &mut Random, kind: Kind) -> Bytes {
    let mut bytes = random.pick(sources).clone();
    for _fault in 0..=random.below(3) {
        match (kind, random.below(12)) {
            (Kind::Tables, 0..10) | (Kind::Any, 0..6) => entry(&mut bytes, random),
            (Kind::Any, 6 | 7) => header_field(&mut bytes, random),
            (Kind::Any, 8) => {
                let length = random.below(bytes.0.len() + 1);
                bytes.0.truncate(length);
            }
            (Kind::Any, 9) => {
                let more = random.below(70_000);
                bytes.0.extend(random.bytes(more));
            }
            (_, 10) => share(&mut bytes, random),
            _ => {
                let features = bytes.u64(at::FEATURES);
                bytes.put_u64(at::FEATURES, features ^ 2);
            }
        }
        // What is left of the others has nowhere to be.
        if bytes.0.len() < 64 || !has_tables(&bytes) {
            break;
        }
    }
    bytes
}

/// Whether the L1 table is where the header says, whole, and of a size that this machine can hold.
fn has_tables(bytes: &Bytes) -> bool {
    let (size, tables) = (u64::from(bytes.u32(at::CLUSTER_SIZE)), u64::from(bytes.u32(at::TABLE_SIZE)));
    let end = bytes.u64(at::L1_TABLE_OFFSET).checked_add(size * tables);
    size >= 8 && end.is_some_and(|end| end <= bytes.0.len() as u64)
}

/// The offsets of entries: of the L1 table, and of all L2 tables.
fn entries(bytes: &Bytes) -> (Vec<usize>, Vec<usize>) {
    let used = |table| bytes.used_entries(table).into_iter().map(|(at, _)| at);
    let l1: Vec<usize> = used(bytes.l1()).collect();
    let whole =
        |table: &usize| table.checked_add(bytes.table_bytes()).is_some_and(|end| end <= bytes.0.len());
    let l2 = bytes.l2_tables().into_iter().filter(whole).flat_map(used).collect();
    (l1, l2)
}

/// Overwrites an entry of a table: one that is used, or any.
fn entry(bytes: &mut Bytes, random: &mut Random) {
    let (l1, l2) = entries(bytes);
    let used = if random.below(3) == 0 { &l1 } else { &l2 };
    let mut at = if used.is_empty() { bytes.l1() } else { *random.pick(used) };
    if random.below(4) == 0 {
        // One near it, used or not.
        at = (at + 8 * random.below(20)).min(bytes.0.len() - 8);
    }
    let value = value(bytes, random, &[l1, l2].concat());
    bytes.put_u64(at, value);
}

fn value(bytes: &Bytes, random: &mut Random, entries: &[usize]) -> u64 {
    let size = bytes.cluster_size() as u64;
    let clusters = bytes.0.len() as u64 / size;
    let any_cluster = random.number() % (clusters + 2) * size;
    let other = if entries.is_empty() { 0 } else { bytes.u64(*random.pick(entries)) };
    match random.below(14) {
        0 => 0,
        1 => 1,
        2 => random.number(),
        3 | 4 => other,
        5 => other.wrapping_add(size),
        6 => other.wrapping_sub(size),
        7 => other.wrapping_add(random.number() % size),
        8 => (clusters + random.number() % 4).wrapping_mul(size),
        9 => clusters.wrapping_sub(1 + random.number() % 4).wrapping_mul(size),
        10 => u64::MAX / size * size,
        11 => random.number() % 600,
        _ => any_cluster,
    }
}

/// Makes two entries of one table the same.
fn share(bytes: &mut Bytes, random: &mut Random) {
    let (l1, l2) = entries(bytes);
    let table = if random.below(2) == 0 { l1 } else { l2 };
    if !table.is_empty() {
        let value = bytes.u64(*random.pick(&table));
        let at = *random.pick(&table);
        bytes.put_u64(at, value);
    }
}

fn header_field(bytes: &mut Bytes, random: &mut Random) {
    let power = 1u32 << random.below(32);
    let small = u32::try_from(random.below(40)).unwrap();
    match random.below(16) {
        0 => bytes.put_u32(at::CLUSTER_SIZE, *random.pick(&[power, small, 4096, 8192, 65536])),
        1 => bytes.put_u32(at::TABLE_SIZE, *random.pick(&[power, small, 1, 2, 4, 8, 16])),
        2 => bytes.put_u32(at::HEADER_SIZE, 0),
        // A backing file's name in the middle of the header, where there are zeroes: QEMU takes it for none.
        3 => {
            bytes.put_u64(at::FEATURES, 1);
            bytes.put_u32(at::BACKING_FILENAME_OFFSET, 24 + small % 12);
            bytes.put_u32(at::BACKING_FILENAME_SIZE, 4);
        }
        4 => bytes.put_u32(at::HEADER_SIZE, *random.pick(&[power, small, small, 0, 1, 2, u32::MAX])),
        5 => bytes.put_u64(at::FEATURES, 1 << random.below(64)),
        6 => bytes.put_u64(at::COMPAT_FEATURES, random.number()),
        7 => bytes.put_u64(at::AUTOCLEAR_FEATURES, random.number()),
        8..=10 => {
            let size = bytes.cluster_size() as u64;
            let cluster = random.number() % (bytes.0.len() as u64 / size + 2) * size;
            bytes.put_u64(
                at::L1_TABLE_OFFSET,
                *random.pick(&[cluster, cluster, cluster + 8, random.clone().number()]),
            );
        }
        11..=13 => {
            let sectors = random.number() % 100_000 * 512;
            let any = random.number();
            bytes.put_u64(at::IMAGE_SIZE, *random.pick(&[sectors, sectors, sectors + 1, 0, any, any & !511]));
        }
        14 => bytes.put_u32(at::BACKING_FILENAME_OFFSET, random.clone().number() as u32),
        _ => {
            let bit = random.below(512);
            bytes.0[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
