//! The images that are measured, on disk.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use vdisk_format::generate::{GenerateError, Qcow2, Qed};

/// A shape, by name.
pub(crate) struct Wanted {
    pub(crate) name: &'static str,
    shape: Shape,
}

enum Shape {
    Qcow2(Box<Qcow2>),
    Qed(Box<Qed>),
}

/// An image on disk, and its first bytes as they were written: all that the measured edits change.
pub(crate) struct Image {
    pub(crate) name: &'static str,
    pub(crate) path: PathBuf,
    head: Vec<u8>,
}

impl Wanted {
    pub(crate) fn qcow2(name: &'static str, shape: Qcow2) -> Self {
        Self { name, shape: Shape::Qcow2(Box::new(shape)) }
    }

    pub(crate) fn qed(name: &'static str, shape: Qed) -> Self {
        Self { name, shape: Shape::Qed(Box::new(shape)) }
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<Image, GenerateError> {
        let (path, mut file);
        match &self.shape {
            Shape::Qcow2(shape) => {
                path = dir.join("disk.qcow2");
                file = File::create(&path)?;
                shape.write_to(&mut file)?;
            }
            Shape::Qed(shape) => {
                path = dir.join("disk.qed");
                file = File::create(&path)?;
                shape.write_to(&mut file)?;
            }
        }
        let mut head = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(File::open(&path)?, 1 << 16), &mut head)?;
        Ok(Image { name: self.name, path, head })
    }
}

impl Image {
    /// The image as it was, and nothing beside it.
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

    /// What a row copies the image to.
    pub(crate) fn copy(&self) -> PathBuf {
        self.path.with_file_name("out")
    }
}
