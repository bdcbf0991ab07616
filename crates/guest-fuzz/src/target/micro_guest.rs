//! [`MicroGuest`]: QEMU with our own firmware, which executes instructions out of a queue in guest memory.
//!
//! The memory is shared with us. Instructions go in and values come out without a system call, and the guest's counters
//! are there when QEMU is not: the instruction in flight is known exactly.

#[expect(dead_code, reason = "half of it is the firmware's")]
mod layout;
mod shared;
mod slot;
mod survey;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use serde_json::json;

use self::shared::Shared;
use super::qemu::{Qemu, QemuCommand};
use super::qmp::Event;
use super::{Identity, ProcessorTime, Progress, Recovery, Target, Value};
use crate::error::{Error, Result};
use crate::instruction::{Instruction, MAX_BLOCK};
use crate::verdict::{Condition, Halt};

/// The program of `build/firmware.rs`.
const FIRMWARE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/firmware.bin"));
/// How long a guest may take from QEMU's first answer to its main loop.
const BOOT: Duration = Duration::from_secs(10);

/// With that many instructions in flight a guest is busy for some time.
const BUSY: u64 = (layout::SLOTS - layout::SLOTS / 8) as u64;
/// How soon a guest is looked at that has little to do; then after twice that, and so on up to [`NAP`].
const FIRST_LOOK: Duration = Duration::from_nanos(200);
/// How often a guest is looked at that takes longer.
const NAP: Duration = Duration::from_micros(50);

/// A machine that executes millions of instructions a second, and is ready in a few hundredths of a second.
///
/// What its processor cannot do has no effect: memory above 4 GiB, and accesses of eight bytes on a 486. A burst is one
/// instruction after the other, as a processor is no faster.
#[derive(Debug)]
pub struct MicroGuest {
    command: QemuCommand,
    shared: Shared,
    firmware: OwnedFd,
    qemu: Option<Qemu>,
    identity: Identity,
    prologue: Vec<Instruction>,
    counters: Counters,
    /// Block writes that may not have been executed, by number.
    blocks: VecDeque<u64>,
    arena_next: u32,
    keep_values: bool,
    /// The instructions that read, in flight or not fetched: number, and bits of the value.
    reads: VecDeque<(u64, u64)>,
    reset_points: Vec<u64>,
    events: Vec<Event>,
}

/// What is known of the queue. The guest counts modulo 2^32, we do not.
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    submitted: u64,
    progress: Progress,
    /// The guest's own counters made no sense: something wrote over them.
    overwritten: bool,
}

impl MicroGuest {
    /// A machine like `command`'s. Nothing is started yet.
    ///
    /// # Errors
    /// Where the system has no memory for it.
    pub fn new(command: QemuCommand) -> Result<Self> {
        let firmware = firmware_file()?;
        Ok(Self {
            command,
            shared: Shared::new()?,
            firmware,
            qemu: None,
            identity: Identity { transport: "micro".to_owned(), ..Identity::default() },
            prologue: Vec::new(),
            counters: Counters::default(),
            blocks: VecDeque::new(),
            arena_next: 0,
            keep_values: false,
            reads: VecDeque::new(),
            reset_points: Vec::new(),
            events: Vec::new(),
        })
    }

    /// The QEMU that runs.
    pub fn qemu(&mut self) -> Option<&mut Qemu> {
        self.qemu.as_mut()
    }

    /// Guest memory that instructions may write to and devices read from: address and length.
    #[must_use]
    pub fn playground() -> (u64, u64) {
        (layout::PLAYGROUND, layout::PLAYGROUND_BYTES)
    }

    /// What QEMU said unasked since this was last asked.
    pub fn events(&mut self) -> Vec<Event> {
        if let Some(qemu) = &mut self.qemu {
            self.events.extend(qemu.qmp().events());
        }
        std::mem::take(&mut self.events)
    }

    fn arguments(&self, memory: &OwnedFd, firmware: &OwnedFd) -> Vec<OsString> {
        let size = layout::RAM_BYTES;
        let backend = format!(
            "memory-backend-file,id=iofuzz-ram,share=on,size={size},mem-path=/proc/self/fd/{}",
            memory.as_raw_fd()
        );
        let firmware = format!("/proc/self/fd/{}", firmware.as_raw_fd());
        let mebibytes = (size >> 20).to_string();
        let fixed = [
            "-object",
            &backend,
            "-machine",
            "memory-backend=iofuzz-ram",
            "-m",
            &mebibytes,
            "-bios",
            &firmware,
        ];
        let mut arguments: Vec<OsString> = fixed.map(OsString::from).to_vec();
        if !self.command.has(&["-accel", "-enable-kvm"]) {
            arguments.extend(["-accel", "tcg"].map(OsString::from));
        }
        if !self.command.has(&["-action", "-no-shutdown", "-no-reboot"]) {
            arguments.extend(["-action", "shutdown=pause,panic=pause"].map(OsString::from));
        }
        arguments
    }

