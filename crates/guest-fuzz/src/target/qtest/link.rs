//! [`Link`]: instructions on their way to QEMU, and answers on their way back.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use super::answer::{Answer, Answers};
use super::encode::{Rest, Steps};
use crate::instruction::{Instruction, MAX_CLOCK_STEP};
use crate::target::{MAX_KEPT, Progress, Value};

/// How much text may be on its way without an answer.
const WINDOW: usize = 64 << 10;
/// How much text is written at once, but for a burst and for what is longer by itself.
const BATCH: usize = 8 << 10;
/// How many instructions are taken that are not yet sent.
const QUEUE: usize = 1 << 14;

/// What makes time go on in the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clock {
    /// Nothing.
    Stands,
    /// The command for it.
    Steps,
    /// It goes by itself.
    Runs,
}

/// What is to be done by others, once all before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Barrier {
    Reset,
    Wait(Duration),
}

/// A connection; `S` does not block.
#[derive(Debug)]
pub(super) struct Link<S> {
    stream: S,
    clock: Clock,
    out: Vec<u8>,
    written: usize,
    answers: Answers,
    pending: VecDeque<Pending>,
    /// How much text of `pending` there is.
    outstanding: usize,
    prologue: VecDeque<Instruction>,
    queue: VecDeque<Instruction>,
    current: Option<Current>,
    barrier: Option<Barrier>,
    collected: Vec<Answer>,
    pub(super) started: u64,
    pub(super) done: u64,
    /// How many uncounted commands were answered.
    pub(super) pongs: u64,
    pub(super) keep_values: bool,
    pub(super) values: Vec<Value>,
    is_closed: bool,
}

/// Lines that were sent, or are about to be.
#[derive(Clone, Copy, Debug)]
struct Pending {
    lines: u32,
    bytes: usize,
    purpose: Purpose,
    /// The number of the instruction that ends with them; `None` where it goes on, or is not counted.
    ends: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Its answers mean nothing.
    Effect,
    /// Its last answer has a value, of these bits.
    Value(u64),
    /// Its answers are what the next part is made of.
    Collect,
    Ping,
}

#[derive(Debug)]
struct Current {
    steps: Steps,
    index: Option<u64>,
    bits: Option<u64>,
    awaits: bool,
}

impl<S: Read + Write> Link<S> {
    pub(super) fn new(stream: S, clock: Clock) -> Self {
        Self {
            stream,
            clock,
            out: Vec::new(),
            written: 0,
            answers: Answers::default(),
            pending: VecDeque::new(),
            outstanding: 0,
            prologue: VecDeque::new(),
            queue: VecDeque::new(),
            current: None,
            barrier: None,
            collected: Vec::new(),
            started: 0,
            done: 0,
            pongs: 0,
            keep_values: false,
            values: Vec::new(),
            is_closed: false,
        }
    }

    pub(super) fn stream(&self) -> &S {
        &self.stream
    }

    /// Takes as many instructions as there is room for.
    pub(super) fn queue(&mut self, instructions: &[Instruction]) -> usize {
        let room = QUEUE.saturating_sub(self.queue.len());
        let taken = instructions.get(..room).unwrap_or(instructions);
        self.queue.extend(taken.iter().cloned());
        taken.len()
    }

    /// What goes before all that is not yet sent, uncounted.
    pub(super) fn queue_prologue(&mut self, prologue: &[Instruction]) {
        let harmless = prologue.iter().filter(|instruction| !matches!(instruction, Instruction::Reset));
        self.prologue.extend(harmless.cloned());
    }

    /// Asks something that has no effect: [`pongs`](Self::pongs) counts the answers.
    pub(super) fn ping(&mut self) {
        let text = b"endianness\n";
        self.out.extend_from_slice(text);
        self.push(Pending { lines: 1, bytes: text.len(), purpose: Purpose::Ping, ends: None });
    }

    /// What is to be done now by others, all before it being answered.
    pub(super) fn barrier(&self) -> Option<Barrier> {
        self.barrier.filter(|_| self.pending.is_empty())
    }

    /// The barrier was seen to.
    pub(super) fn pass(&mut self) {
        if self.barrier.take().is_some() {
            self.done += 1;
        }
    }

