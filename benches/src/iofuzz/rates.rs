//! Operations a second: of each way to a machine, and of what makes the operations.

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use guest_fuzz::generate::Generator;
use guest_fuzz::instruction::{Instruction, PortWidth, Width};
use guest_fuzz::region::{Region, RegionMap, Space};
use guest_fuzz::target::Target;
use guest_fuzz::target::micro_guest::MicroGuest;
use guest_fuzz::target::qemu::{self, QemuCommand};
use guest_fuzz::target::qtest::{Qtest, QtestOptions};
use guest_fuzz::target::sim::{Sim, SimOptions};

use super::{MICRO, PIPELINED, Row, Sample, Unit};

/// How long a rate is measured.
const TIME: Duration = Duration::from_millis(500);
/// How long the last operations may take when that is over.
const PATIENCE: Duration = Duration::from_secs(20);
/// A register of the interrupt controller for devices: it keeps what is written.
const IO_APIC: u64 = 0xfec0_0000;
/// How few operations were executed since the last look for a nap to be worth it, and how long that is: less than the
/// fastest target needs for what it has.
const FEW: usize = 1024;
/// See [`FEW`].
const NAP: Duration = Duration::from_micros(200);
/// How many instructions of a generator are made for one figure.
const MADE: usize = 4_000_000;

/// The rows: those of QEMU where there is one.
pub(super) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |label, run: fn() -> Result<Sample, Box<dyn Error>>, goal: Option<f64>| {
        rows.push(Row { goal, ..Row::new(label, Unit::PerSecond, 11, run) });
    };
    if qemu::find().is_some() {
        add("qtest, one by one", || one_by_one(&mut qtest()?), None);
        add(PIPELINED, || rate(&mut qtest()?, &port_0x80()), None);
        add(MICRO, || rate(&mut micro()?, &port_0x80()), Some(10e6));
        add("micro guest, memory of a device", || rate(&mut micro()?, &mmio()), None);
        add("micro guest, resets", resets, Some(1000.0));
    } else {
        eprintln!("no QEMU on PATH: its rows are left out");
    }
    add("Sim, port 0x80", || rate(&mut sim()?, &port_0x80()), None);
    add("generator stream, alone", || made(Generator::Stream), Some(20e6));
    add("generator model, alone", || made(Generator::Model), None);
    add("generator classic, alone", || made(Generator::Classic { fuzz_count: 100 }), None);
    rows
}

fn command() -> Result<QemuCommand, Box<dyn Error>> {
    Ok(QemuCommand::new(qemu::find().ok_or("no QEMU on PATH")?, ["-M", "pc", "-nodefaults"]))
}

fn micro() -> Result<MicroGuest, Box<dyn Error>> {
    let mut guest = MicroGuest::new(command()?)?;
    guest.start()?;
    Ok(guest)
}

fn qtest() -> Result<Qtest, Box<dyn Error>> {
    let mut qtest = Qtest::new(command()?, QtestOptions::default());
    qtest.start()?;
    Ok(qtest)
}

fn sim() -> Result<Sim, Box<dyn Error>> {
    let mut sim = Sim::new(SimOptions::default());
    sim.start()?;
    Ok(sim)
}

/// A write of a byte and a read of one, in turn.
fn port_0x80() -> Vec<Instruction> {
    let (port, width) = (0x80, PortWidth::Byte);
    let pair =
        |value: u32| [Instruction::Out { port, width, value: value & 0xff }, Instruction::In { port, width }];
    (0..1024).flat_map(pair).collect()
}

fn mmio() -> Vec<Instruction> {
    let (address, width) = (IO_APIC, Width::Long);
    let pair = |value: u64| {
        [Instruction::Write { address, width, value: value & 0x3f }, Instruction::Read { address, width }]
    };
    (0..1024).flat_map(pair).collect()
}

/// Has `target` execute `program` over and over, with its queue never empty.
pub(super) fn rate(target: &mut dyn Target, program: &[Instruction]) -> Result<Sample, Box<dyn Error>> {
    let first = target.progress().done;
    let begun = Instant::now();
    let mut submitted = 0;
    let mut left = program;
    loop {
        let over = begun.elapsed() >= TIME;
        if !over {
            let taken = target.submit(left)?;
            submitted += taken as u64;
            left = left.get(taken..).filter(|left| !left.is_empty()).unwrap_or(program);
            if taken < FEW {
                // Who looks at the counters all the time slows down who writes them.
                thread::sleep(NAP);
            }
        }
        let done = target.wait(Duration::from_millis(2)).done - first;
        if over && (done == submitted || begun.elapsed() > TIME + PATIENCE) {
            return Ok(sample(done, submitted, begun));
        }
    }
}

/// Each operation waits for the answer to the one before it.
fn one_by_one(target: &mut dyn Target) -> Result<Sample, Box<dyn Error>> {
    let begun = Instant::now();
    let (mut submitted, mut done) = (0, 0);
    for instruction in port_0x80().iter().cycle() {
        if begun.elapsed() >= TIME {
            break;
        }
        submitted += target.submit(std::slice::from_ref(instruction))? as u64;
        while done < submitted && begun.elapsed() < PATIENCE {
            done = target.wait(PATIENCE).done;
        }
    }
    Ok(sample(done, submitted, begun))
}

fn resets() -> Result<Sample, Box<dyn Error>> {
    let mut guest = micro()?;
    let Sample { figure, right, .. } = rate(&mut guest, &[Instruction::Reset])?;
    let (done, resets) = (guest.progress().done, guest.progress().resets);
    Ok(Sample { figure, right: right && resets == done, answer: format!("{done} wanted, {resets} seen") })
}

fn sample(done: u64, submitted: u64, begun: Instant) -> Sample {
    let answer = if done == submitted { "all done".to_owned() } else { format!("{done} of {submitted}") };
    Sample { figure: done as f64 / begun.elapsed().as_secs_f64(), answer, right: done == submitted }
}

/// Makes instructions, and does nothing with them but look at their kind.
fn made(generator: Generator) -> Result<Sample, Box<dyn Error>> {
    let prepared = generator.prepare(&map());
    let begun = Instant::now();
    let instructions = (0..).flat_map(|episode| prepared.episode(1, episode)).take(MADE);
    let ports =
        instructions.filter(|made| matches!(RegionMap::place_of(made), Some((Space::Port, _)))).count();
    let figure = MADE as f64 / begun.elapsed().as_secs_f64();
    let answer = format!("{} % touch ports", 100 * ports / MADE);
    Ok(Sample { figure, answer, right: ports > 0 })
}

/// A small PC.
fn map() -> RegionMap {
    let ports = [
        ("dma", 0x00, 0x0f),
        ("pic", 0x20, 0x21),
        ("pit", 0x40, 0x43),
        ("keyboard", 0x60, 0x60),
        ("rtc", 0x70, 0x71),
        ("ide", 0x1f0, 0x1f7),
        ("vga", 0x3c0, 0x3cf),
        ("fdc", 0x3f1, 0x3f5),
        ("serial", 0x3f8, 0x3ff),
        ("network", 0xc000, 0xc03f),
        ("sound", 0xc400, 0xc4ff),
    ];
    let ports = ports.iter().filter_map(|&(name, first, last)| Region::new(Space::Port, first, last, name));
    let memory = Region::new(Space::Memory, 0xfebc_0000, 0xfebd_ffff, "network");
    RegionMap { ram: Some((0x80_0000, 0x70_0000)), ..RegionMap::from_regions(ports.chain(memory).collect()) }
}