    /// Brings the guest's counters and prologue into the state that we know, while the guest does not run.
    fn write_control(&mut self) {
        let Counters { submitted, progress, .. } = self.counters;
        let shared = &self.shared;
        for (at, slot) in (0..layout::PROLOGUE_SLOTS).zip(self.prologue.iter().map(|i| slot::slot(i, |_| 0)))
        {
            shared.write(layout::PROLOGUE_SLOTS_AT + (at << layout::SLOT_SHIFT), &slot);
        }
        let count = (self.prologue.len() as u32).min(layout::PROLOGUE_SLOTS - 1);
        shared.store(layout::PROLOGUE + layout::PRODUCED, count);
        shared.store(layout::QUEUE + layout::PRODUCED, submitted as u32);
        shared.store(layout::QUEUE + layout::STARTED, progress.started as u32);
        shared.store(layout::QUEUE + layout::DONE, progress.started as u32);
        shared.store(layout::BOOTS, progress.resets as u32);
    }

    /// Waits until the guest is in its main loop, after boot number `boot`.
    fn wait_for_boot(&mut self, boot: u32, patience: Duration) -> Result<()> {
        let begun = Instant::now();
        loop {
            let ready = self.shared.load(layout::READY);
            if ready.wrapping_sub(boot) < u32::MAX / 2 {
                return Ok(());
            }
            if self.qemu.as_mut().is_none_or(|qemu| qemu.death().is_some()) {
                return Err(Error::Dead);
            }
            if begun.elapsed() > patience {
                return Err(Error::NoAnswer { what: "the guest's firmware".to_owned() });
            }
            thread::sleep(Duration::from_micros(200));
        }
    }

    fn room(&self) -> u64 {
        let kept = self.reads.front().map_or(self.counters.progress.done, |&(first, _)| first);
        let oldest = kept.min(self.counters.progress.done);
        u64::from(layout::SLOTS).saturating_sub(self.counters.submitted - oldest)
    }

    /// Where the guest finds `bytes`; `None` where there is no room until those before are done.
    fn reserve(&mut self, bytes: &[u8]) -> Option<u32> {
        let done = self.counters.progress.done;
        while self.blocks.front().is_some_and(|&index| index < done) {
            self.blocks.pop_front();
        }
        let length = u32::try_from(bytes.len()).ok()?;
        if self.blocks.is_empty() {
            self.arena_next = 0;
        }
        let place = self.arena_next;
        if length > layout::ARENA_BYTES - place {
            return None;
        }
        self.arena_next = place + length;
        self.blocks.push_back(self.counters.submitted);
        let address = layout::ARENA + place;
        self.shared.write(address, bytes);
        Some(address)
    }

    /// How far the guest is, by its counters, if they can be believed.
    fn update(&mut self) -> Progress {
        let boots = self.shared.load(layout::BOOTS);
        let done = self.shared.load(layout::QUEUE + layout::DONE);
        let started = self.shared.load(layout::QUEUE + layout::STARTED);
        let counters = &mut self.counters;
        let known = counters.progress;
        // Read after `done`, and so never behind it.
        let new_started = known.done + u64::from(started.wrapping_sub(known.done as u32));
        // They are not read at the same time: there may be a queue's length in between, and one behind.
        let lag = started.wrapping_sub(done);
        let new_done = new_started.saturating_sub(lag.min(1).into());
        let resets = known.resets + u64::from(boots.wrapping_sub(known.resets as u32));
        let sane = new_started <= counters.submitted
            && new_done >= known.done
            && lag <= 2 * layout::SLOTS
            && resets - known.resets <= MAX_NEW_RESETS;
        if !sane || counters.overwritten {
            counters.overwritten = true;
            return counters.progress;
        }
        counters.progress = Progress { started: new_started, done: new_done, resets };
        if resets > known.resets {
            self.read_boot_log(known, resets);
        }
        self.counters.progress
    }

