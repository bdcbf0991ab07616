//! A real Linux guest: the seed's own method, and ours.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use guest_fuzz::generate::Generator;
use guest_fuzz::instruction::{Instruction, PortWidth};
use guest_fuzz::region::{Region, RegionMap, Space};
use guest_fuzz::target::Target;
use guest_fuzz::target::qemu::{self, QemuCommand};
use guest_fuzz::target::session::{Guest, Line, Session, SessionOptions, Way};

use super::seed::{self, Pace};
use super::{Row, SEED, SEED_WAITING, Sample, Unit};

/// The scratch register of the guest's third serial port: it keeps what is written, and does nothing else.
const SCRATCH: u16 = 0x3ef;
/// How long all operations may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The rows, where there is a guest.
pub(super) fn rows() -> Vec<Row> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let folder = folder.join("target/linux-guest");
    let there = folder.join("vmlinuz").is_file() && folder.join("initramfs.cpio").is_file();
    if qemu::find().is_none() || !there {
        eprintln!("no Linux guest in {}: run `cargo xtask deps`", folder.display());
        return Vec::new();
    }
    let seed = |label, pace, fuzz_count| {
        let folder = folder.clone();
        let run = move || seed::run(&command(&folder)?, &scratch()?, fuzz_count, pace);
        Row::new(label, Unit::PerSecond, 1, run)
    };
    let mut rows = vec![seed(SEED, Pace::AtOnce, 60), seed(SEED_WAITING, Pace::Waiting, 15)];
    let ours = Row::new("classic in a Linux guest", Unit::PerSecond, 3, move || classic(&folder, 300_000));
    rows.push(ours.goal(300e3));
    rows
}

/// Where the seed's program does no harm.
fn scratch() -> Result<RegionMap, Box<dyn Error>> {
    let port = u64::from(SCRATCH);
    let region = Region::new(Space::Port, port, port, "scratch").ok_or("no region")?;
    Ok(RegionMap::from_regions(vec![region]))
}

/// The seed's program on the scratch register with `fuzz_count` writes, each read back.
fn classic(folder: &Path, fuzz_count: u32) -> Result<Sample, Box<dyn Error>> {
    let program: Vec<Instruction> = Generator::Classic { fuzz_count }
        .episode(&scratch()?, 1, 0)
        .flat_map(|made| {
            let writes = matches!(made, Instruction::Out { .. });
            let read = Instruction::In { port: SCRATCH, width: PortWidth::Byte };
            std::iter::once(made).chain(writes.then_some(read))
        })
        .collect();
    let mut session = Session::new(options(folder)?);
    session.start()?;
    session.keep_values(true);
    let begun = Instant::now();
    let mut values = Vec::new();
    let mut left = program.as_slice();
    let mut done = 0;
    while done < program.len() as u64 && begun.elapsed() < PATIENCE {
        let taken = session.submit(left)?;
        left = left.get(taken..).unwrap_or(&[]);
        done = session.wait(Duration::from_millis(50)).done;
        values.extend(session.values());
    }
    let seconds = begun.elapsed().as_secs_f64();
    let right = done == program.len() as u64 && are_right(&program, values.iter().map(|read| read.value));
    let answer = if right { "each write read back" } else { "not what was written" };
    Ok(Sample { figure: done as f64 / seconds, answer: format!("{done} operations, {answer}"), right })
}

/// Whether each read has the value of the write before it; there is none before the first.
fn are_right(program: &[Instruction], mut values: impl Iterator<Item = u64>) -> bool {
    let mut written = None;
    let mut right = true;
    for instruction in program {
        match instruction {
            Instruction::Out { value, .. } => written = Some(u64::from(*value)),
            _ => {
                let read = values.next();
                right &= read.is_some() && (written.is_none() || read == written);
            }
        }
    }
    right && values.next().is_none()
}

/// The guest's machine.
fn command(folder: &Path) -> Result<QemuCommand, Box<dyn Error>> {
    let file = |name: &str| -> PathBuf { folder.join(name) };
    let mut command = QemuCommand::new(
        qemu::find().ok_or("no QEMU on PATH")?,
        ["-M", "pc", "-accel", "tcg", "-m", "192", "-nodefaults"],
    );
    let third = ["-chardev", "null,id=n", "-device", "isa-serial,index=2,chardev=n"];
    let kernel = "console=ttyS0 quiet mitigations=off nokaslr no_timer_check";
    command.arguments.extend(third.iter().chain(&["-append", kernel]).map(Into::into));
    command.arguments.extend(["-kernel".into(), file("vmlinuz").into()]);
    command.arguments.extend(["-initrd".into(), file("initramfs.cpio").into()]);
    Ok(command)
}

fn options(folder: &Path) -> Result<SessionOptions, Box<dyn Error>> {
    let options = SessionOptions::new(Guest::Start(command(folder)?), Line::Console);
    Ok(SessionOptions { ways: vec![Way::Iopl], ..options })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_has_to_be_what_was_written() {
        let width = PortWidth::Byte;
        let (read, write) =
            (Instruction::In { port: SCRATCH, width }, Instruction::Out { port: SCRATCH, width, value: 7 });
        let program = [read.clone(), write, read];
        assert!(are_right(&program, [0xff, 7].into_iter()));
        assert!(!are_right(&program, [0xff, 8].into_iter()));
        assert!(!are_right(&program, [7].into_iter()) && !are_right(&program, [1, 7, 7].into_iter()));
    }
}