    /// Whether nothing is in flight, and nothing waits.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty()
            && self.queue.is_empty()
            && self.prologue.is_empty()
            && self.current.is_none()
            && self.barrier.is_none()
    }

    /// Whether QEMU has hung up. All that it said before is taken.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    pub(super) fn has_unwritten(&self) -> bool {
        self.written < self.out.len()
    }

    pub(super) fn progress(&self) -> Progress {
        Progress { started: self.started, done: self.done, resets: 0 }
    }

    /// Reads what is there, and writes as much as there is room for. Does not wait. A burst of which a part is missing
    /// is held back, unless `hurry` says that nothing more will come.
    pub(super) fn pump(&mut self, hurry: bool) {
        self.read();
        self.settle();
        while self.flush() && self.outstanding < WINDOW {
            if !self.fill(hurry) {
                self.settle();
                return;
            }
        }
    }

    fn read(&mut self) {
        let mut buffer = [0; 16 << 10];
        while !self.is_closed {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.is_closed = true,
                Ok(count) => {
                    self.answers.feed(buffer.get(..count).unwrap_or_default());
                    self.settle();
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock => return,
                    _ => self.is_closed = true,
                },
            }
        }
    }

    /// Gives the answers to what asked for them.
    fn settle(&mut self) {
        loop {
            while self.pending.front().is_some_and(|front| front.lines == 0) {
                if let Some(Pending { bytes, ends, .. }) = self.pending.pop_front() {
                    self.outstanding -= bytes;
                    self.done += u64::from(ends.is_some());
                }
            }
            let Some(front) = self.pending.front_mut() else { break };
            let Some(answer) = self.answers.next() else { return };
            front.lines -= 1;
            match (front.purpose, front.lines, front.ends) {
                (Purpose::Ping, ..) => self.pongs += 1,
                (Purpose::Collect, ..) => self.collected.push(answer),
                (Purpose::Value(bits), 0, Some(index)) => {
                    if let Answer::Value(value) = answer
                        && self.values.len() < MAX_KEPT
                    {
                        self.values.push(Value { index, value: value & bits });
                    }
                }
                _ => {}
            }
        }
        // What nobody asked for.
        self.answers.by_ref().for_each(drop);
    }

    /// Writes what is to be written: whether that is all.
    fn flush(&mut self) -> bool {
        while self.has_unwritten() && !self.is_closed {
            let rest = self.out.get(self.written..).unwrap_or_default();
            match self.stream.write(rest) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(_) => return false,
            }
        }
        self.out.clear();
        self.written = 0;
        !self.is_closed
    }

    /// Makes the next batch: whether there is one, be it without text.
    fn fill(&mut self, hurry: bool) -> bool {
        let started = self.started;
        while self.out.len() < BATCH {
            if self.current.is_none()
                && self.prologue.is_empty()
                && self.barrier.is_none()
                && let Some(&Instruction::Burst { count }) = self.queue.front()
            {
                // A burst is a batch of its own. It is sent in parts only where the rest may never come.
                let is_whole = self.queue.len() > count.into() || self.queue.len() >= QUEUE;
                if !self.out.is_empty() || !(is_whole || hurry && self.pending.is_empty()) {
                    break;
                }
                let end = self.started + 1 + u64::from(count);
                while (self.started < end || self.current.is_some()) && self.encode() {}
                break;
            }
            if !self.encode() {
                break;
            }
        }
        !self.out.is_empty() || self.started > started
    }

    /// Makes the next instruction, or a part of a long one, into text: whether that was possible.
    fn encode(&mut self) -> bool {
        if self.barrier.is_some() {
            return false;
        }
        if self.current.as_ref().is_some_and(|current| current.awaits) {
            if !self.pending.is_empty() {
                return false;
            }
            if let Some(current) = &mut self.current {
                current.awaits = false;
            }
        }
        if self.current.is_none() && !self.take() {
            return false;
        }
        let Some(mut current) = self.current.take() else { return false };
        let before = self.out.len();
        let (lines, rest) = current.steps.next(&mut self.out, &self.collected);
        self.collected.clear();
        let purpose = match (rest, current.bits) {
            (Rest::Answers, _) => Purpose::Collect,
            (_, Some(bits)) => Purpose::Value(bits),
            _ => Purpose::Effect,
        };
        let ends = current.index.filter(|_| rest == Rest::Nothing);
        self.push(Pending { lines, bytes: self.out.len() - before, purpose, ends });
        current.awaits = rest == Rest::Answers;
        if rest != Rest::Nothing {
            self.current = Some(current);
        }
        true
    }

    /// Begins the next instruction: whether it is one that becomes text.
    fn take(&mut self) -> bool {
        let (instruction, index) = match self.prologue.pop_front() {
            Some(instruction) => (instruction, None),
            None => match self.queue.pop_front() {
                Some(instruction) => (instruction, Some(self.started)),
                None => return false,
            },
        };
        self.started += u64::from(index.is_some());
        self.barrier = match instruction {
            Instruction::Reset => Some(Barrier::Reset),
            Instruction::ClockStep { nanoseconds } if self.clock == Clock::Runs && index.is_some() => {
                Some(Barrier::Wait(Duration::from_nanos(nanoseconds.min(MAX_CLOCK_STEP))))
            }
            _ => None,
        };
        if self.barrier.is_some() {
            return false;
        }
        let bits = instruction.value_bits().filter(|_| self.keep_values);
        let steps = Steps::new(instruction, self.clock == Clock::Steps);
        self.current = Some(Current { steps, index, bits, awaits: false });
        true
    }

    fn push(&mut self, pending: Pending) {
        self.outstanding += pending.bytes;
        self.pending.push_back(pending);
    }
}

