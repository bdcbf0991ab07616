//! [`DevPort`]: the machine that this very process runs in.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::session::Way;
use super::session::slot::{Abilities, Kind, Slot, slots_of};
use super::{Identity, MAX_KEPT, Progress, Recovery, Target, Value};
use crate::error::{Error, Result};
use crate::instruction::{Instruction, PortWidth};
#[cfg(target_arch = "x86_64")]
use crate::port_io::AllPorts;
use crate::verdict::Condition;

/// How many batches of instructions may wait.
const WAITING: usize = 4;
/// How many instructions are handed over at a time at most.
const BATCH: usize = 4096;

/// The machine that this process runs in, as root: the process itself reads and writes the ports.
///
/// It cannot be brought back, or started anew: whoever looks after it does that from outside. What a process cannot do has
/// no effect: memory accesses, string instructions, resets. Without `iopl` there is /dev/port, which has bytes only.
#[derive(Debug)]
pub struct DevPort {
    ways: Vec<Way>,
    worker: Option<Worker>,
    prologue: Vec<Instruction>,
    keep_values: bool,
    without_effect: u64,
}

impl DevPort {
    /// Accesses by the first of `ways` that is open; [`Way::Dd`] never is. Nothing is opened yet.
    #[must_use]
    pub fn new(ways: &[Way]) -> Self {
        Self {
            ways: ways.to_vec(),
            worker: None,
            prologue: Vec::new(),
            keep_values: false,
            without_effect: 0,
        }
    }

    /// The way to the ports that is in use.
    #[must_use]
    pub fn way(&self) -> Option<Way> {
        self.worker.as_ref().map(|worker| worker.way)
    }

    /// How many instructions since the start had no effect.
    #[must_use]
    pub fn without_effect(&self) -> u64 {
        self.without_effect
    }

    fn abilities(&self) -> Abilities {
        Abilities { words: self.way() == Some(Way::Iopl), time: true, reset: false }
    }

    fn slots(&mut self, instructions: &[Instruction]) -> Vec<Slot> {
        let can = self.abilities();
        let mut slots = Vec::with_capacity(instructions.len());
        for instruction in instructions {
            let (of_one, has_effect) = slots_of(instruction, can);
            slots.extend(of_one.into_iter().flatten());
            self.without_effect += u64::from(!has_effect);
        }
        slots
    }
}

/// The thread that executes: it alone may stop for good at a port.
#[derive(Debug)]
struct Worker {
    way: Way,
    batches: SyncSender<Vec<Slot>>,
    values: Receiver<Value>,
    shared: Arc<Shared>,
    submitted: u64,
}

#[derive(Debug, Default)]
struct Shared {
    started: AtomicU64,
    done: AtomicU64,
    keep_values: AtomicBool,
    /// How many values nobody has fetched.
    kept: AtomicUsize,
}

impl Worker {
    fn start(ways: Vec<Way>) -> Result<Self> {
        let (batches, orders) = sync_channel(WAITING);
        let (sender, values) = channel();
        let (ready, opened) = channel();
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        // The right to use ports is a thread's own.
        thread::spawn(move || match Ports::open(&ways) {
            Ok(ports) => {
                let _ = ready.send(Ok(ports.way()));
                orders.iter().for_each(|slots: Vec<Slot>| theirs.execute(&ports, &slots, &sender));
            }
            Err(error) => drop(ready.send(Err(error))),
        });
        let way = opened.recv().map_err(|_| Error::Dead)??;
        Ok(Self { way, batches, values, shared, submitted: 0 })
    }

    fn progress(&self) -> Progress {
        // In this order, none is done that was not started.
        let done = self.shared.done.load(Ordering::Acquire);
        Progress { started: self.shared.started.load(Ordering::Acquire), done, resets: 0 }
    }

    fn is_idle(&self) -> bool {
        self.progress().done >= self.submitted
    }
}

