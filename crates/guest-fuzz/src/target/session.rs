//! [`Session`]: a real Linux guest, as the seed had it: logged in to, and told which ports to read and write.
//!
//! A small program goes to the guest and executes accesses there: 1,700 bytes, which need nothing but the kernel. In a
//! machine that we start it takes them from memory that both sides share; elsewhere they go through the terminal, as lines.
//! Where the program cannot run, the seed's `dd` is left.

mod boot;
mod executor;
mod launch;
pub(crate) mod layout;
mod login;
mod machine;
mod options;
mod ring;
mod shell;
pub(crate) mod slot;
mod ssh;
mod symbols;
mod wire;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use self::boot::Boot;
use self::executor::Executor;
use self::machine::{Connection, Machine, Started};
pub use self::options::{Guest, Line, SessionOptions, Way};
use self::ring::Ring;
use self::shell::Shell;
use self::slot::{Abilities, Kind, Slot, slots_of};
pub use self::ssh::Ssh;
use super::{Identity, MAX_KEPT, Progress, Recovery, Target, Value};
use crate::error::{Error, Result};
use crate::instruction::Instruction;
use crate::verdict::{Condition, Death};

/// How many slots may wait for the guest.
const PENDING: usize = 16 << 10;
/// How long one look at what a guest prints takes at most, where others are waiting.
const LOOK: Duration = Duration::from_millis(1);
/// How long the prologue may take, and an answer that is always there.
const SOON: Duration = Duration::from_secs(5);

/// A Linux guest that executes what it is told through a login.
///
/// What a program without rights to memory cannot do has no effect: memory accesses, string instructions. A burst is one
/// instruction after the other. With [`Way::DevPort`] and [`Way::Dd`] only accesses of one byte have an effect.
///
/// What is in flight is one instruction where memory is shared, and all that went in one line where it is not: then
/// `started` is up to 300 (serial port) or 3,000 (ssh) ahead of `done`.
#[derive(Debug)]
pub struct Session {
    options: SessionOptions,
    machine: Option<Machine>,
    connection: Option<Connection>,
    ring: Option<Ring>,
    executor: Option<Executor>,
    way: Option<Way>,
    boot: Option<Boot>,
    /// The number of the shell's last command.
    command: u32,
    /// What is not done, in order; the first `handed` are with the executor.
    pending: VecDeque<Slot>,
    handed: usize,
    done: u64,
    resets: u64,
    /// Whether the reset that comes next was asked for by the instruction that comes next.
    is_resetting: bool,
    reset_points: Vec<u64>,
    without_effect: u64,
    keep_values: bool,
    values: Vec<Value>,
    prologue: Vec<Instruction>,
    identity: Identity,
    death: Option<Death>,
}

impl Session {
    /// A session as `options` have it. Nothing is started yet.
    #[must_use]
    pub fn new(options: SessionOptions) -> Self {
        Self {
            options,
            machine: None,
            connection: None,
            ring: None,
            executor: None,
            way: None,
            boot: None,
            command: 0,
            pending: VecDeque::new(),
            handed: 0,
            done: 0,
            resets: 0,
            is_resetting: false,
            reset_points: Vec::new(),
            without_effect: 0,
            keep_values: false,
            values: Vec::new(),
            prologue: Vec::new(),
            identity: Identity { transport: "session".to_owned(), ..Identity::default() },
            death: None,
        }
    }

    /// The guest's /proc/ioports. Interrupts what is being executed: to be called after a start, before anything else.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the guest does not show the numbers, as the session's user is not root.
    pub fn read_proc_ioports(&mut self) -> Result<String> {
        self.end_executor();
        let deadline = Instant::now() + self.options.boot_timeout;
        self.log_in(SOON.min(self.options.boot_timeout))?;
        let connection = self.connection.as_mut().ok_or(Error::Dead)?;
        let answer = Shell::new(&mut connection.wire, &mut self.command).run("cat /proc/ioports")?;
        if answer.status != 0 {
            return Err(Error::protocol("/proc/ioports in the guest", answer.text.trim()));
        }
        if !answer.text.lines().any(|line| {
            line.contains(|c: char| c.is_ascii_hexdigit() && c != '0')
                && !line.trim_start().starts_with("0000-0000")
        }) {
            let what = "/proc/ioports in the guest".to_owned();
            let why = "every port in it is 0, as it is shown to all but root: log in as root".to_owned();
            return Err(Error::Unsupported { what, why });
        }
        self.launch(deadline)?;
        Ok(answer.text)
    }

    /// The way to the ports that is in use.
    #[must_use]
    pub fn way(&self) -> Option<Way> {
        self.way
    }

    /// Whether memory is shared with the guest.
    #[must_use]
    pub fn shares_memory(&self) -> bool {
        matches!(self.executor, Some(Executor::Ring(_)))
    }

    /// How many instructions since the start had no effect, as this target, or the way to the ports, cannot do them.
    #[must_use]
    pub fn without_effect(&self) -> u64 {
        self.without_effect
    }

