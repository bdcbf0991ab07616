//! `demo`: the story of this project on a real image.
//!
//! What qemu-img will not do, seen before it is done, checked by qemu-img, and taken back until
//! the file is byte for byte what it was.

use std::fs;
use std::path::Path;

use crate::failure::Failure;
use crate::run::{Run, quote};
use crate::scratch::Scratch;
use crate::workspace;

/// The image of the story.
const DISK: &str = "disk.qcow2";

/// The stage: the folder it plays in, and our program.
struct Stage<'a> {
    dir: &'a Path,
    qcow2: &'a Path,
}

/// Tells the story, and fails where it does not come true.
pub(crate) fn demo() -> Result<(), Failure> {
    let qcow2 = workspace::build_qcow2()?;
    let scratch = Scratch::new("demo")?;
    let stage = Stage { dir: scratch.path(), qcow2: &qcow2 };
    let disk = scratch.path().join(DISK);
    let has_qemu = workspace::find_program("qemu-img").is_some();

    say("An image as QEMU makes it");
    if has_qemu {
        stage.make_with_qemu()?;
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

impl Stage<'_> {
    /// An image over a base, with data of its own and, where this QEMU can, a bitmap.
    fn make_with_qemu(&self) -> Result<(), Failure> {
        let base = ["create", "-q", "-f", "qcow2", "base.qcow2", "64M"];
        self.show("qemu-img", Run::new("qemu-img", base))?;
        let overlay = ["create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", DISK];
        self.show("qemu-img", Run::new("qemu-img", overlay))?;
        if workspace::find_program("qemu-io").is_some() {
            let write = ["-c", "write -q -P 0x5a 1M 128k", DISK];
            self.show("qemu-io", Run::new("qemu-io", write))?;
        }
        let bitmap = ["bitmap", "--add", DISK, "since-monday"];
        self.show("qemu-img", Run::new("qemu-img", bitmap)).map(drop)
    }

    /// `qcow2 disk.qcow2 args…`; what it printed.
    fn ours(&self, args: &[&str]) -> Result<String, Failure> {
        self.show("qcow2", Run::new(self.qcow2, [DISK]).args(args))
    }

    /// Types the command, shows what it prints and hands its stdout back.
    fn show(&self, name: &str, run: Run) -> Result<String, Failure> {
        let words = run.words();
        let typed: Vec<String> = words.iter().skip(1).map(|word| quote(word)).collect();
        println!("$ {name} {}", typed.join(" "));
        let output = run.dir(self.dir).silent().output()?;
        print!("{}{}", output.stdout, output.stderr);
        if output.success {
            return Ok(output.stdout);
        }
        let status = output.code.map_or_else(|| "a signal".to_owned(), |code| code.to_string());
        Err(Failure::new(format!("demo: `{name} {}` ended with {status}", typed.join(" "))))
    }
}

fn say(text: &str) {
    println!("\n# {text}");
}

fn expect(true_so_far: bool, otherwise: &str) -> Result<(), Failure> {
    if true_so_far { Ok(()) } else { Err(Failure::new(format!("demo: {otherwise}"))) }
}
