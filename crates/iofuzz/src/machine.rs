//! From options to machines: which one, how it is started, and where it can be reached. The one place that knows all
//! transports.

mod linux;
mod this;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use guest_fuzz::engine::Patience;
use guest_fuzz::enumerate::file::PortSelection;
use guest_fuzz::enumerate::pci::{TargetConfigSpace, Windows, scan};
use guest_fuzz::enumerate::{mtree, region_map};
use guest_fuzz::instruction::Instruction;
use guest_fuzz::journal::{Journal, Replayable};
use guest_fuzz::region::RegionMap;
use guest_fuzz::skip::SkipList;
use guest_fuzz::target::micro_guest::MicroGuest;
use guest_fuzz::target::qemu::{self, QemuCommand};
use guest_fuzz::target::qtest::{Qtest, QtestOptions};
use guest_fuzz::target::sim::{Sim, SimOptions};
use guest_fuzz::target::{Identity, Target};
use guest_fuzz::{Error, Result};
use tool_support::status::note;
use tool_support::{Failure, Outcome};

use self::linux::Linux;
use self::this::ThisMachine;
use crate::args::{MachineArgs, PlaceArgs, Transport};
use crate::failure::{could_not_run, of_library, of_option};
use crate::folder::quoted;
use crate::qemu_arguments;
use crate::screen::counted;

/// How long a machine that does nothing yet may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// What makes QEMU's arguments.
type Arguments<'a> = Box<dyn FnOnce() -> Vec<std::ffi::OsString> + 'a>;

/// A machine that can be started, most of them as often as wanted.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    kind: Kind,
    /// How long what may take.
    pub(crate) patience: Patience,
}

#[derive(Clone, Debug)]
enum Kind {
    Micro(QemuCommand),
    Qtest(QemuCommand),
    Session(Linux),
    DevPort(ThisMachine),
    /// With the number of the next start: some faults are not there at each.
    Sim(Arc<AtomicU64>),
}

impl Machine {
    /// The machine that the options describe; the one in this process where they describe none and there is no QEMU.
    pub(crate) fn of(args: &MachineArgs) -> Outcome<Self> {
        Self::choose(args, args.transport, || qemu_arguments::of(args))
    }

    /// The machine for what is to be executed again: that of the options or, where they describe none, a journal's own.
    pub(crate) fn of_file(args: &MachineArgs, file: &Replayable) -> Outcome<Self> {
        let Replayable::Journal(journal) = file else {
            let machine = Self::of(args)?;
            if !names_a_machine(args) && matches!(machine.kind, Kind::Micro(_) | Kind::Qtest(_)) {
                note("a list of operations names no machine: this is QEMU's pc; name another one behind --");
            }
            return Ok(machine);
        };
        let transport = args.transport.or_else(|| transport_of(journal));
        if names_a_machine(args) || journal.target.arguments.is_empty() {
            return Self::choose(args, transport, || qemu_arguments::of(args));
        }
        let arguments = &journal.target.arguments;
        if let Some(culprit) = qemu_arguments::first_that_reaches_out(arguments) {
            let words: Vec<String> = arguments.iter().map(|word| quoted(word)).collect();
            return Err(could_not_run(format!(
                "the journal's machine has {culprit}, which may reach files, programs or networks of this computer; \
                 if that is what you want, name the machine yourself: -- {}",
                words.join(" ")
            )));
        }
        Self::choose(args, transport, || arguments.iter().map(Into::into).collect())
    }

