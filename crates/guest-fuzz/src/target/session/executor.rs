//! [`Executor`]: how slots get to the guest, and what they read back.

use std::time::{Duration, Instant};

use super::ring::Ring;
use super::shell;
use super::slot::{Abilities, Kind, Slot};
use super::symbols;
use super::wire::Wire;
use crate::error::Result;

/// After how much silence a line is sent again. The program in the guest executes it once.
const RESEND: Duration = Duration::from_secs(2);
/// How often a line is sent again before the guest is taken to be silent.
const TRIES: u32 = 5;
/// How many accesses a line of `dd` has. Terminals and shells take 500 characters, but an answer is a sign of life, too,
/// and each access takes up to 50 ms in an emulated guest.
const DD_SLOTS: usize = 12;
/// How long the terminal of a guest is looked at in one go, and the shared memory.
const LOOK: Duration = Duration::from_micros(200);

/// How slots get to the guest.
#[derive(Debug)]
pub(super) enum Executor {
    /// Through memory that our program in the guest shares.
    Ring(Ring),
    /// As lines to our program in the guest, one after the other.
    Lines(Lines),
}

impl Executor {
    /// Lines for our program.
    pub(super) fn symbols(longest_line: usize, words: bool) -> Self {
        Self::Lines(Lines::new(Form::Symbols, longest_line / symbols::LONGEST, words))
    }

    /// Lines for the shell, which has the functions of [`DD_FUNCTIONS`].
    pub(super) fn dd() -> Self {
        Self::Lines(Lines::new(Form::Dd, DD_SLOTS, false))
    }

    /// Hands over as many of `slots` as there is room for: how many.
    pub(super) fn submit(&mut self, wire: &mut Wire, slots: impl Iterator<Item = Slot>) -> Result<usize> {
        match self {
            Self::Ring(ring) => ring.submit(slots),
            Self::Lines(lines) => {
                let slots: Vec<Slot> = slots.take(lines.room()).collect();
                // A line without accesses is a question that nobody asked here.
                Ok(if slots.is_empty() { 0 } else { lines.submit(wire, slots) })
            }
        }
    }

    /// The values of the slots that were done since the last call, in order; a slot that reads nothing has any value.
    pub(super) fn fetch(&mut self, wire: &mut Wire) -> Result<Vec<u32>> {
        match self {
            Self::Ring(ring) => ring.fetch(),
            Self::Lines(lines) => Ok(lines.fetch(wire)),
        }
    }

    /// How many slots are begun, or may be, and not done.
    pub(super) fn begun(&self) -> u64 {
        match self {
            Self::Ring(ring) => ring.begun(),
            Self::Lines(lines) => lines.in_flight.as_ref().map_or(0, |line| line.slots.len() as u64),
        }
    }

    /// Waits a little for something to fetch.
    pub(super) fn pause(&self, wire: &mut Wire) {
        match self {
            Self::Ring(_) => std::thread::sleep(LOOK),
            Self::Lines(_) => drop(wire.receive(Instant::now() + 10 * LOOK)),
        }
    }

    /// A number that changes as long as the guest does what it is told, whatever that is. Where there is nothing to do,
    /// this gives it something.
    pub(super) fn sign_of_life(&mut self, wire: &mut Wire) -> u64 {
        match self {
            Self::Ring(ring) => ring.heartbeat(),
            Self::Lines(lines) => {
                lines.submit(wire, Vec::new());
                lines.answers
            }
        }
    }

    /// Tells whoever executes to end.
    pub(super) fn quit(&self, wire: &mut Wire) {
        if let Self::Ring(ring) = self {
            ring.quit();
        }
        // Ctrl-C: our program knows it as a character, a shell as a signal.
        wire.send(b"\x03\n");
    }
}

/// The shell's functions that lines of `dd` use: the seed's, with `skip` where it reads, and octal numbers as printf has them.
pub(super) const DD_FUNCTIONS: &str = "i() { dd if=/dev/port bs=1 skip=$1 count=1 2>/dev/null | od -An -tu1; }; \
    o() { printf \"\\\\$2\" | dd of=/dev/port bs=1 seek=$1 count=1 conv=notrunc 2>/dev/null; }";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Symbols,
    Dd,
}

/// One line at a time.
#[derive(Debug)]
pub(super) struct Lines {
    form: Form,
    slots_per_line: usize,
    words: bool,
    number: u32,
    answers: u64,
    in_flight: Option<Line>,
}

#[derive(Debug)]
struct Line {
    slots: Vec<Slot>,
    text: Vec<u8>,
    sent: Instant,
    tries: u32,
}

impl Lines {
    fn new(form: Form, slots_per_line: usize, words: bool) -> Self {
        Self { form, slots_per_line, words, number: 0, answers: 0, in_flight: None }
    }

    fn room(&self) -> usize {
        if self.in_flight.is_some() { 0 } else { self.slots_per_line }
    }

    /// Sends a line, unless one is under way: how many slots it took.
    fn submit(&mut self, wire: &mut Wire, mut slots: Vec<Slot>) -> usize {
        if self.in_flight.is_some() {
            return 0;
        }
        // They were made for what can be done; what the way cannot do after all has no effect.
        let can = Abilities { words: self.words, time: self.form == Form::Symbols, reset: false };
        slots.iter_mut().filter(|slot| !slot.kind.fits(can)).for_each(|slot| slot.kind = Kind::Nothing);
        self.number += 1;
        let text = match self.form {
            Form::Symbols => symbols::request(self.sequence(), &slots),
            Form::Dd => dd_line(self.number, &slots).into_bytes(),
        };
        wire.send(&text);
        let count = slots.len();
        self.in_flight = Some(Line { slots, text, sent: Instant::now(), tries: 1 });
        count
    }

