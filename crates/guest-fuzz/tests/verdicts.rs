//! Every end and every incident, on the simulated machine: what the engine says of it, and that it goes on behind it.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use guest_fuzz::engine::{Execution, Patience, execute, to_the_end};
use guest_fuzz::instruction::{Instruction, PortWidth};
use guest_fuzz::shrink::Shrink;
use guest_fuzz::target::sim::{Plant, Sim, SimOptions};
use guest_fuzz::target::{Identity, ProcessorTime, Progress, Recovery, Target, Value};
use guest_fuzz::verdict::{Condition, Verdict};

const STALL: Duration = Duration::from_millis(300);

fn options() -> SimOptions {
    SimOptions { stall: STALL, flaky_one_in: 1, has_login: true, ..SimOptions::default() }
}

fn patience() -> Patience {
    Patience {
        hang: Duration::from_millis(40),
        stall: Duration::from_millis(100),
        deadlock: Duration::from_millis(900),
        login: Duration::from_millis(10),
        program: None,
        settle: Duration::from_millis(5),
    }
}

/// Reads and writes of a harmless port.
fn harmless(count: usize) -> Vec<Instruction> {
    let out = |value| Instruction::Out { port: 0x80, width: PortWidth::Byte, value };
    (0..count).map(|number| out(number as u32 & 0xff)).collect()
}

fn run(target: &mut Sim, before: &[Instruction], program: &[Instruction]) -> Execution {
    let observe = &mut |_: &_| ControlFlow::Continue(());
    execute(target, before, &mut program.iter().cloned(), &patience(), observe).unwrap()
}

fn fresh() -> Sim {
    let mut sim = Sim::new(options());
    sim.start().unwrap();
    sim
}

#[test]
fn each_plant_is_what_it_is() {
    for plant in Plant::ALL {
        let trigger = plant.trigger();
        let program = [harmless(5000), trigger.clone(), harmless(3000)].concat();
        let at = 5000 + trigger.len() as u64 - 1;
        let execution = run(&mut fresh(), &[], &program);
        let worst = execution.worst();
        let Some(expected) = plant.verdict(STALL) else {
            assert_eq!((worst.verdict, execution.overwritten), (Verdict::Completed, 1), "{plant:?}");
            continue;
        };
        match (&expected, &worst.verdict) {
            (Verdict::VmmStall(_), Verdict::VmmStall(found)) => assert!(*found >= STALL / 2, "{found:?}"),
            (expected, found) => assert_eq!(expected, found, "{plant:?}"),
        }
        if expected != Verdict::GuestReset {
            assert_eq!(worst.index, Some(at), "{plant:?}");
            assert_eq!(worst.instruction.as_ref(), trigger.last(), "{plant:?}");
        }
        if execution.end.is_none() {
            assert_eq!(execution.done, program.len() as u64, "{plant:?}: it does not go on");
        } else {
            assert_eq!(execution.done, at, "{plant:?}");
        }
    }
}

#[test]
fn numbers_count_from_the_program_and_a_reset_before_it_is_none_of_its() {
    let mut sim = fresh();
    let first = run(&mut sim, &[], &harmless(10));
    assert_eq!((first.done, first.resets), (10, 0));
    let program = [harmless(7), Plant::Reset.trigger(), harmless(2), Plant::Abort.trigger()].concat();
    let second = run(&mut sim, &[Instruction::Reset], &program);
    assert_eq!((second.done, second.resets, second.worst().index), (10, 1, Some(10)));
    assert_eq!(second.reset_points, [8]);
}

#[test]
fn the_last_instruction_of_a_full_chunk_is_known_while_it_settles() {
    // The machine sleeps after its last instruction, which is the last of a whole number of chunks.
    let program = [harmless(2047), Plant::Suspend.trigger()].concat();
    let execution = run(&mut fresh(), &[], &program);
    let worst = execution.worst();
    assert_eq!((worst.verdict, worst.index), (Verdict::GuestSuspend, Some(2047)));
    assert_eq!(worst.instruction.as_ref(), program.last());
}

