//! The micro guest, in the QEMU on PATH.

#![cfg(all(feature = "qemu", target_os = "linux"))]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::time::{Duration, Instant};

use guest_fuzz::instruction::{Instruction, PciAddress, PortWidth, Width};
use guest_fuzz::region::Space;
use guest_fuzz::skip::SkipList;
use guest_fuzz::target::micro_guest::MicroGuest;
use guest_fuzz::target::qemu::QemuCommand;
use guest_fuzz::target::{Progress, Recovery, Target};
use guest_fuzz::verdict::{Condition, Halt};

const PATIENCE: Duration = Duration::from_secs(10);
const RAM: u64 = 0x80_0000;

fn machine(arguments: &[&str]) -> MicroGuest {
    let mut target = MicroGuest::new(QemuCommand::new("qemu-system-x86_64", arguments)).unwrap();
    target.start().unwrap();
    target
}

fn pc() -> MicroGuest {
    machine(&["-M", "pc", "-nodefaults"])
}

fn out(port: u16, value: u32) -> Instruction {
    Instruction::Out { port, width: PortWidth::Byte, value }
}

fn inb(port: u16) -> Instruction {
    Instruction::In { port, width: PortWidth::Byte }
}

/// Executes it all, or as much as is done before nothing is done for a second.
fn execute(target: &mut MicroGuest, instructions: &[Instruction]) -> Progress {
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

/// What the instructions read.
fn values(target: &mut MicroGuest, instructions: &[Instruction]) -> Vec<u64> {
    target.keep_values(true);
    let done = execute(target, instructions).done;
    let values = target.values();
    target.keep_values(false);
    assert!(values.iter().all(|value| value.index < done));
    values.iter().map(|value| value.value).collect()
}

#[test]
fn every_instruction_does_what_it_says() {
    let mut target = pc();
    let read = |address, width| Instruction::Read { address, width };
    let write = |address, width, value| Instruction::Write { address, width, value };
    let mut program = Vec::new();
    // RAM in all widths.
    for (number, width) in Width::ALL.into_iter().enumerate() {
        let address = RAM + 8 * number as u64;
        program.extend([
            write(address, Width::Quad, u64::MAX),
            write(address, width, 0x0102_0304_0506_0708 & width.max()),
        ]);
        program.push(read(address, width));
        program.push(read(address, Width::Quad));
    }
    // DMA page registers keep what they are given, as does the address of the PCI configuration.
    for (width, port) in PortWidth::ALL.into_iter().zip([0x81, 0x82, 0xcf8]) {
        program.push(Instruction::Out { port, width, value: 0x4433_2210 & width.max() });
        program.push(Instruction::In { port, width });
    }
    // Each width at a port of its own.
    let config = |port, width, value| Instruction::Out { port, width, value };
    program.push(config(0xcf8, PortWidth::Long, 0x8000_003c));
    program.push(config(0xcfc, PortWidth::Word, 0x1234));
    program.push(config(0xcfc, PortWidth::Byte, 0x56));
    program.push(Instruction::In { port: 0xcfc, width: PortWidth::Byte });
    program.push(Instruction::In { port: 0xcf8, width: PortWidth::Long });
    program.push(Instruction::In { port: 0xcfe, width: PortWidth::Word });
    // PCI: the host bridge's identity, and a register that keeps what it is given.
    let bridge = PciAddress::new(0, 0, 0).unwrap();
    program.push(Instruction::PciRead { function: bridge, register: 0, width: PortWidth::Long });
    program.push(Instruction::PciRead { function: bridge, register: 2, width: PortWidth::Word });
    program.push(Instruction::PciWrite {
        function: bridge,
        register: 0x3c,
        width: PortWidth::Byte,
        value: 0x5a,
    });
    program.push(Instruction::PciRead { function: bridge, register: 0x3c, width: PortWidth::Byte });
    // Blocks and patterns.
    let bytes: Vec<u8> = (0..11).collect();
    program.push(Instruction::WriteBlock { address: RAM + 0x100, bytes: bytes.into() });
    program.extend([read(RAM + 0x100, Width::Quad), read(RAM + 0x108, Width::Quad)]);
    program.push(Instruction::Fill { address: RAM + 0x200, length: 13, width: Width::Word, pattern: 0x1234 });
    program.extend([read(RAM + 0x200, Width::Quad), read(RAM + 0x208, Width::Quad)]);
    // Strings: out of memory into a page register, and back.
    program.push(Instruction::OutString {
        port: 0x81,
        width: PortWidth::Byte,
        address: RAM + 0x100,
        count: 4,
    });
    program.push(Instruction::InString {
        port: 0x81,
        width: PortWidth::Byte,
        address: RAM + 0x300,
        count: 3,
    });
    program.push(read(RAM + 0x300, Width::Long));
    program.push(Instruction::Delay { count: 10 });
    program.push(Instruction::ClockStep { nanoseconds: 1000 });
    program.push(Instruction::Burst { count: 2 });
    program.push(inb(0x80));
    let values = values(&mut target, &program);
    let expected: [u64; 23] = [
        0x08,
        0xffff_ffff_ffff_ff08,
        0x0708,
        0xffff_ffff_ffff_0708,
        0x0506_0708,
        0xffff_ffff_0506_0708,
        0x0102_0304_0506_0708,
        0x0102_0304_0506_0708,
        0x10,
        0x2210,
        0x4433_2210,
        0x56,
        0x8000_003c,
        0x0000,
        0x1237_8086,
        0x1237,
        0x5a,
        0x0706_0504_0302_0100,
        0x000a_0908,
        0x1234_1234_1234_1234,
        0x34_1234_1234,
        0x0003_0303,
        0xff,
    ];
    assert_eq!(values, expected, "{values:x?}");
}

#[test]
fn a_reset_goes_on_behind_the_instruction_that_caused_it() {
    let mut target = pc();
    let function = PciAddress::new(0, 1, 0).unwrap();
    let write = Instruction::PciWrite { function, register: 0x60, width: PortWidth::Byte, value: 5 };
    let read = Instruction::PciRead { function, register: 0x60, width: PortWidth::Byte };
    // A reset takes the routing of an interrupt back.
    let program = [write.clone(), read.clone(), Instruction::Reset, read, write, Instruction::Reset];
    assert_eq!(values(&mut target, &program), [5, 0x80]);
    assert_eq!(target.progress(), Progress { started: 6, done: 6, resets: 2 });
    // One that comes when it likes: through the keyboard controller.
    let progress = execute(&mut target, &[out(0x64, 0xfe), inb(0x81)]);
    assert_eq!((progress.done, progress.started), (8, 8));
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(target.progress().resets, 3);
    // From outside.
    target.recover(Recovery::Reset, PATIENCE).unwrap();
    assert_eq!(target.progress(), Progress { started: 8, done: 8, resets: 4 });
    assert_eq!(execute(&mut target, &[inb(0x80)]).done, 9);
    let points = target.reset_points();
    assert_eq!((points[0], points[1], points[3]), (3, 6, 8), "{points:?}");
    assert!(matches!(points[2], 7 | 8), "{points:?}");
}

#[test]
fn the_prologue_runs_again_after_each_reset() {
    let mut target =
        MicroGuest::new(QemuCommand::new("qemu-system-x86_64", ["-M", "pc", "-nodefaults"])).unwrap();
    target.set_prologue(&[out(0x81, 0x77)]);
    target.start().unwrap();
    assert_eq!(values(&mut target, &[inb(0x81), out(0x81, 1), Instruction::Reset, inb(0x81)]), [0x77, 0x77]);
    assert_eq!(target.progress().done, 4);
}

#[test]
fn the_a20_gate_does_not_stop_it() {
    let mut target = pc();
    let program = [out(0x92, 0), out(0x64, 0xd1), out(0x60, 0xdd), inb(0x80), out(0x81, 5), inb(0x81)];
    assert_eq!(values(&mut target, &program)[1], 5);
}

#[test]
fn the_instruction_in_flight_is_known_when_qemu_dies() {
    let mut target = machine(&["-M", "pc", "-nodefaults", "-device", "pc-testdev"]);
    let mut program = vec![out(0x80, 1); 1000];
    program.push(out(0x2014, 0));
    program.extend(vec![out(0x80, 1); 1000]);
    let progress = execute(&mut target, &program);
    assert_eq!(progress, Progress { started: 1001, done: 1000, resets: 0 });
    let Condition::Dead(death) = target.condition(PATIENCE) else { panic!("it lives") };
    assert_eq!(death.signal, Some(6));
    assert!(target.submit(&[inb(0x80)]).is_ok());
    // A fresh machine begins anew.
    target.start().unwrap();
    assert_eq!(execute(&mut target, &[inb(0x80)]).done, 1);
    assert_eq!(target.condition(PATIENCE), Condition::Responsive);
}

#[test]
fn what_a_guest_may_do_to_itself() {
    let mut target = machine(&["-M", "pc", "-nodefaults", "-device", "pvpanic"]);
    let shutdown = Instruction::Out { port: 0x604, width: PortWidth::Word, value: 0x2000 };
    let suspend = Instruction::Out { port: 0x604, width: PortWidth::Word, value: 0x2400 };
    for (instruction, halt) in
        [(shutdown, Halt::Shutdown), (suspend, Halt::Suspended), (out(0x505, 1), Halt::Panicked)]
    {
        // The power management's ports are where the firmware puts them.
        let pm = PciAddress::new(0, 1, 3).unwrap();
        let program = [
            Instruction::PciWrite { function: pm, register: 0x40, width: PortWidth::Long, value: 0x601 },
            Instruction::PciWrite { function: pm, register: 0x80, width: PortWidth::Byte, value: 1 },
            instruction,
        ];
        execute(&mut target, &program);
        let begun = Instant::now();
        while target.condition(PATIENCE) != Condition::Halted(halt) {
            assert!(begun.elapsed() < PATIENCE, "{halt:?}");
        }
        target.recover(Recovery::Reset, PATIENCE).unwrap();
        assert_eq!(target.condition(PATIENCE), Condition::Responsive, "after {halt:?}");
    }
}

#[test]
fn a_stopped_qemu_is_silent_and_a_guest_without_its_program_is_overwritten() {
    let mut target = pc();
    let id = target.qemu().unwrap().id() as i32;
    let send = |signal| nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), signal).unwrap();
    send(nix::sys::signal::Signal::SIGSTOP);
    assert_eq!(target.condition(Duration::from_millis(100)), Condition::VmmSilent);
    send(nix::sys::signal::Signal::SIGCONT);
    assert_eq!(target.condition(PATIENCE), Condition::Responsive);
    // jmp $, all over the code.
    let destroy =
        Instruction::Fill { address: 0x20_0000, length: 0x1000, width: Width::Word, pattern: 0xfeeb };
    let progress = execute(&mut target, &[destroy, inb(0x80)]);
    assert_eq!((progress.started, progress.done), (1, 0));
    assert_eq!(target.condition(Duration::from_millis(100)), Condition::Overwritten);
    target.recover(Recovery::Reset, PATIENCE).unwrap();
    assert_eq!(target.wait(PATIENCE).done, 2);
}

