//! From an [`Instruction`] to a slot of the guest's queue.

use super::layout::{MASK_CONFIG, Operation, SLOT_SMALL, SMALL_BYTE, SMALL_PORT};
use crate::instruction::{Instruction, MAX_BLOCK, MAX_DELAY, PortWidth, Width};

/// An instruction as the guest finds it.
pub(super) type Slot = [u8; 16];

/// How many nanoseconds a read of port 0x80 takes, about.
const NANOSECONDS_PER_READ: u64 = 100;

/// A slot that has no effect.
pub(super) const NOTHING: Slot = [0; 16];

/// The slot of `instruction`. `block` is asked where the guest finds the bytes of a block write.
///
/// What the guest cannot do is done as nothing: addresses above 4 GiB.
#[inline]
pub(super) fn slot(instruction: &Instruction, block: impl FnOnce(&[u8]) -> u32) -> Slot {
    match *instruction {
        Instruction::In { port, width } => access(Operation::In, width, port, 0),
        Instruction::Out { port, width, value } => access(Operation::Out, width, port, value),
        Instruction::InString { port, width, address, count } => {
            string(Operation::InString, width, port, address, count)
        }
        Instruction::OutString { port, width, address, count } => {
            string(Operation::OutString, width, port, address, count)
        }
        Instruction::Read { address, width } => memory(Operation::Read, width, address, 0),
        Instruction::Write { address, width, value } => memory(Operation::Write, width, address, value),
        Instruction::WriteBlock { address, ref bytes } => match u32::try_from(address) {
            Ok(address) => {
                let value = u64::from(block(bytes)) | (bytes.len().min(MAX_BLOCK) as u64) << 32;
                plain(Operation::Copy, 0, 0, address, value)
            }
            Err(_) => NOTHING,
        },
        Instruction::Fill { address, length, width, pattern } => match u32::try_from(address) {
            Ok(address) => plain(Operation::Fill, 0, length, address, repeated(pattern, width)),
            Err(_) => NOTHING,
        },
        Instruction::PciRead { function, register, width } => {
            let address = function.configuration_address(register);
            plain(Operation::PciRead, rank(width), u32::from(register) & MASK_CONFIG, address, 0)
        }
        Instruction::PciWrite { function, register, width, value } => {
            let address = function.configuration_address(register);
            plain(Operation::PciWrite, rank(width), u32::from(register) & MASK_CONFIG, address, value.into())
        }
        Instruction::Delay { count } => plain(Operation::Delay, 0, 0, 0, count.into()),
        Instruction::ClockStep { nanoseconds } => {
            let reads = (nanoseconds / NANOSECONDS_PER_READ).min(MAX_DELAY.into());
            plain(Operation::Delay, 0, 0, 0, reads)
        }
        Instruction::Burst { .. } => NOTHING,
        Instruction::Reset => plain(Operation::Reset, 0, 0, 0, 0),
    }
}

#[inline]
fn plain(operation: Operation, rank: u8, small: u32, a: u32, value: u64) -> Slot {
    let first = u32::from(operation as u8 + rank) | small << (8 * SLOT_SMALL);
    let word = u128::from(first) | u128::from(a) << 32 | u128::from(value) << 64;
    word.to_le_bytes()
}

#[inline]
fn access(operation: Operation, width: PortWidth, port: u16, value: u32) -> Slot {
    let small = (value & 0xff) << SMALL_BYTE | u32::from(port.swap_bytes()) << SMALL_PORT;
    plain(operation, rank(width), small, 0, value.into())
}

fn string(operation: Operation, width: PortWidth, port: u16, address: u64, count: u32) -> Slot {
    match u32::try_from(address) {
        Ok(address) => {
            plain(operation, rank(width), 0, port.into(), u64::from(address) | u64::from(count) << 32)
        }
        Err(_) => NOTHING,
    }
}

fn memory(operation: Operation, width: Width, address: u64, value: u64) -> Slot {
    let rank = width.bytes().trailing_zeros() as u8;
    u32::try_from(address).map_or(NOTHING, |address| plain(operation, rank, 0, address, value))
}

fn rank(width: PortWidth) -> u8 {
    width.bytes().trailing_zeros() as u8
}

/// The pattern, as often as it fits eight bytes.
fn repeated(pattern: u64, width: Width) -> u64 {
    let times = u64::MAX / width.max();
    (pattern & width.max()).wrapping_mul(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fill_eight_bytes() {
        assert_eq!(repeated(0x12, Width::Byte), 0x1212_1212_1212_1212);
        assert_eq!(repeated(0x1234, Width::Word), 0x1234_1234_1234_1234);
        assert_eq!(repeated(0x1234_5678, Width::Long), 0x1234_5678_1234_5678);
        assert_eq!(repeated(1 << 40, Width::Quad), 1 << 40);
    }

    #[test]
    fn what_a_slot_holds() {
        let slot = |instruction| slot(&instruction, |_| 0xaa55);
        let out = slot(Instruction::Out { port: 0x3f8, width: PortWidth::Word, value: 0x1234 });
        assert_eq!(out, [5, 0x34, 3, 0xf8, 0, 0, 0, 0, 0x34, 0x12, 0, 0, 0, 0, 0, 0]);
        let block = slot(Instruction::WriteBlock { address: 0x1000, bytes: [1, 2, 3].into() });
        assert_eq!(block, [21, 0, 0, 0, 0, 0x10, 0, 0, 0x55, 0xaa, 0, 0, 3, 0, 0, 0]);
        let far = Instruction::Read { address: 1 << 32, width: Width::Byte };
        assert_eq!(slot(far), NOTHING);
        let fill = Instruction::Fill { address: 0, length: 0x1_0203, width: Width::Byte, pattern: 7 };
        assert_eq!(slot(fill)[..4], [22, 3, 2, 1]);
    }
}
