//! [`refined`]: an incident, with what a map says of the devices around it.

use crate::engine::Incident;
use crate::instruction::Instruction;
use crate::pattern::Pattern;
use crate::region::{RegionMap, Space};
use crate::verdict::Verdict;

/// The devices that stop a guest, by the names of their regions.
const STOPPERS: [&str; 6] =
    ["isa-debug-exit", "pvpanic*", "acpi-cnt", "acpi-evt", "ACPI PM1?_CNT_BLK", "acpi-ged-regs"];
const DEBUG_EXIT: &str = "isa-debug-exit";

/// An incident, with what `map` says of it.
///
/// A processor goes on for some instructions until its VMM stops it: what stopped a guest is the last write before that
/// to a device that can, else to one that the map does not know, which may have come up since. A shutdown that a
/// debug-exit device asked for is one that it would have ended the VMM with. An exit status that fits the value written
/// is an error's where there is no such device.
#[must_use]
pub fn refined(incident: &Incident, map: &RegionMap) -> Incident {
    let mut refined = incident.clone();
    match incident.verdict {
        Verdict::GuestShutdown | Verdict::GuestPanic | Verdict::GuestSuspend => blame(&mut refined, map),
        _ => {}
    }
    let on_debug_exit =
        refined.instruction.as_ref().is_some_and(|instruction| is_at(instruction, DEBUG_EXIT, map));
    match (&refined.verdict, &refined.instruction) {
        (Verdict::DebugExit(code), _) if !map.regions.is_empty() && !on_debug_exit => {
            refined.verdict = Verdict::Crash { signal: None, code: Some(*code) };
        }
        (Verdict::GuestShutdown, Some(instruction)) if on_debug_exit => {
            if let Some(code) = instruction.debug_exit_status() {
                refined.verdict = Verdict::DebugExit(code);
            }
        }
        _ => {}
    }
    refined
}

/// Finds the instruction that stopped the guest.
fn blame(incident: &mut Incident, map: &RegionMap) {
    let Some(last) = incident.index else { return };
    let trail = || incident.trail.iter().rev().zip((0..=last).rev());
    let stops = |instruction: &Instruction| STOPPERS.iter().any(|name| is_at(instruction, name, map));
    let known = trail().find(|(instruction, _)| stops(instruction));
    let culprit = known.or_else(|| trail().find(|(instruction, _)| is_unknown(instruction, map)));
    if let Some((instruction, index)) = culprit {
        let instruction = instruction.clone();
        incident.index = Some(index);
        incident.instruction = Some(instruction);
    }
}

/// Whether it writes to a region of this name.
fn is_at(instruction: &Instruction, name: &str, map: &RegionMap) -> bool {
    let region = written(instruction).and_then(|(space, address)| map.narrowest(space, address));
    region.is_some_and(|region| Pattern::new(name).matches(&region.name))
}

/// Whether it writes to a place that the map does not know.
fn is_unknown(instruction: &Instruction, map: &RegionMap) -> bool {
    written(instruction).is_some_and(|(space, address)| map.narrowest(space, address).is_none())
}

fn written(instruction: &Instruction) -> Option<(Space, u64)> {
    match instruction {
        Instruction::Out { .. } | Instruction::OutString { .. } | Instruction::Write { .. } => {
            RegionMap::place_of(instruction)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruction::PortWidth;
    use crate::region::Region;

    fn out(port: u16, value: u32) -> Instruction {
        Instruction::Out { port, width: PortWidth::Byte, value }
    }

    fn map() -> RegionMap {
        let region = |first, name| Region::new(Space::Port, first, first, name).unwrap();
        RegionMap::from_regions(vec![region(0x80, "ioport80"), region(0x501, "isa-debug-exit")])
    }

    fn incident(verdict: Verdict, trail: &[Instruction]) -> Incident {
        let index = Some(99 + trail.len() as u64);
        Incident { verdict, index, instruction: trail.last().cloned(), trail: trail.to_vec() }
    }

    #[test]
    fn what_stopped_the_guest_is_not_always_the_last_instruction() {
        let trail = [out(0x80, 1), out(0x501, 7), out(0x80, 2), out(0x80, 3)];
        let found = refined(&incident(Verdict::GuestShutdown, &trail), &map());
        assert_eq!((found.verdict, found.index), (Verdict::DebugExit(15), Some(101)));
        assert_eq!(found.instruction, Some(out(0x501, 7)));
        // One that came up after the map was made.
        let trail = [out(0x604, 0x34), out(0x80, 2)];
        let found = refined(&incident(Verdict::GuestShutdown, &trail), &map());
        assert_eq!((found.verdict, found.index), (Verdict::GuestShutdown, Some(100)));
        let trail = [out(0x80, 1), out(0x80, 2)];
        assert_eq!(refined(&incident(Verdict::GuestPanic, &trail), &map()).index, Some(101));
    }

    #[test]
    fn a_status_is_a_debug_exit_where_there_is_such_a_device() {
        let trail = [out(0x80, 0)];
        let found = refined(&incident(Verdict::DebugExit(1), &trail), &map());
        assert_eq!(found.verdict, Verdict::Crash { signal: None, code: Some(1) });
        let trail = [out(0x501, 0)];
        assert_eq!(refined(&incident(Verdict::DebugExit(1), &trail), &map()).verdict, Verdict::DebugExit(1));
        // A map of nothing says nothing.
        let trail = [out(0x80, 0)];
        let found = refined(&incident(Verdict::DebugExit(1), &trail), &RegionMap::default());
        assert_eq!(found.verdict, Verdict::DebugExit(1));
    }
}
