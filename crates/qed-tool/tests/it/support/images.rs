//! Images of every shape that QEMU creates and opens, and of some that it does not.

use super::bytes::{Bytes, at};
use super::qemu;
use std::path::{Path, PathBuf};
use test_support::scratch::{scratch, text};
use test_support::threads;

/// Sizes of clusters in bytes, and of tables in clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) cluster_size: u64,
    pub(crate) table_size: u64,
}

impl Shape {
    pub(crate) const fn new(cluster_size: u64, table_size: u64) -> Shape {
        Shape { cluster_size, table_size }
    }

    /// Bytes of the disk that one L2 table is for.
    pub(crate) fn span(self) -> u64 {
        self.table_size * self.cluster_size / 8 * self.cluster_size
    }

    fn options(self) -> String {
        format!("cluster_size={},table_size={}", self.cluster_size, self.table_size)
    }

    /// An empty image.
    pub(crate) fn create(self, path: &Path, more_options: &str, size: u64) {
        qemu::create(path, &format!("{}{more_options}", self.options()), &size.to_string());
    }

    /// A file with data in two L2 tables or three, in one piece and in several, and with zero clusters.
    pub(crate) fn filled(self, path: &Path) {
        self.create(path, "", self.size());
        let commands: Vec<String> = self.contents().iter().map(|part| part.command("write")).collect();
        let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
        qemu::io(path, &commands);
    }

    /// The size of the disk of [`filled`](Self::filled): its last cluster is not whole.
    pub(crate) fn size(self) -> u64 {
        3 * self.span() - 512
    }

    /// What [`filled`](Self::filled) writes.
    pub(crate) fn contents(self) -> Vec<Part> {
        let size = self.cluster_size;
        let part = |start, length, pattern| Part { start, length, pattern };
        let mut parts = vec![
            part(0, 3 * size, Some(0x11)),
            part(7 * size, 2 * size, None),
            part(5 * size, size, Some(0x22)),
            part(self.span() - size, 2 * size, Some(0x33)),
            part(self.span() + 4 * size, size, Some(0x44)),
            part(self.span() + 3 * size, size, Some(0x55)),
        ];
        // A third table, where it is small.
        if size * self.table_size <= 1 << 20 {
            parts.push(part(self.size() / size * size - size, size, Some(0x66)));
        }
        // Data, and no table, are the last in the file.
        parts.push(part(self.span() + 8 * size, size, Some(0x77)));
        parts
    }
}

/// A part of a disk, and what is in it: a byte, or zero clusters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) start: u64,
    pub(crate) length: u64,
    pub(crate) pattern: Option<u8>,
}

impl Part {
    /// A command of qemu-io.
    pub(crate) fn command(self, what: &str) -> String {
        let Part { start, length, pattern } = self;
        match (what, pattern) {
            ("write", None) => format!("write -z {start} {length}"),
            _ => format!("{what} -P {} {start} {length}", pattern.unwrap_or(0)),
        }
    }
}

/// Every shape that QEMU opens.
pub(crate) fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for bits in 12..=20 {
        shapes.extend([2, 4, 8, 16].map(|table_size| Shape::new(1 << bits, table_size)));
    }
    shapes.extend([2, 4, 8].map(|table_size| Shape::new(2 << 20, table_size)));
    shapes.push(Shape::new(4 << 20, 2));
    shapes
}

/// Shapes whose files are small.
pub(crate) const SMALL: [Shape; 4] =
    [Shape::new(4096, 2), Shape::new(4096, 16), Shape::new(16384, 4), Shape::new(65536, 2)];

/// The smallest shape.
pub(crate) const SMALLEST: Shape = SMALL[0];

/// Calls `test` with an image of each shape, alone in its folder.
pub(crate) fn for_each(shapes: &[Shape], test: impl Fn(Shape, &Path) + Sync) {
    threads::each(shapes.len() as u64, |number| {
        let shape = shapes[usize::try_from(number).unwrap()];
        println!("{shape:?}");
        let folder = scratch();
        let image = folder.path().join("image");
        shape.filled(&image);
        test(shape, &image);
    });
}

/// An image of the smallest shape, filled.
pub(crate) fn small(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    SMALLEST.filled(&path);
    path
}

/// As [`small`], over a backing file full of 0xbb.
pub(crate) fn backed(folder: &Path, name: &str) -> PathBuf {
    let base = folder.join(format!("{name}.base"));
    let path = folder.join(name);
    std::fs::write(&base, vec![0xbb; usize::try_from(SMALLEST.size()).unwrap()]).unwrap();
    SMALLEST.create(&path, &format!(",backing_file={},backing_fmt=raw", text(&base)), SMALLEST.size());
    qemu::io(&path, &["write -P 0x11 0 12k", "write -z 16k 8k"]);
    path
}

/// An image by hand, of any shape: header, L1 table, an L2 table, and a cluster of data for each entry of `data`.
pub(crate) fn by_hand(shape: Shape, image_size: u64, data: usize) -> Bytes {
    let Shape { cluster_size, table_size } = shape;
    let (size, table) = (cluster_size as usize, (cluster_size * table_size) as usize);
    let mut bytes = Bytes(vec![0; size + 2 * table + data * size]);
    bytes.put(at::MAGIC, b"QED\0");
    bytes.put_u32(at::CLUSTER_SIZE, u32::try_from(cluster_size).unwrap());
    bytes.put_u32(at::TABLE_SIZE, u32::try_from(table_size).unwrap());
    bytes.put_u32(at::HEADER_SIZE, 1);
    bytes.put_u64(at::L1_TABLE_OFFSET, cluster_size);
    bytes.put_u64(at::IMAGE_SIZE, image_size);
    bytes.put_u64(size, (size + table) as u64);
    for index in 0..data {
        bytes.put_u64(size + table + index * 8, (size + 2 * table + index * size) as u64);
    }
    bytes
}
