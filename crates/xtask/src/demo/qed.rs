//! A QED image that QEMU does not open: checked, broken on purpose, repaired, copied without its data, and taken back.

use std::fs;

use super::{Stage, expect, say};
use crate::failure::Failure;
use crate::run::Run;
use crate::scratch::Scratch;
use crate::workspace;

/// The image of the story.
const DISK: &str = "disk.qed";
/// Bytes that the guest wrote.
const SECRET: &[u8] = b"the first bytes of the second MiB";

/// Tells the story, and fails where it does not come true.
pub(super) fn story() -> Result<(), Failure> {
    let program = workspace::build_tool("qed")?;
    let scratch = Scratch::new("demo-qed")?;
    let stage = Stage { dir: scratch.path(), name: "qed", program: &program, disk: DISK };
    let read = |name: &str| {
        let path = scratch.path().join(name);
        fs::read(&path).map_err(Failure::at(&path))
    };

    say("A QED image with tables of one cluster, which QEMU neither makes nor opens");
    let disk = scratch.path().join(DISK);
    Run::cargo(["run", "-q", "-p", "vdisk-examples", "--example", "make_qed", "--"])
        .args([&disk])
        .status()?;
    let before = read(DISK)?;
    stage.ours(&["check"])?;
    stage.ours(&["map"])?;
    say("Broken on purpose");
    stage.ours(&["duplicate", "l2", "--seed", "1"])?;
    stage.ours(&["invalidate", "l2", "--at", "20", "--seed", "2"])?;
    let shown = stage.ends_with(2, &["check"])?;
    expect(shown.contains("[l2-entry-"), "the check does not say which entry is wrong")?;
    say("What can be repaired without a guess: nothing is written yet");
    stage.ends_with(2, &["repair"])?;
    say("A copy for a bug report: as broken, and without the guest's data");
    stage.ours(&["copy_metadata", "report.qed"])?;
    let has_secret = |bytes: &[u8]| bytes.windows(SECRET.len()).any(|window| window == SECRET);
    expect(has_secret(&before), "the image does not hold the guest's data")?;
    expect(!has_secret(&read("report.qed")?), "the copy holds the guest's data")?;
    let broken = stage.ends_with(2, &["check", "--json"])?;
    let copied = Stage { disk: "report.qed", ..stage }.ends_with(2, &["check", "--json"])?;
    expect(
        broken.replace(DISK, "") == copied.replace("report.qed", ""),
        "check finds something else in the copy",
    )?;
    say("Taken back, both");
    stage.ours(&["undo"])?;
    stage.ours(&["undo"])?;
    expect(read(DISK)? == before, "after undo the image is not what it was")?;
    println!("\n{DISK}: {} bytes, identical to what it was before", before.len());
    Ok(())
}