/// The guest's own counters and its prologue, overwritten by what the guest was told.
#[test]
fn a_control_block_that_is_overwritten_is_restored() {
    use guest_fuzz::engine::{Patience, execute, to_the_end};
    let write = |address, value| Instruction::Write { address, width: Width::Long, value };
    // How many were begun, how often it booted, the prologue's length and slots.
    for address in [0x21_1240, 0x21_1040, 0x21_1100, 0x22_0000] {
        let mut target =
            MicroGuest::new(QemuCommand::new("qemu-system-x86_64", ["-M", "pc", "-nodefaults"])).unwrap();
        target.set_prologue(&[out(0x81, 0x77)]);
        target.start().unwrap();
        let program =
            [inb(0x80), write(address, 0x5), out(0x81, 1), Instruction::Reset, inb(0x81), inb(0x80)];
        let patience = Patience { hang: Duration::from_secs(2), ..Patience::default() };
        let begun = Instant::now();
        let execution =
            execute(&mut target, &[], &mut program.iter().cloned(), &patience, &mut to_the_end).unwrap();
        assert!(begun.elapsed() < PATIENCE, "{address:#x}");
        // A number of boots that could be one is believed.
        assert!(execution.resets <= 5 && execution.reset_points.len() <= 5, "{address:#x}: {execution:?}");
        // The same machine, when it is brought back.
        target.recover(Recovery::Reset, PATIENCE).unwrap();
        assert_eq!(values(&mut target, &[inb(0x81)]), [0x77], "{address:#x}");
    }
}

