//! `ci`: what must pass before a change goes in.

use std::time::Instant;

use crate::failure::Failure;
use crate::run::Run;
use crate::scratch::Scratch;
use crate::{bench, demo, dist, style, test};

/// A step: its name in the table, and what it does.
type Step = (&'static str, fn() -> Result<(), Failure>);

/// In this order, the quick ones first; the first that fails ends the run.
const STEPS: [Step; 13] = [
    ("fmt", || Run::cargo(["fmt", "--all", "--check"]).status()),
    ("style", style::style),
    ("clippy", clippy),
    ("clippy, no features", clippy_bare),
    ("test", test::test),
    ("doc", doc),
    ("examples", || Run::cargo(["build", "--workspace", "--examples"]).status()),
    ("benches", || Run::cargo(["build", "-p", "vdisk-benches", "--all-targets"]).status()),
    ("fuzz", || Run::cargo(["build", "-p", "vdisk-fuzz", "--bins", "--features", "libfuzzer"]).status()),
    ("check", || Run::cargo(["check", "--workspace", "--all-targets"]).status()),
    ("instructions", bench::gate),
    ("dist", dist_aside),
    ("demo", demo::demo),
];

/// Runs every step and prints the table of their seconds.
pub(crate) fn ci() -> Result<(), Failure> {
    let begun = Instant::now();
    let mut table = String::new();
    let mut failed = None;
    for (name, step) in STEPS {
        if failed.is_some() {
            table.push_str(&format!("  {name:22}       –  not run\n"));
            continue;
        }
        eprintln!("\n=== {name}");
        let start = Instant::now();
        let result = step();
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        table.push_str(&format!("  {name:22}{:8.1}  {verdict}\n", start.elapsed().as_secs_f64()));
        failed = result.err().map(|failure| (name, failure));
    }
    println!(
        "\n  step                   seconds\n{table}  {:22}{:8.1}",
        "all",
        begun.elapsed().as_secs_f64()
    );
    match failed {
        None => Ok(()),
        Some((name, failure)) => Err(Failure::new(format!("ci: the step `{name}` failed: {failure}"))),
    }
}

fn clippy() -> Result<(), Failure> {
    Run::cargo(["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"]).status()
}

fn clippy_bare() -> Result<(), Failure> {
    for library in ["vdisk-format", "tool-support", "guest-fuzz"] {
        Run::cargo(["clippy", "-p", library, "--no-default-features", "--", "-D", "warnings"]).status()?;
    }
    Ok(())
}

fn doc() -> Result<(), Failure> {
    Run::cargo(["doc", "--workspace", "--no-deps", "--all-features"])
        .env("RUSTDOCFLAGS", "-D warnings")
        .status()
}

fn dist_aside() -> Result<(), Failure> {
    let scratch = Scratch::new("dist")?;
    dist::dist(Some(scratch.path()))
}
