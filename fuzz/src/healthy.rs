//! Healthy images of many shapes, so that a fuzzer need not find the magic number first.

use vdisk_format::generate::{Bitmap, Luks, Order, Qcow2, Snapshot};

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

/// An image of any shape that can be generated, but for the size of its disk, which is small.
pub(crate) fn any_shape(input: &mut Input<'_>) -> Vec<u8> {
    let built = any_wanted(input).build().or_else(|_| Qcow2::new(DISK).cluster_bits(9).build());
    built.unwrap_or_default()
}

fn any_wanted(input: &mut Input<'_>) -> Qcow2 {
    let is_old = input.below(6) == 5;
    let extended = !is_old && input.below(6) == 5;
    let cluster_bits = if extended { 14 } else { input.one_of(&[9, 9, 9, 10, 9, 12, 9, 16]) };
    let size = (1 + input.below(200) as u64) << cluster_bits;
    let mut wanted = Qcow2::new(size - input.one_of(&[0, 0, 512, 100])).cluster_bits(cluster_bits);
    wanted = wanted.order(match input.below(3) {
        0 => Order::InOrder,
        1 => Order::TablesFirst,
        _ => Order::Random(input.byte().into()),
    });
    let kind = input.below(8);
    if is_old {
        wanted = wanted.version(2);
    } else {
        wanted = wanted.refcount_order(input.one_of(&[4, 0, 1, 2, 3, 4, 5, 6])).extended_l2(extended);
        wanted = match kind {
            1 => wanted.data_file("image.data", input.flag()),
            2 => wanted.backing_file("base.raw", input.flag().then_some("raw")).lazy_refcounts(true),
            3 => wanted.compression_type(1),
            _ => wanted,
        };
        for name in ["b0", "b1"].into_iter().take(input.below(3)) {
            wanted = wanted.bitmap(Bitmap::new(name).granularity_bits(9).dirty(0..size / 2));
        }
    }
    if input.below(32) == 31 {
        wanted = wanted.luks(Luks::new(1));
    }
    for step in 0..input.below(8) {
        wanted = changed(wanted, input, step, size, cluster_bits, kind == 1);
    }
    wanted
}

/// The image after a guest's, or an administrator's, next act.
fn changed(wanted: Qcow2, input: &mut Input<'_>, step: usize, size: u64, bits: u32, external: bool) -> Qcow2 {
    let start = (input.below(200) as u64) << bits;
    let end = start.saturating_add((1 + input.below(12) as u64) << bits).min(size - 512);
    if start >= end {
        return wanted;
    }
    match input.below(6) {
        0 => wanted.data(start + 7, vec![0xda; 9]),
        1 => wanted.allocate(start..end),
        2 => wanted.zero(start..(end >> bits << bits).max(start)),
        3 => wanted.zero_preallocated(start..(end >> bits << bits).max(start)),
        4 if !external => {
            wanted.compressed(start, vec![0xc0; (end >> bits << bits).saturating_sub(start) as usize])
        }
        5 if !external => wanted.snapshot(Snapshot::new(step.to_string(), "snapshot")),
        _ => wanted.allocate(start..end).data(start, b"data"),
    }
}
