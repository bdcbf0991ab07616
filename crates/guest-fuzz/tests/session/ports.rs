//! That reads reach the port that was asked for and writes carry the value, at speed.

use std::time::{Duration, Instant};

use guest_fuzz::instruction::{Instruction, PciAddress, PortWidth};
use guest_fuzz::random::Random;
use guest_fuzz::target::Target;
use guest_fuzz::target::session::Way;

use crate::guest::{inb, machine, options, outb, read, run, started};

/// The second serial port's divisor, which remembers a byte, and its scratch register.
const DIVISOR: u16 = 0x2f8;
const SCRATCH: u16 = 0x2ff;

/// The seed's algorithm on `ports`, each write read back.
fn classic(ports: &[u16], count: usize) -> Vec<Instruction> {
    let mut random = Random::new(1);
    let mut program: Vec<Instruction> = ports.iter().map(|&port| inb(port)).collect();
    program.extend(ports.iter().flat_map(|&port| [outb(port, 0), inb(port)]));
    for _ in 0..count {
        let port = *random.choose(ports).unwrap();
        program.extend([outb(port, random.below(256) as u32), inb(port)]);
    }
    program
}

#[test]
fn every_value_that_is_written_is_read_back_fast() {
    let mut machine = machine("vmlinuz-cloud", "");
    machine.arguments.extend(["-serial", "null", "-serial", "null"].map(Into::into));
    // Ours is the third port then: the guest's console stays there.
    let position = machine.arguments.iter().position(|word| word == "-append").unwrap();
    let line = machine.arguments[position + 1].to_str().unwrap().replace("ttyS0", "ttyS2");
    machine.arguments[position + 1] = line.into();
    let mut session = started(options(machine));
    assert_eq!((session.way(), session.shares_memory()), (Some(Way::Iopl), true));
    let ioports = session.read_proc_ioports().unwrap();
    assert!(ioports.contains("0000-001f : dma1") && ioports.contains("0cf8-0cff : PCI conf1"), "{ioports}");
    assert!(session.shares_memory(), "after the shell was used");

    // DLAB: the divisor's two bytes are where data and interrupts were.
    run(&mut session, &[outb(0x2fb, 0x83)], Duration::from_secs(10));
    let ports = [DIVISOR, DIVISOR + 1, SCRATCH];
    let program = classic(&ports, 200_000);
    let begun = Instant::now();
    run(&mut session, &program, Duration::from_secs(60));
    let seconds = begun.elapsed().as_secs_f64();
    let values = session.values();

    let mut contents = [None; 3];
    let mut values = values.iter();
    let at = |port| ports.iter().position(|&candidate| candidate == port).unwrap();
    let start = session.progress().done - program.len() as u64;
    for (index, instruction) in program.iter().enumerate() {
        match *instruction {
            Instruction::Out { port, value, .. } => contents[at(port)] = Some(u64::from(value)),
            Instruction::In { port, .. } => {
                let read = values.next().unwrap();
                assert_eq!(read.index, start + index as u64);
                assert!(contents[at(port)].is_none_or(|written| written == read.value), "{index}: {read:?}");
            }
            _ => {}
        }
    }
    assert_eq!(values.next(), None);
    let rate = program.len() as f64 / seconds;
    eprintln!("session, shared memory: {rate:.0} verified operations a second");
    // A million is usual; a console has ten thousand. The machine may have other things to do.
    assert!(rate > 50_000.0, "{rate:.0} a second");

    // Wider accesses, and what is made of two.
    let function = PciAddress::new(0, 0, 0).unwrap();
    let program = [
        Instruction::Out { port: 0xcf8, width: PortWidth::Long, value: 0x8000_1234 & !3 },
        Instruction::In { port: 0xcf8, width: PortWidth::Long },
        Instruction::PciRead { function, register: 0, width: PortWidth::Long },
        Instruction::PciRead { function, register: 2, width: PortWidth::Word },
        Instruction::In { port: 0xcfe, width: PortWidth::Word },
    ];
    assert_eq!(read(&mut session, &program), [0x8000_1234, 0x1237_8086, 0x1237, 0x1237]);
    let before = session.without_effect();
    let delay = [Instruction::Delay { count: 1000 }, Instruction::ClockStep { nanoseconds: 20_000_000 }];
    let begun = Instant::now();
    run(&mut session, &delay, Duration::from_secs(10));
    assert!(begun.elapsed() >= Duration::from_millis(20));
    run(&mut session, &[Instruction::Burst { count: 2 }, inb(0x80), inb(0x80)], Duration::from_secs(10));
    assert_eq!(session.without_effect(), before + 1);
}
