//! What qemu-img will not do with a qcow2 image, seen before it is done, checked by qemu-img, and taken back.

use std::fs;

use super::{Stage, expect, say};
use crate::failure::Failure;
use crate::run::Run;
use crate::scratch::Scratch;
use crate::workspace;

/// The image of the story.
const DISK: &str = "disk.qcow2";

/// Tells the story, and fails where it does not come true.
pub(super) fn story() -> Result<(), Failure> {
    let program = workspace::build_tool("qcow2")?;
    let scratch = Scratch::new("demo")?;
    let stage = Stage { dir: scratch.path(), name: "qcow2", program: &program, disk: DISK };
    let disk = scratch.path().join(DISK);
    let has_qemu = workspace::find_program("qemu-img").is_some();

    say("An image as QEMU makes it");
    if has_qemu {
        make_with_qemu(&stage)?;
    } else {
        say("(qemu-img is not here: our own generator makes it)");
        Run::cargo(["run", "-p", "vdisk-examples", "--example", "make_image", "--"])
            .args([&disk])
            .status()?;
    }
    let before = fs::read(&disk).map_err(Failure::at(&disk))?;

    say("Its header, every field");
    stage.ours(&["dump-header"])?;
    say("What adding a header extension would write, and where: nothing is written yet");
    let add = ["add-header-ext", "0x12345678", "hello"];
    stage.ours(&[&add[..], &["--dry-run"]].concat())?;
    expect(fs::read(&disk).map_err(Failure::at(&disk))? == before, "--dry-run changed the image")?;
    say("The same, done");
    stage.ours(&[&add[..], &["-v"]].concat())?;
    let edited = fs::read(&disk).map_err(Failure::at(&disk))?;
    expect(edited != before, "the edit changed nothing")?;
    let shown = stage.ours(&["dump-header-exts"])?;
    expect(shown.contains("0x12345678") && shown.contains("hello"), "the new extension is not shown")?;
    if has_qemu {
        say("And qemu-img agrees that all is well");
        stage.show("qemu-img", Run::new("qemu-img", ["check", DISK]))?;
    }

    say("Taken back");
    stage.ours(&["undo"])?;
    let after = fs::read(&disk).map_err(Failure::at(&disk))?;
    let (was, is) = (before.len(), after.len());
    expect(after == before, &format!("after undo the image ({is} bytes) is not what it was ({was} bytes)"))?;
    println!("\n{DISK}: {is} bytes, identical to the copy taken before the edit");
    Ok(())
}

/// An image over a base, with data of its own and, where this QEMU can, a bitmap.
fn make_with_qemu(stage: &Stage<'_>) -> Result<(), Failure> {
    let base = ["create", "-q", "-f", "qcow2", "base.qcow2", "64M"];
    stage.show("qemu-img", Run::new("qemu-img", base))?;
    let overlay = ["create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", DISK];
    stage.show("qemu-img", Run::new("qemu-img", overlay))?;
    if workspace::find_program("qemu-io").is_some() {
        let write = ["-c", "write -q -P 0x5a 1M 128k", DISK];
        stage.show("qemu-io", Run::new("qemu-io", write))?;
    }
    let bitmap = ["bitmap", "--add", DISK, "since-monday"];
    stage.show("qemu-img", Run::new("qemu-img", bitmap)).map(drop)
}