    /// Of the boots `known.resets..resets`, as many as the guest's log has.
    fn read_boot_log(&mut self, known: Progress, resets: u64) {
        let logged = resets.saturating_sub(u64::from(layout::BOOT_LOG_ENTRIES));
        for boot in known.resets.max(logged).max(FIRST_BOOT)..resets {
            let at = (boot as u32 & (layout::BOOT_LOG_ENTRIES - 1)) * 4;
            let started = self.shared.load(layout::BOOT_LOG + at);
            let point = known.done + u64::from(started.wrapping_sub(known.done as u32));
            if point <= self.counters.submitted && self.reset_points.len() < MAX_RESET_POINTS {
                self.reset_points.push(point);
            }
        }
    }
}

/// How many reset points are kept that nobody fetched.
const MAX_RESET_POINTS: usize = 1 << 20;
/// More resets than that, since this was last looked at, are none: the counter was overwritten.
const MAX_NEW_RESETS: u64 = 1 << 20;
/// How many boots are no resets: the first one.
const FIRST_BOOT: u64 = 1;

impl Target for MicroGuest {
    fn identity(&self) -> Identity {
        self.identity.clone()
    }

    fn start(&mut self) -> Result<()> {
        self.stop();
        // The memory of the machine before is no fresh one's.
        self.shared = Shared::new()?;
        self.counters = Counters::default();
        self.blocks.clear();
        self.reads.clear();
        self.reset_points.clear();
        self.events.clear();
        self.arena_next = 0;
        self.shared.store(layout::READY, 0);
        self.write_control();
        let what = "cannot hand the guest's memory over";
        let memory = self.shared.file().map_err(Error::io(what))?;
        let firmware = self.firmware.try_clone().map_err(Error::io(what))?;
        let arguments = self.arguments(&memory, &firmware);
        let mut qemu = Qemu::spawn(&self.command, &arguments, vec![memory, firmware])?;
        self.identity.command = qemu.command().to_vec();
        self.identity.arguments = self.command.words();
        self.identity.version = qemu.qmp().version().to_owned();
        self.qemu = Some(qemu);
        self.wait_for_boot(1, BOOT).map_err(|error| Error::Start {
            what: "the micro guest".to_owned(),
            why: match self.qemu.as_mut().and_then(Qemu::death) {
                Some(death) => format!("QEMU ended: {}", death.stderr.trim()),
                None => format!("{error}; does this machine take -bios?"),
            },
        })?;
        self.counters.progress.resets = FIRST_BOOT;
        Ok(())
    }

    fn submit(&mut self, instructions: &[Instruction]) -> Result<usize> {
        let Some(_) = self.qemu else { return Err(Error::Dead) };
        self.update();
        let room = usize::try_from(self.room()).unwrap_or(usize::MAX);
        let mut count = 0;
        for instruction in instructions.iter().take(room) {
            let mut place = None;
            if let Instruction::WriteBlock { bytes, .. } = instruction {
                // What is longer than an instruction may be is cut, for it would never fit.
                place = self.reserve(bytes.get(..MAX_BLOCK).unwrap_or(bytes));
                if place.is_none() {
                    break;
                }
            }
            let slot = slot::slot(instruction, |_| place.unwrap_or(0));
            let at = (self.counters.submitted as u32 & (layout::SLOTS - 1)) << layout::SLOT_SHIFT;
            self.shared.write(layout::SLOTS_AT + at, &slot);
            if self.keep_values
                && let Some(bits) = instruction.value_bits()
            {
                self.reads.push_back((self.counters.submitted, bits));
            }
            self.counters.submitted += 1;
            count += 1;
        }
        self.shared.store(layout::QUEUE + layout::PRODUCED, self.counters.submitted as u32);
        Ok(count)
    }

    fn progress(&mut self) -> Progress {
        let progress = self.update();
        Progress { resets: progress.resets.saturating_sub(FIRST_BOOT), ..progress }
    }

    fn wait(&mut self, patience: Duration) -> Progress {
        let before = self.progress();
        let begun = Instant::now();
        if before.done + BUSY <= self.counters.submitted {
            // It is not about to run out of work, and each look at its counters holds it up.
            thread::sleep(NAP.min(patience));
        }
        let mut pause = FIRST_LOOK;
        loop {
            let now = self.progress();
            let moved = (now.done, now.resets) != (before.done, before.resets);
            if moved || now.done == self.counters.submitted || begun.elapsed() >= patience {
                return now;
            }
            if pause < NAP {
                spin(pause);
                pause *= 2;
            } else {
                // Not a yield: that gives a busy processor away for much longer.
                thread::sleep(NAP);
            }
        }
    }

