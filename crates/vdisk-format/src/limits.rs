//! Every cap that keeps hostile images from costing more than they are worth, and where it comes from.

/// Most header extensions that a walk yields.
///
/// The area lies in the first cluster (specification, "Header extensions"); QEMU's largest cluster is 2 MiB
/// (`MAX_CLUSTER_BITS` 21) and the smallest extension 8 bytes, so that no image QEMU opens comes near.
pub const MAX_EXTENSIONS: u64 = (2 << 20) / 8;

/// Most bitmaps that a directory walk yields: QEMU's `QCOW2_MAX_BITMAPS`.
pub const MAX_BITMAPS: u32 = 65_535;

/// Granularities of bitmaps that QEMU takes, as powers of two; the specification allows 0 to 63.
pub const BITMAP_GRANULARITY_BITS: std::ops::RangeInclusive<u8> = 9..=31;

/// Most images of a chain of backing files that is opened. Each takes an open file, and a map of it.
pub const MAX_CHAIN: usize = 200;

/// Most snapshots that a walk over the snapshot table yields: QEMU's `QCOW_MAX_SNAPSHOTS`.
pub const MAX_SNAPSHOTS: u32 = 65_536;

/// The largest snapshot table that QEMU takes, in bytes: 1 KiB for each of the most snapshots.
pub const MAX_SNAPSHOT_TABLE_BYTES: u64 = 1024 * MAX_SNAPSHOTS as u64;

/// Longest name of a bitmap that QEMU takes, in bytes: its `BME_MAX_NAME_SIZE`.
pub const MAX_BITMAP_NAME: u16 = 1023;

/// Most bytes of a bitmap's data that QEMU takes: its `BME_MAX_PHYS_SIZE`.
pub const MAX_BITMAP_BYTES: u64 = 512 << 20;

/// Most bitmap table entries that one dump reads, over all bitmaps together.
///
/// A 64 TiB disk tracked at 512 bytes in 64 KiB clusters needs 262,144; in 512 byte clusters, 128 GiB needs 65,536. As many
/// as this are 256 MiB.
pub const MAX_BITMAP_TABLE_ENTRIES: u64 = 32 << 20;

/// As many are read of any file, whether its tables overlap or not: a fraction of a second.
pub const MIN_BITMAP_TABLE_ENTRIES: u64 = 64 << 10;

/// Longest backing file name of QED: what QEMU has room for. The specification sets no limit.
pub const MAX_QED_BACKING_FILE_NAME: u32 = 4095;

/// Longest backing file name of qcow2: the specification's 1023 bytes.
pub const MAX_BACKING_FILE_NAME: u32 = 1023;

/// QEMU's smallest and largest `cluster_bits`.
pub const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;

/// Most L1 entries, and most refcount table entries, that a fingerprint follows: those of 1 TiB in 4 KiB clusters.
pub const MAX_FINGERPRINT_ENTRIES: u64 = 512 << 10;

/// Most bytes that a fingerprint hashes: 1 TiB in 64 KiB clusters has 128 MiB of L2 tables and 32 MiB of refcounts.
pub const MAX_FINGERPRINT_BYTES: u64 = 256 << 20;

/// Largest plan or undo record that is read back, in bytes of its text.
pub const MAX_PLAN_TEXT: u64 = 1 << 30;

/// Most findings of one code that a check keeps: more tell nobody anything, and a hostile image has millions.
pub const MAX_FINDINGS: usize = 1000;
