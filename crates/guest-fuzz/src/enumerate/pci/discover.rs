//! Finds the functions of a machine, and gives buses to the bridges that have none.

use super::{BUSES, Bridge, CLOSED, COMMAND, ConfigSpace, Found, MAX_FUNCTIONS, WINDOWS, bar};
use crate::error::Result;
use crate::instruction::{PciAddress, PortWidth};

const VENDOR: u8 = 0x00;
const CLASS: u8 = 0x08;
const HEADER_TYPE: u8 = 0x0e;

/// All functions, each bridge before what is behind it.
pub(super) fn discover(space: &mut dyn ConfigSpace, notes: &mut Vec<String>) -> Result<Vec<Found>> {
    let mut discovery = Discovery { space, notes, found: Vec::new(), seen: [false; 256], last_bus: 0 };
    discovery.bus(0)?;
    if discovery.found.len() == MAX_FUNCTIONS {
        discovery.notes.push(format!("no more than {MAX_FUNCTIONS} functions are listed"));
    }
    Ok(discovery.found)
}

struct Discovery<'d> {
    space: &'d mut dyn ConfigSpace,
    notes: &'d mut Vec<String>,
    found: Vec<Found>,
    seen: [bool; 256],
    /// The highest bus that has a number.
    last_bus: u8,
}

impl Discovery<'_> {
    /// A bus is scanned once, and one behind it has a higher number: that is how it ends.
    fn bus(&mut self, bus: u8) -> Result<()> {
        if let Some(seen) = self.seen.get_mut(usize::from(bus)) {
            *seen = true;
        }
        self.last_bus = self.last_bus.max(bus);
        for device in 0..32 {
            for function in 0..8 {
                let Some(address) = PciAddress::new(bus, device, function) else { continue };
                if self.found.len() == MAX_FUNCTIONS {
                    return Ok(());
                }
                let header_type = self.function(address)?;
                // Where function 0 is none, or the only one, there are no others.
                if function == 0 && header_type.is_none_or(|header_type| header_type & 0x80 == 0) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Adds `address`, if it exists, and what is behind it: its header type.
    fn function(&mut self, address: PciAddress) -> Result<Option<u8>> {
        let identity = self.space.read(address, VENDOR, PortWidth::Long)?;
        let (vendor, device) = (identity as u16, (identity >> 16) as u16);
        if vendor == u16::MAX || vendor == 0 {
            return Ok(None);
        }
        let class = self.space.read(address, CLASS, PortWidth::Long)? >> 8;
        let header_type = self.space.read(address, HEADER_TYPE, PortWidth::Byte)? as u8;
        let command = self.space.read(address, COMMAND, PortWidth::Word)? as u16;
        let count = match header_type & 0x7f {
            0 => 6,
            1 => 2,
            2 => 1,
            other => {
                self.notes.push(format!("{address}: header type {other:#x} is unknown"));
                0
            }
        };
        if command & 0b11 != 0 {
            // While a register is measured, the device must not answer at the address that all ones are.
            self.space.write(address, COMMAND, PortWidth::Word, u32::from(command & !0b11))?;
        }
        let bars = bar::measure(self.space, address, count, command, self.notes)?;
        if command & 0b11 != 0 {
            self.space.write(address, COMMAND, PortWidth::Word, command.into())?;
        }
        let place = self.found.len();
        self.found.push(Found { address, vendor, device, class, command, bars, bridge: None });
        if header_type & 0x7f == 1 {
            let bridge = self.bridge(address)?;
            if let Some(found) = self.found.get_mut(place) {
                found.bridge = bridge;
            }
        }
        Ok(Some(header_type))
    }

    fn bridge(&mut self, address: PciAddress) -> Result<Option<Bridge>> {
        let own = (address.0 >> 8) as u8;
        let old = self.space.read(address, BUSES, PortWidth::Long)?;
        let secondary = (old >> 8) as u8;
        let before = self.found.len();
        if secondary != 0 {
            let is_seen = self.seen.get(usize::from(secondary)).is_none_or(|&seen| seen);
            if secondary <= own || is_seen {
                self.notes.push(format!("{address}: bus {secondary:#04x} behind this bridge makes no sense"));
                return Ok(None);
            }
            let mut windows = CLOSED;
            for (value, (register, width)) in windows.iter_mut().zip(WINDOWS) {
                *value = self.space.read(address, register, width)?;
            }
            self.bus(secondary)?;
            let behind = self.found.len() - before;
            return Ok(Some(Bridge { buses: old, is_new: false, behind, windows }));
        }
        let Some(secondary) = self.last_bus.checked_add(1) else {
            self.notes.push(format!("{address}: there is no bus left for this bridge"));
            return Ok(None);
        };
        let buses =
            |last: u8| old & 0xff00_0000 | u32::from(last) << 16 | u32::from(secondary) << 8 | u32::from(own);
        // While it is scanned, all buses from there on are behind it.
        self.space.write(address, BUSES, PortWidth::Long, buses(u8::MAX))?;
        if self.space.read(address, BUSES, PortWidth::Word)? >> 8 != u32::from(secondary) {
            self.notes.push(format!("{address}: this bridge does not hold its bus"));
            return Ok(None);
        }
        self.bus(secondary)?;
        let buses = buses(self.last_bus);
        self.space.write(address, BUSES, PortWidth::Long, buses)?;
        let behind = self.found.len() - before;
        Ok(Some(Bridge { buses, is_new: true, behind, windows: CLOSED }))
    }
}
