//! `dump-header` and `dump-header-exts` print what QEMU's qcow2.py prints, byte for byte, for
//! every image that it can read; what it cannot read, ours reads or refuses in good order.

mod healthy;
mod patched;
mod random;

use crate::support::original::{Answer, DUMPS, Original};
use crate::support::program::command;
use std::path::Path;
use test_support::process::{Run, run};

/// Runs ours with a `-j` in `args` moved to its place.
fn ours(file: &Path, args: &[&str], j: JsonFlag) -> Run {
    let mut command = command();
    match j {
        JsonFlag::AsGiven => command.arg(file).args(args),
        JsonFlag::First => command.args(["-j"]).arg(file).args(&args[..1]),
        JsonFlag::BeforeTheCommand => command.arg(file).arg("-j").args(&args[..1]),
    };
    run(&mut command, b"")
}

/// Where a `-j` is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JsonFlag {
    AsGiven,
    First,
    BeforeTheCommand,
}

const PLACES: [JsonFlag; 3] = [JsonFlag::AsGiven, JsonFlag::First, JsonFlag::BeforeTheCommand];

/// What is wrong with our answer beside the original's, if anything.
fn verdict(original: &Answer, ours: &Run) -> Option<String> {
    if ours.too_slow() {
        return Some(format!("too slow: {ours}"));
    }
    match original {
        Answer::Printed { stdout, .. } => {
            let same = ours.status.code() == Some(0) && ours.stdout == stdout.as_bytes();
            (!same).then(|| format!("the original printed\n{stdout}\nours: {ours}"))
        }
        Answer::Failed(why) => {
            let orderly = match ours.status.code() {
                Some(0) => true,
                Some(1) => !ours.stderr.is_empty(),
                _ => false,
            };
            (!orderly).then(|| format!("the original failed with {why}; ours: {ours}"))
        }
    }
}

/// Compares all dumps of one image, `-j` in every place.
fn compare(original: &mut Original, name: &str, file: &Path) -> Vec<String> {
    let mut faults = Vec::new();
    for (answer, args) in original.dumps(file).iter().zip(DUMPS) {
        let places = if args.contains(&"-j") { &PLACES[..] } else { &PLACES[..1] };
        for &place in places {
            let fault = verdict(answer, &ours(file, args, place));
            faults.extend(fault.map(|fault| format!("== {name}: {args:?} {place:?}: {fault}")));
        }
    }
    faults
}

/// Fails with the first few of `faults`, and says how many there are.
#[track_caller]
fn report(faults: &[String], of: usize) {
    let shown = faults.iter().take(4).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(faults.is_empty(), "{} faults in {of} images, the first:\n{shown}", faults.len());
}
