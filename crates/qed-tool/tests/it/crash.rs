//! Killed at any call, or with any call failing, an edit leaves an image that is as it was, as it will be, or undoable;
//! and the plan can be completed.

use crate::support::bytes::Bytes;
use crate::support::images::{SMALLEST, small};
use crate::support::program::QED;
use crate::support::qemu;
use test_support::crash::Case;
use test_support::scratch::scratch;

test_support::crash!(cases());

/// Edits of one write and of two.
fn cases() -> Vec<Case> {
    let folder = scratch();
    let image = small(folder.path(), "image");
    let empty = folder.path().join("empty");
    SMALLEST.create(&empty, "", 3 * SMALLEST.span());
    // Two L2 tables, and between them, in the file, a cluster of data.
    qemu::io(&empty, &["write 4k 4k", &format!("write {} 4k", SMALLEST.span() + 0x80000)]);
    let bytes = Bytes::read(&empty);
    assert_eq!(bytes.l2_tables().len(), 2);
    vec![
        Case::new(QED, &image, &["need_check", "on"]),
        // Clusters that have no data, so that there is nothing to say.
        Case::new(QED, &empty, &["zerocluster", "0x3f0000", "32"]),
    ]
}
