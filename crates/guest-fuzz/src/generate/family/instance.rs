//! [`Instance`]: a device of a family, where a map has it.

use super::{FAMILIES, Family, Layout, Match, Register, Step, Steps, Values};
use crate::instruction::Width;
use crate::random::Random;
use crate::region::{Region, RegionMap, Space};

/// A device of a family, with its registers where they are in a map.
#[derive(Debug)]
pub(in crate::generate) struct Instance {
    family: &'static Family,
    /// One for each register of the family; `None` where it must not be touched or is not there.
    registers: Vec<Option<Place>>,
    /// The steps that can be gone here.
    steps: Vec<&'static Steps>,
    somewhere: (Space, u64),
}

/// A register of an instance.
#[derive(Clone, Debug)]
pub(in crate::generate) struct Place {
    pub(in crate::generate) space: Space,
    pub(in crate::generate) address: u64,
    widths: Vec<Width>,
    pub(in crate::generate) values: &'static Values,
}

impl Place {
    /// One of the widths that this register is accessed by.
    pub(in crate::generate) fn width(&self, random: &mut Random) -> Width {
        random.choose(&self.widths).copied().unwrap_or(Width::Byte)
    }
}

impl Instance {
    /// All devices of all families in `map`, where `holds` says what may be touched.
    pub(in crate::generate) fn all(map: &RegionMap, holds: &dyn Fn(Space, u64, u64) -> bool) -> Vec<Self> {
        let families = FAMILIES.iter();
        let bases = families.flat_map(|family| family.bases(map).into_iter().map(move |base| (family, base)));
        bases.filter_map(|(family, base)| Self::new(family, base, holds)).collect()
    }

    fn new(
        family: &'static Family,
        base: (Space, u64),
        holds: &dyn Fn(Space, u64, u64) -> bool,
    ) -> Option<Self> {
        let registers: Vec<_> = family.registers.iter().map(|register| register.place(base, holds)).collect();
        let own = family.registers.iter().zip(&registers).filter(|(register, _)| !register.fixed);
        let somewhere =
            own.filter_map(|(_, place)| place.as_ref()).map(|place| (place.space, place.address)).next()?;
        let there = |register: usize| registers.get(register).is_some_and(Option::is_some);
        let useful = |step: &Step| match *step {
            Step::Read { register, .. } | Step::Write { register, .. } => there(register),
            Step::Lay(_) | Step::Delay => false,
        };
        let steps = family.steps.iter().filter(|steps| steps.steps.iter().any(useful)).collect();
        Some(Self { family, registers, steps, somewhere })
    }

    /// The place of one of its registers: it is in the device whose areas have that.
    pub(in crate::generate) fn somewhere(&self) -> (Space, u64) {
        self.somewhere
    }

    /// Register number `register`.
    pub(in crate::generate) fn register(&self, register: usize) -> Option<&Place> {
        self.registers.get(register)?.as_ref()
    }

    /// Any register.
    pub(in crate::generate) fn any_register(&self, random: &mut Random) -> Option<&Place> {
        random.choose(&self.registers)?.as_ref()
    }

    pub(in crate::generate) fn layout(&self, layout: usize) -> Option<&'static Layout> {
        self.family.layouts.get(layout)
    }

    /// Steps to go, those of a greater weight more often.
    pub(in crate::generate) fn steps(&self, random: &mut Random) -> Option<&'static [Step]> {
        let mut at = random.below(self.steps.iter().map(|steps| steps.weight).sum());
        for steps in &self.steps {
            match at.checked_sub(steps.weight) {
                Some(rest) => at = rest,
                None => return Some(&steps.steps),
            }
        }
        None
    }

    #[cfg(test)]
    pub(in crate::generate) fn name(&self) -> &str {
        &self.family.name
    }
}

impl Family {
    /// Where devices of the family begin in `map`.
    fn bases(&self, map: &RegionMap) -> Vec<(Space, u64)> {
        let mut bases: Vec<_> = self.matches.iter().flat_map(|rule| rule.bases(map)).collect();
        bases.sort_unstable();
        bases.dedup();
        bases
    }
}

impl Match {
    fn bases(&self, map: &RegionMap) -> Vec<(Space, u64)> {
        let base = |region: &Region| (region.space, region.first);
        match self {
            Self::Port(first) => vec![(Space::Port, u64::from(*first))],
            Self::Name(glob) => {
                map.regions.iter().filter(|region| fits(glob, &region.name)).map(base).collect()
            }
            Self::Pci { vendor, device, space, number } => {
                let fits = |id: &u16| device.is_none_or(|device| device == *id);
                let functions =
                    map.pci.iter().filter(|function| function.vendor == *vendor && fits(&function.device));
                let bars = functions.filter_map(|function| {
                    function.bars.iter().filter(|bar| bar.space == *space).nth(*number).map(base)
                });
                bars.collect()
            }
        }
    }
}

impl Register {
    fn place(&'static self, base: (Space, u64), holds: &dyn Fn(Space, u64, u64) -> bool) -> Option<Place> {
        let (space, first) = if self.fixed { (Space::Port, 0) } else { base };
        let address = first.checked_add(self.offset)?;
        let possible = |width: &Width| {
            (space == Space::Memory || *width != Width::Quad) && holds(space, address, width.bytes().into())
        };
        let widths: Vec<_> = self.widths.iter().copied().filter(possible).collect();
        (!widths.is_empty()).then_some(Place { space, address, widths, values: &self.values })
    }
}

/// Whether `glob`, in which `*` is any text, is the whole of `text`.
fn fits(glob: &str, text: &str) -> bool {
    let Some((head, rest)) = glob.split_once('*') else { return glob == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let tail = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = text.find(part) else { return false };
        text = text.get(at + part.len()..).unwrap_or_default();
    }
    text.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::samples;

    #[test]
    fn globs() {
        assert!(
            fits("vga", "vga")
                && fits("*", "")
                && fits("a*c", "abc")
                && fits("*b*", "abc")
                && fits("a*b*", "aab")
        );
        assert!(!fits("vga", "vga2") && !fits("a*c", "ab") && !fits("ab*b", "ab") && !fits("a*b*c", "acb"));
    }

    #[test]
    fn a_pc_has_its_devices_and_they_do_something() {
        let instances = Instance::all(&samples::pc(), &|_, _, _| true);
        let names: Vec<&str> = instances.iter().map(Instance::name).collect();
        for name in ["e1000", "ide", "floppy", "vga", "serial"] {
            assert!(names.contains(&name), "{name} of {names:?}");
        }
        assert!(names.len() > 12, "{names:?}");
        assert!(instances.iter().all(|instance| !instance.steps.is_empty()));
    }

    #[test]
    fn registers_that_must_not_be_touched_are_not_there() {
        let instances = Instance::all(&samples::pc(), &|_, address, bytes| address + bytes <= 0x3f9);
        let serial =
            instances.iter().find(|instance| instance.name() == "serial" && instance.somewhere.1 == 0x3f8);
        assert_eq!(serial.unwrap().registers.iter().flatten().count(), 1);
        assert!(Instance::all(&samples::pc(), &|_, _, _| false).is_empty());
    }
}
