//! The simulated machine.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::time::{Duration, Instant};

use guest_fuzz::error::Error;
use guest_fuzz::instruction::{Instruction, PciAddress, PortWidth, Width};
use guest_fuzz::target::sim::{Plant, Sim, SimOptions};
use guest_fuzz::target::{Progress, Recovery, Target};
use guest_fuzz::verdict::{Condition, Halt};

const SHORT: Duration = Duration::from_millis(20);

fn sim(options: SimOptions) -> Sim {
    let mut sim = Sim::new(options);
    sim.start().unwrap();
    sim
}

fn out(port: u16, value: u32) -> Instruction {
    Instruction::Out { port, width: PortWidth::Byte, value }
}

fn inb(port: u16) -> Instruction {
    Instruction::In { port, width: PortWidth::Byte }
}

fn execute(sim: &mut Sim, program: &[Instruction]) -> Progress {
    let mut rest = program;
    loop {
        rest = &rest[sim.submit(rest).unwrap_or(0)..];
        let before = sim.progress();
        let after = sim.wait(SHORT);
        if before == after {
            return after;
        }
    }
}

fn values(sim: &mut Sim, program: &[Instruction]) -> Vec<u64> {
    sim.keep_values(true);
    execute(sim, program);
    sim.values().iter().map(|value| value.value).collect()
}

fn options(plant: Plant) -> SimOptions {
    SimOptions { plants: vec![plant], flaky_one_in: 1, has_login: true, ..SimOptions::default() }
}

#[test]
fn each_plant_is_reached_alone_and_is_in_flight() {
    for plant in Plant::ALL {
        let mut sim = sim(options(plant));
        let noise = vec![out(0x3ff, 1); 10];
        let trigger = plant.trigger();
        let program: Vec<_> =
            trigger.iter().flat_map(|step| [&noise[..], std::slice::from_ref(step)].concat()).collect();
        let length = program.len() as u64;
        let progress = execute(&mut sim, &[&program[..], &noise].concat());
        let condition = sim.condition(Duration::ZERO);
        let in_flight = progress.started - progress.done;
        let (signal, code) = match &condition {
            Condition::Dead(death) => (death.signal, death.code),
            _ => (None, None),
        };
        match plant {
            Plant::Abort | Plant::Sequence | Plant::AfterReset | Plant::Flaky => {
                assert_eq!((signal, in_flight), (Some(6), 1), "{plant:?}");
                let Condition::Dead(death) = condition else { panic!("it lives") };
                assert!(death.stderr.starts_with("sim: test-device.c:"), "{}", death.stderr);
            }
            Plant::IndexData => assert_eq!((signal, in_flight), (Some(11), 1)),
            Plant::Exit => assert_eq!((code, in_flight), (Some(0), 1)),
            Plant::DebugExit => assert_eq!((code, in_flight), (Some(7), 1)),
            Plant::Hang | Plant::ProgramHang => {
                assert_eq!((condition, in_flight), (Condition::GuestSilent, 1));
            }
            Plant::Stall | Plant::Deadlock => assert_eq!((condition, in_flight), (Condition::VmmSilent, 1)),
            Plant::Shutdown => assert_eq!((condition, in_flight), (Condition::Halted(Halt::Shutdown), 0)),
            Plant::Suspend => assert_eq!((condition, in_flight), (Condition::Halted(Halt::Suspended), 0)),
            Plant::Panic => assert_eq!((condition, in_flight), (Condition::Halted(Halt::Panicked), 0)),
            Plant::Dma => assert_eq!(condition, Condition::Overwritten),
            _ => {
                assert_eq!((condition, progress.resets), (Condition::Responsive, 1));
                assert_eq!(sim.reset_points(), [length]);
            }
        }
        if plant != Plant::Reset {
            assert_eq!(progress.started, length, "{plant:?}");
        }
    }
}

#[test]
fn without_its_plant_a_machine_takes_a_trigger() {
    for plant in Plant::ALL {
        let mut sim = sim(SimOptions { plants: Vec::new(), ..SimOptions::default() });
        let program = plant.trigger();
        assert_eq!(execute(&mut sim, &program).done, program.len() as u64, "{plant:?}");
        assert_eq!(sim.condition(SHORT), Condition::Responsive);
    }
}

