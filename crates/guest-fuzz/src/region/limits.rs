//! [`RegionMap::check`]: what a map may have. Maps come from strangers, too, and a generator goes through all of one.

use super::{Region, RegionMap, Space};
use crate::enumerate::pci::MAX_FUNCTIONS;
use crate::error::{Error, Result};

/// How many regions a map has at most, and how many that are left alone.
pub const MAX_REGIONS: usize = 4096;
/// How many regions have the same port, or byte, at most: listings are nested, and a few levels deep.
pub const MAX_NESTED: usize = 32;
/// How many base address registers a PCI function has.
const BARS: usize = 6;

/// What is wrong with a map.
#[derive(Debug)]
pub(crate) struct Fault {
    /// Which of its fields.
    pub(crate) field: &'static str,
    pub(crate) expected: String,
    pub(crate) found: String,
}

impl RegionMap {
    /// Whether it is one that can be worked with: no more than [`MAX_REGIONS`] regions and as many that are left alone,
    /// each of which ends where it begins or later and, if it has ports, below 65,536; no address in more than
    /// [`MAX_NESTED`] of either; PCI functions that a machine can have; RAM that ends within memory.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with what is wrong.
    pub fn check(&self) -> Result<()> {
        self.fault().map_or(Ok(()), |Fault { field, expected, found }| {
            Err(Error::Unsupported {
                what: format!("`{field}` of the map"),
                why: format!("expected {expected}, found {found}"),
            })
        })
    }

    /// The first thing that is wrong with it.
    pub(crate) fn fault(&self) -> Option<Fault> {
        let skipped: Vec<&Region> = self.skipped.iter().map(|skipped| &skipped.region).collect();
        let regions: Vec<&Region> = self.regions.iter().collect();
        fault_of("regions", &regions)
            .or_else(|| fault_of("skipped", &skipped))
            .or_else(|| self.fault_of_pci())
            .or_else(|| self.fault_of_ram())
    }

    fn fault_of_pci(&self) -> Option<Fault> {
        let fault = |expected, found| Some(Fault { field: "pci", expected, found });
        if self.pci.len() > MAX_FUNCTIONS {
            return fault(format!("at most {MAX_FUNCTIONS} functions"), self.pci.len().to_string());
        }
        for (index, function) in self.pci.iter().enumerate() {
            if function.bars.len() > BARS {
                let expected = format!("at most {BARS} bars in pci[{index}]");
                return fault(expected, function.bars.len().to_string());
            }
            if let Some(bar) = function.bars.iter().find(|bar| !is_one(bar)) {
                return fault(format!("bars in pci[{index}] that end behind their beginning"), shown(bar));
            }
        }
        None
    }

    fn fault_of_ram(&self) -> Option<Fault> {
        let (first, length) = self.ram?;
        let ends = length == 0 || first.checked_add(length - 1).is_some();
        (!ends).then(|| Fault {
            field: "ram",
            expected: "memory below 2^64".to_owned(),
            found: format!("{length:#x} bytes at {first:#x}"),
        })
    }
}

fn fault_of(field: &'static str, regions: &[&Region]) -> Option<Fault> {
    let fault = |expected, found| Some(Fault { field, expected, found });
    if regions.len() > MAX_REGIONS {
        return fault(format!("at most {MAX_REGIONS} regions"), regions.len().to_string());
    }
    if let Some((index, region)) = regions.iter().enumerate().find(|(_, region)| !is_one(region)) {
        let expected = format!("{field}[{index}] to end behind its beginning, and ports below 0x10000");
        return fault(expected, shown(region));
    }
    [Space::Port, Space::Memory].into_iter().find_map(|space| {
        let (address, depth) = deepest(regions.iter().filter(|region| region.space == space))?;
        let expected = format!("each address in at most {MAX_NESTED} regions");
        if depth > MAX_NESTED { fault(expected, format!("{address:#x} in {depth}")) } else { None }
    })
}

fn is_one(region: &Region) -> bool {
    Region::new(region.space, region.first, region.last, "").is_some()
}

/// Without its name, which may be of any length.
fn shown(region: &Region) -> String {
    format!("{:#x} to {:#x}", region.first, region.last)
}

