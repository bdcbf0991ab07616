//! The command line: `iofuzz [COMMAND] [OPTIONS] [-- QEMU ARGUMENTS]`.

mod session;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use guest_fuzz::generate::Generator;

pub use self::session::{SessionArgs, Way};
use crate::value::{self, Shard};

const EXAMPLES: &str = "\
Examples:
  iofuzz
  iofuzz run --time 10 -- -M pc -nodefaults -device pc-testdev
  iofuzz replay iofuzz-out/001-crash/journal.json --times 10
  iofuzz shrink operations.txt -- -M q35
  iofuzz classic --fuzz-count 10 --skip-devices 'rtc-index, rtc'
  iofuzz ports --json
  iofuzz classic --transport session -- -kernel vmlinuz -initrd initrd.img -append console=ttyS0
  iofuzz classic --attach qmp.sock --console serial.sock";

const EXIT_STATUS: &str = "\
Exit status:
  0   nothing was found
  1   something was found, or the machine died
  3   it could not be run
  64  the command line is wrong";

const PORTS_STATUS: &str = "\
Exit status:
  0   done
  3   it could not be run
  64  the command line is wrong";

/// Fuzz the I/O of a virtual machine: millions of operations a second, and findings that can be replayed
///
/// Without a command: `run`. Without anything: 60 seconds on QEMU's machine `pc`. What follows `--` goes to QEMU unchanged.
/// There is no network unless it is asked for.
#[derive(Debug, Parser)]
#[command(name = "iofuzz", version, after_help = format!("{EXAMPLES}\n\n{EXIT_STATUS}"))]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct Cli {
    /// The options of `run`
    #[command(flatten)]
    pub run: RunArgs,

    /// What to do
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fuzz a machine, and keep what is found in a folder: journals, the shortest programs, report.json
    #[command(after_help = EXIT_STATUS)]
    Run(RunArgs),
    /// What the original iofuzz did: read each port, write 0 to each, write random bytes to random ones
    ///
    /// Nothing is skipped unless it is asked for, and resets are counted. It fails when the machine dies.
    #[command(after_help = EXIT_STATUS)]
    Classic(ClassicArgs),
    /// Execute a journal or a list of operations again, on a fresh machine
    ///
    /// A journal of iofuzz names its machine; a list is executed on `pc`, or on what follows `--`.
    #[command(after_help = EXIT_STATUS)]
    Replay(ReplayArgs),
    /// Leave out of a journal or of a list of operations whatever is not needed
    #[command(after_help = EXIT_STATUS)]
    Shrink(ShrinkArgs),
    /// Print where the machine can be reached: ports, memory, PCI functions, and what is left alone
    #[command(after_help = PORTS_STATUS)]
    Ports(PortsArgs),
}

/// Which machine, and who executes the operations.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Machine")]
pub struct MachineArgs {
    /// The QEMU to run, instead of the one on PATH
    #[arg(long, value_name = "PATH")]
    pub qemu: Option<PathBuf>,
    /// QEMU's machine: its -M
    #[arg(long, value_name = "TYPE")]
    pub machine: Option<OsString>,
    /// A device to add: QEMU's -device. Can be given more than once
    #[arg(long = "device", value_name = "DEVICE")]
    pub devices: Vec<OsString>,
    /// Who executes the operations
    #[arg(long, value_enum)]
    pub transport: Option<Transport>,
    /// A guest that did nothing for that long hangs [default: 3s]
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    pub hang: Option<Duration>,
    /// A VMM that did not answer for that long has stalled [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    pub stall: Option<Duration>,
    /// A VMM that did not answer for that long never will [default: 15s]
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    pub deadlock: Option<Duration>,
    /// QEMU's arguments. A kernel or a disk among them is booted by --transport session only
    #[arg(last = true, value_name = "QEMU ARGUMENTS")]
    pub arguments: Vec<OsString>,
    /// Which Linux guest
    #[command(flatten)]
    pub session: SessionArgs,
}

/// Who executes the operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// A small program of ours that QEMU runs as its firmware: the fastest, and the default
    Micro,
    /// QEMU itself, through its qtest protocol, without a processor
    Qtest,
    /// A Linux guest, logged in to through its console or ssh, as the original did: one that runs (--attach), or one that
    /// is booted from the kernel or disk behind --
    Session,
    /// The machine that iofuzz itself runs in, as root there: see --fuzz-this-machine
    DevPort,
    /// A machine with planted faults in this process, to try things out
    Sim,
}

/// Which ports and which memory.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Where")]
pub struct PlaceArgs {
    /// What to touch, between commas: ports (0x60-0x6f), names of regions (with * and ?), @FILE with regions
    #[arg(long, value_name = "LIST")]
    pub ports: Option<String>,
    /// What to leave alone, between commas: ports, names (with * and ?), the sets `power`, `slow` and `reset`, or `none`
    #[arg(long, value_name = "LIST")]
    pub skip: Option<String>,
}

/// Where the results go.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// The folder for findings and report.json, which must be empty or not there [default: iofuzz-out, iofuzz-out-2, ...]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print the report as one JSON document, with a "schema" number
    #[arg(long)]
    pub json: bool,
}