    fn abilities(&self) -> Abilities {
        let dd = self.way == Some(Way::Dd);
        Abilities { words: matches!(self.way, Some(Way::Iopl) | None), time: !dd, reset: true }
    }

    /// Takes what was done, and hands over what there is room for. Never waits.
    fn advance(&mut self) {
        self.note_resets();
        self.take();
        if self.handed == 0 && self.pending.front().is_some_and(|slot| slot.kind == Kind::Reset) {
            self.reset_by_instruction();
        }
        let (Some(executor), Some(connection)) = (&mut self.executor, &mut self.connection) else { return };
        let waiting = self.pending.iter().skip(self.handed).take_while(|slot| slot.kind != Kind::Reset);
        // What cannot be handed over stays; the machine is asked how it is soon.
        self.handed += executor.submit(&mut connection.wire, waiting.copied()).unwrap_or(0);
    }

    /// Takes what was done.
    fn take(&mut self) {
        let (Some(executor), Some(connection)) = (&mut self.executor, &mut self.connection) else { return };
        for value in executor.fetch(&mut connection.wire).unwrap_or_default() {
            let Some(slot) = self.pending.pop_front() else { return };
            self.handed = self.handed.saturating_sub(1);
            if slot.kind.reads() && self.keep_values && self.values.len() < MAX_KEPT {
                self.values.push(Value { index: self.done, value: u64::from(value) });
            }
            self.done += u64::from(slot.last);
        }
    }

    fn begun(&self) -> u64 {
        let Some(executor) = &self.executor else { return 0 };
        let begun = usize::try_from(executor.begun()).unwrap_or(usize::MAX).min(self.handed);
        // The second half of an instruction was begun with its first.
        let half = u64::from(self.pending.front().is_some_and(|slot| !slot.first));
        half + self.pending.iter().take(begun).filter(|slot| slot.first).count() as u64
    }

    /// Nobody executes any more. What was in flight has ended.
    fn end_executor(&mut self) {
        self.take();
        let Some(executor) = self.executor.take() else { return };
        if let Some(connection) = &mut self.connection {
            executor.quit(&mut connection.wire);
        }
        let mut begun = executor.begun();
        let mut within = self.pending.front().is_some_and(|slot| !slot.first);
        while begun > 0 || within {
            let Some(slot) = self.pending.pop_front() else { break };
            begun = begun.saturating_sub(1);
            within = !slot.last;
            self.done += u64::from(slot.last);
        }
        self.handed = 0;
    }

    /// The machine was reset: the guest boots, and somebody must log in again.
    fn guest_was_reset(&mut self) {
        self.take();
        if std::mem::take(&mut self.is_resetting) {
            self.pending.pop_front();
            self.done += 1;
        }
        // A firmware that finds itself run already resets the machine once more, on its way up.
        if self.boot.is_none() {
            self.resets += 1;
            if self.reset_points.len() < MAX_KEPT {
                self.reset_points.push(self.done + self.begun());
            }
        }
        self.end_executor();
        if let Some(connection) = &mut self.connection {
            connection.wire.clear();
        }
        self.expect_login(Instant::now() + self.options.boot_timeout);
    }

    fn note_resets(&mut self) {
        let Some(machine) = &mut self.machine else { return };
        // Several of them, one after the other, are one for a guest that did not come up between.
        let resets = machine.qmp().events().iter().filter(|event| event.name == "RESET").count();
        if resets > 0 {
            self.guest_was_reset();
        }
    }

    /// Asks for the reset that an instruction wants, once, and does not wait: it is done when the machine says so.
    fn reset_by_instruction(&mut self) {
        let Some(machine) = &mut self.machine else { return };
        if !self.is_resetting {
            self.is_resetting = machine.request_reset().is_ok();
        }
    }

    /// Whether the guest does something until `until`.
    fn answers(&mut self, until: Instant) -> bool {
        let sign = |session: &mut Self| {
            let (executor, connection) = (session.executor.as_mut()?, session.connection.as_mut()?);
            Some((executor.sign_of_life(&mut connection.wire), session.done))
        };
        let Some(first) = sign(self) else { return false };
        loop {
            self.advance();
            match sign(self) {
                None => return false,
                now if now != Some(first) => return true,
                _ if Instant::now() >= until => return false,
                _ => self.pause(),
            }
        }
    }

    fn pause(&mut self) {
        match (&self.executor, &mut self.connection) {
            (Some(executor), Some(connection)) => executor.pause(&mut connection.wire),
            _ => std::thread::sleep(LOOK),
        }
    }

    fn dead(&mut self) -> bool {
        if self.death.is_none() {
            self.death = self.machine.as_mut().and_then(Machine::death);
        }
        self.death.is_some()
    }

    fn reset_from_outside(&mut self, patience: Duration) -> Result<()> {
        self.note_resets();
        self.boot = None;
        let before = self.resets;
        self.machine.as_mut().ok_or(Error::Dead)?.reset(patience)?;
        let begun = Instant::now();
        while self.resets == before && begun.elapsed() < SOON {
            std::thread::sleep(LOOK);
            self.note_resets();
        }
        if self.resets == before {
            self.guest_was_reset();
        }
        Ok(())
    }
}

