//! [`Qtest`]: QEMU, through its own protocol for tests.
//!
//! No guest is needed. What it reaches is not quite what a guest reaches: accesses are split by alignment, and there is
//! no current processor, so that a finding needs another look on a target that has one. See [`Qtest::artefact`].

mod answer;
mod encode;
mod link;

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::json;

pub use self::answer::{Answer, Answers};
use self::link::{Barrier, Clock, Link};
use super::micro_guest::firmware_file;
use super::qemu::{Qemu, QemuCommand};
use super::{Identity, MAX_KEPT, ProcessorTime, Progress, Recovery, Target, Value};
use crate::error::{Error, Result};
use crate::instruction::Instruction;
use crate::verdict::{Condition, Death, Halt};

/// How a machine is driven.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QtestOptions {
    /// The processors run, and with them timers; they have nothing to do. Else the machine never starts.
    pub running: bool,
}

/// QEMU, through its own protocol for tests.
///
/// `started` of its [`Progress`] is what was handed to QEMU, which is up to 64 KiB of text more than what it executes.
/// After its death the instruction in flight is number `done`: QEMU answers each before it begins the next. A reset
/// that the guest itself caused is seen when QEMU tells, some instructions later; the prologue goes behind these.
#[derive(Debug)]
pub struct Qtest {
    command: QemuCommand,
    options: QtestOptions,
    qemu: Option<Qemu>,
    link: Option<Link<UnixStream>>,
    identity: Identity,
    prologue: Vec<Instruction>,
    keep_values: bool,
    resets: u64,
    reset_points: Vec<u64>,
    halt: Option<Halt>,
    /// Whether a reset of ours was asked for and is not yet seen.
    is_resetting: bool,
    waits_until: Option<Instant>,
    last_look: Instant,
}

/// How often QEMU is asked for events, while there is work.
const LOOK: Duration = Duration::from_millis(1);
/// How long the end of a process is waited for whose connection has ended.
const END: Duration = Duration::from_millis(500);

impl Qtest {
    /// A machine like `command`'s. Nothing is started yet.
    #[must_use]
    pub fn new(command: QemuCommand, options: QtestOptions) -> Self {
        Self {
            command,
            options,
            qemu: None,
            link: None,
            identity: Identity { transport: "qtest".to_owned(), ..Identity::default() },
            prologue: Vec::new(),
            keep_values: false,
            resets: 0,
            reset_points: Vec::new(),
            halt: None,
            is_resetting: false,
            waits_until: None,
            last_look: Instant::now(),
        }
    }

    /// The QEMU that runs.
    pub fn qemu(&mut self) -> Option<&mut Qemu> {
        self.qemu.as_mut()
    }

