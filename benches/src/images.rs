//! The images that are measured.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use vdisk_format::generate::{Bitmap, GenerateError, Qcow2};

/// A shape, by name.
pub(crate) struct Wanted {
    pub(crate) name: &'static str,
    shape: Qcow2,
}

/// An image on disk, and its first cluster as it was written: all that the measured edits change.
pub(crate) struct Image {
    pub(crate) name: &'static str,
    pub(crate) path: PathBuf,
    head: Vec<u8>,
}

/// From the everyday image to the largest metadata.
pub(crate) fn all() -> Vec<Wanted> {
    const GIB: u64 = 1 << 30;
    let plain = Qcow2::new(10 * GIB).data(GIB, *b"data");
    let bitmaps = (0..200).fold(plain.clone(), |image, index| {
        image.bitmap(Bitmap::new(format!("bitmap-{index}")).dirty(0..GIB))
    });
    vec![
        Wanted { name: "plain, 10 GiB, 64 KiB clusters", shape: plain },
        Wanted { name: "200 bitmaps, 10 GiB", shape: bitmaps },
        Wanted { name: "1 TiB, empty", shape: Qcow2::new(1024 * GIB) },
        Wanted { name: "1 TiB, fully allocated", shape: Qcow2::new(1024 * GIB).allocate(0..1024 * GIB) },
    ]
}

impl Wanted {
    pub(crate) fn write(&self, dir: &Path) -> Result<Image, GenerateError> {
        let path = dir.join("disk.qcow2");
        self.shape.write_to(&mut File::create(&path)?)?;
        let mut head = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(File::open(&path)?, 1 << 16), &mut head)?;
        Ok(Image { name: self.name, path, head })
    }
}

impl Image {
    /// The image as it was, without undo records.
    pub(crate) fn restore(&self) -> io::Result<()> {
        io::Write::write_all(&mut File::options().write(true).open(&self.path)?, &self.head)?;
        let dir = self.path.parent().unwrap_or(Path::new("."));
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path != self.path {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}
