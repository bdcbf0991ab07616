//! [`SkipList`]: what is to be left alone, and why.

use std::collections::VecDeque;

use crate::error::Result;
use crate::pattern::{Pattern, port_range};
use crate::region::{Region, RegionMap, Skipped, Space};

/// Rules that say what is to be left alone.
///
/// ```
/// use guest_fuzz::region::{Region, RegionMap, Space};
/// use guest_fuzz::skip::SkipList;
///
/// let keyboard = Region::new(Space::Port, 0x60, 0x64, "keyboard").ok_or("no region")?;
/// let mut map = RegionMap::from_regions(vec![keyboard]);
/// SkipList::parse("reset")?.apply(&mut map);
/// assert_eq!((map.regions[0].first, map.regions[0].last), (0x60, 0x63));
/// assert_eq!(map.skipped[0].reason, "reset: the keyboard controller's command 0xfe resets the machine");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SkipList {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    what: What,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    At(Space, u64, u64),
    Named(Pattern),
}

impl SkipList {
    /// Reads rules between commas: a region's exact name, a name with `*` for any characters and `?` for one, ports
    /// (`0x60-0x64`, `0x80`), or a set:
    ///
    /// - `power`: what resets, suspends or ends a machine in an orderly way;
    /// - `reset`: of that, what resets it;
    /// - `slow`: what keeps a VMM busy for seconds because it was told to;
    /// - `none`: nothing.
    ///
    /// # Errors
    /// Where something looks like ports and is none.
    pub fn parse(text: &str) -> Result<Self> {
        let mut rules = Vec::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            match (item, port_range("--skip", item)?) {
                ("none", _) => {}
                ("power", _) => rules.extend(set("power", &POWER, |_| true)),
                ("slow", _) => rules.extend(set("slow", &SLOW, |_| true)),
                ("reset", _) => rules.extend(set("reset", &POWER, |member| member.resets)),
                (_, Some((first, last))) => {
                    rules.push(Rule { what: What::At(Space::Port, first, last), reason: item.to_owned() });
                }
                (name, None) => {
                    rules.push(Rule { what: What::Named(Pattern::new(name)), reason: name.to_owned() });
                }
            }
        }
        Ok(Self { rules })
    }

    /// Cuts what the rules name out of the regions of `map`, which may leave two parts of a region, and lists each cut
    /// in [`skipped`](RegionMap::skipped) with the rule that made it. Where rules overlap, the first one has it.
    pub fn apply(&self, map: &mut RegionMap) {
        let regions = std::mem::take(&mut map.regions);
        for region in regions {
            self.cut(region, map);
        }
    }

    fn cut(&self, region: Region, map: &mut RegionMap) {
        let mut parts = VecDeque::from([region]);
        for rule in &self.rules {
            for _ in 0..parts.len() {
                let Some(part) = parts.pop_front() else { break };
                let Some(cut) = rule.cut(&part) else {
                    parts.push_back(part);
                    continue;
                };
                parts.extend(part.without(cut.first, cut.last));
                map.skipped.push(Skipped { region: cut, reason: rule.reason.clone() });
            }
        }
        map.regions.extend(parts);
    }
}

impl Rule {
    /// The part of `region` that is to be left alone.
    fn cut(&self, region: &Region) -> Option<Region> {
        match &self.what {
            What::At(space, first, last) if region.space == *space => region.part(*first, *last),
            What::At(..) => None,
            What::Named(pattern) => pattern.matches(&region.name).then(|| region.clone()),
        }
    }
}

/// One thing that a set names.
struct Member {
    what: Place,
    resets: bool,
    why: &'static str,
}

