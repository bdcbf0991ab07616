//! Every feature in every cluster size.

use std::collections::HashSet;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::thread;

use vdisk_format::generate::{Bitmap, Qcow2, Snapshot};

use crate::support::{folder, qemu_img, values, write};

/// The name of the backing file that a shape may have.
const BASE: &str = "base.raw";
/// Its length in bytes: less than that of every disk.
const BASE_SIZE: u64 = 1 << 20;

#[derive(Debug, Clone, Copy, Default)]
struct Shape {
    version: u32,
    cluster_bits: u32,
    refcount_order: u32,
    /// `None`: as it comes.
    header_length: Option<u32>,
    zstd: bool,
    lazy: bool,
    extended_l2: bool,
    backing: bool,
    /// `Some(raw)`.
    data_file: Option<bool>,
    bitmaps: u8,
    snapshots: u8,
    contents: bool,
}

/// One call that describes contents, for the generator and for the model of this test.
enum Contents {
    Data(u64, Vec<u8>),
    Allocate(Range<u64>),
    Zero(Range<u64>),
    ZeroPreallocated(Range<u64>),
}

impl Shape {
    fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    fn size(&self) -> u64 {
        (12 * self.cluster()).max(BASE_SIZE) + 1536
    }

    /// What an L2 entry can describe on its own.
    fn granule(&self) -> u64 {
        if self.extended_l2 { self.cluster() / 32 } else { self.cluster() }
    }

    fn contents(&self) -> Vec<Contents> {
        let (cluster, size, granule) = (self.cluster(), self.size(), self.granule());
        if !self.contents {
            return Vec::new();
        }
        let bytes = |length: u64, seed: u64| (0..length).map(|i| (i * 7 + seed) as u8 | 1).collect();
        let mut contents = vec![
            Contents::Data(3, bytes(10, 1)),
            Contents::Data(3 * cluster - 5, bytes(cluster / 4 + 10, 2)),
            Contents::Allocate(5 * cluster..6 * cluster + 1),
            Contents::Data(size - 100, bytes(100, 3)),
        ];
        if self.version == 3 {
            contents.extend([
                Contents::Zero(granule..2 * granule),
                Contents::Zero(8 * cluster - granule..9 * cluster),
                Contents::ZeroPreallocated(9 * cluster + granule..11 * cluster + granule),
                Contents::Data(10 * cluster, bytes(1, 4)),
            ]);
        }
        contents
    }

    fn wanted(&self) -> Qcow2 {
        let mut wanted = Qcow2::new(self.size())
            .version(self.version)
            .cluster_bits(self.cluster_bits)
            .refcount_order(self.refcount_order)
            .compression_type(self.zstd.into())
            .lazy_refcounts(self.lazy)
            .extended_l2(self.extended_l2);
        if let Some(length) = self.header_length {
            wanted = wanted.header_length(length).extension(0x1234_5678, b"unknown to all");
        }
        if self.backing {
            wanted = wanted.backing_file(BASE, Some("raw"));
        }
        if let Some(raw) = self.data_file {
            wanted = wanted.data_file("image.data", raw);
        }
        for index in 0..self.bitmaps {
            let bitmap = Bitmap::new(format!("bitmap{index}")).granularity_bits(9 + index);
            let bitmap = bitmap.auto(index % 2 == 0).in_use(index == 2);
            let bitmap = bitmap.dirty(0..1).dirty(self.size() / 2..self.size() / 2 + 70_000);
            wanted = wanted.bitmap(bitmap.dirty(self.size() - 1..self.size()));
        }
        for contents in self.contents() {
            wanted = match contents {
                Contents::Data(at, bytes) => wanted.data(at, bytes),
                Contents::Allocate(range) => wanted.allocate(range),
                Contents::Zero(range) => wanted.zero(range),
                Contents::ZeroPreallocated(range) => wanted.zero_preallocated(range),
            };
        }
        for index in 1..=self.snapshots {
            wanted = wanted.snapshot(Snapshot::new(index.to_string(), format!("snapshot{index}")));
        }
        wanted
    }

    /// What the guest reads: what is not in the image comes from the backing file.
    fn expected(&self) -> Vec<u8> {
        let mut disk = if self.backing { base() } else { Vec::new() };
        disk.resize(self.size() as usize, 0);
        let mut present = HashSet::new();
        for contents in self.contents() {
            let (range, data) = match contents {
                Contents::Data(at, bytes) => (at..at + bytes.len() as u64, Some(bytes)),
                Contents::Allocate(range) => (range, None),
                Contents::Zero(range) | Contents::ZeroPreallocated(range) => (range, None),
            };
            for granule in range.start / self.granule()..range.end.div_ceil(self.granule()) {
                if present.insert(granule) {
                    let start = granule * self.granule();
                    let end = (start + self.granule()).min(self.size());
                    disk[start as usize..end as usize].fill(0);
                }
            }
            let bytes = &mut disk[range.start as usize..range.end as usize];
            bytes.copy_from_slice(&data.unwrap_or(vec![0; bytes.len()]));
        }
        disk
    }