impl Target for Session {
    fn identity(&self) -> Identity {
        self.identity.clone()
    }

    fn start(&mut self) -> Result<()> {
        let again = self.machine.is_some() && matches!(self.options.guest, Guest::Attach { .. });
        self.stop();
        let mut fresh = Self::new(self.options.clone());
        fresh.prologue = std::mem::take(&mut self.prologue);
        (fresh.keep_values, fresh.command) = (self.keep_values, self.command);
        *self = fresh;
        let Started { mut machine, connection, ring } = Machine::open(&self.options)?;
        if again {
            machine.reset(SOON)?;
            std::thread::sleep(50 * LOOK);
            drop(machine.qmp().events());
        }
        self.identity = machine.identity();
        if let Guest::Start(command) = &self.options.guest {
            self.identity.arguments = command.words();
        }
        (self.machine, self.connection, self.ring) = (Some(machine), Some(connection), ring);
        let boot_timeout = self.options.boot_timeout;
        let started = self.log_in(boot_timeout).and_then(|()| self.launch(Instant::now() + boot_timeout));
        match started {
            Err(Error::Dead) => {
                let death = self.machine.as_mut().and_then(Machine::death);
                let why = death.map_or_else(|| "the guest hung up".to_owned(), |death| death.stderr);
                Err(Error::Start { what: "the machine".to_owned(), why })
            }
            started => started,
        }
    }

    fn submit(&mut self, instructions: &[Instruction]) -> Result<usize> {
        if self.death.is_some() || self.machine.is_none() {
            return Err(Error::Dead);
        }
        let can = self.abilities();
        let mut count = 0;
        for instruction in instructions {
            if self.pending.len() + 2 > PENDING {
                break;
            }
            let (slots, has_effect) = slots_of(instruction, can);
            self.pending.extend(slots.into_iter().flatten());
            self.without_effect += u64::from(!has_effect);
            count += 1;
        }
        self.advance();
        Ok(count)
    }

    fn progress(&mut self) -> Progress {
        self.advance();
        let started = self.done + self.begun() + u64::from(self.is_resetting);
        Progress { started, done: self.done, resets: self.resets }
    }

    fn wait(&mut self, patience: Duration) -> Progress {
        let deadline = Instant::now() + patience;
        let before = (self.done, self.resets);
        loop {
            // Who cannot log in any more is found out by `condition`.
            let _ = self.go_on_booting(deadline);
            let progress = self.progress();
            let moved = (progress.done, progress.resets) != before;
            if moved || self.pending.is_empty() || Instant::now() >= deadline {
                return progress;
            }
            self.pause();
        }
    }

    fn condition(&mut self, patience: Duration) -> Condition {
        let until = Instant::now() + patience / 2;
        let answers = self.answers(until);
        if self.dead() {
            // The last that shared memory has to say.
            self.take();
        }
        if let Some(death) = &self.death {
            return Condition::Dead(death.clone());
        }
        if answers {
            return Condition::Responsive;
        }
        let Some(machine) = &mut self.machine else {
            return Condition::Dead(Death { code: None, signal: None, stderr: String::new() });
        };
        let condition = machine.condition(patience - patience / 2);
        self.advance();
        if let Condition::Dead(death) = &condition {
            self.death = Some(death.clone());
        }
        // A guest that boots is on its way.
        let booting = condition == Condition::GuestSilent && self.boot.is_some();
        match booting.then(|| self.go_on_booting(until)) {
            Some(Ok(())) if self.boot.is_some() || self.executor.is_some() => Condition::Responsive,
            _ => condition,
        }
    }

    fn recover(&mut self, how: Recovery, patience: Duration) -> Result<()> {
        if self.dead() {
            return Err(Error::Dead);
        }
        self.end_executor();
        let patience = match how {
            Recovery::Login => {
                if matches!(self.options.line, Line::Ssh(_)) {
                    self.connection = Some(Connection::open(&self.options.line)?);
                }
                patience
            }
            Recovery::Reset => {
                self.reset_from_outside(patience)?;
                patience.max(self.options.boot_timeout)
            }
        };
        self.log_in(patience)?;
        self.launch(Instant::now() + patience)
    }

    fn reset_points(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.reset_points)
    }

    fn keep_values(&mut self, keep: bool) {
        self.keep_values = keep;
    }

    fn values(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.values)
    }

    fn set_prologue(&mut self, prologue: &[Instruction]) {
        self.prologue = prologue.to_vec();
    }

    fn stop(&mut self) {
        self.end_executor();
        if matches!(self.options.guest, Guest::Attach { .. })
            && let Some(connection) = &mut self.connection
        {
            // The user's own guest: our program ends there, and its shell removes it.
            let deadline = Instant::now() + 1000 * LOOK;
            while Instant::now() < deadline && connection.wire.receive(Instant::now() + 150 * LOOK) {
                connection.wire.clear_received();
            }
        }
        (self.machine, self.connection, self.ring, self.boot) = (None, None, None, None);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stop();
    }
}
