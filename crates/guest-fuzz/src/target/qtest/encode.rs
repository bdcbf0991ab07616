//! [`Steps`]: from an [`Instruction`] to lines of the qtest protocol.

use std::io::Write;

use super::answer::Answer;
use crate::instruction::{Instruction, MAX_BLOCK, MAX_DELAY, MAX_FILL, MAX_STRING, PortWidth, Width};

/// How many lines one part has at most.
const PART_LINES: u32 = 256;
/// How many bytes of memory one line writes at most, but for a block, which is one line: a multiple of every width.
const PART_BYTES: u32 = 4096;

/// What else there is of an instruction, behind its next part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Nothing.
    Nothing,
    /// The next part can be made at once.
    More,
    /// The next part is made of the answers to this one.
    Answers,
}

/// An instruction on its way into lines. Long ones are made in parts, so that a window has room for them.
///
/// A string instruction is up to 256 accesses, then a transfer of memory, and so on: a device that reads the same
/// memory in between sees them later than it would see them from a processor.
#[derive(Debug)]
pub(super) struct Steps {
    instruction: Instruction,
    /// How many accesses or bytes were made into lines.
    at: u32,
    /// Whether the next part is the second half of a step of a string instruction.
    is_second: bool,
    has_clock: bool,
}

impl Steps {
    /// `has_clock`: whether QEMU's virtual clock goes on command.
    pub(super) fn new(instruction: Instruction, has_clock: bool) -> Self {
        Self { instruction, at: 0, is_second: false, has_clock }
    }

    /// Appends the next part to `text`: how many lines, and what is to come. `answers` are those to the part before.
    pub(super) fn next(&mut self, text: &mut Vec<u8>, answers: &[Answer]) -> (u32, Rest) {
        let before = text.len();
        // Writing to a vector does not fail.
        let result = self.append(text, answers);
        let lines = text.iter().skip(before).filter(|&&byte| byte == b'\n').count() as u32;
        (lines, result.unwrap_or(Rest::Nothing))
    }

    fn append(&mut self, text: &mut Vec<u8>, answers: &[Answer]) -> std::io::Result<Rest> {
        match self.instruction {
            Instruction::InString { port, width, address, count } => {
                return self.string_in(text, answers, (port, width, address, count));
            }
            Instruction::OutString { port, width, address, count } => {
                return self.string_out(text, answers, (port, width, address, count));
            }
            Instruction::Fill { address, length, width, pattern } => {
                return self.fill(text, (address, length.min(MAX_FILL), width, pattern));
            }
            Instruction::Delay { count } => {
                let count = count.min(MAX_DELAY);
                let now = (count - self.at).min(PART_LINES);
                (0..now).for_each(|_| text.extend_from_slice(b"inb 0x80\n"));
                self.at += now;
                return Ok(if self.at < count { Rest::More } else { Rest::Nothing });
            }
            Instruction::In { port, width } => writeln!(text, "in{} {port:#x}", letter(width.into()))?,
            Instruction::Out { port, width, value } => output(text, port, width, value)?,
            Instruction::Read { address, width } => writeln!(text, "read{} {address:#x}", letter(width))?,
            Instruction::Write { address, width, value } => {
                writeln!(text, "write{} {address:#x} {:#x}", letter(width), value & width.max())?;
            }
            Instruction::WriteBlock { address, ref bytes } => {
                write(text, address, bytes.get(..MAX_BLOCK).unwrap_or(bytes))?;
            }
            Instruction::PciRead { function, register, width } => {
                output(text, 0xcf8, PortWidth::Long, function.configuration_address(register))?;
                writeln!(text, "in{} {:#x}", letter(width.into()), 0xcfc + u16::from(register & 3))?;
            }
            Instruction::PciWrite { function, register, width, value } => {
                output(text, 0xcf8, PortWidth::Long, function.configuration_address(register))?;
                output(text, 0xcfc + u16::from(register & 3), width, value)?;
            }
            Instruction::ClockStep { nanoseconds } if self.has_clock && nanoseconds > 0 => {
                writeln!(text, "clock_step {}", nanoseconds.min(crate::instruction::MAX_CLOCK_STEP))?;
            }
            Instruction::ClockStep { .. } | Instruction::Burst { .. } | Instruction::Reset => {}
        }
        Ok(Rest::Nothing)
    }

