//! Executes a list of operations (`outb 0x70 0x8f`, a line each) on QEMU's machine pc, and prints what they read.

use std::error::Error;
use std::time::Duration;

use guest_fuzz::program::Program;
use guest_fuzz::target::Target;
use guest_fuzz::target::micro_guest::MicroGuest;
use guest_fuzz::target::qemu::QemuCommand;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: replay_program FILE")?;
    let program = Program::parse(&std::fs::read_to_string(&path)?, &path)?.instructions;
    let mut guest = MicroGuest::new(QemuCommand::new("qemu-system-x86_64", ["-M", "pc"]))?;
    guest.start()?;
    guest.keep_values(true);
    let (mut next, mut done) = (0, 0);
    while (done as usize) < program.len() {
        next += guest.submit(program.get(next..).unwrap_or(&[]))?;
        let progress = guest.wait(Duration::from_secs(5));
        for read in guest.values() {
            println!("{}: {:#x}", program.get(read.index as usize).ok_or("no such read")?, read.value);
        }
        if std::mem::replace(&mut done, progress.done) == progress.done {
            return Err(format!("{:?} at {progress:?}", guest.condition(Duration::from_secs(5))).into());
        }
    }
    Ok(())
}
