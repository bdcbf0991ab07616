//! No write to an image that something else has open, and no read while something else writes.

use crate::conformance::BINARY;
use crate::support::images::small;
use crate::support::program::qed;
use std::fs;
use test_support::holder::Holder;
use test_support::locks::refused;
use test_support::scratch::{scratch, text};

test_support::locks!(BINARY);

/// OUT is replaced, which is no write to it: its locks count all the same.
#[test]
fn no_copy_replaces_an_image_in_use() {
    let folder = scratch();
    let (image, out) = (small(folder.path(), "image"), small(folder.path(), "out"));
    let before = fs::read(&out).unwrap();
    let holder = Holder::qemu_io(BINARY.format, &out, &["-r"]);
    refused(qed(&image, &["copy_metadata", text(&out)]));
    assert!(fs::read(&out).unwrap() == before);
    qed(&image, &["copy_metadata", text(&out), "--no-lock"]).expect(0);
    assert!(fs::read(&out).unwrap() != before, "whoever knows better replaces it");
    fs::write(&out, &before).unwrap();
    drop(holder);
    qed(&image, &["copy_metadata", text(&out)]).expect(0);
    assert!(fs::read(&out).unwrap() != before);
}