    /// Why a death by `instruction` may be one that no guest can cause; `None` where nothing is known of that kind.
    ///
    /// ```
    /// use guest_fuzz::instruction::{Instruction, PortWidth};
    /// use guest_fuzz::target::qtest::Qtest;
    /// assert!(Qtest::artefact(&Instruction::In { port: 0x5655, width: PortWidth::Long }).is_some());
    /// assert!(Qtest::artefact(&Instruction::In { port: 0x5659, width: PortWidth::Long }).is_none());
    /// ```
    #[must_use]
    pub fn artefact(instruction: &Instruction) -> Option<&'static str> {
        let (port, width, writes) = match *instruction {
            Instruction::In { port, width } | Instruction::InString { port, width, .. } => {
                (port, width, false)
            }
            Instruction::Out { port, width, .. } | Instruction::OutString { port, width, .. } => {
                (port, width, true)
            }
            _ => return None,
        };
        let touches = |wanted: u32| (u32::from(port)..u32::from(port) + width.bytes()).contains(&wanted);
        if touches(0x5658) {
            return Some("vmport looks at the processor that accesses it, and qtest has none");
        }
        let smi = "a system management interrupt goes to the processor that asks for it, and qtest has none";
        (writes && touches(0xb2)).then_some(smi)
    }

    fn arguments(&self, socket: &UnixStream, firmware: &OwnedFd) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        let command = &self.command;
        let mut add = |words: &[&str]| arguments.extend(words.iter().map(OsString::from));
        if !command.has(&["-accel", "-enable-kvm"]) && machine_accel(command).is_none() {
            add(&["-accel", "tcg"]);
        }
        if !command.has(&["-action", "-no-shutdown", "-no-reboot"]) {
            add(&["-action", "shutdown=pause,panic=pause"]);
        }
        if !self.options.running {
            add(&["-S"]);
        } else if !command.has(&["-bios", "-kernel", "-pflash"]) {
            add(&["-bios", &format!("/proc/self/fd/{}", firmware.as_raw_fd())]);
        }
        add(&["-chardev", &format!("socket,id=iofuzz-qtest,fd={}", socket.as_raw_fd())]);
        add(&["-qtest", "chardev:iofuzz-qtest", "-qtest-log", "none"]);
        arguments
    }

    /// Whether a `clock_step` has an effect: the clock of a machine that runs goes on by itself, and is waited for; that
    /// of another one goes on command, but only with `-accel qtest`, which Debian's QEMU does not have. Elsewhere it
    /// stands, and nothing is sent to QEMU, which would take the command for a fault of the test.
    #[must_use]
    pub fn has_clock(&self) -> bool {
        self.clock() != Clock::Stands
    }

    fn clock(&self) -> Clock {
        let accel = self.command.value_of(&["-accel"]).or_else(|| machine_accel(&self.command));
        match self.options.running {
            _ if accel.unwrap_or_default().split(',').next() == Some("qtest") => Clock::Steps,
            true => Clock::Runs,
            false => Clock::Stands,
        }
    }

    /// Moves what can be moved, without waiting.
    fn pump(&mut self, hurry: bool) {
        if let Some(link) = &mut self.link {
            link.pump(hurry);
        }
        if self.last_look.elapsed() >= LOOK {
            self.look();
        }
    }

    /// Takes note of what QEMU said unasked.
    fn look(&mut self) {
        self.last_look = Instant::now();
        let (Some(qemu), Some(link)) = (&mut self.qemu, &mut self.link) else { return };
        for event in qemu.qmp().events() {
            match event.name.as_str() {
                // One that wakes up is reset, too.
                "RESET" | "WAKEUP" => {
                    // What was answered before is behind the reset; of the rest, nobody knows.
                    link.pump(false);
                    self.resets += 1;
                    self.halt = None;
                    let point = if self.is_resetting { link.started } else { link.done };
                    if self.reset_points.len() < MAX_KEPT {
                        self.reset_points.push(point);
                    }
                    link.queue_prologue(&self.prologue);
                    if std::mem::take(&mut self.is_resetting) {
                        link.pass();
                    }
                    link.pump(false);
                }
                "SHUTDOWN" => {
                    self.halt = Some(Halt::Shutdown);
                    if std::mem::take(&mut self.is_resetting) {
                        link.pass();
                    }
                }
                "SUSPEND" => self.halt = Some(Halt::Suspended),
                "GUEST_PANICKED" => self.halt = Some(Halt::Panicked),
                _ => {}
            }
        }
    }

    /// Does what the link cannot do by itself, if it is time.
    fn see_to_barrier(&mut self, patience: Duration) {
        let (Some(link), Some(qemu)) = (&mut self.link, &mut self.qemu) else { return };
        match link.barrier() {
            Some(Barrier::Reset) if !self.is_resetting => {
                self.is_resetting = true;
                // Where there is no answer, the command was sent all the same: the event will come, or the end.
                let patience = patience.max(Duration::from_millis(1));
                let _ = qemu.qmp().execute("system_reset", &json!({}), patience);
                self.look();
            }
            Some(Barrier::Wait(time)) => {
                let until = *self.waits_until.get_or_insert_with(|| Instant::now() + time);
                if Instant::now() >= until {
                    self.waits_until = None;
                    link.pass();
                    link.pump(false);
                }
            }
            _ => {}
        }
    }

    /// Waits until QEMU says something, a millisecond at most.
    fn doze(&self, left: Duration) {
        let Some(link) = &self.link else { return };
        let mut flags = PollFlags::POLLIN;
        flags.set(PollFlags::POLLOUT, link.has_unwritten());
        let mut files = [PollFd::new(link.stream().as_fd(), flags)];
        let timeout = if left.is_zero() { PollTimeout::ZERO } else { PollTimeout::from(1u8) };
        // Where it fails, one looks again, a little later.
        if poll(&mut files, timeout).is_err() {
            thread::yield_now();
        }
    }

    /// Waits until `is_so`, and goes on with the work meanwhile.
    fn wait_until(&mut self, patience: Duration, is_so: impl Fn(&Self) -> bool) -> bool {
        let begun = Instant::now();
        loop {
            self.pump(false);
            if is_so(self) {
                return true;
            }
            let left = patience.saturating_sub(begun.elapsed());
            if left.is_zero() || self.link.as_ref().is_none_or(Link::is_closed) {
                return false;
            }
            self.doze(left);
        }
    }

    /// Has QEMU do `command`, and waits until the machine is reset by it.
    fn reset_by(&mut self, command: &str, patience: Duration) -> Result<()> {
        let resets = self.resets;
        self.order(command, patience)?;
        if self.wait_until(patience, |target| target.resets > resets) {
            return Ok(());
        }
        Err(Error::NoAnswer { what: command.to_owned() })
    }

    fn order(&mut self, command: &str, patience: Duration) -> Result<()> {
        let Some(qemu) = &mut self.qemu else { return Err(Error::Dead) };
        qemu.qmp().execute(command, &json!({}), patience).map(drop)
    }

    /// QEMU's state. Its answers to instructions are taken meanwhile: it waits where nobody takes them.
    fn status(&mut self, patience: Duration) -> Result<String> {
        let (Some(qemu), Some(link)) = (&mut self.qemu, &mut self.link) else { return Err(Error::Dead) };
        thread::scope(|scope| {
            let asked = scope.spawn(|| qemu.qmp().status(patience));
            while !asked.is_finished() {
                link.pump(false);
                thread::sleep(Duration::from_micros(50));
            }
            asked.join().unwrap_or(Err(Error::Dead))
        })
    }

    /// How QEMU ended, all that it said before being taken.
    fn death(&mut self, patience: Duration) -> Option<Death> {
        let death = self.qemu.as_mut()?.wait_for_death(patience)?;
        self.pump(false);
        Some(death)
    }
}