    fn string_in(
        &mut self,
        text: &mut Vec<u8>,
        answers: &[Answer],
        (port, width, address, count): (u16, PortWidth, u64, u32),
    ) -> std::io::Result<Rest> {
        let count = count.min(MAX_STRING);
        let now = (count - self.at).min(PART_LINES);
        if !self.is_second {
            (0..now).try_for_each(|_| writeln!(text, "in{} {port:#x}", letter(width.into())))?;
            self.is_second = true;
            return Ok(if now > 0 { Rest::Answers } else { Rest::Nothing });
        }
        let value = |answer: &Answer| match answer {
            Answer::Value(value) => *value,
            _ => u64::MAX,
        };
        let length = width.bytes() as usize;
        let bytes: Vec<u8> =
            answers.iter().flat_map(|answer| value(answer).to_le_bytes().into_iter().take(length)).collect();
        write(text, behind(address, self.at, width), &bytes)?;
        self.finish_step(now, count)
    }

    fn string_out(
        &mut self,
        text: &mut Vec<u8>,
        answers: &[Answer],
        (port, width, address, count): (u16, PortWidth, u64, u32),
    ) -> std::io::Result<Rest> {
        let count = count.min(MAX_STRING);
        let now = (count - self.at).min(PART_LINES);
        let length = now * width.bytes();
        if !self.is_second {
            if now > 0 {
                writeln!(text, "read {:#x} {length:#x}", behind(address, self.at, width))?;
            }
            self.is_second = true;
            return Ok(if now > 0 { Rest::Answers } else { Rest::Nothing });
        }
        // Up to eight bytes look like a number: the first byte is the highest.
        let bytes: Box<[u8]> = match answers.first() {
            Some(Answer::Bytes(bytes)) => bytes.clone(),
            Some(Answer::Value(value)) => {
                value.to_be_bytes().into_iter().skip(8usize.saturating_sub(length as usize)).collect()
            }
            _ => Box::default(),
        };
        for value in bytes.chunks_exact(width.bytes() as usize) {
            output(
                text,
                port,
                width,
                value.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte)),
            )?;
        }
        self.finish_step(now, count)
    }

    fn finish_step(&mut self, now: u32, count: u32) -> std::io::Result<Rest> {
        self.at += now;
        self.is_second = false;
        Ok(if self.at < count { Rest::More } else { Rest::Nothing })
    }

    fn fill(
        &mut self,
        text: &mut Vec<u8>,
        (address, length, width, pattern): (u64, u32, Width, u64),
    ) -> std::io::Result<Rest> {
        // QEMU aborts where it is to write no bytes.
        if length == 0 {
            return Ok(Rest::Nothing);
        }
        if width == Width::Byte {
            writeln!(text, "memset {address:#x} {length:#x} {:#x}", pattern & 0xff)?;
            return Ok(Rest::Nothing);
        }
        let now = (length - self.at).min(PART_BYTES);
        let pattern = pattern.to_le_bytes();
        let bytes: Vec<u8> =
            pattern.iter().take(width.bytes() as usize).cycle().take(now as usize).copied().collect();
        write(text, address.wrapping_add(self.at.into()), &bytes)?;
        self.at += now;
        Ok(if self.at < length { Rest::More } else { Rest::Nothing })
    }
}

fn output(text: &mut Vec<u8>, port: u16, width: PortWidth, value: u32) -> std::io::Result<()> {
    writeln!(text, "out{} {port:#x} {:#x}", letter(width.into()), value & width.max())
}

fn write(text: &mut Vec<u8>, address: u64, bytes: &[u8]) -> std::io::Result<()> {
    // QEMU aborts where it is to write no bytes.
    if bytes.is_empty() {
        return Ok(());
    }
    write!(text, "write {address:#x} {:#x} 0x", bytes.len())?;
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    text.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
    text.push(b'\n');
    Ok(())
}

