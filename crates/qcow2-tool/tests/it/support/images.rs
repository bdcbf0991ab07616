//! Images of every kind that qemu-img makes.

use super::bytes::Bytes;
use super::qemu;
use std::path::{Path, PathBuf};
use test_support::scratch::text;

/// An image and what it is.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// Every cluster size there is.
pub(crate) const CLUSTER_SIZES: [u32; 13] =
    [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131_072, 262_144, 524_288, 1_048_576, 2_097_152];

/// Everything in this file.
pub(crate) fn all(folder: &Path) -> Vec<Image> {
    [without_bitmaps(folder), with_bitmaps(folder)].concat()
}

/// Versions, cluster sizes and features. The names say which image is which.
pub(crate) fn without_bitmaps(folder: &Path) -> Vec<Image> {
    let mut images = sizes(folder);
    images.extend(features(folder));
    images
}

/// Both versions at every cluster size, alone and with a backing file.
fn sizes(folder: &Path) -> Vec<Image> {
    let base = folder.join("base.raw");
    std::fs::write(&base, vec![7; 65536]).unwrap();
    let mut images = Vec::new();
    for (version, compat) in [("v2", "0.10"), ("v3", "1.1")] {
        for size in CLUSTER_SIZES {
            let options = format!("compat={compat},cluster_size={size}");
            images.push(made(folder, &format!("{version}-{size}"), &options));
            let backed = format!("{options},backing_file={},backing_fmt=raw", text(&base));
            images.push(made(folder, &format!("{version}-{size}-backed"), &backed));
        }
    }
    images
}

fn features(folder: &Path) -> Vec<Image> {
    let raw = |name: &str| folder.join(format!("{name}.data")).to_str().unwrap().to_owned();
    let mut kinds = vec![
        ("zstd".to_owned(), "compression_type=zstd".to_owned()),
        ("extended-l2".to_owned(), "extended_l2=on".to_owned()),
        ("extended-l2-16k".to_owned(), "extended_l2=on,cluster_size=16384,compression_type=zstd".to_owned()),
        ("lazy".to_owned(), "lazy_refcounts=on".to_owned()),
        ("data-file".to_owned(), format!("data_file={}", raw("plain"))),
        ("data-file-raw".to_owned(), format!("data_file={},data_file_raw=on", raw("raw"))),
        ("preallocated".to_owned(), "preallocation=metadata,cluster_size=4096".to_owned()),
    ];
    for bits in [1, 2, 4, 8, 32, 64] {
        kinds.push((format!("refcount-{bits}"), format!("refcount_bits={bits}")));
    }
    let mut images: Vec<Image> = kinds.iter().map(|(name, options)| made(folder, name, options)).collect();
    images.extend([written(folder), compressed(folder), snapshots(folder, "0.10"), snapshots(folder, "1.1")]);
    for (name, options) in [
        ("luks", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=1"),
        ("luks-4k", "cluster_size=4096,encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=1"),
        ("aes", "encrypt.format=aes,encrypt.key-secret=s"),
        ("aes-v2", "compat=0.10,encrypt.format=aes,encrypt.key-secret=s"),
    ] {
        images.push(encrypted(folder, name, options));
    }
    images
}

/// Several bitmaps, of several granularities, disabled, in use, with data and without.
pub(crate) fn with_bitmaps(folder: &Path) -> Vec<Image> {
    let mut images = Vec::new();
    for (name, options) in [
        ("bitmaps", ""),
        ("bitmaps-512", "cluster_size=512"),
        ("bitmaps-4k-zstd", "cluster_size=4096,compression_type=zstd"),
        ("bitmaps-2m", "cluster_size=2097152"),
    ] {
        let image = made(folder, name, options);
        bitmap(&image, &["--add"], "first");
        qemu::io(&image.path, &["write -P 5 0 300k"]);
        bitmap(&image, &["--add", "-g", "512"], "fine");
        qemu::io(&image.path, &["write -P 6 1M 64k"]);
        bitmap(&image, &["--add", "-g", "1M", "--disable"], "coarse, and off");
        bitmap(&image, &["--add"], "");
        images.push(image);
    }
    for image in images.clone() {
        images.push(in_use(folder, &image));
    }
    images
}

/// A healthy image with one bitmap that has data.
pub(crate) fn one_bitmap(folder: &Path, name: &str) -> PathBuf {
    let image = made(folder, name, "cluster_size=4096");
    bitmap(&image, &["--add", "-g", "64k"], "b0");
    qemu::io(&image.path, &["write -P 5 0 300k"]);
    image.path
}

/// The copy of an image with its first bitmap in use, as a killed QEMU leaves it.
fn in_use(folder: &Path, image: &Image) -> Image {
    let name = format!("{}-in-use", image.name);
    let path = folder.join(format!("{name}.qcow2"));
    let bytes = Bytes::read(&image.path);
    let flags = bytes.bitmap_directory() + 12;
    let value = bytes.u32(flags) | 1;
    bytes.with_u32(flags, value).write(&path);
    Image { name, path }
}

/// An image of 4 MiB with `options` of `qemu-img create`.
pub(crate) fn made(folder: &Path, name: &str, options: &str) -> Image {
    let path = folder.join(format!("{name}.qcow2"));
    qemu::create(&path, options, "4M");
    Image { name: name.to_owned(), path }
}

fn bitmap(image: &Image, how: &[&str], name: &str) {
    if name.is_empty() {
        // qemu-img wants a name; the longest that it takes stands in for the empty one.
        let longest = "n".repeat(1023);
        return bitmap(image, how, &longest);
    }
    qemu::img(&[&["bitmap"], how, &["-f", "qcow2", text(&image.path), name]].concat());
}

fn written(folder: &Path) -> Image {
    let image = made(folder, "written", "");
    qemu::io(&image.path, &["write -P 1 0 1M", "write -z 1M 1M", "write -P 2 3M 64k"]);
    image
}

fn compressed(folder: &Path) -> Image {
    let image = made(folder, "compressed", "compression_type=zstd");
    qemu::io(&image.path, &["write -c -P 1 0 64k", "write -c -P 2 64k 64k"]);
    image
}

fn snapshots(folder: &Path, compat: &str) -> Image {
    let image = made(folder, &format!("snapshots-{compat}"), &format!("compat={compat}"));
    for name in ["one", "two"] {
        qemu::io(&image.path, &["write -P 3 0 128k"]);
        qemu::img(&["snapshot", "-c", name, text(&image.path)]);
    }
    image
}

fn encrypted(folder: &Path, name: &str, options: &str) -> Image {
    let path = folder.join(format!("{name}.qcow2"));
    let secret = "secret,id=s,data=open sesame";
    qemu::img(&["create", "-q", "-f", "qcow2", "--object", secret, "-o", options, text(&path), "4M"]);
    Image { name: name.to_owned(), path }
}
