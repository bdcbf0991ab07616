//! Healthy images of many shapes, so that a fuzzer need not find the magic number first.

use vdisk_format::generate::{Bitmap, Qcow2, Snapshot};

use crate::input::Input;

/// Size of the virtual disks: small, for a fuzzer wants thousands of images a second.
const DISK: u64 = 256 << 10;

/// An image of a shape that `input` chooses.
pub(crate) fn image(input: &mut Input<'_>) -> Vec<u8> {
    // What the format rules out (version 2 with zstd, no room in a small first cluster, …) is as good as the plain one.
    let built = wanted(input).build().or_else(|_| Qcow2::new(DISK).cluster_bits(9).build());
    built.unwrap_or_default()
}

fn wanted(input: &mut Input<'_>) -> Qcow2 {
    let version = if input.below(4) == 3 { 2 } else { 3 };
    let mut wanted = Qcow2::new(DISK).version(version).cluster_bits(input.one_of(&[9, 10, 9, 12]));
    let mut shape = input.byte();
    if input.below(8) != 0 {
        shape &= 0x7f; // large clusters are slow
    }
    let has = |bit: u8| shape >> bit & 1 != 0;
    if has(0) {
        wanted = wanted.backing_file("base.raw", input.flag().then_some("raw"));
    }
    if has(1) {
        wanted = wanted.bitmap(Bitmap::new("b0").granularity_bits(9).dirty(0..DISK / 2));
        wanted = wanted.bitmap(Bitmap::new("b1").in_use(true));
    }
    if has(2) {
        wanted = wanted.extension(0x1234_5678, *b"unknown to all");
    }
    if has(4) {
        wanted = wanted.header_length(120).compression_type(1);
    }
    if has(5) {
        wanted = wanted.data_file("image.data", input.flag());
    }
    if has(6) {
        wanted = wanted.feature_name_table(true);
    }
    wanted = if has(7) { wanted.extended_l2(true).cluster_bits(14) } else { wanted.data(3, *b"data") };
    // Behind the data, or there would be nothing in it.
    if has(3) { wanted.snapshot(Snapshot::new("1", "clean")) } else { wanted }
}