    fn check(&self, folder: &Path) {
        let wanted = self.wanted();
        let name = "image.qcow2";
        let length = write(&wanted, folder, name);
        assert_eq!(length, fs::metadata(folder.join(name)).unwrap().len());
        assert_eq!(length % self.cluster(), 0);
        assert_eq!(
            wanted.build().unwrap(),
            fs::read(folder.join(name)).unwrap(),
            "build differs from write_to"
        );
        if self.data_file.is_some() {
            fs::write(folder.join("image.data"), wanted.build_raw().unwrap()).unwrap();
        }

        qemu_img(folder, &["check", name]);
        self.check_info(&qemu_img(folder, &["info", "--output=json", name]));

        let expected = self.expected();
        if !self.backing {
            assert!(wanted.build_raw().unwrap() == expected, "the raw contents differ");
        }
        qemu_img(folder, &["convert", "-O", "raw", name, "read.raw"]);
        assert!(fs::read(folder.join("read.raw")).unwrap() == expected, "qemu-img reads something else");
        if self.data_file == Some(true) {
            assert!(fs::read(folder.join("image.data")).unwrap() == expected, "not raw in itself");
        }

        for index in (1..=self.snapshots).rev() {
            let snapshot = format!("snapshot.id={index}");
            qemu_img(folder, &["convert", "-l", &snapshot, "-O", "raw", name, "read.raw"]);
            assert!(fs::read(folder.join("read.raw")).unwrap() == expected, "the snapshot differs");
            // Freeing it takes every reference count down.
            qemu_img(folder, &["snapshot", "-d", &format!("snapshot{index}"), name]);
            qemu_img(folder, &["check", name]);
        }
        for index in (0..self.bitmaps).filter(|&index| index != 2) {
            qemu_img(folder, &["bitmap", "--remove", name, &format!("bitmap{index}")]);
            qemu_img(folder, &["check", name]);
        }
    }

    fn check_info(&self, json: &str) {
        let has = |key: &str, value: &str| {
            assert!(values(json, key).contains(&value), "{key} is not {value}:\n{json}");
        };
        has("virtual-size", &self.size().to_string());
        has("cluster-size", &self.cluster().to_string());
        has("compat", if self.version == 2 { "0.10" } else { "1.1" });
        has("refcount-bits", &(1 << self.refcount_order).to_string());
        has("compression-type", if self.zstd { "zstd" } else { "zlib" });
        if self.version == 3 {
            has("lazy-refcounts", &self.lazy.to_string());
            has("extended-l2", &self.extended_l2.to_string());
            has("corrupt", "false");
        }
        if self.backing {
            has("backing-filename", BASE);
            has("backing-filename-format", "raw");
        }
        if let Some(raw) = self.data_file {
            has("data-file", "image.data");
            has("data-file-raw", &raw.to_string());
        }
        let bitmaps = (0..self.bitmaps).map(|index| (1 << (9 + index)).to_string());
        assert_eq!(values(json, "granularity"), bitmaps.collect::<Vec<_>>());
        for index in 0..self.bitmaps {
            has("name", &format!("bitmap{index}"));
        }
        assert_eq!(json.contains("\"in-use\""), self.bitmaps > 2);
        for index in 1..=self.snapshots {
            has("name", &format!("snapshot{index}"));
            has("id", &index.to_string());
        }
    }
}

fn base() -> Vec<u8> {
    (0..BASE_SIZE).map(|i| (i / 512 + i % 13) as u8 | 1).collect()
}

fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for cluster_bits in 9..=21 {
        let v3 = Shape { version: 3, cluster_bits, refcount_order: 4, ..Shape::default() };
        let full = Shape { contents: true, ..v3 };
        let v2 = Shape { version: 2, ..v3 };
        shapes.extend([v3, v2]);
        for backing in [false, true] {
            shapes.push(Shape { backing, ..Shape { version: 2, ..full } });
        }
        shapes.extend((0..7).map(|refcount_order| Shape { refcount_order, ..full }));
        // The other features, with a refcount width that differs from one to the next.
        let order = |n| (cluster_bits + n) % 6 + 1;
        shapes.extend([
            Shape { backing: true, refcount_order: order(0), ..full },
            Shape { bitmaps: 3, refcount_order: order(1), ..full },
            Shape { snapshots: 1, refcount_order: order(2), ..full },
            Shape { data_file: Some(false), bitmaps: 1, backing: true, ..full },
            Shape { data_file: Some(true), refcount_order: 0, ..full },
            Shape { zstd: true, header_length: Some(120), lazy: true, ..full },
            Shape { header_length: Some(104), backing: true, bitmaps: 2, snapshots: 2, ..full },
            Shape { version: 2, snapshots: 2, backing: true, ..full },
        ]);
        if cluster_bits >= 14 {
            let extended = Shape { extended_l2: true, ..full };
            shapes.extend([
                Shape { contents: false, ..extended },
                Shape { backing: true, ..extended },
                Shape { zstd: true, snapshots: 1, bitmaps: 1, refcount_order: 6, ..extended },
                Shape { data_file: Some(false), refcount_order: 0, ..extended },
            ]);
        }
    }
    shapes
}

#[test]
fn every_shape_is_clean_and_reads_back() {
    let shapes = shapes();
    println!("{} shapes", shapes.len());
    assert!(shapes.len() > 200);
    let left = Mutex::new(shapes.into_iter());
    let worker = || {
        let folder = folder();
        fs::write(folder.path().join(BASE), base()).unwrap();
        loop {
            let Some(shape) = left.lock().unwrap().next() else { return };
            let check = || shape.check(folder.path());
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).is_err() {
                panic!("it was {shape:?}");
            }
        }
    };
    let workers = thread::available_parallelism().map_or(2, |n| n.get().min(8));
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(worker);
        }
    });
}
