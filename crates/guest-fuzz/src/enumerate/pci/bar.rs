//! [`Bar`]: a base address register, measured.

use super::{ConfigSpace, PciAddress, PortWidth};
use crate::error::Result;
use crate::region::Space;

/// A base address register that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bar {
    /// Its offset in configuration space; a 64-bit one has the next four bytes, too.
    pub(super) register: u8,
    pub(super) space: Space,
    /// A power of two.
    pub(super) size: u64,
    pub(super) is_64_bit: bool,
    /// Where it is; `None` where it has no address yet.
    pub(super) address: Option<u64>,
}

/// Where the registers begin.
const FIRST: u8 = 0x10;
/// Nothing that is larger than this fits anywhere.
const MAX_SIZE: u64 = 1 << 40;

impl Bar {
    /// Its number, from 0.
    pub(super) fn index(&self) -> u8 {
        (self.register - FIRST) / 4
    }
}

/// Measures the first `count` registers of `function`, whose decoding is off, and leaves them as they were. Those that
/// had an address and were in use, as `command` says, keep it.
pub(super) fn measure(
    space: &mut dyn ConfigSpace,
    function: PciAddress,
    count: u8,
    command: u16,
    notes: &mut Vec<String>,
) -> Result<Vec<Bar>> {
    let mut bars = Vec::new();
    let mut index = 0;
    while index < count {
        let register = FIRST + 4 * index;
        let (old, mask) = probe(space, function, register)?;
        index += 1;
        let mut wide = None;
        if mask & 0b111 == 0b100 && index < count {
            wide = Some(probe(space, function, register + 4)?);
            index += 1;
        }
        match decode(old, mask, wide, command) {
            Ok(None) => {}
            Ok(Some(bar)) => bars.push(Bar { register, ..bar }),
            Err(why) => notes.push(format!("{function}: BAR {} {why}", (register - FIRST) / 4)),
        }
    }
    Ok(bars)
}

/// What is in a register, and what is in it after all ones were written to it.
fn probe(space: &mut dyn ConfigSpace, function: PciAddress, register: u8) -> Result<(u32, u32)> {
    let old = space.read(function, register, PortWidth::Long)?;
    space.write(function, register, PortWidth::Long, u32::MAX)?;
    let mask = space.read(function, register, PortWidth::Long)?;
    space.write(function, register, PortWidth::Long, old)?;
    Ok((old, mask))
}

/// The register whose value is `old`, and `mask` after all ones were written; `wide` is the same of the next one, where
/// this one says that it is 64 bits wide and there is a next one.
fn decode(old: u32, mask: u32, wide: Option<(u32, u32)>, command: u16) -> Result<Option<Bar>, &'static str> {
    let (old_high, mask_high) = wide.unwrap_or((0, 0));
    if (mask, mask_high) == (0, 0) {
        return Ok(None);
    }
    if mask == u32::MAX {
        return Err("is all ones");
    }
    if mask & 1 != 0 {
        // The upper half may be wired to zero, as there are no such ports.
        let upper = match mask >> 16 {
            0 => mask | 0xffff_0000,
            _ => mask,
        };
        let size = size_of((u64::from(upper) | !u64::from(u32::MAX)) & !0b11)?;
        if !(4..=0x8000).contains(&size) {
            return Err("has an impossible size");
        }
        let address = kept(u64::from(old & 0xfffc), size, command & 1 != 0);
        return Ok(Some(Bar { register: 0, space: Space::Port, size, is_64_bit: false, address }));
    }
    let (mask, old, is_64_bit) = match (mask >> 1 & 0b11, wide) {
        (0b00, _) => (u64::from(mask) | !u64::from(u32::MAX), u64::from(old), false),
        (0b10, Some(_)) => {
            let join = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
            (join(mask_high, mask), join(old_high, old), true)
        }
        (0b10, None) => return Err("is 64 bits wide, and the last one"),
        (0b01, _) => return Err("wants to be below 1 MiB"),
        _ => return Err("has a reserved type"),
    };
    let size = size_of(mask & !0b1111)?;
    if size > MAX_SIZE {
        return Err("is too large");
    }
    let address = kept(old & !0b1111, size, command & 2 != 0);
    Ok(Some(Bar { register: 0, space: Space::Memory, size, is_64_bit, address }))
}

/// The size that a register with the writable bits `mask` has: all bits from some bit up.
fn size_of(mask: u64) -> Result<u64, &'static str> {
    let size = mask & mask.wrapping_neg();
    if mask == 0 {
        return Err("has an impossible size");
    }
    if mask.wrapping_add(size) != 0 {
        return Err("has bits that are stuck");
    }
    Ok(size)
}

fn kept(address: u64, size: u64, enabled: bool) -> Option<u64> {
    let valid =
        enabled && address != 0 && address.is_multiple_of(size) && address.checked_add(size).is_some();
    valid.then_some(address)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn size(mask: u32, high: Option<u32>) -> Result<Option<(Space, u64)>, &'static str> {
        let bar = decode(0, mask, high.map(|high| (0, high)), 0)?;
        Ok(bar.map(|bar| (bar.space, bar.size)))
    }

    #[test]
    fn sizes_of_all_kinds() {
        assert_eq!(size(0, None), Ok(None));
        assert_eq!(size(0xffff_ff01, None), Ok(Some((Space::Port, 256))));
        assert_eq!(size(0x0000_ffe1, None), Ok(Some((Space::Port, 32))));
        assert_eq!(size(0xffff_f000, None), Ok(Some((Space::Memory, 4096))));
        assert_eq!(size(0xfe00_0008, None), Ok(Some((Space::Memory, 32 << 20))));
        assert_eq!(size(0xffff_c004, Some(u32::MAX)), Ok(Some((Space::Memory, 16384))));
        assert_eq!(size(0x0000_000c, Some(0xffff_fffe)), Ok(Some((Space::Memory, 8 << 30))));
    }

    #[test]
    fn broken_registers_are_none() {
        let cases = [
            (u32::MAX, None),                 // No device, or all ones.
            (0x0000_0001, None),              // Ports of no size.
            (0xffff_0001, None),              // All ports.
            (0xfff0_f001, None),              // Holes.
            (0x0000_1000, None),              // One bit alone.
            (0xffff_0fff & !0b111, None),     // Holes.
            (0xffff_f002, None),              // Below 1 MiB.
            (0xffff_f006, None),              // Reserved.
            (0xffff_f004, None),              // No second half.
            (0xffff_f004, Some(0)),           // A second half that is stuck.
            (0x0000_0004, Some(0x8000_0000)), // Half of all memory.
            (0x0000_0004, Some(0)),           // A type, and no bit of an address.
        ];
        for (mask, high) in cases {
            assert!(size(mask, high).is_err(), "{mask:#x} {high:?}");
        }
    }

    #[test]
    fn an_address_in_use_is_kept() {
        let address = |old, command| decode(old, 0xffff_ff01, None, command).unwrap().unwrap().address;
        assert_eq!(address(0xc101, 1), Some(0xc100));
        assert_eq!(address(0xc101, 2), None);
        assert_eq!(address(1, 1), None);
    }

    proptest! {
        #[test]
        fn any_register(old: u32, mask: u32, wide: Option<(u32, u32)>, command: u16) {
            if let Ok(Some(bar)) = decode(old, mask, wide, command) {
                prop_assert!(bar.size.is_power_of_two() && bar.size >= 4 && bar.size <= MAX_SIZE);
                prop_assert!(bar.address.is_none_or(|address| address % bar.size == 0));
            }
        }
    }
}