    fn choose(
        args: &MachineArgs,
        transport: Option<Transport>,
        arguments: impl FnOnce() -> Vec<std::ffi::OsString>,
    ) -> Outcome<Self> {
        if args.machine.is_some() && QemuCommand::new("", args.arguments.clone()).has(&["-M", "-machine"]) {
            return Err(Failure::usage("--machine, and another one behind --: which of them?"));
        }
        let program = args.qemu.clone().or_else(qemu::find);
        let is_linux = args.session.attach.is_some() || args.session.ssh.is_some();
        let transport = match (transport, &program) {
            (None, _) if is_linux => Transport::Session,
            (Some(Transport::Session), _) => Transport::Session,
            (Some(_), _) if is_linux => {
                return Err(Failure::usage("--attach and --ssh are for --transport session"));
            }
            (Some(transport), _) => transport,
            (None, Some(_)) => Transport::Micro,
            (None, None) if names_a_machine(args) => return Err(no_qemu()),
            (None, None) => {
                note(
                    "no QEMU on PATH: this is a machine with planted faults in this process (--transport sim)",
                );
                Transport::Sim
            }
        };
        let command = |program: Option<PathBuf>, arguments: Arguments<'_>| {
            program.map(|program| QemuCommand::new(program, arguments())).ok_or_else(no_qemu)
        };
        let arguments: Arguments<'_> = Box::new(arguments);
        let kind = match transport {
            Transport::Micro => Kind::Micro(command(program, arguments)?),
            Transport::Qtest => Kind::Qtest(command(program, arguments)?),
            Transport::Session => Kind::Session(Linux::of(args, program, arguments)?),
            Transport::DevPort => Kind::DevPort(ThisMachine::of(&args.session)),
            Transport::Sim => Kind::Sim(Arc::default()),
        };
        Ok(Self { patience: patience(args, &kind), kind })
    }

    /// The same machine with a processor that executes the operations, where this one has none: what no processor can
    /// show is no fault that a guest could use.
    pub(crate) fn with_processor(&self) -> Option<Self> {
        match &self.kind {
            Kind::Qtest(command) => {
                Some(Self { kind: Kind::Micro(command.clone()), patience: self.patience })
            }
            _ => None,
        }
    }

    /// Says it where `instructions` want time to go on, and it does not.
    pub(crate) fn say_what_has_no_effect(&self, instructions: &[Instruction]) {
        let steps =
            instructions.iter().filter(|one| matches!(one, Instruction::ClockStep { .. })).count() as u64;
        let Kind::Qtest(command) = &self.kind else { return };
        if steps > 0 && !Qtest::new(command.clone(), QtestOptions::default()).has_clock() {
            note(&format!(
                "{} without effect: QEMU's clock stands, as it goes on command with -accel qtest alone, which not every \
                 QEMU has; with --transport micro it runs by itself",
                counted(steps, "clock_step")
            ));
        }
    }

    /// That the user wants operations to be executed on it, where that is not to be taken for granted.
    pub(crate) fn confirmed(self) -> Outcome<Self> {
        match &self.kind {
            Kind::DevPort(this) => this.confirmed().map(|()| self),
            _ => Ok(self),
        }
    }

    /// The same, with notes in `folder` where nothing else is left of the machine after its death.
    pub(crate) fn with_notes_in(mut self, folder: &Path) -> Self {
        if let Kind::DevPort(this) = &mut self.kind {
            this.note_in(folder);
        }
        self
    }

    /// Whether a fresh one can be started, as often as wanted, whatever became of the one before it.
    pub(crate) fn is_renewable(&self) -> bool {
        match &self.kind {
            Kind::Session(linux) => !linux.is_attached(),
            Kind::DevPort(_) => false,
            _ => true,
        }
    }

    /// Whether a fresh one, or a reset, takes seconds.
    pub(crate) fn is_slow(&self) -> bool {
        matches!(self.kind, Kind::Session(_) | Kind::DevPort(_))
    }

    /// How often a finding is worth a replay, where `usual` is how often it is on a machine that starts at once.
    pub(crate) fn replays(&self, usual: u64) -> u64 {
        match (self.is_renewable(), self.is_slow()) {
            (false, _) => 0,
            (true, true) => usual.min(1),
            (true, false) => usual,
        }
    }

    /// Starts one. `prologue` is executed first, and after each reset.
    pub(crate) fn start(&self, prologue: &[Instruction]) -> Result<Box<dyn Target>> {
        match &self.kind {
            Kind::Micro(command) => {
                let mut guest = MicroGuest::new(command.clone())?;
                guest.set_prologue(prologue);
                guest.start()?;
                Ok(Box::new(guest))
            }
            Kind::Qtest(command) => {
                let mut qtest = Qtest::new(command.clone(), QtestOptions::default());
                qtest.set_prologue(prologue);
                qtest.start()?;
                Ok(Box::new(qtest))
            }
            Kind::Session(linux) => Ok(Box::new(linux.start(prologue)?)),
            Kind::DevPort(this) => this.start(prologue),
            Kind::Sim(starts) => {
                let seed = starts.fetch_add(1, Ordering::Relaxed);
                let mut sim = Sim::new(SimOptions { seed, ..SimOptions::default() });
                sim.set_prologue(prologue);
                sim.start()?;
                Ok(Box::new(sim))
            }
        }
    }

    /// Where it can be reached, all of it, and what it is; what brings a fresh one into that state is the map's prologue.
    fn explore(&self) -> Result<(RegionMap, Identity)> {
        match &self.kind {
            Kind::Micro(command) => {
                let mut guest = MicroGuest::new(command.clone())?;
                guest.start()?;
                Ok((guest.survey(&SkipList::default())?, guest.identity()))
            }
            Kind::Qtest(command) => {
                let mut qtest = Qtest::new(command.clone(), QtestOptions::default());
                qtest.start()?;
                let before = tree(&mut qtest)?;
                let windows = Windows::new(before.ports.into_iter().chain(before.memory).collect());
                let scan = scan(&mut TargetConfigSpace::new(&mut qtest, ANSWER), &windows)?;
                // Again, for now the devices' registers have addresses, and names.
                Ok((region_map(tree(&mut qtest)?, &scan, &SkipList::default()), qtest.identity()))
            }
            Kind::Session(linux) => linux.explore(),
            Kind::DevPort(_) => ThisMachine::explore(),
            Kind::Sim(_) => {
                let mut map = Sim::regions();
                let mut sim = self.start(&[])?;
                let windows = Windows::new(map.regions.clone());
                let scan = scan(&mut TargetConfigSpace::new(sim.as_mut(), ANSWER), &windows)?;
                map.prologue = scan.prologue_text();
                map.regions.extend(scan.functions.iter().flat_map(|function| function.bars.iter().cloned()));
                map.pci = scan.functions;
                Ok((map, sim.identity()))
            }
        }
    }
}

