//! [`Places`]: a region map, made ready: what may be touched, cut free of what may not.

use super::family::Instance;
use super::memory::Ram;
use crate::instruction::PciAddress;
use crate::region::{PciFunction, Region, RegionMap, Space};

/// The ports of the PCI configuration mechanism: address, then data.
const CONFIGURATION: (u64, u64) = (0xcf8, 0xcff);
/// A delay reads this port.
const DELAY_PORT: u64 = 0x80;
/// More ports than this are no device, but a window in which devices are.
const WINDOW: u64 = 1024;
/// The class of bridges. Their configuration decides where other devices are, so it is not written.
const BRIDGE: u32 = 0x06;

/// Neighbouring addresses that may be touched: within one region, and none of them skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Area {
    pub(super) space: Space,
    pub(super) first: u64,
    pub(super) last: u64,
}

impl Area {
    /// How many addresses, at most `u64::MAX`.
    pub(super) fn length(&self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }

    fn of(region: &Region) -> Option<Self> {
        let end = if region.space == Space::Port { u64::from(u16::MAX) } else { u64::MAX };
        let area = Self { space: region.space, first: region.first, last: region.last.min(end) };
        (area.first <= area.last).then_some(area)
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.space == other.space && self.first <= other.last && other.first <= self.last
    }

    fn holds(&self, space: Space, address: u64, bytes: u64) -> bool {
        let last = address.checked_add(bytes.saturating_sub(1));
        self.space == space && self.first <= address && last.is_some_and(|last| last <= self.last)
    }

    /// What of it is left without `hole`.
    fn without(self, hole: &Self) -> impl Iterator<Item = Self> + use<> {
        let apart = !self.overlaps(hole);
        let below = hole.first.checked_sub(1).map(|last| Self { last: last.min(self.last), ..self });
        let above = hole.last.checked_add(1).map(|first| Self { first: first.max(self.first), ..self });
        let whole = apart.then_some(self);
        let parts = [below, above].into_iter().flatten();
        whole.into_iter().chain(parts.filter(move |part| !apart && part.first <= part.last))
    }
}

/// Areas that belong together: the base address registers of a PCI function, or what has the same name.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) areas: Vec<Area>,
    /// What is known about it.
    pub(super) instances: Vec<Instance>,
    /// Nothing but a window.
    pub(super) window: bool,
}

/// What the generators `stream` and `model` need of a region map.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) devices: Vec<Device>,
    /// Functions whose configuration space may be accessed.
    pub(super) pci: Vec<PciAddress>,
    pub(super) ram: Option<Ram>,
    /// Whether delays may be made.
    pub(super) delays: bool,
}

impl Places {
    /// What `map` has. The configuration ports are no device where PCI functions are known: those are reached by
    /// instructions of their own, which cannot move a base address register by accident.
    pub(super) fn new(map: &RegionMap) -> Self {
        let holes = holes(map);
        let mut owned = allowed(map, &holes);
        let reachable = |port| owned.iter().any(|(_, area)| area.holds(Space::Port, port, 1));
        let configurable = std::iter::once(CONFIGURATION.0).chain(0xcfc..=CONFIGURATION.1).all(reachable);
        let pci = if configurable { configurable_functions(map, &holes) } else { Vec::new() };
        if !map.pci.is_empty() {
            let (first, last) = CONFIGURATION;
            let hole = Area { space: Space::Port, first, last };
            owned = owned
                .into_iter()
                .flat_map(|(owner, area)| area.without(&hole).map(move |part| (owner, part)))
                .collect();
        }
        let mut places = Self {
            devices: devices(map, &owned),
            pci,
            ram: ram(map, &holes),
            delays: !holes.iter().any(|hole| hole.holds(Space::Port, DELAY_PORT, 1)),
        };
        places.add_instances(map);
        places
    }

