//! [`Sim`]: a machine in this process, with planted faults.
//!
//! For tests of what drives a target, and where there is no QEMU. It is deterministic: the same options and the same
//! instructions have the same end, but for how long a stall is.
//!
//! ```
//! use std::time::Duration;
//! use guest_fuzz::target::{Target, sim::{Plant, Sim, SimOptions}};
//! use guest_fuzz::verdict::Condition;
//!
//! let mut sim = Sim::new(SimOptions::default());
//! sim.start()?;
//! let program = Plant::IndexData.trigger();
//! assert_eq!(sim.submit(&program)?, 2);
//! let progress = sim.wait(Duration::from_secs(1));
//! assert_eq!((progress.started, progress.done), (2, 1), "the second one is in flight");
//! assert!(matches!(sim.condition(Duration::ZERO), Condition::Dead(death) if death.signal == Some(11)));
//! # Ok::<(), guest_fuzz::Error>(())
//! ```

mod devices;
mod machine;
mod plant;

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use self::machine::{Machine, Outcome, RAM_BYTES};
use self::plant::{Consequence, SIGABRT, SIGSEGV};
pub use self::plant::{PROGRAM_PAGE, Plant};
use super::{Identity, MAX_KEPT, Progress, Recovery, Target, Value};
use crate::error::{Error, Result};
use crate::instruction::Instruction;
use crate::random::Random;
use crate::region::{Region, RegionMap, Space};
use crate::verdict::{Condition, Death, Halt};

/// What a simulated machine is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimOptions {
    /// What is planted in it.
    pub plants: Vec<Plant>,
    /// Decides which starts have the fault of [`Plant::Flaky`].
    pub seed: u64,
    /// In one of how many starts it is there: 1 is always, 0 is never.
    pub flaky_one_in: u64,
    /// How long [`Plant::Stall`] takes.
    pub stall: Duration,
    /// Whether there is a login: [`Recovery::Login`] is for machines that have one.
    pub has_login: bool,
    /// How many instructions are taken that are not yet executed.
    pub queue: usize,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self {
            plants: Plant::ALL.to_vec(),
            seed: 0,
            flaky_one_in: 4,
            stall: Duration::from_millis(200),
            has_login: false,
            queue: 1 << 16,
        }
    }
}

/// A machine in this process.
///
/// Nothing is executed but in [`wait`](Target::wait) and, a little, in [`progress`](Target::progress).
#[derive(Clone, Debug)]
pub struct Sim {
    options: SimOptions,
    machine: Machine,
    state: State,
    queue: VecDeque<Instruction>,
    progress: Progress,
    starts: u64,
    prologue: Vec<Instruction>,
    reset_points: Vec<u64>,
    keep_values: bool,
    values: Vec<Value>,
}

/// What the VMM and the guest do.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Not yet started, or stopped.
    Off,
    Running,
    /// The instruction in flight never ends. A new login helps, or only a reset.
    Hung {
        login_helps: bool,
    },
    Halted(Halt),
    Stalled {
        until: Instant,
    },
    Deadlocked,
    Dead(Death),
}

/// How much is executed between two looks at the clock, in port accesses.
const WORK: u64 = 1 << 14;
/// How much [`Target::progress`] executes.
const LITTLE_WORK: u64 = 1 << 8;

impl Sim {
    /// A machine that is not yet started.
    #[must_use]
    pub fn new(options: SimOptions) -> Self {
        Self {
            machine: Machine::new(&options.plants, false),
            options,
            state: State::Off,
            queue: VecDeque::new(),
            progress: Progress::default(),
            starts: 0,
            prologue: Vec::new(),
            reset_points: Vec::new(),
            keep_values: false,
            values: Vec::new(),
        }
    }

    /// Where a machine with all plants can be reached. Its two PCI functions are not listed: a scan finds them.
    #[must_use]
    pub fn regions() -> RegionMap {
        Self::regions_of(&Plant::ALL)
    }