/// What is not an operation, the mark that the guest has for the end of its queue included, is none.
#[test]
fn a_queue_that_is_overwritten_does_not_stop_it() {
    let mut target = pc();
    for (number, operation) in [0x7e, 0xff].into_iter().enumerate() {
        let third = 0x40_0000 + 16 * (4 * number as u64 + 2);
        let overwrite = Instruction::Write { address: third, width: Width::Byte, value: operation };
        let program = [overwrite, out(0x81, 1), out(0x81, 2), inb(0x81)];
        assert_eq!(values(&mut target, &program), [1], "{operation:#x}");
    }
    assert_eq!(target.progress(), Progress { started: 8, done: 8, resets: 0 });
}

#[test]
fn a_queue_has_no_end() {
    let mut target = pc();
    let pairs = |first: u32| (first..first + 9_999).flat_map(|value| [out(0x81, value & 0xff), inb(0x81)]);
    for round in 0..10 {
        let program: Vec<Instruction> = pairs(round).collect();
        let expected: Vec<u64> = (round..round + 9_999).map(|value| u64::from(value & 0xff)).collect();
        assert!(values(&mut target, &program) == expected, "round {round}");
    }
}

#[test]
fn every_machine_that_takes_a_firmware() {
    for machine_type in ["pc", "q35", "isapc", "microvm"] {
        let mut target = machine(&["-M", machine_type]);
        let program = [out(0x80, 1), inb(0x80), Instruction::Reset, inb(0x80)];
        assert_eq!(execute(&mut target, &program).done, 4, "{machine_type}");
    }
}

