//! [`SessionOptions`]: which guest, how it is reached, who logs in.

use std::path::PathBuf;
use std::time::Duration;

use super::ssh::Ssh;
use crate::target::qemu::QemuCommand;

/// Which machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Guest {
    /// One that is started with this command, which must name what is booted: a disk, or a kernel and an initramfs.
    Start(QemuCommand),
    /// One of the user's own that runs. It is reset where it does not answer, and never ended.
    Attach {
        /// The socket of its control protocol: `-qmp unix:PATH,server=on,wait=off`.
        qmp: PathBuf,
    },
}

/// How the guest's shell is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Line {
    /// The serial port that is added to a machine that we start: the first, unless the user's arguments have others. The
    /// guest must have a login or a shell there: `console=ttyS0` for most.
    Console,
    /// The socket of a serial port: `-serial unix:PATH,server=on,wait=off`.
    Socket(PathBuf),
    /// The system's ssh.
    Ssh(Ssh),
}

/// How ports are accessed in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Way {
    /// A small program of ours with all rights to the ports: the kernel's `iopl`.
    Iopl,
    /// The same, through /dev/port: bytes only, as the kernel moves words byte by byte.
    DevPort,
    /// `dd` on /dev/port, one process or more for each byte.
    Dd,
}

/// What a session needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// Which machine.
    pub guest: Guest,
    /// How its shell is reached.
    pub line: Line,
    /// Who logs in at a prompt for it; should be root. Not for ssh, whose target has it.
    pub user: String,
    /// The password, where the guest asks for one. Not for ssh, which needs a key.
    pub password: Option<String>,
    /// How the shell's prompt ends. Without it: `#`, `$`, `%` or `>`.
    pub prompt: Option<String>,
    /// How long the guest may take until somebody is logged in.
    pub boot_timeout: Duration,
    /// The ways to the ports, the first that is open is taken.
    pub ways: Vec<Way>,
    /// Whether a machine that we start gets a PCI device (`ivshmem-plain`) through which we share memory with the guest.
    /// With it, it is many times as fast, and what was in flight at a machine's death is known exactly.
    pub shared_memory: bool,
}

impl SessionOptions {
    /// Root without a password, four minutes to boot, any way to the ports, shared memory where there can be.
    #[must_use]
    pub fn new(guest: Guest, line: Line) -> Self {
        Self {
            guest,
            line,
            user: "root".to_owned(),
            password: None,
            prompt: None,
            boot_timeout: Duration::from_secs(240),
            ways: vec![Way::Iopl, Way::DevPort, Way::Dd],
            shared_memory: true,
        }
    }
}