    /// Where a machine with `plants` can be reached.
    #[must_use]
    pub fn regions_of(plants: &[Plant]) -> RegionMap {
        let port = |name: &str, first: u64, last: u64| Region {
            space: Space::Port,
            first,
            last,
            name: name.to_owned(),
        };
        let mut regions = vec![
            port("rtc", 0x70, 0x71),
            port("serial", 0x3f8, 0x3ff),
            port("pci-conf-idx", 0xcf8, 0xcfb),
            port("pci-conf-data", 0xcfc, 0xcff),
        ];
        regions.extend(plants.iter().map(|plant| {
            let (first, last) = plant.ports();
            port(plant.name(), first.into(), last.into())
        }));
        let last = RAM_BYTES - 1;
        regions.push(Region { space: Space::Memory, first: 0, last, name: "ram".to_owned() });
        RegionMap { regions, ram: Some((RAM_BYTES / 2, RAM_BYTES / 2)), ..RegionMap::default() }
    }

    /// Executes until `budget` port accesses were made, or something happens that is worth a look.
    fn run(&mut self, budget: u64) {
        if let State::Stalled { until } = self.state
            && Instant::now() >= until
        {
            self.progress.done = self.progress.started;
            self.state = State::Running;
        }
        let mut work = 0;
        while work < budget && self.state == State::Running {
            let Some(instruction) = self.queue.pop_front() else { break };
            self.progress.started += 1;
            let Outcome { value, consequence, cost } = self.machine.execute(&instruction);
            work += cost;
            match consequence {
                Consequence::Nothing => self.progress.done += 1,
                Consequence::Happens(plant, value) => self.happen(plant, value),
            }
            if let Some(value) = value
                && self.keep_values
                && self.values.len() < MAX_KEPT
                && self.progress.done == self.progress.started
            {
                self.values.push(Value { index: self.progress.done - 1, value });
            }
            if !self.machine.intact && self.state == State::Running {
                self.state = State::Hung { login_helps: false };
            }
        }
    }

    fn happen(&mut self, plant: Plant, value: u32) {
        let dead = |code, signal, stderr: String| State::Dead(Death { code, signal, stderr });
        let failed = |line: u32, function: &str, what: &str| {
            let stderr = format!("sim: test-device.c:{line}: {function}: Assertion `{what}' failed.\n");
            dead(None, Some(SIGABRT), stderr)
        };
        self.state = match plant {
            Plant::Abort => failed(12, "test_abort_write", "!\"reached\""),
            Plant::Sequence => failed(57, "test_sequence_step", "s->step < 5"),
            Plant::AfterReset => failed(83, "test_after_reset_write", "s->queue != NULL"),
            Plant::Flaky => failed(101, "test_flaky_write", "s->timer_armed"),
            Plant::IndexData => dead(None, Some(SIGSEGV), String::new()),
            Plant::Exit => dead(Some(0), None, String::new()),
            Plant::DebugExit => dead(Some(((value & 0x7f) << 1 | 1) as i32), None, String::new()),
            Plant::Hang => State::Hung { login_helps: false },
            Plant::ProgramHang => State::Hung { login_helps: true },
            Plant::Stall => State::Stalled { until: Instant::now() + self.options.stall },
            Plant::Deadlock => State::Deadlocked,
            Plant::Shutdown => self.halt(Halt::Shutdown),
            Plant::Suspend => self.halt(Halt::Suspended),
            Plant::Panic => self.halt(Halt::Panicked),
            Plant::Reset => {
                self.reset();
                State::Running
            }
            Plant::Dma => State::Running,
        };
    }

    /// What halts a guest has ended before the guest halts.
    fn halt(&mut self, halt: Halt) -> State {
        self.progress.done = self.progress.started;
        State::Halted(halt)
    }

    /// A reset ends what is in flight.
    fn reset(&mut self) {
        self.machine.reset();
        self.progress.done = self.progress.started;
        self.progress.resets += 1;
        if self.reset_points.len() < MAX_KEPT {
            self.reset_points.push(self.progress.started);
        }
        self.execute_prologue();
        self.state = State::Running;
    }

