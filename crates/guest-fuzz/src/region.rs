//! [`RegionMap`]: where a machine can be reached, and which of that is to be left alone.

mod limits;

use crate::instruction::{Instruction, PciAddress};

#[cfg(feature = "serde")]
pub(crate) use limits::Fault;
pub use limits::{MAX_NESTED, MAX_REGIONS};

/// Ports or memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub enum Space {
    /// The 65,536 I/O ports.
    Port,
    /// Guest physical memory.
    Memory,
}

/// Neighbouring ports, or neighbouring bytes of memory, that have a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Region {
    /// Ports or memory.
    pub space: Space,
    /// The first port or byte.
    pub first: u64,
    /// The last one, which is not before the first, and below 65,536 for ports.
    pub last: u64,
    /// Its name, as whoever listed it has it.
    pub name: String,
}

impl Region {
    /// A region; `None` where it ends before it begins, or where a port is above 65,535.
    ///
    /// ```
    /// use guest_fuzz::region::{Region, Space};
    /// assert!(Region::new(Space::Port, 0x3f8, 0x3ff, "serial").is_some());
    /// assert!(Region::new(Space::Port, 0x3ff, 0x3f8, "serial").is_none());
    /// assert!(Region::new(Space::Port, 0xfff8, 0x1_0000, "serial").is_none());
    /// ```
    #[must_use]
    pub fn new(space: Space, first: u64, last: u64, name: impl Into<String>) -> Option<Self> {
        let inside = space == Space::Memory || last <= u64::from(u16::MAX);
        (first <= last && inside).then(|| Self { space, first, last, name: name.into() })
    }

    /// Whether one of the ports or bytes from `first` to `last` is in it.
    #[must_use]
    pub fn meets(&self, space: Space, first: u64, last: u64) -> bool {
        self.space == space && self.first <= last && first <= self.last
    }

    /// The part of it from `first` to `last`; `None` where there is none.
    #[must_use]
    pub fn part(&self, first: u64, last: u64) -> Option<Self> {
        Self::new(self.space, self.first.max(first), self.last.min(last), self.name.as_str())
    }

    /// What is left of it without `first` to `last`: before it, and behind it.
    pub(crate) fn without(self, first: u64, last: u64) -> impl Iterator<Item = Self> {
        let before = first.checked_sub(1).and_then(|end| self.part(0, end));
        let behind = last.checked_add(1).and_then(|start| self.part(start, u64::MAX));
        before.into_iter().chain(behind)
    }
}

/// A region that is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct Skipped {
    /// What is left alone.
    pub region: Region,
    /// Why: the rule that says so.
    pub reason: String,
}

/// A PCI function that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct PciFunction {
    /// Where, as `bus << 8 | device << 3 | function`.
    pub address: u16,
    /// Vendor.
    pub vendor: u16,
    /// Device.
    pub device: u16,
    /// Class, subclass and programming interface.
    pub class: u32,
    /// Its base address registers that are in use, after programming.
    pub bars: Vec<Region>,
}

impl Skipped {
    /// `region`, and why it is left alone.
    #[must_use]
    pub fn new(region: Region, reason: impl Into<String>) -> Self {
        Self { region, reason: reason.into() }
    }
}

impl PciFunction {
    /// The function at `address`, without a class and without base address registers.
    #[must_use]
    pub fn new(address: PciAddress, vendor: u16, device: u16) -> Self {
        Self { address: address.0, vendor, device, class: 0, bars: Vec::new() }
    }

    /// Where it is.
    #[must_use]
    pub fn pci_address(&self) -> PciAddress {
        PciAddress(self.address)
    }
}

/// Where a machine can be reached. What a generator makes depends on this and on the seed, and on nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct RegionMap {
    /// Ports and memory, in the order in which they were listed. They may overlap: nested ranges are listed, too.
    pub regions: Vec<Region>,
    /// What is left alone: no instruction of a generator touches it.
    pub skipped: Vec<Skipped>,
    /// PCI functions.
    pub pci: Vec<PciFunction>,
    /// What brings a machine that was just reset into the state in which the regions are where they are: the programming
    /// of base address registers. As text.
    pub prologue: Vec<String>,
    /// Guest RAM that a generator may fill, for devices to read by DMA: address and length.
    pub ram: Option<(u64, u64)>,
}

impl RegionMap {
    /// The map of `regions`, in their order, with nothing skipped.
    #[must_use]
    pub fn from_regions(regions: Vec<Region>) -> Self {
        Self { regions, ..Self::default() }
    }

    /// What is left alone and yet would be touched by an access to `length` ports or bytes from `first` on. An access
    /// may reach farther than the region in which it begins.
    #[must_use]
    pub fn skipped_by(&self, space: Space, first: u64, length: u64) -> Option<&Skipped> {
        let last = first.saturating_add(length.saturating_sub(1));
        self.skipped.iter().find(|skipped| skipped.region.meets(space, first, last))
    }

    /// The region that has `address`; the narrowest, where several have.
    #[must_use]
    pub fn narrowest(&self, space: Space, address: u64) -> Option<&Region> {
        let here =
            |region: &&Region| region.space == space && (region.first..=region.last).contains(&address);
        self.regions.iter().filter(here).min_by_key(|region| region.last - region.first)
    }

    /// What `instruction` touches: ports or memory, and the first address. `None` where it touches neither.
    #[must_use]
    pub fn place_of(instruction: &Instruction) -> Option<(Space, u64)> {
        match *instruction {
            Instruction::In { port, .. }
            | Instruction::Out { port, .. }
            | Instruction::InString { port, .. }
            | Instruction::OutString { port, .. } => Some((Space::Port, u64::from(port))),
            Instruction::Read { address, .. }
            | Instruction::Write { address, .. }
            | Instruction::WriteBlock { address, .. }
            | Instruction::Fill { address, .. } => Some((Space::Memory, address)),
            _ => None,
        }
    }
}