#[test]
fn no_part_of_a_trigger_does_it() {
    for plant in [Plant::Sequence, Plant::IndexData, Plant::AfterReset] {
        let trigger = plant.trigger();
        for left_out in 0..trigger.len() {
            let mut program = trigger.clone();
            program.remove(left_out);
            let mut sim = sim(options(plant));
            assert_eq!(
                execute(&mut sim, &program).done,
                program.len() as u64,
                "{plant:?} without {left_out}"
            );
        }
    }
}

#[test]
fn recovery_in_its_order() {
    let unaffected = out(0x3ff, 7);
    let mut hung = sim(options(Plant::ProgramHang));
    let mut program = Plant::ProgramHang.trigger();
    program.extend([unaffected.clone(), inb(0x3ff)]);
    hung.keep_values(true);
    assert_eq!(execute(&mut hung, &program), Progress { started: 1, done: 0, resets: 0 });
    hung.recover(Recovery::Login, SHORT).unwrap();
    assert_eq!(execute(&mut hung, &[]), Progress { started: 3, done: 3, resets: 0 });
    assert_eq!(hung.values()[0].value, 7, "what waited is executed");

    for plant in [Plant::Hang, Plant::Shutdown, Plant::Suspend, Plant::Panic, Plant::Dma] {
        let mut sim = sim(options(plant));
        execute(&mut sim, &[plant.trigger(), vec![unaffected.clone()]].concat());
        assert!(sim.recover(Recovery::Login, SHORT).is_err(), "{plant:?}");
        sim.recover(Recovery::Reset, SHORT).unwrap();
        assert_eq!(execute(&mut sim, &[]), Progress { started: 2, done: 2, resets: 1 }, "{plant:?}");
        assert_eq!(sim.reset_points(), [1]);
        assert_eq!(sim.condition(SHORT), Condition::Responsive);
    }

    let mut deadlocked = sim(options(Plant::Deadlock));
    execute(&mut deadlocked, &Plant::Deadlock.trigger());
    assert!(matches!(deadlocked.recover(Recovery::Reset, SHORT), Err(Error::NoAnswer { .. })));
    deadlocked.start().unwrap();
    assert_eq!(deadlocked.condition(SHORT), Condition::Responsive);

    let mut dead = sim(options(Plant::Abort));
    execute(&mut dead, &Plant::Abort.trigger());
    assert!(matches!(dead.recover(Recovery::Reset, SHORT), Err(Error::Dead)));
    assert!(matches!(dead.submit(&[unaffected]), Err(Error::Dead)));
    let mut plain = sim(SimOptions::default());
    assert!(matches!(plain.recover(Recovery::Login, SHORT), Err(Error::Unsupported { .. })));
}

#[test]
fn a_stall_ends() {
    let mut sim = sim(SimOptions { stall: Duration::from_millis(100), ..options(Plant::Stall) });
    let begun = Instant::now();
    execute(&mut sim, &[Plant::Stall.trigger(), vec![inb(0x3ff)]].concat());
    assert_eq!(sim.condition(Duration::from_millis(5)), Condition::VmmSilent);
    assert_eq!(sim.condition(Duration::from_secs(10)), Condition::Responsive);
    assert!((100..5000).contains(&begun.elapsed().as_millis()));
    assert_eq!(execute(&mut sim, &[]).done, 2);
}

#[test]
fn a_flaky_fault_comes_in_some_starts_and_in_the_same_ones() {
    let crashes = |seed| {
        let mut sim = Sim::new(SimOptions { seed, flaky_one_in: 4, ..SimOptions::default() });
        let mut start = || {
            sim.start().unwrap();
            execute(&mut sim, &Plant::Flaky.trigger()).done == 0
        };
        (0..64).map(|_| start()).collect::<Vec<_>>()
    };
    let count = crashes(1).iter().filter(|crash| **crash).count();
    assert!((4..32).contains(&count), "{count}");
    assert_eq!(crashes(1), crashes(1));
    assert_ne!(crashes(1), crashes(2));
}

