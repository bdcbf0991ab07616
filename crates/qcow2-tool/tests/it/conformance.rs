//! What every binary of the workspace does alike: help, wrong command lines, wrong files, output.

use crate::support::bytes::{Bytes, extension, magic};
use crate::support::program::QCOW2;
use crate::support::qemu;
use std::path::Path;
use test_support::binary::{Binary, original, ours};
use test_support::scratch::{scratch, text};

pub(crate) const BINARY: Binary = Binary {
    name: "qcow2",
    program: QCOW2,
    format: "qcow2",
    good: |path| qemu::create(path, "lazy_refcounts=on", "4M"),
    hostile,
    reading: &[
        &["dump-header"],
        &["dump-header", "-j"],
        &["dump-header", "--json"],
        &["dump-header-exts"],
        &["dump-header-exts", "-j"],
        &["dump-header-exts", "--json"],
        &["map"],
        &["map", "--json"],
        &["fragcheck"],
        &["fragcheck", "--json"],
        &["show"],
        &["show", "header", "--json"],
        &["show", "l1"],
        &["show", "l1", "--all", "-j"],
        // Any cluster can be looked at as if it were a table.
        &["show", "l2", "0x30000"],
        &["show", "refcount-table"],
        &["show", "refcount-block", "0"],
        &["show", "snapshots"],
        &["show", "bitmaps"],
        &["show", "crypto"],
        &["owner", "0"],
        &["owner", "0x10000", "--json"],
        &["explain", "0x78"],
        &["explain", "0x3000"],
    ],
    editing: &[
        &["set-header", "size", "0x100000"],
        &["add-header-ext", "0x12345678", "data"],
        &["add-header-ext-stdio", "0x12345678"],
        &["del-header-ext", "0x6803f857"],
        &["set-feature-bit", "compatible", "7"],
        &["clear-feature-bit", "compatible", "0"],
    ],
    others: &[&["undo"], &["apply", "/nonexistent/plan"]],
    statuses: &[],
    bad: &[
        original(64, &["set-header", "size", "five"], "'five' is not a valid number\n"),
        original(64, &["set-header", "size", "010"], "'010' is not a valid number\n"),
        original(64, &["set-header", "nonsense", "5"], "'nonsense' is not a known header field\n"),
        original(64, &["set-header", "", "5"], "'' is not a known header field\n"),
        original(64, &["add-header-ext", "x", "data"], "'x' is not a valid magic number\n"),
        original(64, &["add-header-ext", "0", "data"], "'0' is not a valid magic number\n"),
        original(64, &["add-header-ext-stdio", "x"], "'x' is not a valid magic number\n"),
        original(64, &["del-header-ext", "x"], "'x' is not a valid magic number\n"),
        original(64, &["del-header-ext", "0x6803f8579"], "'0x6803f8579' is not a valid magic number\n"),
        original(1, &["del-header-ext", "0x12345678"], "No such header extension\n"),
        original(
            64,
            &["set-feature-bit", "compatible", "64"],
            "'64' is not a valid bit number in range [0, 64)\n",
        ),
        original(
            64,
            &["set-feature-bit", "compatible", "-1"],
            "'-1' is not a valid bit number in range [0, 64)\n",
        ),
        original(
            64,
            &["set-feature-bit", "compatible", "x"],
            "'x' is not a valid bit number in range [0, 64)\n",
        ),
        original(
            64,
            &["clear-feature-bit", "compatible", "64"],
            "'64' is not a valid bit number in range [0, 64)\n",
        ),
        original(
            64,
            &["set-feature-bit", "x", "5"],
            "'x' is not a valid group, try 'incompatible', 'compatible', or 'autoclear'\n",
        ),
        original(
            64,
            &["clear-feature-bit", "compat", "5"],
            "'compat' is not a valid group, try 'incompatible', 'compatible', or 'autoclear'\n",
        ),
        original(64, &["frobnicate"], "Unknown command 'frobnicate'\n"),
        original(64, &["frobnicate", "a", "b"], "Unknown command 'frobnicate'\n"),
        ours(64, &[]),
        ours(64, &["dump-header", "surplus"]),
        ours(64, &["map", "--output", "xml"]),
        ours(64, &["map", "--output", "json", "--json"]),
        ours(1, &["map", "--snapshot", "none"]),
        ours(1, &["fragcheck", "--snapshot", "none"]),
        ours(64, &["set-header"]),
        ours(64, &["set-header", "size"]),
        ours(64, &["set-header", "size", "5", "6"]),
        ours(64, &["set-header", "cluster_bits", "0x100000000"]),
        ours(64, &["add-header-ext", "1"]),
        ours(64, &["add-header-ext-stdio", "1", "data"]),
        ours(64, &["del-header-ext"]),
        ours(64, &["set-feature-bit", "compatible"]),
        ours(64, &["show", "l3"]),
        ours(64, &["show", "l2"]),
        ours(64, &["show", "refcount-block"]),
        ours(64, &["show", "l2", "five"]),
        ours(64, &["show", "l2", "l1:"]),
        ours(64, &["show", "l2", "guest:0x10000000000000000"]),
        ours(64, &["show", "refcount-block", "host:"]),
        ours(64, &["show", "l1", "0"]),
        ours(64, &["show", "snapshots", "--range", "0"]),
        ours(64, &["show", "l1", "--range", "5-4"]),
        ours(64, &["show", "l1", "--range", "x"]),
        ours(64, &["show", "header", "--snapshot", "1"]),
        ours(64, &["show", "bitmaps", "--all"]),
        ours(64, &["owner"]),
        ours(64, &["owner", "x"]),
        ours(64, &["owner", "-1"]),
        ours(64, &["explain"]),
        ours(64, &["explain", "0x10000000000000000"]),
        ours(64, &["explain", "1", "2"]),
        ours(1, &["show", "l1", "--snapshot", "none"]),
        ours(1, &["show", "l2", "l1:5"]),
        ours(1, &["show", "refcount-block", "1"]),
        ours(64, &["apply"]),
        ours(1, &["undo"]),
        ours(1, &["apply", "/nonexistent/plan"]),
        ours(1, &["apply", "/dev/null"]),
        ours(1, &["set-header", "size", "5", "--undo-dir", "/dev/null/nowhere"]),
        ours(1, &["set-header", "size", "5", "--save-plan", "/dev/null/nowhere"]),
    ],
};