    fn sequence(&self) -> u8 {
        (self.number % 64) as u8
    }

    fn fetch(&mut self, wire: &mut Wire) -> Vec<u32> {
        wire.receive(Instant::now());
        let Some(line) = &self.in_flight else {
            wire.clear_received();
            return Vec::new();
        };
        let answer = match self.form {
            Form::Symbols => symbols_answer(wire, self.sequence(), &line.slots),
            Form::Dd => dd_answer(wire, self.number, &line.slots),
        };
        match answer {
            Heard::Values(values) => {
                self.in_flight = None;
                self.answers += 1;
                values
            }
            Heard::Nonsense => {
                self.resend(wire);
                Vec::new()
            }
            Heard::Nothing => {
                if line.sent.elapsed() > RESEND {
                    self.resend(wire);
                }
                Vec::new()
            }
        }
    }

    fn resend(&mut self, wire: &mut Wire) {
        // What a shell does twice is done twice.
        if let Some(line) = self.in_flight.as_mut().filter(|_| self.form == Form::Symbols)
            && line.tries < TRIES
        {
            line.tries += 1;
            line.sent = Instant::now();
            wire.send(&line.text);
        }
    }
}

enum Heard {
    Values(Vec<u32>),
    /// An answer to something that did not arrive as it was sent, or an answer that did not.
    Nonsense,
    Nothing,
}

fn symbols_answer(wire: &mut Wire, sequence: u8, slots: &[Slot]) -> Heard {
    let mut heard = Heard::Nothing;
    while let Some(end) = wire.received().iter().position(|&byte| byte == b'\n') {
        let line = wire.received().get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let values = symbols::values(line, sequence, slots);
        // What the kernel prints has neither.
        let is_answer = line.contains(&b'+') || line == b"-";
        wire.forget(end + 1);
        match values {
            Some(values) => return Heard::Values(values),
            None if is_answer => heard = Heard::Nonsense,
            None => {}
        }
    }
    heard
}

fn dd_line(number: u32, slots: &[Slot]) -> String {
    let access = |slot: &Slot| match slot.kind {
        Kind::InByte => Some(format!("i {}", slot.port)),
        Kind::OutByte => Some(format!("o {} {:03o}", slot.port, slot.value & 0xff)),
        _ => None,
    };
    let accesses: Vec<String> = slots.iter().filter_map(access).collect();
    let accesses = if accesses.is_empty() { ":".to_owned() } else { accesses.join("; ") };
    shell::bracketed(number, &accesses)
}

fn dd_answer(wire: &mut Wire, number: u32, slots: &[Slot]) -> Heard {
    let Some((answer, end)) = shell::answer(wire.received(), number) else { return Heard::Nothing };
    wire.forget(end);
    let mut read = answer.text.split_whitespace().map(|word| word.parse().ok());
    let value = |slot: &Slot| match slot.kind.reads() {
        true => read.next().flatten().unwrap_or(0),
        false => 0,
    };
    Heard::Values(slots.iter().map(value).collect())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn slot(kind: Kind, port: u16, value: u32) -> Slot {
        Slot { port, kind, value, first: true, last: true }
    }

    #[test]
    fn dd_reads_with_skip_and_writes_octal_numbers() {
        assert!(
            DD_FUNCTIONS.contains("dd if=/dev/port bs=1 skip=$1") && DD_FUNCTIONS.contains("bs=1 seek=$1")
        );
        let slots =
            [slot(Kind::InByte, 0x3ff, 0), slot(Kind::OutByte, 0x80, 0xa5), slot(Kind::Nothing, 0, 0)];
        assert_eq!(dd_line(1, &slots), "echo iofuzz''-b1:; i 1023; o 128 245; echo iofuzz''-e1:$?.\n");
        let longest = [slot(Kind::OutByte, 0xffff, 0xff); DD_SLOTS];
        assert!(dd_line(u32::MAX, &longest).len() < 500);
    }

    #[test]
    fn a_line_that_was_damaged_is_sent_again() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut wire = Wire::new(ours).unwrap();
        let mut executor = Executor::symbols(1000, true);
        let slots = [slot(Kind::OutByte, 1, 2)];
        assert_eq!(executor.submit(&mut wire, std::iter::empty()).unwrap(), 0);
        assert_eq!(executor.begun(), 0);
        assert_eq!(executor.submit(&mut wire, slots.into_iter()).unwrap(), 1);
        assert_eq!(executor.submit(&mut wire, slots.into_iter()).unwrap(), 0, "one at a time");
        theirs.write_all(b"[ 5.0] the kernel speaks\r\n-\n").unwrap();
        assert!(executor.fetch(&mut wire).unwrap().is_empty());
        let mut lines = BufReader::new(&theirs).lines();
        let (first, second) = (lines.next().unwrap().unwrap(), lines.next().unwrap().unwrap());
        assert_eq!(first, second);
        assert_eq!(executor.begun(), 1);
        // The answer without values has the request's own sequence and check.
        let empty = String::from_utf8(symbols::request(1, &[])).unwrap();
        (&theirs).write_all(format!("+{}", &empty[1..]).as_bytes()).unwrap();
        assert_eq!(executor.fetch(&mut wire).unwrap(), [0]);
        assert_eq!(executor.begun(), 0);
    }
}
