//! [`Answers`]: what QEMU says on a qtest connection, line by line.

use std::collections::VecDeque;

/// The longest line that is kept whole: a `read` of 64 KiB. Of a longer one the end is thrown away.
const MAX_LINE: usize = 256 << 10;
/// How many lines are kept that nobody took.
const MAX_LINES: usize = 1 << 20;

/// The answer to one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `OK`: it was done.
    Done,
    /// `OK 0xVALUE`: it was done, and read this.
    Value(u64),
    /// `OK 0xBYTES`, more than 8 bytes of text in hexadecimal digits: it read these bytes, in this order.
    Bytes(Box<[u8]>),
    /// `FAIL` or `ERR`, or `OK` with something else behind it: what it says.
    Other(String),
}

/// Lines out of a stream of bytes, in pieces of any size.
///
/// ```
/// use guest_fuzz::target::qtest::{Answer, Answers};
/// let mut answers = Answers::default();
/// answers.feed(b"OK 0x00");
/// answers.feed(b"ff\nIRQ raise 4\nOK\nFAIL Unknown command 'x'\n");
/// assert_eq!(answers.next(), Some(Answer::Value(0xff)));
/// assert_eq!(answers.next(), Some(Answer::Done));
/// assert_eq!(answers.next(), Some(Answer::Other("FAIL Unknown command 'x'".to_owned())));
/// assert_eq!(answers.next(), None);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Answers {
    line: Vec<u8>,
    answers: VecDeque<Answer>,
}

impl Answers {
    /// Takes what was read from the connection.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = bytes.split_at(end);
            self.keep(line);
            let line = std::mem::take(&mut self.line);
            if self.answers.len() < MAX_LINES {
                self.answers.extend(parse(&line));
            }
            // Its memory is used again.
            self.line = line;
            self.line.clear();
            bytes = rest.get(1..).unwrap_or_default();
        }
        self.keep(bytes);
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = MAX_LINE - self.line.len().min(MAX_LINE);
        self.line.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }
}

impl Iterator for Answers {
    type Item = Answer;

    fn next(&mut self) -> Option<Answer> {
        self.answers.pop_front()
    }
}

/// The answer in a line; `None` where it is none: an interrupt's notice, or nonsense.
fn parse(line: &[u8]) -> Option<Answer> {
    let line = line.trim_ascii();
    if line == b"OK" {
        return Some(Answer::Done);
    }
    let text = || String::from_utf8_lossy(line.get(..200).unwrap_or(line)).into_owned();
    if let Some(rest) = line.strip_prefix(b"OK ") {
        let digits = rest.trim_ascii().strip_prefix(b"0x").or_else(|| rest.strip_prefix(b"0X"));
        return Some(digits.and_then(number).unwrap_or_else(|| Answer::Other(text())));
    }
    let refused = line.starts_with(b"FAIL") || line.starts_with(b"ERR");
    refused.then(|| Answer::Other(text()))
}

fn number(digits: &[u8]) -> Option<Answer> {
    let nibble = |&digit: &u8| char::from(digit).to_digit(16).map(|nibble| nibble as u8);
    if digits.is_empty() {
        return None;
    }
    if digits.len() <= 16 {
        let add = |value, digit| Some(value << 4 | u64::from(nibble(digit)?));
        return digits.iter().try_fold(0, add).map(Answer::Value);
    }
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    let byte = |pair: &[u8]| match pair {
        [high, low] => Some(nibble(high)? << 4 | nibble(low)?),
        _ => None,
    };
    pairs.map(byte).collect::<Option<Box<[u8]>>>().map(Answer::Bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answers(text: &[u8]) -> Vec<Answer> {
        let mut answers = Answers::default();
        answers.feed(text);
        answers.collect()
    }

    #[test]
    fn what_qemu_says() {
        assert_eq!(answers(b"OK 0x0000000055111111\r\n"), [Answer::Value(0x5511_1111)]);
        assert_eq!(answers(b"OK little\n"), [Answer::Other("OK little".to_owned())]);
        assert_eq!(answers(b"ERR no\n"), [Answer::Other("ERR no".to_owned())]);
        assert_eq!(answers(b"OK 0x0102030405060708090a\n"), [Answer::Bytes((1..=10).collect())]);
        assert_eq!(answers(b"IRQ lower 3\n\n\nnonsense\nOKAY\nOK"), []);
        for odd in ["OK 0x", "OK 0xg", "OK 0x12345678901234567", "OK -1", "OK \u{fffd}"] {
            assert_eq!(answers(format!("{odd}\n").as_bytes()), [Answer::Other(odd.to_owned())]);
        }
    }

    #[test]
    fn a_line_without_an_end_is_not_kept_whole() {
        let mut answers = Answers::default();
        (0..64).for_each(|_| answers.feed(&[b'x'; 64 << 10]));
        assert_eq!(answers.line.len(), MAX_LINE);
        answers.feed(b"\nOK\n");
        assert_eq!(answers.next(), Some(Answer::Done));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(text in r"(OK|OK 0x[0-9a-f]{0,20}|IRQ raise 1|FAIL x|\PC{0,9}|\n){0,40}\n", cuts in prop::collection::vec(0usize..400, 0..9)) {
            let bytes = text.as_bytes();
            let mut pieces = Answers::default();
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut < bytes.len()).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            cuts.windows(2).for_each(|pair| pieces.feed(&bytes[pair[0]..pair[1]]));
            prop_assert_eq!(pieces.collect::<Vec<_>>(), answers(bytes));
        }

        #[test]
        fn values_come_back(value: u64) {
            prop_assert_eq!(answers(format!("OK 0x{value:016x}\n").as_bytes()), [Answer::Value(value)]);
        }
    }
}
