use proptest::prelude::*;

use super::*;
use crate::instruction::strategy;

const PORT: PortWidth = PortWidth::Byte;

fn read(text: &str) -> Instruction {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[track_caller]
fn written_as(text: &str, instruction: &Instruction) {
    assert_eq!(read(text), *instruction, "{text}");
    assert_eq!(instruction.to_string(), text);
}

#[test]
fn every_instruction_has_its_text() {
    let function = PciAddress::new(0, 31, 2).unwrap();
    written_as("inb 0x3f8", &Instruction::In { port: 0x3f8, width: PORT });
    written_as("inw 0x3ff", &Instruction::In { port: 0x3ff, width: PortWidth::Word });
    written_as(
        "outl 0xcf8 0x80000000",
        &Instruction::Out { port: 0xcf8, width: PortWidth::Long, value: 1 << 31 },
    );
    written_as(
        "insw 0x1f0 0x10000 256",
        &Instruction::InString { port: 0x1f0, width: PortWidth::Word, address: 0x10000, count: 256 },
    );
    written_as(
        "outsb 0x402 0x10000 65536",
        &Instruction::OutString { port: 0x402, width: PORT, address: 0x10000, count: 65536 },
    );
    written_as("readq 0xfebc0000", &Instruction::Read { address: 0xfebc_0000, width: Width::Quad });
    written_as(
        "writeq 0xffffffffffffffff 0xffffffffffffffff",
        &Instruction::Write { address: u64::MAX, width: Width::Quad, value: u64::MAX },
    );
    written_as(
        "write 0x1000 4 0x00ff10a5",
        &Instruction::WriteBlock { address: 0x1000, bytes: [0, 0xff, 0x10, 0xa5].into() },
    );
    written_as("write 0x1000 0 0x", &Instruction::WriteBlock { address: 0x1000, bytes: [].into() });
    written_as(
        "memset 0x1000 4096 0xaa",
        &Instruction::Fill { address: 0x1000, length: 4096, width: Width::Byte, pattern: 0xaa },
    );
    written_as(
        "filll 0x1000 10 0x12345678",
        &Instruction::Fill { address: 0x1000, length: 10, width: Width::Long, pattern: 0x1234_5678 },
    );
    written_as(
        "pci_readw 00:1f.2 0x4",
        &Instruction::PciRead { function, register: 4, width: PortWidth::Word },
    );
    written_as(
        "pci_writel 00:1f.2 0x10 0xe0000000",
        &Instruction::PciWrite { function, register: 0x10, width: PortWidth::Long, value: 0xe000_0000 },
    );
    written_as("delay 1000000", &Instruction::Delay { count: MAX_DELAY });
    written_as("clock_step 100", &Instruction::ClockStep { nanoseconds: 100 });
    written_as("burst 3", &Instruction::Burst { count: 3 });
    written_as("reset", &Instruction::Reset);
}

#[test]
fn every_width_has_its_letter() {
    for (letter, width) in ["b", "w", "l"].into_iter().zip(PortWidth::ALL) {
        assert_eq!(read(&format!("in{letter} 1")), Instruction::In { port: 1, width });
        let max = width.max();
        assert_eq!(read(&format!("out{letter} 1 {max}")), Instruction::Out { port: 1, width, value: max });
    }
    for (letter, width) in ["b", "w", "l", "q"].into_iter().zip(Width::ALL) {
        assert_eq!(read(&format!("read{letter} 1")), Instruction::Read { address: 1, width });
        let max = width.max();
        let (address, length) = (1, 2);
        assert_eq!(
            read(&format!("write{letter} 1 {max}")),
            Instruction::Write { address, width, value: max }
        );
        let fill = Instruction::Fill { address, length, width, pattern: max };
        assert_eq!(read(&format!("fill{letter} 1 2 {max}")), fill);
    }
}

#[test]
fn other_spellings_of_qtest_are_read() {
    for (text, same) in [
        ("outb 1016 01", "outb 0x3f8 0x1"),
        ("outb 0X3F8 0377", "outb 0x3f8 0xff"),
        (" \toutb\t0x3f8   0\r\n", "outb 0x3f8 0x0"),
        ("fillb 0x0 0x10 1", "memset 0x0 16 0x1"),
        ("write 0x0 0x2 0xABcd", "write 0x0 2 0xabcd"),
        ("read 0x10 0x4", "readl 0x10"),
        ("read 0x10 1", "readb 0x10"),
        ("clock_step", "clock_step 1000000"),
        ("pci_readb 0:1F.0 0", "pci_readb 00:1f.0 0x0"),
    ] {
        assert_eq!(read(text).to_string(), same, "{text}");
    }
}

#[test]
fn errors_say_what_is_expected_and_what_is_there() {
    for (text, expected, found) in [
        ("", COMMAND, NOTHING),
        ("OUTB 1 1", COMMAND, "\"OUTB\""),
        ("inq 1", COMMAND, "\"inq\""),
        ("é 1", COMMAND, "\"é\""),
        ("b", COMMAND, "\"b\""),
        ("inb", "a port", NOTHING),
        ("inb 0x10000", "a port, at most 0xffff", "\"0x10000\""),
        ("inb -1", "a port, at most 0xffff", "\"-1\""),
        ("inb +1", "a port, at most 0xffff", "\"+1\""),
        ("inb 0x", "a port, at most 0xffff", "\"0x\""),
        ("inb 0x+1", "a port, at most 0xffff", "\"0x+1\""),
        ("inb 0x1\u{a0}", "a port, at most 0xffff", "\"0x1\\u{a0}\""),
        ("inb 089", "a port, at most 0xffff (with a 0 in front it is octal)", "\"089\""),
        ("inb 1 2", "the end of the line", "\"2\""),
        ("reset now", "the end of the line", "\"now\""),
        ("outb 1", "a value", NOTHING),
        ("outb 1 256", "a value, at most 0xff", "\"256\""),
        ("outw 1 0x10000", "a value, at most 0xffff", "\"0x10000\""),
        ("outl 1 0x100000000", "a value, at most 0xffffffff", "\"0x100000000\""),
        ("writel 1 0x100000000", "a value, at most 0xffffffff", "\"0x100000000\""),
        ("readb 0x10000000000000000", "an address, at most 0xffffffffffffffff", "\"0x10000000000000000\""),
        ("insb 1 2 65537", "a count, at most 65536", "\"65537\""),
        ("memset 0 1048577 0", "a length in bytes, at most 1048576", "\"1048577\""),
        ("fillw 0 2 0x10000", "a pattern, at most 0xffff", "\"0x10000\""),
        ("read 0 3", "a length of 1, 2, 4 or 8", "\"3\""),
        ("write 0 65537 0x", "a length, at most 65536", "\"65537\""),
        ("write 0 1", "0x and 2 hexadecimal digits, for 1 byte", NOTHING),
        ("write 0 1 ff", "0x and 2 hexadecimal digits, for 1 byte", "\"ff\""),
        ("write 0 1 0xf", "0x and 2 hexadecimal digits, for 1 byte", "\"0xf\""),
        ("write 0 1 0x+f", "0x and 2 hexadecimal digits, for 1 byte", "\"0x+f\""),
        ("write 0 1 0xffff", "0x and 2 hexadecimal digits, for 1 byte", "\"0xffff\""),
        ("pci_readb 00:20.0 0", "a PCI function, from 00:00.0 to ff:1f.7", "\"00:20.0\""),
        ("pci_readb 00:1f.8 0", "a PCI function, from 00:00.0 to ff:1f.7", "\"00:1f.8\""),
        ("pci_readb 000:1f.0 0", "a PCI function, from 00:00.0 to ff:1f.7", "\"000:1f.0\""),
        ("pci_readb +0:1f.0 0", "a PCI function, from 00:00.0 to ff:1f.7", "\"+0:1f.0\""),
        ("pci_readb 00:1f.0 256", "a register, at most 0xff", "\"256\""),
        ("delay 1000001", "a count, at most 1000000", "\"1000001\""),
        ("clock_step 3600000000001", "nanoseconds, at most 3600000000000", "\"3600000000001\""),
        ("burst 1025", "a count, at most 1024", "\"1025\""),
    ] {
        let error = text.parse::<Instruction>().expect_err(text);
        assert_eq!((error.expected.as_str(), error.found.as_str()), (expected, found), "{text}");
    }
}

#[test]
fn a_value_that_does_not_fit_is_written_as_what_moves() {
    let out = Instruction::Out { port: 0, width: PORT, value: 0x1ff };
    let write = Instruction::Write { address: 0, width: Width::Word, value: u64::MAX };
    let fill = Instruction::Fill { address: 0, length: 1, width: Width::Byte, pattern: 0x100 };
    assert_eq!(out.to_string(), "outb 0x0 0xff");
    assert_eq!(write.to_string(), "writew 0x0 0xffff");
    assert_eq!(fill.to_string(), "memset 0x0 1 0x0");
}

proptest! {
    #[test]
    fn text_round_trip(instruction in strategy::instruction()) {
        prop_assert_eq!(read(&instruction.to_string()), instruction);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[a-z_]{1,6}[bwlq]? ?(0x)?[0-9a-f:.]{0,18} ?(0x)?[0-9a-f]{0,20}.{0,8}") {
        if let Ok(instruction) = text.parse::<Instruction>() {
            prop_assert_eq!(read(&instruction.to_string()), instruction);
        }
    }
}