/// The accelerator that is a property of the machine: `-M pc,accel=NAME`.
fn machine_accel(command: &QemuCommand) -> Option<String> {
    let machine = command.value_of(&["-M", "-machine"])?;
    machine.split(',').find_map(|property| property.strip_prefix("accel=").map(str::to_owned))
}

impl Target for Qtest {
    fn identity(&self) -> Identity {
        self.identity.clone()
    }

    fn start(&mut self) -> Result<()> {
        self.stop();
        self.resets = 0;
        self.reset_points.clear();
        self.halt = None;
        self.is_resetting = false;
        self.waits_until = None;
        let what = "cannot make QEMU's qtest connection";
        let (ours, theirs) = UnixStream::pair().map_err(Error::io(what))?;
        let ours = link::nonblocking(ours).map_err(Error::io(what))?;
        let firmware = firmware_file()?;
        let arguments = self.arguments(&theirs, &firmware);
        let mut qemu = Qemu::spawn(&self.command, &arguments, vec![theirs.into(), firmware])?;
        self.identity.command = qemu.command().to_vec();
        self.identity.arguments = self.command.words();
        self.identity.version = qemu.qmp().version().to_owned();
        // A running machine may have told of itself already.
        drop(qemu.qmp().events());
        let mut link = Link::new(ours, self.clock());
        link.keep_values = self.keep_values;
        link.queue_prologue(&self.prologue);
        link.ping();
        self.qemu = Some(qemu);
        self.link = Some(link);
        let answers = |target: &Self| target.link.as_ref().is_some_and(|link| link.pongs > 0);
        if self.wait_until(Duration::from_secs(10), answers) {
            return Ok(());
        }
        let death = self.death(END);
        let why = death.map_or_else(|| "no answer on qtest".to_owned(), |death| death.stderr);
        Err(Error::Start { what: self.command.program.display().to_string(), why: why.trim().to_owned() })
    }