    /// The prologue programs devices. Whatever else it would do has no effect.
    fn execute_prologue(&mut self) {
        for instruction in &self.prologue {
            self.machine.execute(instruction);
        }
    }

    /// Whether nothing will come of waiting.
    fn is_over(&self) -> bool {
        match self.state {
            State::Running => self.queue.is_empty(),
            State::Off | State::Dead(_) => true,
            _ => false,
        }
    }
}

impl Target for Sim {
    fn identity(&self) -> Identity {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Identity { transport: "sim".to_owned(), version, ..Identity::default() }
    }

    fn start(&mut self) -> Result<()> {
        let SimOptions { seed, flaky_one_in, .. } = self.options;
        let flaky = flaky_one_in > 0 && Random::part(seed, self.starts).one_in(flaky_one_in);
        self.starts += 1;
        self.machine = Machine::new(&self.options.plants, flaky);
        self.progress = Progress::default();
        self.queue.clear();
        self.reset_points.clear();
        self.values.clear();
        self.state = State::Running;
        self.execute_prologue();
        Ok(())
    }

    fn submit(&mut self, instructions: &[Instruction]) -> Result<usize> {
        if matches!(self.state, State::Off | State::Dead(_)) {
            return Err(Error::Dead);
        }
        let room = self.options.queue.saturating_sub(self.queue.len());
        let taken = instructions.get(..room).unwrap_or(instructions);
        self.queue.extend(taken.iter().cloned());
        Ok(taken.len())
    }

    fn progress(&mut self) -> Progress {
        self.run(LITTLE_WORK);
        self.progress
    }

    fn wait(&mut self, patience: Duration) -> Progress {
        let before = self.progress;
        let begun = Instant::now();
        loop {
            self.run(WORK);
            let moved = (self.progress.done, self.progress.resets) != (before.done, before.resets);
            let left = patience.saturating_sub(begun.elapsed());
            if moved || self.is_over() || left.is_zero() {
                return self.progress;
            }
            // Only a stall ends by itself.
            let nap = match self.state {
                State::Stalled { until } => until.saturating_duration_since(Instant::now()),
                _ => left,
            };
            thread::sleep(nap.min(left));
        }
    }

    fn condition(&mut self, patience: Duration) -> Condition {
        if let State::Stalled { until } = self.state {
            let left = until.saturating_duration_since(Instant::now());
            thread::sleep(left.min(patience));
            if left > patience {
                return Condition::VmmSilent;
            }
            self.run(0);
        }
        match &self.state {
            State::Running | State::Stalled { .. } => Condition::Responsive,
            State::Halted(halt) => Condition::Halted(*halt),
            State::Dead(death) => Condition::Dead(death.clone()),
            State::Off => Condition::GuestSilent,
            State::Hung { .. } => {
                thread::sleep(patience);
                if self.machine.intact { Condition::GuestSilent } else { Condition::Overwritten }
            }
            State::Deadlocked => {
                thread::sleep(patience);
                Condition::VmmSilent
            }
        }
    }

    fn recover(&mut self, how: Recovery, patience: Duration) -> Result<()> {
        if how == Recovery::Login && !self.options.has_login {
            let why = "this machine has no users".to_owned();
            return Err(Error::Unsupported { what: "a login".to_owned(), why });
        }
        if self.condition(patience) == Condition::VmmSilent {
            return Err(Error::NoAnswer { what: "the simulated VMM".to_owned() });
        }
        match (&self.state, how) {
            (State::Dead(_) | State::Off, _) => Err(Error::Dead),
            (_, Recovery::Reset) => {
                self.reset();
                Ok(())
            }
            (State::Running, Recovery::Login) => Ok(()),
            (State::Hung { login_helps: true }, Recovery::Login) => {
                self.progress.done = self.progress.started;
                self.state = State::Running;
                Ok(())
            }
            (_, Recovery::Login) => Err(Error::NoAnswer { what: "the login".to_owned() }),
        }
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
        self.state = State::Off;
        self.queue.clear();
    }
}
