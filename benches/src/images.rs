//! The images that are measured, on disk.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use vdisk_format::generate::{GenerateError, Qcow2, Qed};

use crate::programs::Programs;

/// A shape, by name.
pub(crate) struct Wanted {
    pub(crate) name: &'static str,
    shape: Shape,
    with_qemu_img: bool,
}

enum Shape {
    Qcow2(Box<Qcow2>),
    Qed(Box<Qed>),
    /// Options of `qemu-img create`, and the size of the disk.
    QemuImg(&'static str, &'static str),
}

/// An image on disk, and its first bytes as they were written: all that the measured edits change.
pub(crate) struct Image {
    pub(crate) name: &'static str,
    pub(crate) path: PathBuf,
    /// Whether qemu-img answers in a time that one can wait for.
    pub(crate) with_qemu_img: bool,
    head: Vec<u8>,
}

impl Wanted {
    pub(crate) fn qcow2(name: &'static str, shape: Qcow2) -> Self {
        Self { name, shape: Shape::Qcow2(Box::new(shape)), with_qemu_img: true }
    }

    pub(crate) fn qed(name: &'static str, shape: Qed) -> Self {
        Self { name, shape: Shape::Qed(Box::new(shape)), with_qemu_img: true }
    }

    /// A qcow2 image that `qemu-img create` makes.
    pub(crate) fn qemu_img(name: &'static str, options: &'static str, size: &'static str) -> Self {
        Self { name, shape: Shape::QemuImg(options, size), with_qemu_img: true }
    }

    /// Leaves out qemu-img's row.
    pub(crate) fn without_qemu_img(self) -> Self {
        Self { with_qemu_img: false, ..self }
    }

    /// Whether it can be made here.
    pub(crate) fn is_possible(&self, programs: &Programs) -> bool {
        programs.qemu_img || !matches!(self.shape, Shape::QemuImg(..))
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<Image, GenerateError> {
        let path;
        match &self.shape {
            Shape::Qcow2(shape) => {
                path = dir.join("disk.qcow2");
                shape.write_to(&mut File::create(&path)?)?;
            }
            Shape::Qed(shape) => {
                path = dir.join("disk.qed");
                shape.write_to(&mut File::create(&path)?)?;
            }
            Shape::QemuImg(options, size) => {
                path = dir.join("disk.qcow2");
                let mut create = Command::new("qemu-img");
                create.args(["create", "-q", "-f", "qcow2", "-o", options]).arg(&path).arg(size);
                if !create.status()?.success() {
                    return Err(io::Error::other("qemu-img create failed").into());
                }
            }
        }
        let mut head = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(File::open(&path)?, 1 << 16), &mut head)?;
        Ok(Image { name: self.name, path, with_qemu_img: self.with_qemu_img, head })
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
