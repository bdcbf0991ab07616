//! What comes after an interrupted commit, wherever its record is.

use crate::support::images::one_bitmap;
use crate::support::program::QCOW2;
use std::fs;
use test_support::interrupted::Interruptible;

const DELETE: Interruptible = Interruptible {
    program: QCOW2,
    make: |path| {
        let made = one_bitmap(path.parent().unwrap(), "made");
        fs::rename(made, path).unwrap();
    },
    edit: &["del-header-ext", "0x23852875"],
    other: &["set-feature-bit", "compatible", "0"],
};

test_support::interrupted!(DELETE);
