//! QEMU's protocol for tests, with the QEMU on PATH.

#![cfg(all(feature = "qemu", target_os = "linux"))]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::time::{Duration, Instant};

use guest_fuzz::error::Error;
use guest_fuzz::instruction::{Instruction, PciAddress, PortWidth, Width};
use guest_fuzz::target::micro_guest::MicroGuest;
use guest_fuzz::target::qemu::QemuCommand;
use guest_fuzz::target::qtest::{Qtest, QtestOptions};
use guest_fuzz::target::{Progress, Recovery, Target};
use guest_fuzz::verdict::{Condition, Halt};

const PATIENCE: Duration = Duration::from_secs(10);
const RAM: u64 = 0x80_0000;

fn machine(arguments: &[&str], running: bool) -> Qtest {
    let command = QemuCommand::new("qemu-system-x86_64", arguments);
    let mut target = Qtest::new(command, QtestOptions { running });
    target.start().unwrap();
    target
}

fn pc() -> Qtest {
    machine(&["-M", "pc", "-nodefaults"], false)
}

fn out(port: u16, value: u32) -> Instruction {
    Instruction::Out { port, width: PortWidth::Byte, value }
}

fn inb(port: u16) -> Instruction {
    Instruction::In { port, width: PortWidth::Byte }
}

/// Executes it all, or as much as is done before nothing is done for a second.
fn execute(target: &mut dyn Target, instructions: &[Instruction]) -> Progress {
    let goal = target.progress().done + instructions.len() as u64;
    let mut rest = instructions;
    loop {
        let before = target.progress().done;
        if let Ok(count) = target.submit(rest) {
            rest = &rest[count..];
        }
        let progress = target.wait(Duration::from_secs(1));
        if progress.done == goal || progress.done == before {
            return progress;
        }
    }
}

fn values(target: &mut dyn Target, instructions: &[Instruction]) -> Vec<u64> {
    target.keep_values(true);
    let first = target.progress().done;
    assert_eq!(execute(target, instructions).done, first + instructions.len() as u64);
    let values = target.values();
    assert!(values.windows(2).all(|pair| pair[0].index < pair[1].index), "in order");
    values.iter().map(|value| value.value).collect()
}

/// Every instruction, with reads that show what it did.
fn everything() -> Vec<Instruction> {
    let read = |address, width| Instruction::Read { address, width };
    let mut program = Vec::new();
    for (number, width) in Width::ALL.into_iter().enumerate() {
        let address = RAM + 8 * number as u64;
        program.push(Instruction::Write { address, width: Width::Quad, value: u64::MAX });
        program.push(Instruction::Write { address, width, value: 0x0102_0304_0506_0708 & width.max() });
        program.extend(Width::ALL.map(|width| read(address, width)));
    }
    for (width, port) in PortWidth::ALL.into_iter().zip([0x81, 0x82, 0xcf8]) {
        program.push(Instruction::Out { port, width, value: 0x4433_2210 & width.max() });
        program.push(Instruction::In { port, width });
    }
    for device in [0, 1, 2, 9] {
        let function = PciAddress::new(0, device, 0).unwrap();
        let pci_read = |register, width| Instruction::PciRead { function, register, width };
        program.extend((0..64).map(|register| pci_read(register * 4, PortWidth::Long)));
        program.extend((0..8).map(|register| pci_read(register, PortWidth::Byte)));
        let value = 0x5a;
        program.push(Instruction::PciWrite { function, register: 0x3c, width: PortWidth::Byte, value });
        program.push(pci_read(0x3c, PortWidth::Word));
    }
    let bytes: Vec<u8> = (0..=255).cycle().take(3000).collect();
    program.push(Instruction::WriteBlock { address: RAM + 0x1001, bytes: bytes.into() });
    for (width, length) in [(Width::Byte, 9), (Width::Word, 13), (Width::Long, 8195), (Width::Quad, 27)] {
        let pattern = 0x0102_0304_0506_0708 & width.max();
        program.push(Instruction::Fill { address: RAM + 0x3003, length, width, pattern });
        program.extend((0..6).map(|at| read(RAM + 0x3000 + 8 * at, Width::Quad)));
        program.push(read(RAM + 0x3000 + u64::from(length), Width::Quad));
    }
    // Strings: out of memory into registers, and back.
    for (width, count) in [(PortWidth::Byte, 5), (PortWidth::Word, 600), (PortWidth::Long, 1)] {
        let (port, address) = (0xcf8, RAM + 0x1001);
        program.push(Instruction::OutString { port: 0x81, width, address, count });
        program.push(Instruction::OutString { port, width, address, count });
        program.push(Instruction::InString { port: 0x81, width, address: RAM + 0x6001, count });
        program.extend((0..160).map(|at| read(RAM + 0x6000 + 8 * at, Width::Quad)));
        program.push(Instruction::In { port, width: PortWidth::Long });
    }
    program.push(Instruction::Delay { count: 1000 });
    program.push(Instruction::ClockStep { nanoseconds: 1000 });
    program.push(Instruction::Burst { count: 2 });
    program.extend([out(0x84, 7), inb(0x84)]);
    program.extend([Instruction::Reset, inb(0x84), read(RAM, Width::Quad), out(0x85, 3), inb(0x85)]);
    program
}