impl Shared {
    fn execute(&self, ports: &Ports, slots: &[Slot], values: &Sender<Value>) {
        for slot in slots {
            if slot.first {
                self.started.fetch_add(1, Ordering::Release);
            }
            let value = ports.execute(*slot);
            let keeps = self.keep_values.load(Ordering::Relaxed);
            if slot.kind.reads() && keeps && self.kept.load(Ordering::Relaxed) < MAX_KEPT {
                self.kept.fetch_add(1, Ordering::Relaxed);
                let index = self.done.load(Ordering::Relaxed);
                // Nobody listens any more where the target was stopped.
                let _ = values.send(Value { index, value: u64::from(value) });
            }
            if slot.last {
                self.done.fetch_add(1, Ordering::Release);
            }
        }
    }
}

/// A way to the ports that is open.
#[derive(Debug)]
enum Ports {
    #[cfg(target_arch = "x86_64")]
    All(AllPorts),
    File(File),
}

impl Ports {
    fn open(ways: &[Way]) -> Result<Self> {
        let mut why = Vec::new();
        for way in ways {
            match way {
                #[cfg(target_arch = "x86_64")]
                Way::Iopl => match AllPorts::open() {
                    Ok(ports) => return Ok(Self::All(ports)),
                    Err(error) => why.push(format!("iopl: {error}")),
                },
                Way::DevPort => match File::options().read(true).write(true).open("/dev/port") {
                    Ok(file) => return Ok(Self::File(file)),
                    Err(error) => why.push(format!("/dev/port: {error}")),
                },
                _ => {}
            }
        }
        Err(Error::Unsupported { what: "port accesses by this process".to_owned(), why: why.join("; ") })
    }

    fn way(&self) -> Way {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::All(_) => Way::Iopl,
            Self::File(_) => Way::DevPort,
        }
    }

    fn execute(&self, slot: Slot) -> u32 {
        let (width, is_write) = match slot.kind {
            Kind::InByte => (PortWidth::Byte, false),
            Kind::InWord => (PortWidth::Word, false),
            Kind::InLong => (PortWidth::Long, false),
            Kind::OutByte => (PortWidth::Byte, true),
            Kind::OutWord => (PortWidth::Word, true),
            Kind::OutLong => (PortWidth::Long, true),
            Kind::Delay => {
                (0..slot.value).for_each(|_| drop(self.read(0x80, PortWidth::Byte)));
                return 0;
            }
            Kind::Sleep => {
                thread::sleep(Duration::from_micros(u64::from(slot.value)));
                return 0;
            }
            Kind::Nothing | Kind::Reset => return 0,
        };
        if is_write {
            // What a port refuses is the machine's business.
            let _ = self.write(slot.port, width, slot.value);
            return 0;
        }
        self.read(slot.port, width).unwrap_or(0)
    }

    fn read(&self, port: u16, width: PortWidth) -> io::Result<u32> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::All(ports) => Ok(ports.read(port, width)),
            Self::File(file) => {
                let _ = width;
                let mut byte = [0];
                file.read_exact_at(&mut byte, u64::from(port))?;
                Ok(u32::from(u8::from_le_bytes(byte)))
            }
        }
    }

    fn write(&self, port: u16, width: PortWidth, value: u32) -> io::Result<()> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::All(ports) => {
                ports.write(port, width, value);
                Ok(())
            }
            Self::File(file) => {
                let _ = width;
                file.write_all_at(&[value as u8], u64::from(port))
            }
        }
    }
}

impl Target for DevPort {
    fn identity(&self) -> Identity {
        Identity { transport: "dev-port".to_owned(), ..Identity::default() }
    }

    fn start(&mut self) -> Result<()> {
        self.stop();
        self.without_effect = 0;
        self.worker = Some(Worker::start(self.ways.clone())?);
        let prologue = std::mem::take(&mut self.prologue);
        self.submit(&prologue)?;
        while self.worker.as_ref().is_some_and(|worker| !worker.is_idle()) {
            thread::sleep(Duration::from_millis(1));
        }
        self.prologue = prologue;
        self.without_effect = 0;
        if let Some(worker) = &mut self.worker {
            worker.submitted = 0;
            worker.shared.started.store(0, Ordering::Release);
            worker.shared.done.store(0, Ordering::Release);
            worker.shared.keep_values.store(self.keep_values, Ordering::Relaxed);
        }
        Ok(())
    }