    fn condition(&mut self, patience: Duration) -> Condition {
        let deadline = Instant::now() + patience;
        let before = self.progress();
        let shared = &self.shared;
        let ping = shared.load(layout::PING).wrapping_add(1);
        shared.store(layout::PING, ping);
        let Some(qemu) = &mut self.qemu else { return Condition::GuestSilent };
        let status = match qemu.qmp().status(patience) {
            Ok(status) => status,
            Err(_) => {
                // A process that dies closes its connection before its end can be seen.
                return qemu
                    .wait_for_death(Duration::from_millis(500).min(patience))
                    .map_or(Condition::VmmSilent, Condition::Dead);
            }
        };
        if let Some(halt) = Halt::of_status(&status) {
            return Condition::Halted(halt);
        }
        // It may even answer; what it says of its progress is worth nothing.
        if self.counters.overwritten {
            return Condition::Overwritten;
        }
        loop {
            if self.shared.load(layout::PONG) == ping || self.progress().done != before.done {
                return Condition::Responsive;
            }
            if let Some(death) = self.qemu.as_mut().and_then(Qemu::death) {
                return Condition::Dead(death);
            }
            if Instant::now() >= deadline {
                break;
            }
            thread::sleep(Duration::from_micros(500));
        }
        let code = self.shared.read(layout::CODE, layout::PROGRAM_BYTES);
        let intact = code.iter().zip(FIRMWARE).all(|(now, was)| now == was);
        if intact && !self.counters.overwritten { Condition::GuestSilent } else { Condition::Overwritten }
    }

    fn processor_time(&mut self) -> Option<ProcessorTime> {
        self.qemu.as_ref()?.processor_time()
    }

    fn recover(&mut self, how: Recovery, patience: Duration) -> Result<()> {
        let unsupported = || Error::Unsupported {
            what: "a login".to_owned(),
            why: "the micro guest has no users".to_owned(),
        };
        if how == Recovery::Login {
            return Err(unsupported());
        }
        let boot = self.shared.load(layout::BOOTS).wrapping_add(1);
        let Some(qemu) = &mut self.qemu else { return Err(Error::Dead) };
        let status = qemu.qmp().status(patience)?;
        // A guest that sleeps takes no reset: it is woken, which is one.
        if status == "suspended" {
            qemu.qmp().execute("system_wakeup", &json!({}), patience)?;
            return self.wait_for_boot(boot, patience);
        }
        qemu.qmp().execute("stop", &json!({}), patience)?;
        // Counters and prologue may be overwritten, with nothing odd about them.
        self.update();
        self.write_control();
        self.counters.overwritten = false;
        let boot = self.shared.load(layout::BOOTS).wrapping_add(1);
        let Some(qemu) = &mut self.qemu else { return Err(Error::Dead) };
        qemu.qmp().execute("system_reset", &json!({}), patience)?;
        qemu.qmp().execute("cont", &json!({}), patience)?;
        self.wait_for_boot(boot, patience)
    }

    fn reset_points(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.reset_points)
    }

    fn keep_values(&mut self, keep: bool) {
        self.keep_values = keep;
        self.reads.clear();
    }

    fn values(&mut self) -> Vec<Value> {
        let done = self.update().done;
        let mut values = Vec::new();
        while let Some(&(index, bits)) = self.reads.front().filter(|&&(index, _)| index < done) {
            self.reads.pop_front();
            let at = (index as u32 & (layout::SLOTS - 1)) << layout::SLOT_SHIFT;
            let slot = layout::SLOTS_AT + at;
            let low = u64::from(self.shared.load(slot + layout::SLOT_B));
            let high = u64::from(self.shared.load(slot + layout::SLOT_C));
            values.push(Value { index, value: (high << 32 | low) & bits });
        }
        values
    }

    fn set_prologue(&mut self, prologue: &[Instruction]) {
        self.prologue = prologue.to_vec();
    }

    fn stop(&mut self) {
        self.qemu = None;
    }
}

/// Waits for less than a sleep takes.
fn spin(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// The firmware as a file that has no name, for QEMU to inherit.
pub(super) fn firmware_file() -> Result<OwnedFd> {
    let what = "cannot make the firmware's file";
    let firmware =
        memfd_create(c"iofuzz-firmware", MFdFlags::MFD_CLOEXEC).map_err(|e| Error::io(what)(e.into()))?;
    let copy = firmware.try_clone().map_err(Error::io(what))?;
    File::from(copy).write_all(FIRMWARE).map_err(Error::io(what))?;
    Ok(firmware)
}
