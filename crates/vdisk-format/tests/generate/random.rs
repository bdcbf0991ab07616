//! Any calls of the builder, in any order.

use std::collections::HashSet;
use std::fs;
use std::ops::Range;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use vdisk_format::generate::{Bitmap, GenerateError, Order, Qcow2, Snapshot};

use crate::support::{folder, qemu_img, write};

/// The clusters of the disk. The last one is only a part of one.
const CLUSTERS: u64 = 90;

#[derive(Debug, Clone)]
struct Case {
    cluster_bits: u32,
    refcount_order: u32,
    order: Order,
    /// Bits choose features.
    features: u8,
    calls: Vec<Call>,
}

/// `at` and `length` are in thirds of a cluster.
#[derive(Debug, Clone)]
struct Call {
    what: What,
    at: u64,
    length: u64,
    seed: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Data,
    Compressed,
    Allocate,
    Zero,
    ZeroPreallocated,
    Snapshot,
    Bitmap,
}

fn calls() -> impl Strategy<Value = Call> {
    let what = prop_oneof![
        4 => Just(What::Data),
        4 => Just(What::Compressed),
        2 => Just(What::Allocate),
        1 => Just(What::Zero),
        1 => Just(What::ZeroPreallocated),
        1 => Just(What::Snapshot),
        1 => Just(What::Bitmap),
    ];
    let (at, length) = (0..CLUSTERS * 3, prop_oneof![1..10_u64, 1..100_u64]);
    (what, at, length, any::<u8>()).prop_map(|(what, at, length, seed)| Call { what, at, length, seed })
}

fn cases() -> impl Strategy<Value = Case> {
    let order =
        prop_oneof![Just(Order::InOrder), Just(Order::TablesFirst), any::<u64>().prop_map(Order::Random),];
    let cluster_bits = prop_oneof![Just(9_u32), Just(10), Just(14), Just(16)];
    let calls = prop::collection::vec(calls(), 0..24);
    let parts = (cluster_bits, 0..7_u32, order, any::<u8>(), calls);
    parts.prop_map(|(cluster_bits, refcount_order, order, features, calls)| Case {
        cluster_bits,
        refcount_order,
        order,
        features,
        calls,
    })
}

/// What the guest reads.
#[derive(Clone)]
struct Disk {
    bytes: Vec<u8>,
    granule: u64,
    /// The granules that do not come from the backing file.
    present: HashSet<u64>,
}

impl Disk {
    fn write(&mut self, range: Range<u64>, bytes: Option<&[u8]>) {
        let size = self.bytes.len() as u64;
        for granule in range.start / self.granule..range.end.div_ceil(self.granule) {
            if self.present.insert(granule) {
                let end = size.min((granule + 1) * self.granule);
                self.bytes[(granule * self.granule) as usize..end as usize].fill(0);
            }
        }
        let place = &mut self.bytes[range.start as usize..range.end as usize];
        match bytes {
            Some(bytes) => place.copy_from_slice(bytes),
            None => place.fill(0),
        }
    }
}

impl Case {
    fn has(&self, feature: u8) -> bool {
        self.features >> feature & 1 != 0
    }

    fn is_version_2(&self) -> bool {
        self.features & 7 == 7
    }

    fn extended_l2(&self) -> bool {
        self.has(0) && self.cluster_bits >= 14 && !self.is_version_2()
    }

    fn has_data_file(&self) -> bool {
        self.features & 0x18 == 0x18 && !self.is_version_2()
    }

    fn has_backing_file(&self) -> bool {
        self.has(5) && !self.has_data_file()
    }