/// The arguments of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// How operations are made: mixed, stream, model, classic or classic:COUNT
    #[arg(long, value_name = "NAME", default_value = "mixed")]
    pub generator: Generator,
    /// The seed: the same one makes the same operations. A random one, which is printed, without this
    #[arg(long, value_name = "N", value_parser = value::whole)]
    pub seed: Option<u64>,
    /// How many machines run at a time
    #[arg(long, value_name = "N", value_parser = value::jobs, default_value = "1")]
    pub jobs: u64,
    /// How long, in seconds, or with a unit: 10s, 2m, 1h [default: 60s, or no end with --ops]
    #[arg(long, value_name = "TIME", value_parser = value::some_time)]
    pub time: Option<Duration>,
    /// How many operations
    #[arg(long, value_name = "N", value_parser = value::positive)]
    pub ops: Option<u64>,
    /// This run's part of all that the seed makes: I/N, with I from 0. N runs do all of it, without knowing each other
    #[arg(long, value_name = "I/N", value_parser = value::shard, default_value = "0/1")]
    pub shard: Shard,
    /// Which ports and which memory
    #[command(flatten)]
    pub places: PlaceArgs,
    /// Where the results go
    #[command(flatten)]
    pub output: OutputArgs,
    /// Which machine
    #[command(flatten)]
    pub machine: MachineArgs,
}

/// The arguments of `classic`.
#[derive(Debug, Clone, Args)]
pub struct ClassicArgs {
    /// How many random writes there are for each port
    #[arg(long, alias = "fuzz_count", value_name = "N", default_value = "10")]
    pub fuzz_count: u32,
    /// Names of devices to leave alone, between commas: all of a name has to match. Or ports
    #[arg(long, alias = "skip_devices", value_name = "NAMES")]
    pub skip_devices: Option<String>,
    /// The seed of the random writes
    #[arg(long, value_name = "N", value_parser = value::whole)]
    pub seed: Option<u64>,
    /// Which ports
    #[command(flatten)]
    pub places: PlaceArgs,
    /// Where the results go
    #[command(flatten)]
    pub output: OutputArgs,
    /// Which machine
    #[command(flatten)]
    pub machine: MachineArgs,
}

/// The arguments of `replay`.
#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// A journal, a list of operations as text, or as a program's bytes
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// How often, each time on a fresh machine
    #[arg(long, value_name = "N", value_parser = value::positive, default_value = "1")]
    pub times: u64,
    /// Print one JSON document, with a "schema" number
    #[arg(long)]
    pub json: bool,
    /// Which machine
    #[command(flatten)]
    pub machine: MachineArgs,
}

/// The arguments of `shrink`.
#[derive(Debug, Clone, Args)]
pub struct ShrinkArgs {
    /// A journal, a list of operations as text, or as a program's bytes
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The file for the list of operations that are left, instead of standard output. One that exists is replaced
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// When to stop with what is left by then
    #[arg(long, value_name = "TIME", value_parser = value::duration, default_value = "60s")]
    pub time: Duration,
    /// Print one JSON document, with a "schema" number
    #[arg(long)]
    pub json: bool,
    /// Which machine
    #[command(flatten)]
    pub machine: MachineArgs,
}

/// The arguments of `ports`.
#[derive(Debug, Clone, Args)]
pub struct PortsArgs {
    /// Print one JSON document, with a "schema" number
    #[arg(long)]
    pub json: bool,
    /// Which ports and which memory
    #[command(flatten)]
    pub places: PlaceArgs,
    /// Which machine
    #[command(flatten)]
    pub machine: MachineArgs,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["iofuzz"], line].concat())
    }

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn run_needs_no_name() {
        let cli = parse(&["--time", "10", "--", "-M", "q35"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.run.time, Some(Duration::from_secs(10)));
        assert_eq!(cli.run.machine.arguments, ["-M", "q35"]);
        assert!(parse(&["--time", "10", "ports"]).is_err(), "options belong behind their command");
        assert!(parse(&["frob"]).is_err());
        assert!(parse(&[]).unwrap().command.is_none());
    }

    #[test]
    fn the_originals_parameters_keep_their_names() {
        let line = ["classic", "--fuzz_count", "3", "--skip_devices", "rtc, vga", "--boot_timeout", "9"];
        let Some(Command::Classic(args)) = parse(&line).unwrap().command else { panic!("not classic") };
        assert_eq!((args.fuzz_count, args.skip_devices.as_deref()), (3, Some("rtc, vga")));
        assert_eq!(args.machine.session.boot_timeout, Duration::from_secs(9));
    }

    #[test]
    fn what_follows_two_hyphens_is_qemus() {
        let line = ["run", "--device", "a", "--device", "b", "--", "--time", "3", "-S"];
        let Some(Command::Run(args)) = parse(&line).unwrap().command else { panic!("not run") };
        assert_eq!(args.machine.devices, ["a", "b"]);
        assert_eq!(args.machine.arguments, ["--time", "3", "-S"]);
        assert_eq!(args.time, None);
    }
}
