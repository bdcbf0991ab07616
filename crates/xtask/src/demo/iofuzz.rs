//! A virtual machine whose VMM dies of one write to a port: found, replayed, made short. Without a QEMU, the machine with
//! planted faults that iofuzz has in itself.

use std::fs;

use super::{Stage, expect, say};
use crate::failure::Failure;
use crate::scratch::Scratch;
use crate::workspace;

/// QEMU's test device, whose fault is there to be found.
const MACHINE: [&str; 6] = ["--", "-M", "pc", "-nodefaults", "-device", "pc-testdev"];
/// Where its fault is, and the fault of the machine without QEMU.
const PLACES: [&str; 2] = ["pc-testdev*,0x80", "test-abort,0x80"];

/// Tells the story, and fails where it does not come true.
pub(super) fn story() -> Result<(), Failure> {
    let program = workspace::build_tool("iofuzz")?;
    let scratch = Scratch::new("demo-iofuzz")?;
    let qemu = workspace::find_program("qemu-system-x86_64").is_some();
    let (machine, [place, _]) = if qemu { (&MACHINE[..], PLACES) } else { (&[][..], [PLACES[1], ""]) };
    let stage = |command| Stage { dir: scratch.path(), name: "iofuzz", program: &program, disk: command };

    say("Three seconds of random port I/O");
    let run = ["--time", "3", "--seed", "1", "--ports", place, "--out", "found"];
    stage("run").ends_with(1, &[&run[..], machine].concat())?;
    let findings = fs::read_dir(scratch.path().join("found")).map_err(Failure::at(scratch.path()))?;
    let folders = findings.filter_map(Result::ok).filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> = folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    let first = names.iter().find(|name| name.ends_with("-crash"));
    let first = first.ok_or_else(|| Failure::new("demo: there is no crash among the findings"))?;
    say("The journal knows its machine: again, three times, each on a fresh one");
    let journal = format!("found/{first}/journal.json");
    let shown = stage("replay").ends_with(1, &[&journal, "--times", "3"])?;
    expect(shown.contains("shown by 3 of 3 replays"), "a replay does not show what was found")?;
    say("What a maintainer wants to see: the operations that are needed");
    let shown = stage("shrink").ends_with(1, &[&journal])?;
    let left = shown.lines().filter(|line| !line.starts_with('#')).count();
    expect(left == 1, "more than one operation is left")
}