    /// The builder, and what the guest reads: in each snapshot, and last in the disk.
    fn build(&self, base: &[u8]) -> (Qcow2, Vec<Vec<u8>>) {
        let cluster = 1 << self.cluster_bits;
        let size = (cluster * CLUSTERS - if self.has(6) { cluster / 2 } else { 0 }).next_multiple_of(512);
        let mut wanted = Qcow2::new(size).cluster_bits(self.cluster_bits).order(self.order);
        wanted = if self.is_version_2() {
            wanted.version(2)
        } else {
            let wanted = wanted.refcount_order(self.refcount_order).extended_l2(self.extended_l2());
            wanted.compression_type(u8::from(self.has(1)))
        };
        if self.has_data_file() {
            wanted = wanted.data_file("image.data", self.has(2));
        }
        let mut bytes = vec![0; size as usize];
        if self.has_backing_file() {
            wanted = wanted.backing_file("base.raw", Some("raw"));
            bytes[..base.len()].copy_from_slice(base);
        }
        let granule = if self.extended_l2() { cluster / 32 } else { cluster };
        let mut disk = Disk { bytes, granule, present: HashSet::new() };
        let mut read = Vec::new();
        for (index, call) in self.calls.iter().enumerate() {
            let bytes = call.at * cluster / 3..((call.at + call.length) * cluster / 3).min(size);
            if bytes.is_empty() {
                continue;
            }
            let aligned = |to: u64| bytes.start / to * to..bytes.end.next_multiple_of(to).min(size);
            let contents = |range: &Range<u64>| -> Vec<u8> {
                let run = |at: u64| at / (u64::from(call.seed) + 2);
                (range.start..range.end).map(|at| (run(at) as u8) ^ call.seed).collect()
            };
            match call.what {
                What::Data => {
                    disk.write(bytes.clone(), Some(&contents(&bytes)));
                    wanted = wanted.data(bytes.start, contents(&bytes));
                }
                What::Compressed if !self.has_data_file() => {
                    let range = aligned(cluster);
                    disk.write(range.clone(), Some(&contents(&range)));
                    wanted = wanted.compressed(range.start, contents(&range));
                }
                What::Allocate => {
                    disk.write(bytes.clone(), None);
                    wanted = wanted.allocate(bytes);
                }
                What::Zero | What::ZeroPreallocated if !self.is_version_2() => {
                    let range = aligned(granule);
                    disk.write(range.clone(), None);
                    let is_zero = call.what == What::Zero;
                    wanted = if is_zero { wanted.zero(range) } else { wanted.zero_preallocated(range) };
                }
                What::Snapshot if !self.has_data_file() => {
                    read.push(disk.bytes.clone());
                    wanted = wanted.snapshot(Snapshot::new(read.len().to_string(), ""));
                }
                What::Bitmap if !self.is_version_2() => {
                    let bitmap = Bitmap::new(format!("bitmap {index}")).granularity_bits(9);
                    wanted = wanted.bitmap(bitmap.dirty(bytes));
                }
                _ => {}
            }
        }
        read.push(disk.bytes);
        (wanted, read)
    }

    fn check(&self, folder: &Path, base: &[u8]) {
        let (wanted, mut read) = self.build(base);
        match wanted.build() {
            Err(GenerateError::RefcountTooLarge { bits, .. }) if bits <= 8 => return,
            built => drop(built.unwrap()),
        }
        write(&wanted, folder, "image.qcow2");
        if self.has_data_file() {
            fs::write(folder.join("image.data"), wanted.build_raw().unwrap()).unwrap();
        }
        qemu_img(folder, &["check", "image.qcow2"]);
        let convert = |args: &[&str], expected: &[u8]| {
            qemu_img(folder, &[&["convert", "-O", "raw"], args, &["image.qcow2", "read.raw"]].concat());
            assert!(fs::read(folder.join("read.raw")).unwrap() == expected, "{args:?} reads something else");
        };
        convert(&[], &read.pop().unwrap());
        for (id, expected) in (1..).zip(&read).take(3) {
            convert(&["-l", &format!("snapshot.id={id}")], expected);
        }
    }
}

#[test]
fn any_calls_make_a_clean_image() {
    let folder = folder();
    let base: Vec<u8> = (0..20_000).map(|at: u32| (at / 512) as u8 | 1).collect();
    fs::write(folder.path().join("base.raw"), &base).unwrap();
    let mut runner = TestRunner::new(Config { cases: 40, failure_persistence: None, ..Config::default() });
    let result = runner.run(&cases(), |case| {
        case.check(folder.path(), &base);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
