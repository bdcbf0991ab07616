//! The machine that iofuzz itself runs in.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use guest_fuzz::enumerate::proc_ioports;
use guest_fuzz::instruction::Instruction;
use guest_fuzz::region::RegionMap;
use guest_fuzz::target::dev_port::DevPort;
use guest_fuzz::target::session::Way;
use guest_fuzz::target::{Identity, Progress, Recovery, Target, Value};
use guest_fuzz::verdict::Condition;
use guest_fuzz::{Error, Result};
use tool_support::status::warn;
use tool_support::{Failure, Outcome};

use crate::args::SessionArgs;

/// What the kernel lists of this machine.
const IOPORTS: &str = "/proc/ioports";
/// How many operations are noted, and handed over, at a time.
const BATCH: usize = 256;
/// How long the file of a life may get. What is in front of that was executed long ago.
const MAX_NOTES: u64 = 64 << 20;

/// The machine that this process runs in.
#[derive(Clone, Debug)]
pub(super) struct ThisMachine {
    ways: Vec<Way>,
    is_allowed: bool,
    /// Where what is executed is noted before.
    notes: Option<PathBuf>,
}

impl ThisMachine {
    pub(super) fn of(args: &SessionArgs) -> Self {
        Self { ways: args.ways(), is_allowed: args.fuzz_this_machine, notes: None }
    }

    /// Has what is executed noted in `folder`, before it is.
    pub(super) fn note_in(&mut self, folder: &Path) {
        self.notes = Some(folder.join("operations.txt"));
    }

    /// Whether the user wants what this does.
    pub(super) fn confirmed(&self) -> Outcome {
        if self.is_allowed {
            return Ok(());
        }
        Err(Failure::usage(
            "--transport dev-port writes to the I/O ports of the very machine that it runs on: that can hang it, reset it \
             and destroy what is on its disks. Run it inside a virtual machine that you can lose, and say so with \
             --fuzz-this-machine",
        ))
    }

    pub(super) fn start(&self, prologue: &[Instruction]) -> Result<Box<dyn Target>> {
        let mut ports = DevPort::new(&self.ways);
        ports.set_prologue(prologue);
        ports.start()?;
        match &self.notes {
            None => Ok(Box::new(ports)),
            Some(path) => Ok(Box::new(Noted::new(ports, path)?)),
        }
    }

    /// The ports that the kernel lists, each range once.
    pub(super) fn explore() -> Result<(RegionMap, Identity)> {
        let what = || format!("cannot read {IOPORTS}");
        let text = fs::read(IOPORTS).map_err(|source| Error::Io { what: what(), source })?;
        Ok((map(&text)?, DevPort::new(&[]).identity()))
    }
}

fn map(text: &[u8]) -> Result<RegionMap> {
    let listing = proc_ioports::parse(text)?;
    Ok(RegionMap::from_regions(proc_ioports::by_range(&listing.regions)))
}

/// Ports whose accesses are in a file, which is on the disk, before they are made: when the machine has died, the last of
/// them is in flight, or was executed shortly before.
#[derive(Debug)]
struct Noted<T> {
    target: T,
    path: PathBuf,
    /// `None` where it cannot be written to any more.
    file: Option<File>,
    length: u64,
    /// What is noted and not handed over.
    ahead: usize,
}

impl<T: Target> Noted<T> {
    fn new(target: T, path: &Path) -> Result<Self> {
        let at = |source| Error::Io { what: path.display().to_string(), source };
        let file = File::create(path).map_err(at)?;
        Ok(Self { target, path: path.to_owned(), file: Some(file), length: 0, ahead: 0 })
    }

    fn note(&mut self, instructions: &[Instruction]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        if self.length > MAX_NOTES {
            fs::rename(&self.path, self.path.with_extension("before.txt"))?;
            *file = File::create(&self.path)?;
            self.length = 0;
        }
        let text: String = instructions.iter().map(|instruction| format!("{instruction}\n")).collect();
        file.write_all(text.as_bytes())?;
        self.length += text.len() as u64;
        file.sync_data()
    }
}

impl<T: Target> Target for Noted<T> {
    fn identity(&self) -> Identity {
        self.target.identity()
    }

    fn start(&mut self) -> Result<()> {
        self.target.start()
    }

    fn submit(&mut self, instructions: &[Instruction]) -> Result<usize> {
        let batch = instructions.get(..BATCH.min(instructions.len())).unwrap_or_default();
        // What was refused is offered again, and noted already.
        let new = batch.get(self.ahead..).unwrap_or_default();
        if !new.is_empty()
            && let Err(error) = self.note(new)
        {
            warn(&format!("{}: {error}; goes on without it", self.path.display()));
            self.file = None;
        }
        let taken = self.target.submit(batch)?;
        self.ahead = self.ahead.max(batch.len()) - taken;
        Ok(taken)
    }

    fn progress(&mut self) -> Progress {
        self.target.progress()
    }

    fn wait(&mut self, patience: Duration) -> Progress {
        self.target.wait(patience)
    }

    fn condition(&mut self, patience: Duration) -> Condition {
        self.target.condition(patience)
    }

    fn recover(&mut self, how: Recovery, patience: Duration) -> Result<()> {
        self.target.recover(how, patience)
    }

    fn reset_points(&mut self) -> Vec<u64> {
        self.target.reset_points()
    }

    fn keep_values(&mut self, keep: bool) {
        self.target.keep_values(keep);
    }

    fn values(&mut self) -> Vec<Value> {
        self.target.values()
    }

    fn set_prologue(&mut self, prologue: &[Instruction]) {
        self.target.set_prologue(prologue);
    }

    fn stop(&mut self) {
        self.target.stop();
    }
}

#[cfg(test)]
mod tests {
    use guest_fuzz::program::Program;
    use guest_fuzz::target::sim::{Sim, SimOptions};

    use super::*;

    #[test]
    fn a_list_that_hides_its_ports_says_who_sees_them() {
        let text = b"0000-0000 : PCI Bus 0000:00\n  0000-0000 : dma1\n";
        assert!(map(text).unwrap_err().to_string().contains("to root alone"));
        let map = map(b"0000-0cf7 : bus\n  0000-001f : dma1\n  0000-001f : dma\n").unwrap();
        let names: Vec<&str> = map.regions.iter().map(|region| region.name.as_str()).collect();
        assert_eq!((names, map.prologue.len(), map.ram), (vec!["bus", "dma"], 0, None));
    }

    #[test]
    fn what_is_executed_is_on_the_disk_before_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("operations.txt");
        let mut target = Noted::new(Sim::new(SimOptions::default()), &path).unwrap();
        target.start().unwrap();
        let program: Vec<Instruction> =
            (0..1000).map(|value| format!("outb 0x80 {}", value % 256).parse().unwrap()).collect();
        let mut left = &program[..];
        while !left.is_empty() {
            let taken = target.submit(left).unwrap();
            left = &left[taken..];
            let noted = Program::parse(&fs::read_to_string(&path).unwrap(), "notes").unwrap().instructions;
            assert!(noted.len() >= program.len() - left.len());
            assert_eq!(noted, program[..noted.len()]);
            target.wait(Duration::from_millis(1));
        }
    }
}
