//! The guest of the tests, and what they do with it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use guest_fuzz::instruction::{Instruction, PortWidth};
use guest_fuzz::target::qemu::QemuCommand;
use guest_fuzz::target::session::{Guest, Line, Session, SessionOptions};
use guest_fuzz::target::{Progress, Target, Value};

/// How long a boot may take on a machine with more to do.
pub(crate) const BOOT: Duration = Duration::from_secs(90);

/// A file that `cargo xtask deps` fetches.
fn file(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/linux-guest").join(name);
    assert!(path.is_file(), "{} is missing: run `cargo xtask deps`", path.display());
    path
}

/// The machine with a kernel; `parameters` are the kernel's, besides what all have.
pub(crate) fn machine(kernel: &str, parameters: &str) -> QemuCommand {
    let kernel_line = format!("console=ttyS0 quiet mitigations=off nokaslr no_timer_check {parameters}");
    let words = ["-M", "pc", "-accel", "tcg", "-m", "192", "-nodefaults", "-append", &kernel_line, "-kernel"];
    let mut command = QemuCommand::new("qemu-system-x86_64", words);
    command.arguments.extend([file(kernel).into(), "-initrd".into(), file("initramfs.cpio").into()]);
    command
}

/// What a session with a machine of ours has.
pub(crate) fn options(command: QemuCommand) -> SessionOptions {
    SessionOptions { boot_timeout: BOOT, ..SessionOptions::new(Guest::Start(command), Line::Console) }
}

/// A session that is started.
pub(crate) fn started(options: SessionOptions) -> Session {
    let mut session = Session::new(options);
    session.start().unwrap();
    session.keep_values(true);
    session
}

/// `inb port`.
pub(crate) fn inb(port: u16) -> Instruction {
    Instruction::In { port, width: PortWidth::Byte }
}

/// `outb port value`.
pub(crate) fn outb(port: u16, value: u32) -> Instruction {
    Instruction::Out { port, width: PortWidth::Byte, value }
}

/// Has `program` executed, all of it, in time.
pub(crate) fn run(session: &mut Session, program: &[Instruction], patience: Duration) -> Progress {
    let goal = session.progress().done + program.len() as u64;
    let begun = Instant::now();
    let mut left = program;
    loop {
        left = &left[session.submit(left).unwrap()..];
        let progress = session.wait(Duration::from_millis(50));
        if progress.done >= goal {
            return progress;
        }
        assert!(begun.elapsed() < patience, "{progress:?} of {goal}: {:?}", session.condition(patience));
    }
}

/// Has `program` executed, and returns what it read.
pub(crate) fn read(session: &mut Session, program: &[Instruction]) -> Vec<u64> {
    run(session, program, Duration::from_secs(60));
    session.values().iter().map(|value: &Value| value.value).collect()
}