/// How often the next test kills QEMU. `GUEST_FUZZ_KILLS` says otherwise.
fn kills() -> u64 {
    std::env::var("GUEST_FUZZ_KILLS").map_or(25, |kills| kills.parse().unwrap())
}

/// What the device got is what the counters say: each of the instructions that ended, and perhaps the one in flight.
#[test]
fn killed_at_random_it_says_what_it_was_doing() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let debugcon = format!("file:{}", log.display());
    let mut target = machine(&["-M", "pc", "-nodefaults", "-debugcon", &debugcon]);
    let program: Vec<Instruction> = (0..60_000).map(|number| out(0xe9, number & 0xff)).collect();
    let mut random = guest_fuzz::random::Random::new(1);
    for _ in 0..kills() {
        target.submit(&program).unwrap();
        std::thread::sleep(Duration::from_micros(random.below(8000)));
        target.qemu().unwrap().kill();
        let progress = target.progress();
        let logged = std::fs::read(&log).unwrap();
        let logged = &logged[..];
        assert!(logged.iter().enumerate().all(|(number, byte)| number as u8 == *byte));
        let begun = logged.len() as u64;
        assert!((progress.done..=progress.started).contains(&begun), "{progress:?}, the device got {begun}");
        assert!(progress.started - progress.done <= 1, "{progress:?}");
        // QEMU goes on with a log that is there; a fresh one is wanted.
        std::fs::remove_file(&log).unwrap();
        target.start().unwrap();
    }
}

#[test]
fn a_survey_finds_what_is_there_and_the_prologue_brings_it_back() {
    let arguments = ["-M", "pc", "-nodefaults", "-device", "rtl8139", "-device", "pc-testdev"];
    let mut target = machine(&arguments);
    let map = target.survey(&SkipList::parse("power").unwrap()).unwrap();
    let bar =
        map.regions.iter().find(|region| region.space == Space::Port && region.name == "rtl8139").unwrap();
    assert!(bar.first >= 0xc000 && bar.last - bar.first == 0xff, "{bar:?}");
    assert!(map.regions.iter().any(|region| region.space == Space::Memory && region.name == "rtl8139"));
    assert!(map.skipped.iter().any(|skipped| skipped.region.first == 0xcf9), "{:?}", map.skipped);
    let read = inb(bar.first as u16 + 0x58);
    let prologue: Vec<Instruction> = map.prologue.iter().map(|text| text.parse().unwrap()).collect();
    let before = values(&mut target, std::slice::from_ref(&read));
    assert_ne!(before, [0xff], "nothing answers there");
    target.set_prologue(&prologue);
    target.start().unwrap();
    assert_eq!(values(&mut target, &[read.clone(), Instruction::Reset, read]), [before[0], before[0]]);
}
