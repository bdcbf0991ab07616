//! From a machine that was started, or reset, to somebody in the guest who executes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::launch::{Plan, launch};
use super::login::{Credentials, Login};
use super::machine::Connection;
use super::options::Line;
use super::slot::{Slot, slots_of};
use super::{LOOK, SOON, Session, ssh};
use crate::error::{Error, Result};

/// The longest line to our program through a serial port, and through ssh.
const CONSOLE_LINE: usize = 3000;
const SSH_LINE: usize = 30_000;

/// A guest on its way to its shell.
#[derive(Debug)]
pub(super) struct Boot {
    pub(super) login: Login,
    pub(super) deadline: Instant,
    pub(super) again: Instant,
}

impl Session {
    /// Logs in, in `patience`.
    pub(super) fn log_in(&mut self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        self.expect_login(deadline);
        while !self.boot_step(deadline)? {
            if self.dead() {
                return Err(Error::Dead);
            }
            if Instant::now() >= deadline {
                let said = self.connection.as_ref().map(|connection| connection.wire.last_words());
                let why = format!(
                    "nobody was logged in after {} s; the guest's last words: {}",
                    patience.as_secs(),
                    said.filter(|said| !said.is_empty()).unwrap_or_else(|| "none".to_owned())
                );
                self.boot = None;
                return Err(Error::Start { what: "the guest's session".to_owned(), why });
            }
        }
        Ok(())
    }

    pub(super) fn expect_login(&mut self, deadline: Instant) {
        let credentials = Credentials::new(&self.options, matches!(self.options.line, Line::Ssh(_)));
        self.boot = Some(Boot { login: Login::new(credentials), deadline, again: Instant::now() });
    }

    /// Goes on with a login until `until`: whether somebody is logged in.
    pub(super) fn boot_step(&mut self, until: Instant) -> Result<bool> {
        self.note_resets();
        let Some(boot) = &mut self.boot else { return Ok(true) };
        let connection = self.connection.as_mut().ok_or(Error::Dead)?;
        match boot.login.step(&mut connection.wire, until.min(Instant::now() + 50 * LOOK)) {
            Ok(false) => Ok(false),
            Ok(true) => {
                self.boot = None;
                Ok(true)
            }
            Err(Error::Dead) => {
                self.reconnect(until)?;
                Ok(false)
            }
            Err(error) => {
                self.boot = None;
                Err(error)
            }
        }
    }

    /// An ssh that ended is started again, until it gets through. A serial port that is gone does not come back.
    pub(super) fn reconnect(&mut self, until: Instant) -> Result<()> {
        let (Some(boot), Some(connection)) = (&mut self.boot, &mut self.connection) else {
            return Err(Error::Dead);
        };
        let Line::Ssh(ssh) = &self.options.line else { return Err(Error::Dead) };
        let words = connection.wire.last_words();
        if ssh::is_final(&words) {
            return Err(Error::Start { what: format!("ssh {}", ssh.target), why: words });
        }
        let pause = boot.again.saturating_duration_since(Instant::now());
        std::thread::sleep(pause.min(until.saturating_duration_since(Instant::now())));
        boot.again = Instant::now() + Duration::from_secs(1);
        boot.login = Login::new(Credentials::new(&self.options, true));
        *connection = Connection::open(&self.options.line)?;
        Ok(())
    }

    /// From a shell to somebody who executes, after the prologue.
    pub(super) fn launch(&mut self, deadline: Instant) -> Result<()> {
        let connection = self.connection.as_mut().ok_or(Error::Dead)?;
        let is_ssh = connection.ssh.is_some();
        let longest_line = if is_ssh { SSH_LINE } else { CONSOLE_LINE };
        let plan = Plan { ways: &self.options.ways, ring: self.ring.as_mut(), longest_line };
        let launched = launch(&mut connection.wire, &mut self.command, plan)?;
        self.way = Some(launched.way);
        let mut executor = launched.executor;
        let can = self.abilities();
        let mut slots: VecDeque<Slot> =
            self.prologue.iter().flat_map(|instruction| slots_of(instruction, can).0).flatten().collect();
        let mut left = slots.len();
        let deadline = deadline.max(Instant::now() + SOON);
        let wire = &mut self.connection.as_mut().ok_or(Error::Dead)?.wire;
        while left > 0 {
            let taken = executor.submit(wire, slots.iter().copied())?;
            slots.drain(..taken);
            executor.pause(wire);
            left -= executor.fetch(wire)?.len();
            if Instant::now() >= deadline {
                return Err(Error::NoAnswer { what: "the prologue in the guest".to_owned() });
            }
        }
        self.executor = Some(executor);
        Ok(())
    }

    /// Goes on with a boot, if there is one, and has everything executed again at its end.
    pub(super) fn go_on_booting(&mut self, until: Instant) -> Result<()> {
        let Some(deadline) = self.boot.as_ref().map(|boot| boot.deadline) else { return Ok(()) };
        if self.boot_step(until)? {
            self.launch(deadline)?;
        } else if Instant::now() >= deadline {
            self.boot = None;
        }
        Ok(())
    }
}
