//! Numbers are what Python's `int(text, 0)` takes them for.

use crate::support::bytes::{Bytes, at};
use crate::support::images;
use crate::support::original::Original;
use crate::support::program::qcow2;
use std::fs;
use test_support::scratch::scratch;

const TEXTS: &[&str] = &[
    "0",
    "5",
    "+5",
    "-5",
    "00",
    "-0",
    "+0",
    "010",
    "0x10",
    "0X10",
    "0xAbC",
    "0o17",
    "0O17",
    "0b101",
    "0B101",
    "1_000",
    "0x_f",
    "0b_1",
    "0_0",
    "1__0",
    "_1",
    "1_",
    "0x",
    "0o8",
    "0b2",
    "0x1_",
    " 5 ",
    "\t5\n",
    "5\u{b}",
    "\u{c}5",
    "\r5",
    "\u{a0}5",
    "\u{1c}5",
    "5 5",
    "- 5",
    "+ 5",
    "+-5",
    "--5",
    "0 x10",
    "0x 10",
    "-0x10",
    "+0x10",
    "0x-10",
    "",
    " ",
    "x",
    "1.0",
    "1e3",
    "five",
    "0xg",
    "5L",
    "ff",
    "½",
    "18446744073709551615",
    "18446744073709551616",
    "0xffff_ffff_ffff_ffff",
    "0x10000000000000000",
    "-18446744073709551615",
    "999999999999999999999999999999999999999999999999999999",
    "-0x8000000000000000",
    "0777",
    "0o",
    "1,000",
    "\u{2212}5",
];

#[test]
fn as_python_reads_them() {
    let folder = scratch();
    let image = images::made(folder.path(), "image", "").path;
    let before = fs::read(&image).unwrap();
    let mut faults = Vec::new();
    for (text, python) in TEXTS.iter().zip(Original::start().numbers(TEXTS)) {
        let run = qcow2(&image, &["set-header", "size", text, "--no-undo"]);
        let now = Bytes::read(&image);
        let fine = match python.as_deref().map(str::parse::<u64>) {
            None => {
                now.0 == before
                    && run.status.code() == Some(64)
                    && run.out() == format!("'{text}' is not a valid number\n")
            }
            Some(Err(_)) => now.0 == before && run.status.code() == Some(64),
            Some(Ok(value)) => now.u64(at::SIZE) == value && run.status.code() == Some(0),
        };
        if !fine {
            faults.push(format!("{text:?} is {python:?} in Python: {run}"));
        }
        fs::write(&image, &before).unwrap();
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Python takes the digits of every script for what they are; so few people write sizes in
/// them that ours refuses them, and says so.
#[test]
fn digits_of_other_scripts_are_refused() {
    let folder = scratch();
    let image = images::made(folder.path(), "image", "").path;
    let run = qcow2(&image, &["set-header", "size", "\u{0665}"]).expect(64);
    assert_eq!(run.out(), "'\u{0665}' is not a valid number\n");
}

#[test]
fn magics_and_bits_are_numbers_too() {
    let folder = scratch();
    let image = images::made(folder.path(), "image", "").path;
    for magic in ["0x7b", "0X7B", "0b1111011", "0o173", "123", "1_2_3", " 123 ", "+123"] {
        qcow2(&image, &["add-header-ext", magic, "data"]).expect(0);
        qcow2(&image, &["del-header-ext", "0x7b"]).expect(0);
    }
    for bit in ["0x3f", "6_3", " 63 ", "+63", "0b111111"] {
        qcow2(&image, &["set-feature-bit", "compatible", bit]).expect(0);
        assert_eq!(Bytes::read(&image).u64(80), 1 << 63, "{bit}");
        qcow2(&image, &["clear-feature-bit", "compatible", bit]).expect(0);
    }
}