    fn submit(&mut self, instructions: &[Instruction]) -> Result<usize> {
        let Some(link) = &mut self.link else { return Err(Error::Dead) };
        if link.is_closed() {
            return Err(Error::Dead);
        }
        let count = link.queue(instructions);
        self.pump(false);
        Ok(count)
    }

    fn progress(&mut self) -> Progress {
        self.pump(false);
        let progress = self.link.as_ref().map(Link::progress).unwrap_or_default();
        Progress { resets: self.resets, ..progress }
    }

    fn wait(&mut self, patience: Duration) -> Progress {
        let before = self.progress();
        let begun = Instant::now();
        loop {
            let left = patience.saturating_sub(begun.elapsed());
            self.pump(true);
            self.see_to_barrier(left);
            let now = self.progress();
            let moved = (now.done, now.resets) != (before.done, before.resets);
            let over = self.link.as_ref().is_none_or(|link| link.is_idle() || link.is_closed());
            if moved || over || left.is_zero() {
                return now;
            }
            self.doze(left);
        }
    }

    fn condition(&mut self, patience: Duration) -> Condition {
        let begun = Instant::now();
        self.pump(false);
        let status = match self.status(patience) {
            Ok(status) => status,
            Err(_) => {
                let death = self.death(END.min(patience));
                return death.map_or(Condition::VmmSilent, Condition::Dead);
            }
        };
        self.look();
        let halt = self.halt.or(match status.as_str() {
            "prelaunch" | "paused" if !self.options.running => None,
            status => Halt::of_status(status),
        });
        if let Some(halt) = halt {
            return Condition::Halted(halt);
        }
        let Some(link) = &mut self.link else { return Condition::GuestSilent };
        let (done, pongs) = (link.done, link.pongs);
        link.ping();
        let left = patience.saturating_sub(begun.elapsed()).max(Duration::from_millis(20));
        let moves =
            |target: &Self| target.link.as_ref().is_some_and(|link| link.done != done || link.pongs != pongs);
        if self.wait_until(left, moves) {
            return Condition::Responsive;
        }
        let closed = self.link.as_ref().is_none_or(Link::is_closed);
        let death = self.death(if closed { END } else { Duration::ZERO });
        death.map_or(Condition::GuestSilent, Condition::Dead)
    }

    fn processor_time(&mut self) -> Option<ProcessorTime> {
        self.qemu.as_ref()?.processor_time()
    }

    fn recover(&mut self, how: Recovery, patience: Duration) -> Result<()> {
        if how == Recovery::Login {
            let why = "a machine without a guest has no users".to_owned();
            return Err(Error::Unsupported { what: "a login".to_owned(), why });
        }
        let status = self.status(patience)?;
        self.look();
        if status == "suspended" {
            self.reset_by("system_wakeup", patience)?;
        }
        if !self.options.running {
            // Waking up has made it run.
            self.order("stop", patience)?;
        }
        if status != "suspended" || !self.options.running {
            self.reset_by("system_reset", patience)?;
        }
        self.halt = None;
        if self.options.running {
            self.order("cont", patience)?;
        }
        Ok(())
    }

    fn reset_points(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.reset_points)
    }

    fn keep_values(&mut self, keep: bool) {
        self.keep_values = keep;
        if let Some(link) = &mut self.link {
            link.keep_values = keep;
        }
    }

    fn values(&mut self) -> Vec<Value> {
        self.pump(false);
        self.link.as_mut().map(|link| std::mem::take(&mut link.values)).unwrap_or_default()
    }

    fn set_prologue(&mut self, prologue: &[Instruction]) {
        self.prologue = prologue.to_vec();
    }

    fn stop(&mut self) {
        self.qemu = None;
        self.link = None;
    }
}