#[test]
fn the_devices_are_real_in_shape() {
    let mut sim = sim(SimOptions::default());
    let bridge = PciAddress::new(0, 0, 0).unwrap();
    let nic = PciAddress::new(0, 3, 0).unwrap();
    let read = |function, register| Instruction::PciRead { function, register, width: PortWidth::Long };
    let write =
        |register, value| Instruction::PciWrite { function: nic, register, width: PortWidth::Long, value };
    let program = [
        out(0x3ff, 0x5a),
        inb(0x3ff),
        out(0x70, 0x40),
        out(0x71, 0x33),
        inb(0x71),
        Instruction::ClockStep { nanoseconds: 5_000_000_000 },
        out(0x70, 0),
        inb(0x71),
        read(bridge, 0),
        read(nic, 0),
        read(PciAddress::new(0, 5, 0).unwrap(), 0),
        // The size of its base address registers, and where they are put.
        write(0x10, u32::MAX),
        read(nic, 0x10),
        write(0x14, u32::MAX),
        read(nic, 0x14),
        write(0x10, 0xfe00_0000),
        write(0x14, 0xc000),
        out(0xc004, 9),
        inb(0xc004),
        write(4, 3),
        out(0xc004, 9),
        inb(0xc004),
        Instruction::Write { address: 0xfe00_0008, width: Width::Long, value: 0x0403_0201 },
        Instruction::Read { address: 0xfe00_0008, width: Width::Quad },
    ];
    let expected = [
        0x5a,
        0x33,
        5,
        0x1237_8086,
        0x100e_8086,
        0xffff_ffff,
        0xffff_f000,
        0xffff_ffc1,
        0xff,
        9,
        0x0403_0201,
    ];
    assert_eq!(values(&mut sim, &program), expected);
    // A reset takes it all back; the prologue brings it again.
    sim.set_prologue(&[write(0x14, 0xc000), write(4, 1)]);
    assert_eq!(values(&mut sim, &[Instruction::Reset, inb(0x3ff), read(nic, 0x14)]), [0, 0xc001]);
}

#[test]
fn memory_and_strings() {
    let mut sim = sim(SimOptions::default());
    let ram = 0x8_0000;
    let program = [
        Instruction::WriteBlock { address: ram, bytes: [1, 2, 3].into() },
        Instruction::OutString { port: 0x3ff, width: PortWidth::Byte, address: ram, count: 3 },
        Instruction::InString { port: 0x3ff, width: PortWidth::Byte, address: ram + 0x10, count: 2 },
        Instruction::Read { address: ram + 0x10, width: Width::Long },
        Instruction::Fill { address: ram + 0x20, length: 7, width: Width::Word, pattern: 0x1234 },
        Instruction::Read { address: ram + 0x20, width: Width::Quad },
        Instruction::Read { address: u64::MAX - 1, width: Width::Word },
    ];
    assert_eq!(values(&mut sim, &program), [0x0303, 0x34_1234_1234_1234, 0xffff]);
    // What an instruction may not be is cut, and does not take for ever.
    let huge = [
        Instruction::Fill { address: 1 << 40, length: u32::MAX, width: Width::Byte, pattern: 0 },
        Instruction::InString { port: 0xffff, width: PortWidth::Long, address: u64::MAX, count: u32::MAX },
        Instruction::Delay { count: u32::MAX },
        Instruction::ClockStep { nanoseconds: u64::MAX },
        Instruction::Burst { count: u16::MAX },
    ];
    assert_eq!(sim.condition(SHORT), Condition::Responsive);
    let done = sim.progress().done;
    assert_eq!(execute(&mut sim, &huge).done, done + 5);
}

#[test]
fn regions_name_every_plant() {
    let map = Sim::regions();
    for plant in Plant::ALL {
        for instruction in plant.trigger() {
            if let Some((space, address)) = guest_fuzz::region::RegionMap::place_of(&instruction) {
                assert_eq!(map.narrowest(space, address).unwrap().name, plant.name());
            }
        }
    }
}

#[test]
fn ten_million_instructions_a_second() {
    let mut sim = sim(SimOptions::default());
    let program: Vec<_> = (0..65_536u32).map(|n| out(0x3f8 + (n % 8) as u16, n & 0x7f)).collect();
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < Duration::from_millis(300) {
        count += sim.submit(&program).unwrap();
        while sim.progress().done < count as u64 {
            sim.wait(SHORT);
        }
    }
    let rate = count as f64 / begun.elapsed().as_secs_f64() / 1e6;
    println!("{rate:.1} million instructions a second");
    assert!(cfg!(debug_assertions) || rate > 5.0, "{rate}");
}
