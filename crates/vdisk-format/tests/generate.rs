//! What the generator writes, as `qemu-img` sees it: clean, of the wanted shape, with the wanted
//! contents.
#![cfg(feature = "generate")]
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Mutex;
use std::thread;

use tempfile::TempDir;
use vdisk_format::generate::{Bitmap, Qcow2, Snapshot};

/// The name of the backing file that a shape may have.
const BASE: &str = "base.raw";
/// Its length in bytes: less than that of every disk.
const BASE_SIZE: u64 = 1 << 20;

fn folder() -> TempDir {
    let shared_memory = Path::new("/dev/shm");
    if shared_memory.is_dir() { TempDir::new_in(shared_memory) } else { TempDir::new() }.unwrap()
}

fn run<S: AsRef<OsStr>>(program: &str, folder: &Path, args: &[S]) -> Output {
    match Command::new(program).current_dir(folder).args(args).output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => panic!(
            "{program} is not installed: this test compares with it. Install it (on Debian in qemu-utils)."
        ),
        Err(error) => panic!("{program} could not be started: {error}"),
    }
}

/// Runs qemu-img, which must succeed, and gives its output.
fn qemu_img(folder: &Path, args: &[&str]) -> String {
    let output = run("qemu-img", folder, args);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "qemu-img {args:?}: {}\n{out}{err}", output.status);
    out.into_owned()
}

fn write(wanted: &Qcow2, folder: &Path, name: &str) -> u64 {
    wanted.write_to(&mut File::create(folder.join(name)).unwrap()).unwrap()
}