fn tree(qtest: &mut Qtest) -> Result<mtree::MemoryTree> {
    let qemu = qtest.qemu().ok_or(Error::Dead)?;
    mtree::parse(&qemu.qmp().human("info mtree -f", ANSWER)?)
}

/// Where a machine is to be reached: what the options want, and what they leave alone.
#[derive(Debug)]
pub(crate) struct Places {
    ports: Option<PortSelection>,
    skip: SkipList,
}

impl Places {
    /// What `places` say; without `--skip` what `skip` says, unless ports are asked for by name. No machine is needed for
    /// that: what is wrong with the options is known before one is started.
    pub(crate) fn of(places: &PlaceArgs, skip: &str) -> Outcome<Self> {
        let ports = places.ports.as_deref().map(PortSelection::parse).transpose().map_err(of_option)?;
        let default = if ports.is_some() { "none" } else { skip };
        let skip = SkipList::parse(places.skip.as_deref().unwrap_or(default)).map_err(of_option)?;
        Ok(Self { ports, skip })
    }

    /// Leaves in `map` what is wanted.
    pub(crate) fn select(&self, map: &mut RegionMap) -> Outcome {
        if let Some(ports) = &self.ports {
            ports.apply(map).map_err(of_option)?;
        }
        self.skip.apply(map);
        map.check().map_err(of_library)
    }
}

/// Why there is nothing to do on a machine.
pub(crate) fn nothing_left(map: &RegionMap) -> &'static str {
    match map.skipped.is_empty() {
        true => "there is nothing to fuzz: the machine has no such ports and no memory of devices",
        false => "there is nothing left to fuzz: all of it is left alone; `iofuzz ports` lists what there is",
    }
}

/// The prologue of a map, as instructions.
pub(crate) fn prologue(map: &RegionMap) -> Outcome<Vec<Instruction>> {
    let parse = |line: &String| line.parse::<Instruction>();
    let parsed: std::result::Result<_, _> = map.prologue.iter().map(parse).collect();
    parsed.map_err(|error| could_not_run(format!("the map's prologue: {error}")))
}

impl Machine {
    /// [`explore`](Self::explore), for a command.
    pub(crate) fn explored(&self) -> Outcome<(RegionMap, Identity)> {
        self.explore().map_err(of_library)
    }
}

fn names_a_machine(args: &MachineArgs) -> bool {
    let attaches = args.session.attach.is_some();
    attaches || args.machine.is_some() || !args.devices.is_empty() || !args.arguments.is_empty()
}

fn patience(args: &MachineArgs, kind: &Kind) -> Patience {
    let usual = match kind {
        // Nothing but its faults makes it slow.
        Kind::Sim(_) => Patience {
            hang: Duration::from_millis(300),
            stall: Duration::from_millis(100),
            deadlock: Duration::from_secs(1),
            ..Patience::default()
        },
        _ => Patience::default(),
    };
    Patience {
        hang: args.hang.unwrap_or(usual.hang),
        stall: args.stall.unwrap_or(usual.stall),
        deadlock: args.deadlock.unwrap_or(usual.deadlock),
        ..usual
    }
}

fn transport_of(journal: &Journal) -> Option<Transport> {
    use clap::ValueEnum;
    Transport::from_str(&journal.target.transport, false).ok()
}

fn no_qemu() -> Failure {
    could_not_run("there is no QEMU on PATH; --qemu names one, and --transport sim needs none")
}
