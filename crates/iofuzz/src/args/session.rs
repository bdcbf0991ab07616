//! The options for a Linux guest, and for the machine that iofuzz itself runs in.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use guest_fuzz::target::session;

use crate::value;

/// Which Linux guest, and who logs in.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Linux guest (--transport session)")]
pub struct SessionArgs {
    /// A QEMU that runs already: the socket of its -qmp. It is reset where its guest hangs, and never ended
    #[arg(long, value_name = "QMP SOCKET")]
    pub attach: Option<PathBuf>,
    /// The socket of a serial port of that QEMU, with a login or a shell at the guest's end
    #[arg(long, value_name = "SOCKET", requires = "attach", conflicts_with = "ssh")]
    pub console: Option<PathBuf>,
    /// Log in through ssh instead: user@host, which needs a key without a password
    #[arg(long, value_name = "TARGET")]
    pub ssh: Option<String>,
    /// An option for ssh: --ssh-option=-p2222. Can be given more than once
    #[arg(long = "ssh-option", value_name = "OPTION", requires = "ssh", allow_hyphen_values = true)]
    pub ssh_options: Vec<String>,
    /// Who logs in [default: root]. Others see no ports
    #[arg(long, value_name = "NAME", conflicts_with = "ssh")]
    pub user: Option<String>,
    /// The password, where the guest asks for one
    #[arg(long, value_name = "TEXT", conflicts_with = "ssh")]
    pub password: Option<String>,
    /// How the shell's prompt ends, where that is not #, $, % or >
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// How long a Linux guest may take until somebody is logged in
    #[arg(long, alias = "boot_timeout", value_name = "TIME", value_parser = value::duration, default_value = "240s")]
    pub boot_timeout: Duration,
    /// How ports are reached in the guest, between commas; the first that is open is taken [default: all, in this order]
    #[arg(long = "way", value_enum, value_name = "WAYS", value_delimiter = ',')]
    pub ways: Vec<Way>,
    /// Yes, write to the ports of the very machine that this runs on: it may hang, reset, and lose what is on its disks
    ///
    /// What is about to be executed is on the disk before, in operations.txt of the folder: some 1,500 operations ahead.
    #[arg(long, help_heading = "This machine (--transport dev-port)")]
    pub fuzz_this_machine: bool,
}

/// How ports are reached in a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// Machine instructions, in a small program that is sent to the guest
    Iopl,
    /// The same program on /dev/port: bytes only
    DevPort,
    /// The original's `dd`, a process for each byte
    Dd,
}

impl SessionArgs {
    /// The ways to the ports, in the order in which they are tried.
    pub(crate) fn ways(&self) -> Vec<session::Way> {
        let all = [Way::Iopl, Way::DevPort, Way::Dd];
        let ways = if self.ways.is_empty() { &all[..] } else { &self.ways };
        let of = |way: &Way| match way {
            Way::Iopl => session::Way::Iopl,
            Way::DevPort => session::Way::DevPort,
            Way::Dd => session::Way::Dd,
        };
        ways.iter().map(of).collect()
    }
}
