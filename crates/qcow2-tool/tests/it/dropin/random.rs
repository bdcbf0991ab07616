//! Headers with random damage: thousands, from one seed.

use super::{DUMPS, PLACES, report, verdict};
use crate::support::bytes::{Bytes, at, extension, magic};
use crate::support::images;
use crate::support::original::Original;
use std::path::Path;
use test_support::random::{Random, seed, setting};
use test_support::scratch::scratch;

/// Where damage is most interesting: the fields that say where something else is.
const POINTERS: [usize; 9] = [
    at::VERSION,
    at::BACKING_FILE_OFFSET,
    at::BACKING_FILE_OFFSET + 4,
    at::BACKING_FILE_SIZE,
    at::CLUSTER_BITS,
    at::SIZE,
    at::INCOMPATIBLE_FEATURES,
    at::AUTOCLEAR_FEATURES,
    at::HEADER_LENGTH,
];

const INTERESTING: [u32; 24] = [
    0,
    1,
    2,
    3,
    7,
    8,
    9,
    16,
    24,
    31,
    63,
    64,
    72,
    100,
    104,
    112,
    120,
    255,
    511,
    512,
    4096,
    65535,
    0x7fff_ffff,
    u32::MAX,
];

/// One image with one to four damages.
fn damaged(base: &Bytes, random: &mut Random) -> Bytes {
    let mut bytes = base.clone();
    for _ in 0..=random.below(4) {
        bytes = match random.below(8) {
            0 | 1 => {
                let at = *random.pick(&POINTERS);
                bytes.with_u32(at, *random.pick(&INTERESTING))
            }
            2 => {
                let at = random.below(112);
                let count = 1 + random.below(4);
                let new = random.bytes(count);
                bytes.with(at, &new)
            }
            3 => {
                let at = random.below(512);
                let flipped = bytes.0[at] ^ (1 << random.below(8));
                bytes.with(at, &[flipped])
            }
            4 | 5 => extended(bytes, random),
            6 => in_a_bitmap(bytes, random),
            _ => {
                let end = random.below(700);
                if random.below(4) == 0 && bytes.0.len() > end {
                    bytes.0.truncate(end);
                }
                bytes.with(0, b"")
            }
        };
        if bytes.0.len() < 512 {
            break;
        }
    }
    bytes
}

/// New extensions of any kind, where they fit.
fn extended(bytes: Bytes, random: &mut Random) -> Bytes {
    let magics =
        [magic::UNKNOWN, magic::BACKING_FORMAT, magic::FEATURE_NAMES, magic::ENCRYPTION, magic::DATA_FILE, 1];
    let mut area = Vec::new();
    for _ in 0..random.below(5) {
        let length = random.below(40);
        let mut data = random.bytes(length);
        if random.below(2) == 0 {
            data.iter_mut().for_each(|byte| *byte = 0x20 + (*byte % 0x5f));
        }
        area.extend(extension(*random.pick(&magics), &data));
        if random.below(6) == 0 {
            let at = area.len() - data.len().next_multiple_of(8) - 1;
            area[at] = random.bytes(1)[0];
        }
    }
    let at = match random.below(3) {
        0 => 72,
        1 => 104,
        _ => 112,
    };
    bytes.with(at, &area)
}

/// Damage to a bitmap directory or table, if there is one to be found.
fn in_a_bitmap(bytes: Bytes, random: &mut Random) -> Bytes {
    let small = bytes.u32(at::CLUSTER_BITS) < 22 && bytes.header_length() < 400;
    let data = small.then(|| bytes.extension(magic::BITMAPS)).flatten();
    let Some(data) = data.filter(|data| data.len() == 24 && data.end < 512) else { return bytes };
    let directory = bytes.bitmap_directory();
    let at = match random.below(3) {
        0 => data.start - 4 + random.below(28),
        1 if directory + 64 < bytes.0.len() => directory + random.below(60),
        _ => return bytes,
    };
    let new = random.bytes(1);
    bytes.with(at, &new)
}

/// A quarter of all cases, so that the processors share the work.
#[track_caller]
fn some(part: u64) {
    let seed = seed();
    let folder = scratch();
    let mut original = Original::start();
    let bases = bases(folder.path());
    let (mut faults, mut readable) = (Vec::new(), 0);
    let count = usize::try_from(setting("VDISK_HEADERS", 2000)).unwrap() / 4;
    for case in 0..count {
        let number = u64::try_from(case).unwrap() * 4 + part;
        let mut random = Random::new(seed ^ number.wrapping_mul(0x1_0000_0001));
        let bytes = damaged(random.pick(&bases), &mut random);
        let file = folder.path().join("damaged.qcow2");
        bytes.write(&file);
        for (answer, args) in original.dumps(&file).iter().zip(DUMPS) {
            readable += usize::from(answer.stdout().is_some());
            let place = if args.contains(&"-j") { *random.pick(&PLACES) } else { PLACES[0] };
            let fault = verdict(answer, &super::ours(&file, args, place));
            faults.extend(fault.map(|fault| format!("== header {number}: {args:?} {place:?}: {fault}")));
        }
    }
    println!("the original read {readable} of {} dumps", count * 4);
    assert!(readable >= count, "too few headers were readable to compare");
    report(&faults, count);
}

fn bases(folder: &Path) -> Vec<Bytes> {
    let mut images = images::with_bitmaps(folder);
    images.retain(|image| !image.name.contains("2m"));
    for (name, options) in [
        ("v2", "compat=0.10,cluster_size=512"),
        ("v3", "cluster_size=512"),
        ("v3-zstd", "cluster_size=1024,compression_type=zstd"),
        ("lazy", "cluster_size=4096,lazy_refcounts=on"),
    ] {
        images.push(images::made(folder, name, options));
    }
    images.iter().map(|image| Bytes::read(&image.path)).collect()
}

#[test]
fn first_quarter() {
    some(0);
}

#[test]
fn second_quarter() {
    some(1);
}

#[test]
fn third_quarter() {
    some(2);
}

#[test]
fn last_quarter() {
    some(3);
}
