//! Any valid instruction, for property tests.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{
    Instruction, MAX_BLOCK, MAX_BURST, MAX_CLOCK_STEP, MAX_DELAY, MAX_FILL, MAX_STRING, PciAddress,
    PortWidth, Width,
};
use crate::program::Program;

/// Any valid instruction; blocks are short, mostly.
pub(crate) fn instruction() -> BoxedStrategy<Instruction> {
    let block = prop_oneof![
        30 => vec(any::<u8>(), 0..64),
        1 => any::<u8>().prop_map(|byte| vec![byte; MAX_BLOCK]),
    ];
    let port = any::<u16>;
    prop_oneof![
        (port(), port_width()).prop_map(|(port, width)| Instruction::In { port, width }),
        (port(), port_value()).prop_map(|(port, (width, value))| Instruction::Out { port, width, value }),
        (port(), port_width(), address(), 0..=MAX_STRING).prop_map(|(port, width, address, count)| {
            Instruction::InString { port, width, address, count }
        }),
        (port(), port_width(), address(), 0..=MAX_STRING).prop_map(|(port, width, address, count)| {
            Instruction::OutString { port, width, address, count }
        }),
        (address(), width()).prop_map(|(address, width)| Instruction::Read { address, width }),
        (address(), value()).prop_map(|(address, (width, value))| Instruction::Write {
            address,
            width,
            value
        }),
        (address(), block)
            .prop_map(|(address, bytes)| Instruction::WriteBlock { address, bytes: bytes.into() }),
        (address(), 0..=MAX_FILL, value()).prop_map(|(address, length, (width, pattern))| {
            Instruction::Fill { address, length, width, pattern }
        }),
        (any::<u16>(), any::<u8>(), port_width()).prop_map(|(function, register, width)| {
            Instruction::PciRead { function: PciAddress(function), register, width }
        }),
        (any::<u16>(), any::<u8>(), port_value()).prop_map(|(function, register, (width, value))| {
            Instruction::PciWrite { function: PciAddress(function), register, width, value }
        }),
        (0..=MAX_DELAY).prop_map(|count| Instruction::Delay { count }),
        (0..=MAX_CLOCK_STEP).prop_map(|nanoseconds| Instruction::ClockStep { nanoseconds }),
        (0..=MAX_BURST).prop_map(|count| Instruction::Burst { count }),
        Just(Instruction::Reset),
    ]
    .boxed()
}

/// Any program of less than `end` instructions.
pub(crate) fn program(end: usize) -> impl Strategy<Value = Program> {
    vec(instruction(), 0..end).prop_map(Program::from)
}

fn port_width() -> impl Strategy<Value = PortWidth> {
    prop::sample::select(&PortWidth::ALL)
}

fn width() -> impl Strategy<Value = Width> {
    prop::sample::select(&Width::ALL)
}

fn port_value() -> impl Strategy<Value = (PortWidth, u32)> {
    port_width().prop_flat_map(|width| (Just(width), 0..=width.max()))
}

fn value() -> impl Strategy<Value = (Width, u64)> {
    width().prop_flat_map(|width| (Just(width), 0..=width.max()))
}

/// Addresses of every length: where a byte more is needed is where forms err.
fn address() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64u32).prop_map(|(address, shift)| address >> shift)
}
