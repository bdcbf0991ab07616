//! What every binary of the workspace does alike: help, wrong command lines, wrong files, output.

use crate::support::bytes::{Bytes, at};
use crate::support::images::SMALLEST;
use crate::support::program::{QED, qed};
use std::path::Path;
use test_support::binary::{Binary, original, ours};
use test_support::process::run;
use test_support::scratch::scratch;

pub(crate) const BINARY: Binary = Binary {
    name: "qed",
    program: QED,
    format: "qed",
    good: |path| SMALLEST.filled(path),
    hostile,
    reading: &[
        &["show"],
        &["show", "header"],
        &["show", "header", "-j"],
        &["show", "header", "--json"],
        &["show", "l1"],
        &["show", "l1", "--json"],
        &["show", "l2", "l1:0"],
        &["show", "l2", "guest:0", "-j"],
        &["need_check"],
        &["fragcheck"],
        &["fragcheck", "-j"],
        &["check"],
        &["check", "--json"],
        &["map"],
        &["map", "-j"],
        &["dump-header"],
        &["dump-header", "-j"],
    ],
    editing: &[
        // The first two say nothing.
        &["set-header", "image_size", "0x100000"],
        &["need_check", "on"],
        &["zerocluster", "0"],
        &["zerocluster", "0x1000", "0b11"],
        // With a seed, standard error is the same each time.
        &["duplicate", "l1", "--seed", "0x10"],
        &["duplicate", "l2", "--seed", "1"],
        &["invalidate", "l1", "--seed", "1", "--at", "0"],
        &["invalidate", "l2", "--seed", "1", "--at", "0:0"],
        &["set-feature-bit", "compatible", "7"],
    ],
    others: &[
        &["copy_metadata", "/nonexistent/out"],
        // Sound images have nothing that these change.
        &["repair"],
        &["repair", "--commit"],
        &["clear-feature-bit", "incompatible", "1"],
        &["undo"],
        &["apply", "/nonexistent/plan"],
    ],
    statuses: &[("check", &["0", "1", "2", "3", "63", "64"]), ("repair", &["0", "1", "2", "64", "70"])],
    bad: &[
        ours(64, &[]),
        original(64, &["frobnicate"], "Unknown command 'frobnicate'\n"),
        original(64, &["needcheck"], "Unknown command 'needcheck'\n"),
        ours(64, &["show", "l3"]),
        ours(64, &["show", "l2"]),
        ours(64, &["show", "l2", "five"]),
        ours(64, &["show", "l2", "l1:"]),
        ours(64, &["show", "l2", "guest:0x10000000000000000"]),
        ours(64, &["show", "l1", "1", "2"]),
        ours(1, &["show", "l2", "l1:5"]),
        ours(1, &["show", "l2", "l1:1024"]),
        ours(64, &["duplicate"]),
        ours(64, &["duplicate", "l3"]),
        ours(64, &["duplicate", "l1", "l2"]),
        ours(64, &["duplicate", "l1", "--seed", "x"]),
        ours(64, &["duplicate", "l1", "--seed", "0x10000000000000000"]),
        ours(64, &["duplicate", "l1", "--at", "x"]),
        ours(64, &["duplicate", "l1", "--at", "0:0"]),
        ours(1, &["duplicate", "l1", "--at", "1024"]),
        ours(64, &["invalidate"]),
        ours(64, &["invalidate", "header"]),
        ours(64, &["invalidate", "l2", "--at", "0:0:0"]),
        ours(64, &["invalidate", "l2", "--seed"]),
        ours(1, &["invalidate", "l2", "--at", "0:1024"]),
        ours(1, &["invalidate", "l2", "--at", "77:0"]),
        ours(64, &["need_check", "maybe"]),
        ours(64, &["need_check", "on", "off"]),
        ours(64, &["fragcheck", "surplus"]),
        ours(64, &["zerocluster"]),
        ours(64, &["zerocluster", "x"]),
        ours(64, &["zerocluster", "010"]),
        ours(64, &["zerocluster", "0", "0"]),
        ours(64, &["zerocluster", "0", "1", "2"]),
        ours(1, &["zerocluster", "0xffffffffffffffff"]),
        ours(1, &["zerocluster", "0", "0xffffffffffffffff"]),
        ours(64, &["copy_metadata"]),
        ours(1, &["copy_metadata", "/nonexistent/out"]),
        ours(1, &["copy-metadata", "/dev/null"]),
        ours(64, &["check", "surplus"]),
        ours(64, &["check", "--output", "xml"]),
        ours(64, &["check", "--output", "human", "--json"]),
        ours(64, &["repair", "--commit", "--dry-run"]),
        ours(64, &["map", "--output", "xml"]),
        ours(64, &["dump-header", "surplus"]),
        ours(64, &["set-header"]),
        ours(64, &["set-header", "image_size"]),
        original(64, &["set-header", "image_size", "five"], "'five' is not a valid number\n"),
        original(64, &["set-header", "nonsense", "5"], "'nonsense' is not a known header field\n"),
        ours(64, &["set-header", "cluster_size", "0x100000000"]),
        original(
            64,
            &["set-feature-bit", "compatible", "64"],
            "'64' is not a valid bit number in range [0, 64)\n",
        ),
        original(
            64,
            &["set-feature-bit", "x", "5"],
            "'x' is not a valid group, try 'incompatible', 'compatible', or 'autoclear'\n",
        ),
        ours(64, &["clear-feature-bit", "compatible"]),
        ours(64, &["apply"]),
        ours(1, &["undo"]),
        ours(1, &["apply", "/nonexistent/plan"]),
        ours(1, &["need_check", "on", "--undo-dir", "/dev/null/nowhere"]),
        ours(1, &["need_check", "on", "--save-plan", "/dev/null/nowhere"]),
    ],
};

