//! A Linux guest: one that runs, or one that is booted.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use guest_fuzz::Result;
use guest_fuzz::enumerate::proc_ioports;
use guest_fuzz::instruction::Instruction;
use guest_fuzz::region::RegionMap;
use guest_fuzz::target::qemu::QemuCommand;
use guest_fuzz::target::session::{Guest, Line, Session, SessionOptions, Ssh};
use guest_fuzz::target::{Identity, Target};
use tool_support::{Failure, Outcome};

use super::no_qemu;
use crate::args::{MachineArgs, SessionArgs};

/// What is booted has one of these.
const BOOTS: [&str; 10] =
    ["-kernel", "-drive", "-blockdev", "-hda", "-hdb", "-cdrom", "-sd", "-fda", "-pflash", "-bios"];

/// A Linux guest that can be started, or gone to.
#[derive(Clone, Debug)]
pub(super) struct Linux {
    options: SessionOptions,
    /// One that is logged in to and has executed nothing: a boot takes seconds.
    idle: Arc<Mutex<Option<Session>>>,
}

impl Linux {
    /// The guest that the options describe. `command` is the one that would be booted.
    pub(super) fn of(
        args: &MachineArgs,
        program: Option<PathBuf>,
        arguments: impl FnOnce() -> Vec<OsString>,
    ) -> Outcome<Self> {
        let session = &args.session;
        let guest = match &session.attach {
            Some(_) if args.machine.is_some() || !args.devices.is_empty() || !args.arguments.is_empty() => {
                return Err(Failure::usage(
                    "--attach: the machine runs already; leave out --machine, --device and what is behind --",
                ));
            }
            Some(qmp) => Guest::Attach { qmp: qmp.clone() },
            None => {
                let command = QemuCommand::new(program.ok_or_else(no_qemu)?, arguments());
                if !command.has(&BOOTS) {
                    return Err(Failure::usage(
                        "--transport session: a Linux guest is needed: one that runs (--attach QMP-SOCKET \
                         --console SOCKET), or one to boot: -- -kernel FILE -initrd FILE -append console=ttyS0, or a \
                         disk whose system has a login on its serial port",
                    ));
                }
                Guest::Start(command)
            }
        };
        let line = line(session)?;
        let usual = SessionOptions::new(guest, line);
        let options = SessionOptions {
            user: session.user.clone().unwrap_or_else(|| usual.user.clone()),
            password: session.password.clone(),
            prompt: session.prompt.clone(),
            boot_timeout: session.boot_timeout,
            ways: session.ways(),
            ..usual
        };
        Ok(Self { options, idle: Arc::default() })
    }

    /// Whether it is somebody else's, which is neither started nor ended.
    pub(super) fn is_attached(&self) -> bool {
        matches!(self.options.guest, Guest::Attach { .. })
    }

    /// One that is logged in to; the one that was explored where it is still at hand.
    pub(super) fn start(&self, prologue: &[Instruction]) -> Result<Session> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(session) = idle.filter(|_| prologue.is_empty()) {
            return Ok(session);
        }
        let mut session = Session::new(self.options.clone());
        session.set_prologue(prologue);
        session.start()?;
        Ok(session)
    }

    /// The ports that its kernel lists, each range once, as the original has it.
    pub(super) fn explore(&self) -> Result<(RegionMap, Identity)> {
        let mut session = self.start(&[])?;
        let listing = proc_ioports::parse(session.read_proc_ioports()?.as_bytes())?;
        let identity = session.identity();
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
        Ok((RegionMap::from_regions(proc_ioports::by_range(&listing.regions)), identity))
    }
}

fn line(session: &SessionArgs) -> Outcome<Line> {
    match (&session.console, &session.ssh) {
        (Some(console), _) => Ok(Line::Socket(console.clone())),
        (None, Some(target)) => {
            Ok(Line::Ssh(Ssh { options: session.ssh_options.clone(), ..Ssh::new(target) }))
        }
        (None, None) if session.attach.is_some() => {
            Err(Failure::usage("--attach: say how to log in, too: --console SOCKET or --ssh TARGET"))
        }
        (None, None) => Ok(Line::Console),
    }
}