/// A stream that fails where it would wait.
pub(super) fn nonblocking(
    stream: std::os::unix::net::UnixStream,
) -> io::Result<std::os::unix::net::UnixStream> {
    stream.set_nonblocking(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruction::PortWidth;

    /// Keeps each write, and answers when it is told to.
    #[derive(Debug, Default)]
    struct Fake {
        writes: Vec<String>,
        answers: VecDeque<u8>,
    }

    impl Read for Fake {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.answers.is_empty() {
                Err(ErrorKind::WouldBlock.into())
            } else {
                self.answers.read(buffer)
            }
        }
    }

    impl Write for Fake {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.writes.push(String::from_utf8(bytes.to_vec()).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn out(value: u32) -> Instruction {
        Instruction::Out { port: 0x80, width: PortWidth::Byte, value }
    }

    fn link(program: &[Instruction]) -> Link<Fake> {
        let mut link = Link::new(Fake::default(), Clock::Stands);
        assert_eq!(link.queue(program), program.len());
        link.pump(false);
        link
    }

    fn answer(link: &mut Link<Fake>, text: &str) {
        link.stream.answers.extend(text.as_bytes());
        link.pump(false);
    }

    #[test]
    fn a_burst_is_one_write() {
        let mut program = vec![out(1), Instruction::Burst { count: 600 }];
        program.extend(vec![out(2); 600]);
        program.push(out(3));
        let link = link(&program);
        assert_eq!(link.stream.writes.len(), 3);
        assert_eq!(link.stream.writes[1], "outb 0x80 0x2\n".repeat(600), "more than a batch");
    }

    #[test]
    fn a_burst_waits_for_the_rest_of_it() {
        let mut link = link(&[Instruction::Burst { count: 2 }, out(1)]);
        assert!(link.stream.writes.is_empty());
        link.queue(&[out(2)]);
        link.pump(false);
        assert_eq!(link.stream.writes, ["outb 0x80 0x1\noutb 0x80 0x2\n"]);
        link.queue(&[Instruction::Burst { count: 2 }, out(3)]);
        answer(&mut link, "OK\nOK\n");
        assert_eq!((link.started, link.done), (3, 3));
        link.pump(true);
        assert_eq!(link.stream.writes.len(), 2, "nothing more comes");
    }

    #[test]
    fn instructions_are_counted_and_not_lines() {
        let function = crate::instruction::PciAddress(8);
        let pci = Instruction::PciRead { function, register: 0, width: PortWidth::Word };
        let mut link = Link::new(Fake::default(), Clock::Stands);
        link.keep_values = true;
        link.queue(&[pci, Instruction::Burst { count: 0 }, out(1)]);
        link.queue_prologue(&[out(9)]);
        link.pump(true);
        assert_eq!((link.started, link.done), (3, 0));
        answer(&mut link, "OK\nOK\nIRQ raise 3\n");
        assert_eq!(link.done, 0);
        answer(&mut link, "OK 0x12348086\n");
        assert_eq!(link.values, [Value { index: 0, value: 0x8086 }]);
        answer(&mut link, "FAIL no\n");
        assert_eq!((link.started, link.done), (3, 3));
        answer(&mut link, "OK\nOK\nOK 0x1\n");
        assert_eq!(link.done, 3, "answers that nobody asked for");
    }

    #[test]
    fn the_window_is_kept() {
        let link = link(&vec![out(1); 16_000]);
        let sent: usize = link.stream.writes.iter().map(String::len).sum();
        assert!((WINDOW..WINDOW + 2 * BATCH).contains(&sent), "{sent}");
    }
}