    fn submit(&mut self, instructions: &[Instruction]) -> Result<usize> {
        let before = self.without_effect;
        let batch = instructions.get(..BATCH.min(instructions.len())).unwrap_or_default();
        let slots = self.slots(batch);
        let worker = self.worker.as_mut().ok_or(Error::Dead)?;
        if worker.batches.try_send(slots).is_err() {
            self.without_effect = before;
            return Ok(0);
        }
        worker.submitted += batch.len() as u64;
        Ok(batch.len())
    }

    fn progress(&mut self) -> Progress {
        self.worker.as_ref().map_or_else(Progress::default, Worker::progress)
    }

    fn wait(&mut self, patience: Duration) -> Progress {
        let deadline = Instant::now() + patience;
        let before = self.progress().done;
        loop {
            let progress = self.progress();
            let idle = self.worker.as_ref().is_none_or(Worker::is_idle);
            if progress.done != before || idle || Instant::now() >= deadline {
                return progress;
            }
            thread::sleep(Duration::from_micros(100));
        }
    }

    fn condition(&mut self, patience: Duration) -> Condition {
        let before = self.progress().done;
        let after = self.wait(patience).done;
        // Who asks runs in the machine: it is not dead.
        match self.worker.as_ref().is_some_and(|worker| after != before || worker.is_idle()) {
            true => Condition::Responsive,
            false => Condition::GuestSilent,
        }
    }

    fn recover(&mut self, _how: Recovery, _patience: Duration) -> Result<()> {
        let what = "bringing back the machine that this process runs in".to_owned();
        Err(Error::Unsupported { what, why: "that is done from outside".to_owned() })
    }

    fn reset_points(&mut self) -> Vec<u64> {
        Vec::new()
    }

    fn keep_values(&mut self, keep: bool) {
        self.keep_values = keep;
        if let Some(worker) = &self.worker {
            worker.shared.keep_values.store(keep, Ordering::Relaxed);
        }
    }

    fn values(&mut self) -> Vec<Value> {
        let Some(worker) = &self.worker else { return Vec::new() };
        let values: Vec<Value> = worker.values.try_iter().collect();
        worker.shared.kept.fetch_sub(values.len(), Ordering::Relaxed);
        values
    }

    fn set_prologue(&mut self, prologue: &[Instruction]) {
        self.prologue = prologue.to_vec();
    }

    fn stop(&mut self) {
        self.worker = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ports that are a file: what a test may do to the machine it runs on.
    fn worker_on(path: &std::path::Path) -> Ports {
        Ports::File(File::options().read(true).write(true).open(path).unwrap())
    }

    #[test]
    fn bytes_go_to_the_port_that_was_asked_for() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(0x1_0000).unwrap();
        let ports = worker_on(file.path());
        let slot = |kind, port, value| Slot { port, kind, value, first: true, last: true };
        let (sender, values) = channel();
        let shared = Shared { keep_values: true.into(), ..Shared::default() };
        let slots =
            [slot(Kind::OutByte, 0xffff, 0x1a5), slot(Kind::InByte, 0xffff, 0), slot(Kind::InByte, 0x3f8, 0)];
        shared.execute(&ports, &slots, &sender);
        let values: Vec<Value> = values.try_iter().collect();
        assert_eq!(values, [Value { index: 1, value: 0xa5 }, Value { index: 2, value: 0 }]);
        assert_eq!((shared.started.into_inner(), shared.done.into_inner()), (3, 3));
        assert_eq!(std::fs::read(file.path()).unwrap()[0xffff], 0xa5);
    }

    #[test]
    fn no_way_is_an_error_that_says_so() {
        let error = DevPort::new(&[Way::Dd]).start().unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        assert!(matches!(DevPort::new(&[]).submit(&[]), Err(Error::Dead)));
    }
}
