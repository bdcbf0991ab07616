//! [`Machine`]: the machine under a session, started by us or by the user.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::options::{Guest, Line, SessionOptions};
use super::ring::Ring;
use super::ssh::SshProcess;
use super::wire::Wire;
use crate::error::{Error, Result};
use crate::target::Identity;
use crate::target::qemu::{Qemu, QemuCommand};
use crate::target::qmp::Qmp;
use crate::verdict::{Condition, Death, Halt};

/// How long the control connection of the user's own machine may take to greet us.
const GREETING: Duration = Duration::from_secs(10);

/// A machine that runs, or ran.
#[derive(Debug)]
pub(super) enum Machine {
    Own(Box<Qemu>),
    Attached(Box<Qmp>),
}

/// What is at hand when a machine was started.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) machine: Machine,
    pub(super) connection: Connection,
    /// Memory that the machine shares with us.
    pub(super) ring: Option<Ring>,
}

/// The guest's shell, or the way to it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) wire: Wire,
    /// Lives as long as the wire.
    pub(super) ssh: Option<SshProcess>,
}

impl Machine {
    /// Starts the machine, or goes to where it is.
    pub(super) fn open(options: &SessionOptions) -> Result<Started> {
        match &options.guest {
            Guest::Start(command) => start(options, command),
            Guest::Attach { qmp } => {
                let machine = Self::Attached(Box::new(Qmp::connect(connect(qmp)?, GREETING)?));
                Ok(Started { machine, connection: Connection::open(&options.line)?, ring: None })
            }
        }
    }

    pub(super) fn qmp(&mut self) -> &mut Qmp {
        match self {
            Self::Own(qemu) => qemu.qmp(),
            Self::Attached(qmp) => qmp,
        }
    }

    /// How its process ended, if it is known to have. Of the user's own all that can be known is that it has.
    pub(super) fn death(&mut self) -> Option<Death> {
        match self {
            Self::Own(qemu) => qemu.death(),
            Self::Attached(qmp) => match qmp.status(Duration::from_millis(1)) {
                Err(Error::Dead) => Some(Death { code: None, signal: None, stderr: String::new() }),
                _ => None,
            },
        }
    }

    /// What the machine is like, as its control connection has it.
    pub(super) fn condition(&mut self, patience: Duration) -> Condition {
        let status = self.qmp().status(patience);
        let died = match self {
            Self::Own(qemu) if matches!(status, Err(Error::Dead)) => qemu.wait_for_death(patience),
            _ => self.death(),
        };
        if let Some(death) = died {
            return Condition::Dead(death);
        }
        match status.as_deref() {
            Ok(status) => Halt::of_status(status).map_or(Condition::GuestSilent, Condition::Halted),
            Err(_) => Condition::VmmSilent,
        }
    }

    /// Resets it, from outside, and has it run.
    pub(super) fn reset(&mut self, patience: Duration) -> Result<()> {
        self.qmp().execute("system_reset", &json!({}), patience)?;
        // A machine that was stopped, or switched itself off, needs to be told.
        match self.qmp().execute("cont", &json!({}), patience) {
            Err(Error::Protocol { .. }) | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Asks for that, and does not wait until it is done.
    pub(super) fn request_reset(&mut self) -> Result<()> {
        self.qmp().request("system_reset")?;
        self.qmp().request("cont")
    }

    pub(super) fn identity(&mut self) -> Identity {
        let command = match self {
            Self::Own(qemu) => qemu.command().to_vec(),
            Self::Attached(_) => Vec::new(),
        };
        Identity {
            transport: "session".to_owned(),
            command,
            arguments: Vec::new(),
            version: self.qmp().version().to_owned(),
        }
    }
}

impl Connection {
    /// The guest's shell where it is not a serial port that we add.
    pub(super) fn open(line: &Line) -> Result<Self> {
        match line {
            Line::Console => Err(Error::Unsupported {
                what: "the console of a machine that is the user's own".to_owned(),
                why: "its socket must be named".to_owned(),
            }),
            Line::Socket(path) => Ok(Self { wire: Wire::new(connect(path)?)?, ssh: None }),
            Line::Ssh(ssh) => {
                let (process, wire) = ssh.connect()?;
                Ok(Self { wire, ssh: Some(process) })
            }
        }
    }
}

fn connect(path: &Path) -> Result<UnixStream> {
    UnixStream::connect(path).map_err(Error::io(format!("cannot connect to {}", path.display())))
}

fn start(options: &SessionOptions, command: &QemuCommand) -> Result<Started> {
    if options.shared_memory {
        match start_with(options, command, Some(Ring::new()?)) {
            // A machine without a PCI bus, or a QEMU without the device.
            Err(Error::Start { why, .. }) if why.contains("ivshmem") || why.contains("bus found") => {}
            started => return started,
        }
    }
    start_with(options, command, None)
}

fn start_with(options: &SessionOptions, command: &QemuCommand, ring: Option<Ring>) -> Result<Started> {
    let mut arguments = Vec::new();
    let mut files = Vec::new();
    if let Some(ring) = &ring {
        let (words, file) = ring.device()?;
        arguments.extend(words);
        files.push(file);
    }
    let mut console = None;
    if options.line == Line::Console {
        let (ours, theirs) = UnixStream::pair().map_err(Error::io("cannot make a socket"))?;
        let chardev = format!("socket,id=iofuzz-console,fd={}", theirs.as_raw_fd());
        arguments.extend(["-chardev", &chardev, "-serial", "chardev:iofuzz-console"].map(OsString::from));
        files.push(OwnedFd::from(theirs));
        console = Some(ours);
    }
    let machine = Machine::Own(Box::new(Qemu::spawn(command, &arguments, files)?));
    let connection = match console {
        Some(stream) => Connection { wire: Wire::new(stream)?, ssh: None },
        None => Connection::open(&options.line)?,
    };
    Ok(Started { machine, connection, ring })
}