#[test]
fn an_observer_stops_it() {
    let mut count = 0;
    let mut program = std::iter::repeat_with(|| harmless(1).remove(0));
    let observe = &mut |_: &_| {
        count += 1;
        if count < 5 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let execution = execute(&mut fresh(), &[], &mut program, &patience(), observe).unwrap();
    assert!(execution.stopped && execution.end.is_none());
}

#[test]
fn a_program_that_takes_too_long_is_cut_and_what_was_handed_over_is_done() {
    let delay = || Instruction::Delay { count: 1000 };
    // One without an end, and a long one.
    let endless = Box::new(std::iter::repeat_with(delay)) as Box<dyn Iterator<Item = Instruction>>;
    for mut program in [endless, Box::new(std::iter::repeat_with(delay).take(100_000_000))] {
        let patience = Patience { program: Some(Duration::from_millis(50)), ..patience() };
        let mut sim = fresh();
        let begun = Instant::now();
        let observe = &mut |_: &_| ControlFlow::Continue(());
        let execution = execute(&mut sim, &[], &mut program, &patience, observe).unwrap();
        assert!(execution.cut && execution.end.is_none() && !execution.stopped, "{execution:?}");
        assert!((1..100_000_000).contains(&execution.done), "{}", execution.done);
        assert!(begun.elapsed() < Duration::from_secs(20));
        let progress = sim.progress();
        assert_eq!((progress.done, progress.started), (execution.done, execution.done));
    }
}

#[test]
fn a_program_is_shrunk_to_its_trigger() {
    for plant in [Plant::Abort, Plant::Sequence, Plant::IndexData, Plant::AfterReset, Plant::Hang] {
        let mut program = harmless(6000);
        // The trigger is spread over the program.
        let trigger = plant.trigger();
        for (number, instruction) in trigger.iter().enumerate() {
            program.insert(500 + number * 1200, instruction.clone());
        }
        let start = || -> guest_fuzz::Result<Box<dyn Target>> { Ok(Box::new(fresh())) };
        let wanted = plant.verdict(STALL).unwrap();
        let shows = |execution: &Execution| execution.worst().verdict == wanted;
        let time = Duration::from_secs(30);
        let stop = std::sync::atomic::AtomicBool::new(false);
        let shrink = Shrink { target: &start, shows: &shows, patience: patience(), time, stop: &stop };
        let begun = Instant::now();
        let shrunk = shrink.shrink(&program).unwrap().unwrap();
        assert_eq!(shrunk.instructions, trigger, "{plant:?}");
        assert!(shrunk.is_minimal && begun.elapsed() < time);
        // Bisection takes tens of runs, not thousands.
        assert!(shrunk.runs < 300, "{plant:?}: {} runs", shrunk.runs);
        assert!(shrink.shrink(&harmless(100)).unwrap().is_none());
    }
}

#[test]
fn a_shrinker_ends_when_its_time_is_over() {
    // Each run takes longer than there is time.
    let program = [vec![Instruction::Delay { count: 1 << 20 }; 400], Plant::Abort.trigger()].concat();
    let start = || -> guest_fuzz::Result<Box<dyn Target>> { Ok(Box::new(fresh())) };
    let shows = |execution: &Execution| execution.end.is_some();
    let begun = Instant::now();
    execute(&mut fresh(), &[], &mut program.iter().cloned(), &patience(), &mut to_the_end).unwrap();
    let once = begun.elapsed();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let shrink = Shrink { target: &start, shows: &shows, patience: patience(), time: once / 4, stop: &stop };
    assert!(shrink.shrink(&program).unwrap().is_none());
}

/// A machine, and the processor time that it is said to have used after its first question.
struct Busy {
    sim: Sim,
    asked: u32,
    used: ProcessorTime,
}

impl Busy {
    fn run(plant: Plant, used: ProcessorTime) -> (Execution, Duration) {
        let mut busy = Self { sim: fresh(), asked: 0, used };
        let begun = Instant::now();
        let mut program = plant.trigger().into_iter();
        let patience = Patience { deadlock: LONG, ..patience() };
        let execution = execute(&mut busy, &[], &mut program, &patience, &mut to_the_end).unwrap();
        (execution, begun.elapsed())
    }
}

impl Target for Busy {
    fn processor_time(&mut self) -> Option<ProcessorTime> {
        self.asked += 1;
        let asleep = self.used.asleep;
        Some(if self.asked > 1 {
            self.used
        } else {
            ProcessorTime::new(Duration::ZERO, Duration::ZERO, asleep)
        })
    }

    fn identity(&self) -> Identity {
        self.sim.identity()
    }

    fn start(&mut self) -> guest_fuzz::Result<()> {
        self.sim.start()
    }

    fn submit(&mut self, instructions: &[Instruction]) -> guest_fuzz::Result<usize> {
        self.sim.submit(instructions)
    }

    fn progress(&mut self) -> Progress {
        self.sim.progress()
    }

    fn wait(&mut self, patience: Duration) -> Progress {
        self.sim.wait(patience)
    }

    fn condition(&mut self, patience: Duration) -> Condition {
        self.sim.condition(patience)
    }

    fn recover(&mut self, how: Recovery, patience: Duration) -> guest_fuzz::Result<()> {
        self.sim.recover(how, patience)
    }

    fn reset_points(&mut self) -> Vec<u64> {
        self.sim.reset_points()
    }

    fn keep_values(&mut self, keep: bool) {
        self.sim.keep_values(keep);
    }

    fn values(&mut self) -> Vec<Value> {
        self.sim.values()
    }

    fn set_prologue(&mut self, prologue: &[Instruction]) {
        self.sim.set_prologue(prologue);
    }

    fn stop(&mut self) {
        self.sim.stop();
    }
}

const HOUR: Duration = Duration::from_secs(3600);
/// Long enough for a busy host to tell it from what is not waited for.
const LONG: Duration = Duration::from_secs(3);

#[test]
fn a_guest_that_its_vmm_does_not_serve_is_given_more_time_than_one_that_hangs() {
    let (hung, short) = Busy::run(Plant::Hang, ProcessorTime::new(Duration::ZERO, HOUR, false));
    assert_eq!(hung.worst().verdict, Verdict::GuestHang);
    let (starved, long) = Busy::run(Plant::Hang, ProcessorTime::new(HOUR, Duration::ZERO, false));
    assert_eq!(starved.worst().verdict, Verdict::GuestHang);
    // Both were brought back, which takes the same time.
    assert!(long >= short + LONG / 2, "{short:?} {long:?}");
}

#[test]
fn a_vmm_that_sleeps_and_does_not_answer_never_will() {
    let (asleep, time) = Busy::run(Plant::Deadlock, ProcessorTime::new(Duration::ZERO, Duration::ZERO, true));
    assert_eq!(asleep.worst().verdict, Verdict::VmmDeadlock);
    assert!(time < LONG, "{time:?}");
    for used in
        [ProcessorTime::new(HOUR, HOUR, true), ProcessorTime::new(Duration::ZERO, Duration::ZERO, false)]
    {
        let (awake, time) = Busy::run(Plant::Deadlock, used);
        assert_eq!(awake.worst().verdict, Verdict::VmmDeadlock);
        assert!(time >= LONG, "{time:?}");
    }
}
