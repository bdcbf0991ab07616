//! Lines of symbols: what goes over a terminal to the program in the guest, and back. `build/helper.rs` describes them.

use super::slot::{Kind, Slot};

/// The line that has `slots` executed.
pub(super) fn request(sequence: u8, slots: &[Slot]) -> Vec<u8> {
    // A shell that reads this, as the program has ended, takes it for a comment.
    let mut line = vec![b'#', symbol(u32::from(sequence))];
    let mut previous = 0xffff_u16;
    for slot in slots {
        operation(&mut line, previous, slot);
        previous = slot.port;
    }
    finish(&mut line, 1);
    line
}

/// The values in an answer to the request `sequence` for `slots`; 0 where a slot reads nothing. `None` where it is none.
pub(super) fn values(answer: &[u8], sequence: u8, slots: &[Slot]) -> Option<Vec<u32>> {
    let start = answer.iter().rposition(|&byte| byte == b'+')? + 1;
    let line = answer.get(start..)?;
    let end = line.len().checked_sub(3)?;
    let (symbols, check) = line.split_at(end);
    let mut symbols = symbols.iter();
    if check != check_of(line.get(..end)?) || *symbols.next()? != symbol(u32::from(sequence)) {
        return None;
    }
    let mut values = Vec::with_capacity(slots.len());
    for slot in slots {
        let mut value = 0_u32;
        for _ in 0..read_symbols(slot.kind) {
            value = value << 6 | u32::from(symbols.next()?.checked_sub(0x30)?);
        }
        values.push(value);
    }
    symbols.next().is_none().then_some(values)
}

/// The most symbols that a slot has in a request.
pub(super) const LONGEST: usize = 10;

fn operation(line: &mut Vec<u8>, previous: u16, slot: &Slot) {
    let port = match slot.port {
        port if port == previous => 0,
        port if port == previous.wrapping_add(1) => 1,
        _ => 2,
    };
    let (kind, value_symbols) = match (slot.kind, slot.value) {
        (Kind::OutByte, 0) => (9, 0),
        (Kind::OutWord, 0) => (10, 0),
        (Kind::OutLong, 0) => (11, 0),
        (Kind::OutByte, _) => (4, 2),
        (Kind::OutWord, _) => (5, 3),
        (kind @ (Kind::OutLong | Kind::Delay | Kind::Sleep), _) => (kind as u8, 6),
        (Kind::Reset, _) => (0, 0),
        (kind, _) => (kind as u8, 0),
    };
    line.push(symbol(u32::from(kind) | port << 4));
    if port == 2 {
        number(line, u32::from(slot.port), 3);
    }
    number(line, slot.value, value_symbols);
}

fn read_symbols(kind: Kind) -> usize {
    match kind {
        Kind::InByte => 2,
        Kind::InWord => 3,
        Kind::InLong => 6,
        _ => 0,
    }
}

fn symbol(bits: u32) -> u8 {
    0x30 + (bits & 63) as u8
}

/// The lowest bits of `value`, `symbols` times six.
fn number(line: &mut Vec<u8>, value: u32, symbols: u32) {
    line.extend((0..symbols).rev().map(|place| symbol(value >> (6 * place))));
}

fn finish(line: &mut Vec<u8>, from: usize) {
    let check = check_of(line.get(from..).unwrap_or_default());
    line.extend_from_slice(&check);
    line.push(b'\n');
}

/// The upper 18 bits of FNV-1a.
fn check_of(bytes: &[u8]) -> [u8; 3] {
    let hash =
        bytes.iter().fold(0x811c_9dc5_u32, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    [symbol(hash >> 26), symbol(hash >> 20), symbol(hash >> 14)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(kind: Kind, port: u16, value: u32) -> Slot {
        Slot { port, kind, value, first: true, last: true }
    }

    #[test]
    fn neighbouring_ports_cost_a_symbol() {
        let slots: Vec<Slot> = (0x3f8..0x400).map(|port| slot(Kind::InByte, port, 0)).collect();
        // The comment's sign, sequence, the first port, seven more, check, the line's end.
        assert_eq!(request(5, &slots).len(), 1 + 1 + 4 + 7 + 3 + 1);
        let zeroes = [slot(Kind::OutByte, 0, 0), slot(Kind::OutByte, 1, 0), slot(Kind::OutByte, 1, 0xff)];
        assert_eq!(&request(0, &zeroes)[..7], b"#0II43o");
    }

    #[test]
    fn only_printable_characters() {
        let slots =
            [slot(Kind::OutLong, 0xffff, u32::MAX), slot(Kind::Delay, 0x80, 77), slot(Kind::InLong, 1, 0)];
        let line = request(63, &slots);
        let (end, symbols) = line.split_last().unwrap();
        assert_eq!(*end, b'\n');
        assert!(symbols.iter().skip(1).all(|byte| (0x30..0x70).contains(byte)), "{line:?}");
        assert!(line.len() <= 6 + LONGEST * slots.len());
    }

    #[test]
    fn an_answer_and_what_is_none() {
        let slots = [slot(Kind::InByte, 1, 0), slot(Kind::OutByte, 2, 3), slot(Kind::InLong, 4, 0)];
        let mut answer = vec![symbol(7)];
        number(&mut answer, 0xa5, 2);
        number(&mut answer, 0x1234_5678, 6);
        finish(&mut answer, 0);
        answer.pop();
        let line = [b"[ 1.0] junk+", answer.as_slice()].concat();
        assert_eq!(values(&line, 7, &slots), Some(vec![0xa5, 0, 0x1234_5678]));
        assert_eq!(values(&line, 8, &slots), None, "the answer to another request");
        assert_eq!(values(&line, 7, &slots[..2]), None, "more values than were asked for");
        assert_eq!(values(b"-", 7, &slots), None);
        assert_eq!(values(b"+", 7, &slots), None);
        for at in 12..line.len() {
            let mut wrong = line.clone();
            wrong[at] ^= 1;
            assert_eq!(values(&wrong, 7, &slots), None, "byte {at}");
        }
    }
}