/// The values of all `"key": value` lines of qemu-img's JSON, without quotes.
fn values<'a>(json: &'a str, key: &str) -> Vec<&'a str> {
    let key = format!("\"{key}\": ");
    let lines = json.lines().filter_map(|line| line.trim().strip_prefix(&key));
    lines.map(|value| value.trim_end_matches(',').trim_matches('"')).collect()
}

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
        for index in 1..=self.snapshots {
            wanted = wanted.snapshot(Snapshot::new(index.to_string(), format!("snapshot{index}")));
        }
        for contents in self.contents() {
            wanted = match contents {
                Contents::Data(at, bytes) => wanted.data(at, bytes),
                Contents::Allocate(range) => wanted.allocate(range),
                Contents::Zero(range) => wanted.zero(range),
                Contents::ZeroPreallocated(range) => wanted.zero_preallocated(range),
            };
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

/// Checks a large sparse disk, and that qemu-img reads `data` from it.
fn large(wanted: &Qcow2, size: u64, data: &[(u64, &[u8])]) {
    let folder = folder();
    let path = folder.path();
    write(wanted, path, "image.qcow2");
    qemu_img(path, &["check", "image.qcow2"]);
    qemu_img(path, &["convert", "-O", "raw", "image.qcow2", "read.raw"]);
    let mut read = File::open(path.join("read.raw")).unwrap();
    assert_eq!(read.metadata().unwrap().len(), size);
    for (at, expected) in data {
        let mut bytes = vec![0; expected.len()];
        read.seek(SeekFrom::Start(*at)).unwrap();
        read.read_exact(&mut bytes).unwrap();
        assert!(bytes == *expected, "at {at:#x}");
    }
}

#[test]
fn large_sparse_disks() {
    let end = [7; 5000];
    for (size, cluster_bits, refcount_order) in [
        (1 << 40, 16, 4),
        (1 << 40, 16, 0),
        (8 << 30, 9, 4),
        (8 << 30, 9, 6),
        (1 << 40, 21, 6),
        (8 << 40, 12, 4),
    ] {
        let data: [(u64, &[u8]); 3] = [(0, b"start"), (size / 3, b"middle"), (size - 5000, &end)];
        let mut wanted = Qcow2::new(size).cluster_bits(cluster_bits).refcount_order(refcount_order);
        for (at, bytes) in data {
            wanted = wanted.data(at, bytes);
        }
        wanted = wanted.bitmap(Bitmap::new("b").granularity_bits(20).dirty(0..size / 2));
        large(&wanted, size, &data);
    }
}

#[test]
fn refcount_tables_of_several_clusters() {
    let folder = folder();
    for (size, order) in [(80 << 20, 6), (80 << 20, 5), (300 << 20, 4), (4 << 20, 6), (2 << 20, 6)] {
        let wanted = Qcow2::new(size).cluster_bits(9).refcount_order(order).allocate(0..size);
        let length = write(&wanted, folder.path(), "image.qcow2");
        assert!(length > size);
        qemu_img(folder.path(), &["check", "image.qcow2"]);
    }
}

#[test]
fn a_full_disk_of_1_tib() {
    let folder = folder();
    let size = 1 << 40;
    let wanted = Qcow2::new(size).allocate(0..size).data(size - 1, b"x");
    assert!(write(&wanted, folder.path(), "image.qcow2") > size);
    qemu_img(folder.path(), &["check", "image.qcow2"]);
}

#[test]
fn unusual_disks() {
    let folder = folder();
    let path = folder.path();
    for (wanted, size) in [
        (Qcow2::new(0), 0),
        (Qcow2::new(0).snapshot(Snapshot::new("1", "nothing")), 0),
        (Qcow2::new(512).data(0, [1; 512]), 512),
        (Qcow2::new(1 << 20).dirty(true).lazy_refcounts(true).data(0, b"x"), 1 << 20),
        (Qcow2::new(1 << 20).version(2).snapshot(Snapshot::new("1", "old").extra_data_size(0)), 1 << 20),
        (Qcow2::new(1 << 20).snapshot(Snapshot::new("1", "new").extra_data_size(40).icount(7)), 1 << 20),
        (
            Qcow2::new(1 << 20).snapshot(Snapshot::new("12", "").date_sec(5).date_nsec(6).vm_clock_nsec(7)),
            1 << 20,
        ),
    ] {
        write(&wanted, path, "image.qcow2");
        qemu_img(path, &["check", "image.qcow2"]);
        let info = qemu_img(path, &["info", "--output=json", "image.qcow2"]);
        let size: u64 = size;
        assert!(values(&info, "virtual-size").contains(&size.to_string().as_str()), "{info}");
    }
}

#[test]
fn a_backing_chain_of_generated_images() {
    let folder = folder();
    let path = folder.path();
    write(&Qcow2::new(1 << 20).data(0, [1; 65536]).data(1 << 19, [2; 10]), path, "base.qcow2");
    let overlay = Qcow2::new(1 << 20)
        .backing_file("base.qcow2", Some("qcow2"))
        .extension(7, b"one")
        .extension(7, b"two")
        .data(1 << 19, [3; 5]);
    write(&overlay, path, "top.qcow2");
    qemu_img(path, &["check", "top.qcow2"]);
    qemu_img(path, &["convert", "-O", "raw", "top.qcow2", "read.raw"]);
    let read = fs::read(path.join("read.raw")).unwrap();
    assert_eq!(read[..65537], [[1; 65536].as_slice(), &[0]].concat());
    assert_eq!(read[1 << 19..(1 << 19) + 10], [3, 3, 3, 3, 3, 0, 0, 0, 0, 0]);
}

/// What QEMU sees of a bitmap's contents: dirty ranges do not hold "data" then.
#[test]
fn bitmap_contents() {
    let folder = folder();
    let path = folder.path();
    // At 512 byte clusters and granularity, a cluster of the bitmap stands for 2 MiB.
    let dirty = [512..1024, 3 << 20..(9 << 20) + 512, (10 << 20) - 512..10 << 20];
    for cluster_bits in [9, 16] {
        let mut bitmap = Bitmap::new("b").granularity_bits(9);
        for range in &dirty {
            bitmap = bitmap.dirty(range.start + 1..range.end - 1);
        }
        let wanted = Qcow2::new(10 << 20).cluster_bits(cluster_bits).bitmap(bitmap);
        write(&wanted, path, "image.qcow2");
        let socket = path.join("socket");
        let server = ["--fork", "-r", "-f", "qcow2", "-B", "b", "-k"].map(OsStr::new);
        let args = [&server[..], &[socket.as_os_str(), OsStr::new("image.qcow2")]].concat();
        // Its daemon keeps standard output open, so that must not be a pipe.
        let status = Command::new("qemu-nbd").current_dir(path).args(args).status();
        assert!(status.expect("qemu-nbd is needed, as is qemu-img").success());
        let options = format!(
            "driver=nbd,server.type=unix,server.path={},x-dirty-bitmap=qemu:dirty-bitmap:b",
            socket.display()
        );
        let map = qemu_img(path, &["map", "--output=json", "--image-opts", &options]);
        let found: Vec<Range<u64>> = map
            .lines()
            .filter(|line| line.contains("\"data\": false"))
            .map(|line| {
                let field = |key: &str| -> u64 {
                    let rest = line.split_once(&format!("\"{key}\": ")).unwrap().1;
                    rest.split(',').next().unwrap().parse().unwrap()
                };
                field("start")..field("start") + field("length")
            })
            .collect();
        assert_eq!(found, dirty, "{map}");
    }
}
