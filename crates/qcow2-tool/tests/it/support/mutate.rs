//! Damage to images, by chance.

use super::bytes::{Bytes, at};
use super::tables::{COPIED, OFFSET, Table};
use test_support::random::Random;

/// Which damage is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    /// Any.
    Any,
    /// To tables, and to the file's length: QEMU opens most of what comes of it.
    Tables,
}

/// A sound image with one to three faults.
pub(crate) fn damaged(sound: &Bytes, random: &mut Random, damage: Damage) -> Bytes {
    let mut bytes = sound.clone();
    for _fault in 0..*random.pick(&[1, 1, 1, 2, 3]) {
        bytes = match (damage, random.below(5)) {
            (Damage::Any, 0..2) => header_field(bytes, random),
            _ => entry(bytes, random),
        };
    }
    let (length, size) = (bytes.0.len(), cluster_size(&bytes));
    match random.below(36) {
        0 | 1 => {
            let cut = *random.pick(&[
                length - 512,
                length - size,
                length / 2,
                length.saturating_sub(3 * size),
                length - 700,
            ]);
            bytes.0.truncate(cut.max(1024));
        }
        2 => bytes.0.resize(length + random.pick(&[512, size, 3 * size, 1]), 0),
        _ => {}
    }
    bytes
}

fn cluster_size(bytes: &Bytes) -> usize {
    1 << bytes.u32(at::CLUSTER_BITS).clamp(9, 21)
}

/// Overwrites an entry of a table: mostly one that is used.
fn entry(bytes: Bytes, random: &mut Random) -> Bytes {
    let tables = bytes.tables();
    if tables.is_empty() {
        return bytes;
    }
    let mut table = *random.pick(&tables);
    if random.below(2) == 0 {
        // Of a kind of which there are few as often as of others.
        let kind = random.pick(&tables).kind;
        let same: Vec<Table> = tables.iter().copied().filter(|table| table.kind == kind).collect();
        table = *random.pick(&same);
    }
    let places = |table: &Table| (table.start..table.start + table.length / 8 * 8).step_by(8);
    let used: Vec<usize> = places(&table).filter(|&at| bytes.u64(at) != 0).collect();
    let at = if used.is_empty() || random.below(10) < 3 {
        table.start + 8 * random.below(table.length / 8)
    } else {
        *random.pick(&used)
    };
    let value = value(&bytes, random, &tables, bytes.u64(at));
    bytes.with_u64(at, value)
}

fn value(bytes: &Bytes, random: &mut Random, tables: &[Table], old: u64) -> u64 {
    let size = cluster_size(bytes) as u64;
    let clusters = bytes.0.len() as u64 / size;
    let any = random.pick(tables).start as u64;
    let somewhere = random.number() % (clusters + 1) * size;
    let offset =
        *random.pick(&[any, any, 0, size, clusters * size, clusters.saturating_sub(1) * size, somewhere]);
    match random.below(9) {
        0 => old ^ 1 << random.below(64),
        1 => 0,
        2 => old & !OFFSET | offset & OFFSET,
        3 => random.number(),
        4 => old ^ COPIED,
        5 => old.wrapping_add(*random.pick(&[size, 512, 512u64.wrapping_neg(), 1, 2, size.wrapping_neg()])),
        6 => COPIED | offset,
        7 => {
            let other = random.pick(tables);
            bytes.u64(other.start + 8 * random.below(other.length / 8))
        }
        _ => old | 1 << 62,
    }
}

fn header_field(bytes: Bytes, random: &mut Random) -> Bytes {
    let small = u32::try_from(random.below(40)).unwrap();
    let power = 1u32 << random.below(32);
    let any = random.number();
    let size = cluster_size(&bytes) as u64;
    let clusters = bytes.0.len() as u64 / size;
    let cluster = any % (clusters + 2) * size;
    let offset = *random.pick(&[cluster, cluster, cluster, cluster + 8, any, 0]);
    let step = *random.pick(&[1, 1, 2, 30, u32::MAX, u32::MAX - 1]);
    let near = |field| bytes.u32(field).wrapping_add(step);
    match random.below(20) {
        0 => bytes.with_u32(at::CLUSTER_BITS, *random.pick(&[9, 10, 12, 14, 16, 21, small])),
        1..=3 => {
            let sectors = any % 20_000 * 512;
            let size = *random.pick(&[sectors, sectors, sectors + 1, 0, any, any & !511]);
            bytes.with_u64(at::SIZE, size)
        }
        4 => bytes.with_u32(at::CRYPT_METHOD, small % 4),
        5 | 6 => {
            let entries = *random.pick(&[near(at::L1_SIZE), small, power]);
            bytes.with_u32(at::L1_SIZE, entries)
        }
        7 => bytes.with_u64(at::L1_TABLE_OFFSET, offset),
        8 => bytes.with_u64(at::REFCOUNT_TABLE_OFFSET, offset),
        9 => {
            let clusters = *random.pick(&[near(at::REFCOUNT_TABLE_CLUSTERS), small, power]);
            bytes.with_u32(at::REFCOUNT_TABLE_CLUSTERS, clusters)
        }
        10 => {
            let count = *random.pick(&[near(at::NB_SNAPSHOTS), small, power]);
            bytes.with_u32(at::NB_SNAPSHOTS, count)
        }
        11 => bytes.with_u64(at::SNAPSHOTS_OFFSET, offset),
        12 => bytes.with_u64(at::INCOMPATIBLE_FEATURES, 1 << random.below(7)),
        13 => bytes.with_u64(at::AUTOCLEAR_FEATURES, any % 4),
        14 => bytes.with_u32(at::REFCOUNT_ORDER, small % 9),
        15 => bytes.with_u32(at::HEADER_LENGTH, *random.pick(&[104, 112, 72, 108, small, power])),
        16 => bytes.with_u32(at::VERSION, *random.pick(&[2, 3, 3, small])),
        17 => bytes.with_u64(at::BACKING_FILE_OFFSET, offset),
        _ => {
            let bit = 8 * 104 + random.below(8 * 200);
            let byte = bytes.0[bit / 8] ^ 1 << (bit % 8);
            bytes.with(bit / 8, &[byte])
        }
    }
}