    fn add_instances(&mut self, map: &RegionMap) {
        let all = Index::new(self.devices.iter().flat_map(|device| device.areas.iter()));
        let each: Vec<Index> = self.devices.iter().map(|device| Index::new(device.areas.iter())).collect();
        let holds = |space, address, bytes| all.holds(space, address, bytes);
        for instance in Instance::all(map, &holds) {
            let (space, address) = instance.somewhere();
            let owner = each.iter().position(|index| index.holds(space, address, 1));
            if let Some(device) = owner.and_then(|at| self.devices.get_mut(at)) {
                device.instances.push(instance);
            }
        }
    }

    /// Whether there is nothing that could be done.
    pub(super) fn is_empty(&self) -> bool {
        self.devices.is_empty() && self.pci.is_empty()
    }
}

/// Areas, for many questions: a stranger's map may have very many of them.
struct Index {
    /// Where an area begins, and how far one reaches that begins there or before. In order.
    reaches: Vec<(Space, u64, u64)>,
}

impl Index {
    fn new<'a>(areas: impl Iterator<Item = &'a Area>) -> Self {
        let mut reaches: Vec<_> = areas.map(|area| (area.space, area.first, area.last)).collect();
        reaches.sort_unstable();
        let mut before: Option<(Space, u64)> = None;
        for (space, _, last) in &mut reaches {
            if let Some((space_before, last_before)) = before
                && space_before == *space
            {
                *last = last_before.max(*last);
            }
            before = Some((*space, *last));
        }
        Self { reaches }
    }

    /// Whether one of the areas [has](Area::holds) all of the bytes.
    fn holds(&self, space: Space, address: u64, bytes: u64) -> bool {
        let behind = self.reaches.partition_point(|&(here, first, _)| (here, first) <= (space, address));
        let reach = behind.checked_sub(1).and_then(|at| self.reaches.get(at));
        let last = address.checked_add(bytes.saturating_sub(1));
        reach.is_some_and(|&(here, _, reach)| here == space && last.is_some_and(|last| last <= reach))
    }
}

/// The port areas of `map`, in its order: those of `classic`.
pub(super) fn port_areas(map: &RegionMap) -> Vec<Area> {
    let areas = allowed(map, &holes(map)).into_iter().map(|(_, area)| area);
    areas.filter(|area| area.space == Space::Port).collect()
}

fn holes(map: &RegionMap) -> Vec<Area> {
    map.skipped.iter().filter_map(|skipped| Area::of(&skipped.region)).collect()
}

/// The areas of `map`, each with the number of its region.
fn allowed(map: &RegionMap, holes: &[Area]) -> Vec<(usize, Area)> {
    let regions =
        map.regions.iter().enumerate().filter_map(|(owner, region)| Some((owner, Area::of(region)?)));
    regions.flat_map(|(owner, area)| cut(area, holes).into_iter().map(move |part| (owner, part))).collect()
}

fn cut(area: Area, holes: &[Area]) -> Vec<Area> {
    let mut holes: Vec<&Area> = holes.iter().filter(|hole| hole.overlaps(&area)).collect();
    holes.sort_unstable_by_key(|hole| hole.first);
    let mut parts = Vec::new();
    let mut rest = Some(area);
    for hole in holes {
        let Some(part) = rest else { break };
        if part.first < hole.first {
            parts.push(Area { last: hole.first - 1, ..part });
        }
        let next = hole.last.checked_add(1).map(|first| Area { first: first.max(part.first), ..part });
        rest = next.filter(|rest| rest.first <= rest.last);
    }
    parts.extend(rest);
    parts
}

fn devices(map: &RegionMap, owned: &[(usize, Area)]) -> Vec<Device> {
    let mut keys = std::collections::HashMap::new();
    let mut devices: Vec<Device> = Vec::new();
    for &(owner, area) in owned {
        let function = map.pci.iter().position(|function| has(function, &area));
        let name = map.regions.get(owner).map(|region| region.name.as_str());
        // A BAR in a window must not make the window its own: only what has the size of a device belongs to a function.
        let key =
            if is_window(&area) { (None, name) } else { (function, name.filter(|_| function.is_none())) };
        let at = *keys.entry(key).or_insert(devices.len());
        match devices.get_mut(at) {
            Some(device) => {
                device.window &= is_window(&area);
                device.areas.push(area);
            }
            None => {
                devices.push(Device { areas: vec![area], instances: Vec::new(), window: is_window(&area) });
            }
        }
    }
    devices
}