/// A backing file's name that clears the screen and rings the bell.
fn hostile(path: &Path) {
    SMALLEST.filled(path);
    let name = b"\x1b[2J\x07\x7f\xc2\x9b\x01z";
    let mut bytes = Bytes::read(path);
    bytes.put_u64(at::FEATURES, 1);
    bytes.put_u32(at::BACKING_FILENAME_OFFSET, 100);
    bytes.put_u32(at::BACKING_FILENAME_SIZE, u32::try_from(name.len()).unwrap());
    bytes.put(100, name);
    bytes.write(path);
}

test_support::conformance!(BINARY);

/// The original's name, and those with a hyphen.
const SPELLINGS: [(&str, &[&str], &[&str]); 6] = [
    ("need_check", &["need-check"], &[]),
    ("need_check", &["need-check"], &["on", "--dry-run"]),
    ("fragcheck", &["frag-check"], &[]),
    ("zerocluster", &["zero-cluster", "zero_cluster"], &["0x1000", "3", "--dry-run"]),
    ("copy_metadata", &["copy-metadata"], &["/dev/null"]),
    ("copy_metadata", &["copy-metadata"], &[]),
];

#[test]
fn every_spelling_is_the_same_command() {
    let folder = scratch();
    let image = folder.path().join("image");
    SMALLEST.filled(&image);
    let help = run(QED.command().arg("--help"), b"").expect(0).out();
    for (name, others, args) in SPELLINGS {
        let expected = qed(&image, &[&[name], args].concat());
        for &other in others {
            assert!(help.contains(other), "--help names {other}:\n{help}");
            let run = qed(&image, &[&[other], args].concat());
            assert_eq!((run.out(), run.err()), (expected.out(), expected.err()), "{run}");
            assert_eq!(run.status, expected.status, "{run}");
            let first = run_help(other);
            assert_eq!(first, run_help(name));
        }
    }
}

fn run_help(command: &str) -> String {
    run(QED.command().args(["no-such-file", command, "--help"]), b"").expect(0).out()
}
