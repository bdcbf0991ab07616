//! Images that qemu-img made.

use super::{compare, report};
use crate::support::images;
use crate::support::original::Original;
use std::path::Path;
use test_support::scratch::scratch;

#[track_caller]
fn all_alike(make: impl FnOnce(&Path) -> Vec<images::Image>) {
    let folder = scratch();
    let mut original = Original::start();
    let images = make(folder.path());
    let mut faults = Vec::new();
    for image in &images {
        assert!(
            original.dumps(&image.path).iter().all(|answer| answer.stdout().is_some()),
            "the original reads {}",
            image.name
        );
        faults.extend(compare(&mut original, &image.name, &image.path));
    }
    report(&faults, images.len());
}

#[test]
fn versions_cluster_sizes_and_features() {
    all_alike(images::without_bitmaps);
}

#[test]
fn bitmaps() {
    all_alike(images::with_bitmaps);
}

#[test]
fn a_backing_file_without_its_format() {
    all_alike(|folder| {
        let mut original = Original::start();
        let mut images = images::without_bitmaps(folder);
        images.retain(|image| image.name.ends_with("-backed"));
        for image in &images {
            original.edit(&image.path, &["del-header-ext", "0xe2792aca"], b"");
        }
        images
    });
}