#[test]
fn it_does_what_a_processor_does() {
    let command = QemuCommand::new("qemu-system-x86_64", ["-M", "pc", "-nodefaults"]);
    let mut guest = MicroGuest::new(command).unwrap();
    guest.start().unwrap();
    let program = everything();
    let expected = values(&mut guest, &program);
    for running in [false, true] {
        let mut target = machine(&["-M", "pc", "-nodefaults", "-m", "64"], running);
        let values = values(&mut target, &program);
        let reads = program.iter().enumerate().filter(|(_, instruction)| {
            matches!(
                instruction,
                Instruction::In { .. } | Instruction::Read { .. } | Instruction::PciRead { .. }
            )
        });
        for ((value, expected), (at, instruction)) in values.iter().zip(&expected).zip(reads) {
            assert_eq!(value, expected, "{value:#x} {expected:#x} at {at}: {instruction:?}");
        }
        assert_eq!(values.len(), expected.len());
        assert_eq!((target.progress().resets, target.reset_points().len()), (1, 1));
    }
}

#[test]
fn the_instruction_in_flight_is_known_when_qemu_dies() {
    let mut target = machine(&["-M", "pc", "-nodefaults", "-device", "pc-testdev"], false);
    let mut program = vec![out(0x80, 1); 1000];
    program.push(out(0x2014, 0));
    program.extend(vec![out(0x80, 1); 1000]);
    for _ in 0..5 {
        let progress = execute(&mut target, &program);
        assert_eq!(progress.done, 1000);
        assert!(progress.started > 1000);
        let Condition::Dead(death) = target.condition(PATIENCE) else { panic!("it lives") };
        assert_eq!(death.signal, Some(6));
        assert!(matches!(target.submit(&[inb(0x80)]), Err(Error::Dead)));
        target.start().unwrap();
        assert_eq!(target.condition(PATIENCE), Condition::Responsive);
        assert_eq!(execute(&mut target, &[inb(0x80)]).done, 1);
        target.start().unwrap();
    }
}