/// An address that no other is in more regions than, and in how many it is.
fn deepest<'r>(regions: impl Iterator<Item = &'r &'r Region>) -> Option<(u64, usize)> {
    let (mut firsts, mut lasts): (Vec<u64>, Vec<u64>) =
        regions.map(|region| (region.first, region.last)).unzip();
    firsts.sort_unstable();
    lasts.sort_unstable();
    // At each beginning: those that have begun, without those that ended before.
    let mut ended = 0;
    let depths = firsts.iter().enumerate().map(|(index, &first)| {
        while lasts.get(ended).is_some_and(|&last| last < first) {
            ended += 1;
        }
        (first, index + 1 - ended)
    });
    depths.max_by_key(|&(_, depth)| depth)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::region::{PciFunction, Skipped};

    fn port(first: u64, last: u64) -> Region {
        Region { space: Space::Port, first, last, name: "x".repeat(1000) }
    }

    #[track_caller]
    fn refused(map: &RegionMap) -> String {
        map.check().unwrap_err().to_string()
    }

    #[test]
    fn as_many_regions_as_may_be_and_one_more() {
        let skip = |region| Skipped { region, reason: String::new() };
        let mut map = RegionMap::from_regions((0..MAX_REGIONS as u64).map(|n| port(n, n)).collect());
        map.skipped = map.regions.iter().cloned().map(skip).collect();
        map.check().unwrap();
        map.skipped.push(skip(port(9999, 9999)));
        assert_eq!(refused(&map), "`skipped` of the map: expected at most 4096 regions, found 4097");
        map.regions.push(port(9999, 9999));
        assert_eq!(refused(&map), "`regions` of the map: expected at most 4096 regions, found 4097");
    }

    #[test]
    fn regions_are_within_their_space() {
        let expected = "`regions` of the map: expected regions[1] to end behind its beginning, and ports below 0x10000, \
                        found ";
        for (first, last, found) in [(6, 5, "0x6 to 0x5"), (0, 0x1_0000, "0x0 to 0x10000")] {
            let map = RegionMap::from_regions(vec![port(1, 1), port(first, last)]);
            assert_eq!(refused(&map), format!("{expected}{found}"));
        }
        let memory = Region { space: Space::Memory, ..port(0, u64::MAX) };
        RegionMap::from_regions(vec![memory]).check().unwrap();
    }

    #[test]
    fn nesting_has_an_end() {
        let mut map = RegionMap::from_regions((0..MAX_NESTED as u64).map(|n| port(n, 0xffff - n)).collect());
        // Memory is elsewhere.
        map.regions.push(Region { space: Space::Memory, ..port(0, 0xffff) });
        map.check().unwrap();
        map.regions.push(port(500, 500));
        assert_eq!(
            refused(&map),
            "`regions` of the map: expected each address in at most 32 regions, found 0x1f4 in 33"
        );
    }

    #[test]
    fn functions_and_ram_are_a_machines() {
        let function = |bars| PciFunction { address: 8, vendor: 1, device: 2, class: 3, bars };
        let with = |pci| RegionMap { pci, ..RegionMap::default() };
        with(vec![function(vec![port(1, 1); 6]); MAX_FUNCTIONS]).check().unwrap();
        let error = refused(&with(vec![function(Vec::new()); MAX_FUNCTIONS + 1]));
        assert_eq!(error, "`pci` of the map: expected at most 256 functions, found 257");
        let error = refused(&with(vec![function(vec![port(1, 1); 7])]));
        assert_eq!(error, "`pci` of the map: expected at most 6 bars in pci[0], found 7");
        assert!(refused(&with(vec![function(vec![port(2, 1)])])).ends_with("found 0x2 to 0x1"));
        let ram = |ram| RegionMap { ram: Some(ram), ..RegionMap::default() };
        ram((u64::MAX, 1)).check().unwrap();
        ram((0, u64::MAX)).check().unwrap();
        assert!(refused(&ram((u64::MAX, 2))).ends_with("found 0x2 bytes at 0xffffffffffffffff"));
    }

    proptest! {
        #[test]
        fn the_deepest_address(regions in proptest::collection::vec((0..40u64, 0..20u64), 1..12)) {
            let regions: Vec<Region> = regions.iter().map(|&(first, length)| port(first, first + length)).collect();
            let depth = |address: u64| regions.iter().filter(|region| region.meets(Space::Port, address, address)).count();
            let (address, found) = deepest(regions.iter().collect::<Vec<_>>().iter()).unwrap();
            prop_assert_eq!(found, depth(address));
            prop_assert_eq!(Some(found), (0..60).map(depth).max());
        }
    }
}
