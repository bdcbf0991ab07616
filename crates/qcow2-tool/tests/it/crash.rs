//! Killed at any call, or with any call failing, an edit leaves an image that is as it was, as
//! it will be, or undoable; and the plan can be completed.

use crate::support::bytes::{Bytes, at};
use crate::support::images::{self, made};
use crate::support::program::QCOW2;
use test_support::crash::Case;
use test_support::scratch::{scratch, text};

test_support::crash!(cases());

/// Edits of one write and of several, in place and growing the file.
fn cases() -> Vec<Case> {
    let folder = scratch();
    let base = made(folder.path(), "base", "").path;
    let backed = format!("backing_file={},backing_fmt=qcow2", text(&base));
    let overlay = made(folder.path(), "overlay", &backed).path;
    let bitmap = images::one_bitmap(folder.path(), "bitmap");
    // A file that ends within its header area, so that an extension makes it grow.
    let short = folder.path().join("short");
    let mut bytes = Bytes::read(&base).with_area(&[]);
    bytes.0.truncate(bytes.header_length() + 8);
    bytes.with_u64(at::SIZE, 0).write(&short);
    vec![
        Case::new(QCOW2, &base, &["set-header", "size", "0x123456789"]),
        Case::new(QCOW2, &base, &["add-header-ext", "0x12345678", "some data"]),
        Case::new(QCOW2, &overlay, &["add-header-ext", "0x12345678", "some data"]),
        Case::new(QCOW2, &overlay, &["del-header-ext", "0x6803f857"]),
        Case::new(QCOW2, &bitmap, &["del-header-ext", "0x23852875"]),
        Case::new(
            QCOW2,
            &short,
            &["add-header-ext", "0x12345678", "more than there was room for in the file"],
        ),
    ]
}