#[test]
fn the_prologue_runs_at_the_start_and_after_each_reset() {
    let command = QemuCommand::new("qemu-system-x86_64", ["-M", "pc", "-nodefaults"]);
    let mut target = Qtest::new(command, QtestOptions::default());
    let function = PciAddress::new(0, 1, 0).unwrap();
    let write = |value| Instruction::PciWrite { function, register: 0x60, width: PortWidth::Byte, value };
    let read = Instruction::PciRead { function, register: 0x60, width: PortWidth::Byte };
    target.set_prologue(&[write(7)]);
    target.start().unwrap();
    let program = [read.clone(), write(5), read.clone(), Instruction::Reset, read.clone()];
    assert_eq!(values(&mut target, &program), [7, 5, 7]);
    assert_eq!(target.progress(), Progress { started: 5, done: 5, resets: 1 });
    assert_eq!(target.reset_points(), [4]);
    // From outside, and from a device.
    execute(&mut target, &[write(5)]);
    target.recover(Recovery::Reset, PATIENCE).unwrap();
    assert_eq!(target.values().len(), 0);
    assert_eq!(values(&mut target, std::slice::from_ref(&read)), [7]);
    execute(&mut target, &[write(5), out(0x64, 0xfe)]);
    let begun = Instant::now();
    while target.wait(Duration::from_millis(10)).resets < 3 {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(values(&mut target, &[read]), [7]);
}

#[test]
fn what_a_guest_may_do_to_itself() {
    for running in [false, true] {
        let mut target = machine(&["-M", "pc", "-nodefaults", "-device", "pvpanic"], running);
        let power = |value| Instruction::Out { port: 0x604, width: PortWidth::Word, value };
        let cases = [
            (power(0x2000), Halt::Shutdown),
            (power(0x2400), Halt::Suspended),
            (out(0x505, 1), Halt::Panicked),
        ];
        for (instruction, halt) in cases {
            let pm = PciAddress::new(0, 1, 3).unwrap();
            let program = [
                Instruction::PciWrite { function: pm, register: 0x40, width: PortWidth::Long, value: 0x601 },
                Instruction::PciWrite { function: pm, register: 0x80, width: PortWidth::Byte, value: 1 },
                instruction,
            ];
            execute(&mut target, &program);
            let begun = Instant::now();
            while target.condition(PATIENCE) != Condition::Halted(halt) {
                assert!(begun.elapsed() < PATIENCE, "{halt:?} running {running}");
            }
            target.recover(Recovery::Reset, PATIENCE).unwrap();
            assert_eq!(target.condition(PATIENCE), Condition::Responsive, "{halt:?} running {running}");
        }
    }
}

#[test]
fn silent_when_stopped_and_dead_when_killed() {
    let mut target = pc();
    let id = target.qemu().unwrap().id() as i32;
    let send = |signal| nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), signal).unwrap();
    send(nix::sys::signal::Signal::SIGSTOP);
    target.submit(&vec![out(0x80, 1); 10_000]).unwrap();
    assert_eq!(target.condition(Duration::from_millis(100)), Condition::VmmSilent);
    send(nix::sys::signal::Signal::SIGCONT);
    assert_eq!(target.condition(PATIENCE), Condition::Responsive);
    let begun = Instant::now();
    while target.wait(PATIENCE).done < 10_000 {
        assert!(begun.elapsed() < PATIENCE, "it does not go on");
    }
    assert_eq!(execute(&mut target, &[inb(0x80)]).done, 10_001);
    send(nix::sys::signal::Signal::SIGKILL);
    let Condition::Dead(death) = target.condition(PATIENCE) else { panic!("it lives") };
    assert_eq!(death.signal, Some(9));
}

#[test]
fn vmport_is_an_artefact() {
    let mut target = machine(&["-M", "pc"], false);
    let vmport = Instruction::In { port: 0x5658, width: PortWidth::Long };
    assert!(Qtest::artefact(&vmport).is_some());
    execute(&mut target, &[vmport]);
    assert!(matches!(target.condition(PATIENCE), Condition::Dead(_)));
}

#[test]
fn a_clock_that_stands_is_not_told_to_go_on() {
    let mut target = machine(&["-M", "pc", "-nodefaults"], false);
    assert!(!target.has_clock());
    let program = [inb(0x80), Instruction::ClockStep { nanoseconds: 1000 }, inb(0x80)];
    assert_eq!(execute(&mut target, &program).done, 3);
    assert_eq!(target.condition(PATIENCE), Condition::Responsive);
    for arguments in [["-accel", "qtest"], ["-M", "pc,accel=qtest"], ["-machine", "accel=qtest,usb=off"]] {
        let command = QemuCommand::new("qemu-system-x86_64", arguments);
        assert!(Qtest::new(command, QtestOptions::default()).has_clock(), "{arguments:?}");
    }
    // One accelerator is enough: QEMU does not take two.
    let mut target = machine(&["-M", "pc,accel=tcg", "-nodefaults"], false);
    assert_eq!(execute(&mut target, &program).done, 3);
}

#[test]
fn clocks_that_run_are_waited_for() {
    let mut target = machine(&["-M", "pc", "-nodefaults"], true);
    let begun = Instant::now();
    execute(&mut target, &[Instruction::ClockStep { nanoseconds: 50_000_000 }, inb(0x80)]);
    assert!((50..2000).contains(&begun.elapsed().as_millis()));
}

#[test]
fn pipelined_against_one_by_one() {
    let mut target = pc();
    let program = vec![out(0x80, 1); 16_384];
    let time = |count: usize, target: &mut Qtest, chunk: usize| {
        let begun = Instant::now();
        for _ in 0..count / chunk {
            assert!(execute(target, &program[..chunk]).done > 0);
        }
        count as f64 / begun.elapsed().as_secs_f64()
    };
    let single = time(5_000, &mut target, 1);
    let piped = time(16_384 * 8, &mut target, 16_384);
    println!("{single:.0} one by one, {piped:.0} pipelined");
    assert!(piped > 2.0 * single, "{single} {piped}");
}