/// A bitmap's name and an extension that clear the screen and ring the bell, and a text
/// that the original takes for printable although it moves the cursor.
fn hostile(path: &Path) {
    qemu::create(path, "cluster_size=4096", "4M");
    qemu::img(&["bitmap", "--add", "-f", "qcow2", text(path), "0123456789"]);
    let bytes = Bytes::read(path);
    let name = bytes.bitmap_directory() + 24;
    let bitmaps = extension(magic::BITMAPS, &bytes.0[bytes.extension(magic::BITMAPS).unwrap()]);
    let area = [
        bitmaps,
        extension(magic::UNKNOWN, b"one\r\x0b\x0ctwo"),
        extension(magic::BACKING_FORMAT, b"\x1b[2J\x07"),
    ]
    .concat();
    bytes.with(name, b"\x1b[2J\x07\x7f\xc2\x9b\x01z").with_area(&area).write(path);
}

test_support::conformance!(BINARY);

#[test]
fn pipes_get_the_bytes_as_they_are() {
    let folder = scratch();
    let image = folder.path().join("image");
    hostile(&image);
    let run = QCOW2.run(&image, &["dump-header"]).expect(0);
    for raw in [&b"'one\r\x0b\x0ctwo'"[..], b"\x1b[2J\x07\x7f"] {
        assert!(run.stdout.windows(raw.len()).any(|window| window == raw), "{run}");
    }
}
