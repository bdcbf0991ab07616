//! [`RegionMap`]: where a machine can be reached, and which of that is to be left alone.

use crate::instruction::{Instruction, PciAddress};

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

/// A region that is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Skipped {
    /// What is left alone.
    pub region: Region,
    /// Why: the rule that says so.
    pub reason: String,
}

/// A PCI function that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
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

impl PciFunction {
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
