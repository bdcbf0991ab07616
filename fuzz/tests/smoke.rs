//! A few seconds of every target on a stable toolchain: seeds, seeds with bytes changed, and random bytes.
//!
//! The stream of inputs is decided by a number, which is printed; `VDISK_FUZZ_SEED` sets another one, and
//! `VDISK_FUZZ_INPUTS` how many inputs each target gets.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]

use std::env;
use std::fs;
use std::path::PathBuf;

use vdisk_fuzz::seeds::{Xorshift, seeds};

fn setting(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |value| value.parse().expect("a decimal number"))
}

/// Saves the input that a target panicked on, and says how to run it again.
struct Saver<'i>(&'static str, &'i [u8]);

impl Drop for Saver<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(target, input) = *self;
            let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("crash-{target}"));
            fs::write(&path, input).unwrap();
            eprintln!("run it again: cargo run -p vdisk-fuzz --bin replay -- {target} {}", path.display());
        }
    }
}

fn next(random: &mut Xorshift, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut input = seeds[random.below(seeds.len())].clone();
    match random.below(4) {
        0 => {
            let length = random.below(1024);
            return random.bytes(length);
        }
        1 => input.truncate(random.below(input.len() + 1)),
        _ => {}
    }
    for _ in 0..random.below(5) {
        // Early bytes decide most: headers, shapes, first lines.
        let reach = if random.below(2) == 0 { input.len().min(128) } else { input.len() };
        if reach > 0 {
            let at = random.below(reach);
            input[at] = random.bytes(1)[0];
        }
    }
    input
}

fn smoke(name: &'static str, inputs: u64) {
    let seed = setting("VDISK_FUZZ_SEED", 1);
    let inputs = setting("VDISK_FUZZ_INPUTS", inputs);
    println!("{name}: VDISK_FUZZ_SEED={seed} VDISK_FUZZ_INPUTS={inputs}");
    let target = vdisk_fuzz::target(name).unwrap();
    let seeds = seeds(name);
    let mut random = Xorshift::new(seed);
    for seed in &seeds {
        let _saver = Saver(name, seed);
        target(seed);
    }
    for _ in 0..inputs {
        let input = next(&mut random, &seeds);
        let _saver = Saver(name, &input);
        target(&input);
    }
}

#[test]
fn header() {
    smoke("header", 2000);
}

#[test]
fn structured_header() {
    smoke("structured_header", 2000);
}

#[test]
fn plan_inverse() {
    smoke("plan_inverse", 5000);
}

#[test]
fn edits() {
    smoke("edits", 2000);
}

#[test]
fn plan_text() {
    smoke("plan_text", 5000);
}

#[test]
fn qcow2_explain() {
    smoke("qcow2_explain", 300);
}

#[test]
fn qcow2_scrub() {
    smoke("qcow2_scrub", 300);
}

#[test]
fn qed_parse() {
    smoke("qed_parse", 5000);
}

#[test]
fn qed_walk() {
    smoke("qed_walk", 300);
}

#[test]
fn qed_check() {
    smoke("qed_check", 300);
}

#[test]
fn qed_map() {
    smoke("qed_map", 300);
}

#[test]
fn qed_scrub() {
    smoke("qed_scrub", 300);
}

#[test]
fn qed_corrupt() {
    smoke("qed_corrupt", 300);
}

#[test]
fn qed_edits() {
    smoke("qed_edits", 300);
}

#[test]
fn qed_repair() {
    smoke("qed_repair", 300);
}

#[test]
fn qcow2_map() {
    smoke("qcow2_map", 300);
}

#[test]
fn qcow2_check() {
    smoke("qcow2_check", 300);
}

#[test]
fn instruction_text() {
    smoke("instruction_text", 5000);
}

#[test]
fn instruction_binary() {
    smoke("instruction_binary", 5000);
}

#[test]
fn journal() {
    smoke("journal", 5000);
}

#[test]
fn proc_ioports() {
    smoke("proc_ioports", 5000);
}

#[test]
fn mtree() {
    smoke("mtree", 5000);
}

#[test]
fn region_file() {
    smoke("region_file", 5000);
}

#[test]
fn qtest_answer() {
    smoke("qtest_answer", 20_000);
}

#[test]
fn every_target_is_a_program() {
    let manifest = include_str!("../Cargo.toml");
    for (name, _) in vdisk_fuzz::TARGETS {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
        assert!(!seeds(name).is_empty(), "{name}");
    }
}