fn behind(address: u64, count: u32, width: PortWidth) -> u64 {
    address.wrapping_add(u64::from(count) * u64::from(width.bytes()))
}

fn letter(width: Width) -> char {
    match width {
        Width::Byte => 'b',
        Width::Word => 'w',
        Width::Long => 'l',
        Width::Quad => 'q',
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruction::PciAddress;

    /// All lines of an instruction whose accesses read `value`.
    fn lines(instruction: Instruction, value: u64) -> Vec<String> {
        let mut steps = Steps::new(instruction, false);
        let (mut all, mut answers) = (Vec::new(), Vec::new());
        loop {
            let mut text = Vec::new();
            let (count, rest) = steps.next(&mut text, &answers);
            let text = String::from_utf8(text).unwrap();
            assert_eq!(text.lines().count(), count as usize);
            assert!(text.is_empty() || text.ends_with('\n'));
            assert!(text.lines().all(|line| !line.trim().is_empty()), "a blank line is QEMU's end");
            all.extend(text.lines().map(str::to_owned));
            if rest == Rest::Nothing {
                return all;
            }
            answers = vec![Answer::Value(value); if rest == Rest::Answers { count as usize } else { 0 }];
        }
    }

    #[test]
    fn plain_ones() {
        let out = Instruction::Out { port: 0x3f8, width: PortWidth::Word, value: 0x1_2345 };
        assert_eq!(lines(out, 0), ["outw 0x3f8 0x2345"]);
        assert_eq!(
            lines(Instruction::Read { address: 1 << 32, width: Width::Quad }, 0),
            ["readq 0x100000000"]
        );
        let function = PciAddress(0x0102);
        let read = Instruction::PciRead { function, register: 6, width: PortWidth::Word };
        assert_eq!(lines(read, 0), ["outl 0xcf8 0x80010204", "inw 0xcfe"]);
        let block = Instruction::WriteBlock { address: 16, bytes: [0xab, 1].into() };
        assert_eq!(lines(block, 0), ["write 0x10 0x2 0xab01"]);
    }

    #[test]
    fn what_has_no_lines() {
        let empty = [
            Instruction::WriteBlock { address: 0, bytes: Box::default() },
            Instruction::Fill { address: 0, length: 0, width: Width::Byte, pattern: 0 },
            Instruction::Fill { address: 0, length: 0, width: Width::Long, pattern: 0 },
            Instruction::InString { port: 0, width: PortWidth::Byte, address: 0, count: 0 },
            Instruction::OutString { port: 0, width: PortWidth::Byte, address: 0, count: 0 },
            Instruction::Delay { count: 0 },
            Instruction::Burst { count: 3 },
            Instruction::Reset,
            Instruction::ClockStep { nanoseconds: 5 },
        ];
        assert!(empty.into_iter().all(|instruction| lines(instruction, 0).is_empty()));
    }

    #[test]
    fn long_ones_come_in_parts() {
        let fill = Instruction::Fill { address: 0, length: 8195, width: Width::Long, pattern: 0x0403_0201 };
        let fill = lines(fill, 0);
        assert_eq!(fill.len(), 3);
        assert_eq!(fill[2], "write 0x2000 0x3 0x010203");
        assert_eq!(lines(Instruction::Delay { count: u32::MAX }, 0).len(), MAX_DELAY as usize);
        let string = Instruction::InString { port: 0x60, width: PortWidth::Word, address: 0x100, count: 257 };
        let string = lines(string, 0x1234);
        assert_eq!(string.len(), 257 + 2);
        assert_eq!(string[258], "write 0x300 0x2 0x3412");
        let string = Instruction::OutString { port: 0x60, width: PortWidth::Word, address: 0x100, count: 2 };
        assert_eq!(lines(string, 0x0102_0304), ["read 0x100 0x4", "outw 0x60 0x201", "outw 0x60 0x403"]);
    }
}