fn is_window(area: &Area) -> bool {
    area.space == Space::Port && area.length() > WINDOW
}

fn has(function: &PciFunction, area: &Area) -> bool {
    function.bars.iter().filter_map(Area::of).any(|bar| bar.overlaps(area))
}

fn configurable_functions(map: &RegionMap, holes: &[Area]) -> Vec<PciAddress> {
    let left_alone = |function: &PciFunction| holes.iter().any(|hole| has(function, hole));
    let functions = map.pci.iter().filter(|function| function.class >> 16 != BRIDGE && !left_alone(function));
    functions.map(PciFunction::pci_address).collect()
}

/// The largest part of the RAM that is not skipped.
fn ram(map: &RegionMap, holes: &[Area]) -> Option<Ram> {
    let (first, length) = map.ram.filter(|&(_, length)| length > 0)?;
    let whole = Area { space: Space::Memory, first, last: first.saturating_add(length - 1) };
    let largest = cut(whole, holes).into_iter().max_by_key(Area::length)?;
    Some(Ram { first: largest.first, length: largest.length() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::generate::samples;

    fn ports(first: u64, last: u64) -> Area {
        Area { space: Space::Port, first, last }
    }

    #[test]
    fn what_is_skipped_is_cut_out() {
        let left = |hole: (u64, u64)| cut(ports(10, 20), &[ports(hole.0, hole.1)]);
        assert_eq!(left((12, 14)), [ports(10, 11), ports(15, 20)]);
        assert_eq!(left((0, 14)), [ports(15, 20)]);
        assert_eq!(left((20, u64::MAX)), [ports(10, 19)]);
        assert_eq!(left((0, u64::MAX)), []);
        assert_eq!(left((21, 30)), [ports(10, 20)]);
    }

    proptest! {
        #[test]
        fn an_index_knows_what_its_areas_hold(
            areas in proptest::collection::vec((any::<bool>(), 0..40u64, 0..9u64), 0..9),
            (memory, address, bytes) in (any::<bool>(), 0..50u64, 1..9u64),
        ) {
            let space = |memory| if memory { Space::Memory } else { Space::Port };
            let areas: Vec<Area> = areas
                .into_iter()
                .map(|(memory, first, more)| Area { space: space(memory), first, last: first + more })
                .collect();
            let expected = areas.iter().any(|area| area.holds(space(memory), address, bytes));
            prop_assert_eq!(Index::new(areas.iter()).holds(space(memory), address, bytes), expected);
        }
    }

    #[test]
    fn functions_and_names_make_devices() {
        let places = Places::new(&samples::pc());
        let network =
            places.devices.iter().find(|device| device.areas.iter().any(|area| area.first == 0xc000));
        let spaces: Vec<Space> = network.unwrap().areas.iter().map(|area| area.space).collect();
        assert_eq!(spaces, [Space::Port, Space::Memory]);
        let disk = places.devices.iter().find(|device| device.areas.iter().any(|area| area.first == 0x1f0));
        assert!(disk.unwrap().areas.iter().any(|area| area.first == 0x3f6));
    }

    #[test]
    fn bridges_are_left_alone_and_the_rest_is_configured_where_the_ports_are() {
        let map = samples::pc();
        let places = Places::new(&map);
        assert!(!places.pci.is_empty() && !places.pci.contains(&PciAddress(0)));
        let mut without = map;
        without.regions.retain(|region| region.first != 0xcfc);
        assert!(Places::new(&without).pci.is_empty());
    }

    #[test]
    fn ram_is_cut_too() {
        let mut map = samples::pc();
        let (first, length) = map.ram.unwrap();
        map.skipped.push(samples::skipped(Space::Memory, first, first + 0xfff));
        let ram = Places::new(&map).ram.unwrap();
        assert_eq!((ram.first, ram.length), (first + 0x1000, length - 0x1000));
    }
}