enum Place {
    Ports(u64, u64),
    Memory(u64, u64),
    Named(&'static str),
}

/// What resets, suspends or ends a machine. Ports are for listings with other names than QEMU's, names for devices
/// that are not where they are by default, and for memory.
const POWER: [Member; 23] = [
    resets(Place::Ports(0x64, 0x64), "the keyboard controller's command 0xfe resets the machine"),
    resets(Place::Named("i8042-cmd"), "the keyboard controller's command 0xfe resets the machine"),
    resets(Place::Ports(0x92, 0x92), "bit 0 of system control port A resets the machine"),
    resets(Place::Named("port92"), "bit 0 of system control port A resets the machine"),
    resets(Place::Ports(0xcf9, 0xcf9), "the chipset's reset control"),
    resets(Place::Named("*-reset-control"), "the chipset's reset control"),
    resets(Place::Named("sm-tco"), "the chipset's watchdog resets the machine"),
    resets(Place::Named("ib700"), "a watchdog resets the machine"),
    resets(Place::Named("acpi-ged-regs"), "ACPI's sleep and reset registers"),
    // In the order of a PC's ports from here on.
    ends(Place::Ports(0xb2, 0xb3), "APM: raises system management interrupts, and can switch ACPI off"),
    ends(Place::Named("apm-io"), "APM: raises system management interrupts, and can switch ACPI off"),
    ends(Place::Ports(0x501, 0x501), "isa-debug-exit ends the VMM"),
    ends(Place::Named("isa-debug-exit"), "isa-debug-exit ends the VMM"),
    ends(Place::Ports(0x505, 0x505), "pvpanic says that the guest has panicked"),
    ends(Place::Named("pvpanic*"), "pvpanic says that the guest has panicked"),
    ends(Place::Ports(0x600, 0x63f), "ACPI power management: suspends the machine, or switches it off"),
    ends(Place::Ports(0xb000, 0xb03f), "ACPI power management, where older firmware puts it"),
    ends(Place::Named("acpi-evt"), "ACPI power management: the power button"),
    ends(Place::Named("acpi-cnt"), "ACPI power management: suspends the machine, or switches it off"),
    ends(Place::Named("acpi-smi"), "ACPI power management: system management interrupts"),
    ends(Place::Named("ACPI PM1?_EVT_BLK"), "ACPI power management: the power button"),
    ends(
        Place::Named("ACPI PM1?_CNT_BLK"),
        "ACPI power management: suspends the machine, or switches it off",
    ),
    ends(Place::Named("ACPI PM2_CNT_BLK"), "ACPI power management: stops arbitration between bus masters"),
];

/// What keeps a VMM busy.
const SLOW: [Member; 3] = [
    ends(Place::Ports(0x40, 0x40), "PIT, counter 0: can be told to fire faster than a VMM can serve it"),
    ends(Place::Named("fwcfg.dma"), "one write can ask for 4 GiB to be copied"),
    ends(
        Place::Memory(0xfed0_0010, 0xfed0_0017),
        "HPET, general configuration: starts timers that can be told to fire without a pause",
    ),
];

const fn resets(what: Place, why: &'static str) -> Member {
    Member { what, resets: true, why }
}

const fn ends(what: Place, why: &'static str) -> Member {
    Member { what, resets: false, why }
}

fn set(
    name: &str,
    members: &'static [Member],
    wanted: impl Fn(&Member) -> bool,
) -> impl Iterator<Item = Rule> {
    members.iter().filter(move |member| wanted(member)).map(move |member| Rule {
        what: match member.what {
            Place::Ports(first, last) => What::At(Space::Port, first, last),
            Place::Memory(first, last) => What::At(Space::Memory, first, last),
            Place::Named(pattern) => What::Named(Pattern::new(pattern)),
        },
        reason: format!("{name}: {}", member.why),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn port(first: u64, last: u64, name: &str) -> Region {
        Region::new(Space::Port, first, last, name).unwrap()
    }

    fn skipped(rules: &str, regions: Vec<Region>) -> RegionMap {
        let mut map = RegionMap::from_regions(regions);
        SkipList::parse(rules).unwrap().apply(&mut map);
        map
    }

    #[test]
    fn a_name_is_not_a_part_of_a_name() {
        let regions = vec![port(1, 1, "serial"), port(2, 2, "ser"), port(3, 3, "serial2")];
        let map = skipped("serial", regions.clone());
        assert_eq!(map.regions, regions[1..]);
        assert_eq!(map.skipped, [Skipped { region: regions[0].clone(), reason: "serial".into() }]);
        assert_eq!(skipped("serial*", regions.clone()).regions, [regions[1].clone()]);
        assert_eq!(skipped("SERIAL", regions.clone()).regions, regions);
    }

    #[test]
    fn what_is_slow_is_left_alone_and_its_neighbours_are_not() {
        let hpet = Region::new(Space::Memory, 0xfed0_0000, 0xfed0_03ff, "hpet").unwrap();
        let ports = [port(0x40, 0x43, "pit"), port(0x514, 0x51b, "fwcfg.dma"), port(0x510, 0x511, "fwcfg")];
        let map = skipped("slow", [ports.to_vec(), vec![hpet]].concat());
        let left: Vec<_> = map.regions.iter().map(|region| (region.first, region.last)).collect();
        assert_eq!(
            left,
            [(0x41, 0x43), (0x510, 0x511), (0xfed0_0000, 0xfed0_000f), (0xfed0_0018, 0xfed0_03ff)]
        );
    }

    #[test]
    fn ports_are_cut_out_of_the_middle() {
        let map = skipped("0x62-0x63, 0x66", vec![port(0x60, 0x6f, "kbd")]);
        let expected = [port(0x60, 0x61, "kbd"), port(0x64, 0x65, "kbd"), port(0x67, 0x6f, "kbd")];
        assert_eq!(map.regions, expected);
        let cut: Vec<_> =
            map.skipped.iter().map(|skipped| (skipped.region.first, skipped.reason.as_str())).collect();
        assert_eq!(cut, [(0x62, "0x62-0x63"), (0x66, "0x66")]);
    }

    #[test]
    fn power_ends_no_machine() {
        let ports = [0x64, 0x92, 0xb2, 0xb3, 0xcf9, 0x501, 0x505, 0x600, 0x604, 0x63f, 0xb004];
        let map = skipped("power", vec![port(0, 0xffff, "all")]);
        for at in ports {
            let skipped = map.skipped_by(Space::Port, at, 1).unwrap();
            assert!(skipped.reason.starts_with("power: "));
            assert!(!map.regions.iter().any(|region| region.meets(Space::Port, at, at)), "{at:#x}");
        }
        for at in [0x60, 0x61, 0x70, 0x3f8, 0xcf8, 0xcfc, 0x640] {
            assert!(map.regions.iter().any(|region| region.meets(Space::Port, at, at)), "{at:#x}");
        }
        // A wide access from beside a skipped port reaches it.
        assert!(map.skipped_by(Space::Port, 0x61, 4).is_some());
        assert!(map.skipped_by(Space::Port, 0x60, 4).is_none());
    }

    #[test]
    fn power_knows_names_at_other_ports_and_in_memory() {
        let memory = Region::new(Space::Memory, 0xfea0_0200, 0xfea0_0202, "acpi-ged-regs").unwrap();
        let names =
            ["acpi-cnt", "lpc-reset-control", "piix3-reset-control", "isa-debug-exit", "pvpanic-mmio"];
        let mut regions: Vec<_> = names.iter().map(|name| port(0x4000, 0x4003, name)).collect();
        regions.extend([
            memory.clone(),
            port(0xae00, 0xae17, "acpi-pci-hotplug"),
            port(0xf4, 0xf4, "ACPI PM1a_CNT_BLK"),
        ]);
        let map = skipped("power", regions);
        assert_eq!(map.regions, [port(0xae00, 0xae17, "acpi-pci-hotplug")]);
        assert!(skipped("reset", vec![memory]).regions.is_empty());
    }

    #[test]
    fn reset_is_a_part_of_power() {
        let map = skipped("reset", vec![port(0, 0xffff, "all")]);
        let cut: Vec<_> =
            map.skipped.iter().map(|skipped| (skipped.region.first, skipped.region.last)).collect();
        assert_eq!(cut, [(0x64, 0x64), (0x92, 0x92), (0xcf9, 0xcf9)]);
    }

    #[test]
    fn nothing_is_skipped_unless_it_is_asked_for() {
        for rules in ["none", "", " , "] {
            let map = skipped(rules, vec![port(0, 0xffff, "all")]);
            assert_eq!((map.regions.len(), map.skipped.len()), (1, 0));
        }
        assert!(SkipList::parse("power,0x10000").is_err());
        assert!(SkipList::parse("0064").is_err());
    }

    #[test]
    fn port_rules_leave_memory_alone() {
        let memory = Region::new(Space::Memory, 0, 0xff, "ram").unwrap();
        assert_eq!(skipped("0x0-0xffff", vec![memory.clone()]).regions, [memory]);
    }

    proptest! {
        #[test]
        fn any_text(text in "\\PC{0,60}") {
            let _ = SkipList::parse(&text);
        }

        #[test]
        fn each_port_is_kept_or_skipped(
            regions in proptest::collection::vec((0..100u64, 0..30u64), 0..6),
            rules in proptest::collection::vec((0..100u64, 0..10u64), 0..6),
        ) {
            let regions: Vec<_> = regions.iter().map(|&(first, length)| port(first, first + length, "r")).collect();
            let text: Vec<_> = rules.iter().map(|&(first, length)| format!("{first}-{}", first + length)).collect();
            let map = skipped(&text.join(","), regions.clone());
            for address in 0..140 {
                let count = |regions: &mut dyn Iterator<Item = &Region>| {
                    regions.filter(|region| region.meets(Space::Port, address, address)).count()
                };
                let asked = rules.iter().any(|&(first, length)| (first..=first + length).contains(&address));
                let before = count(&mut regions.iter());
                prop_assert_eq!(count(&mut map.regions.iter()), if asked { 0 } else { before });
                let skipped = count(&mut map.skipped.iter().map(|skipped| &skipped.region));
                prop_assert_eq!(skipped, if asked { before } else { 0 });
            }
        }
    }
}
