//! [`MicroGuest::survey`]: where its machine can be reached.

use std::time::Duration;

use super::MicroGuest;
use crate::enumerate::pci::{TargetConfigSpace, Windows, scan};
use crate::enumerate::{mtree, region_map};
use crate::error::{Error, Result};
use crate::region::RegionMap;
use crate::skip::SkipList;
use crate::target::Target;

/// How long QEMU may take for each answer.
const PATIENCE: Duration = Duration::from_secs(10);

impl MicroGuest {
    /// Where the machine, which is started, can be reached: programs the base address registers of its PCI functions, and
    /// asks QEMU what is where then. What `skip` names is left out.
    ///
    /// The map's [prologue](RegionMap::prologue) is for [`Target::set_prologue`]: other machines are not like that before
    /// they have executed it.
    ///
    /// # Errors
    /// Where QEMU or the guest does not answer.
    pub fn survey(&mut self, skip: &SkipList) -> Result<RegionMap> {
        let before = self.memory_tree()?;
        let windows = Windows::new(before.ports.into_iter().chain(before.memory).collect());
        let functions = scan(&mut TargetConfigSpace::new(self, PATIENCE), &windows);
        self.keep_values(false);
        self.values();
        let functions = functions?;
        let after = self.memory_tree()?;
        let mut map = region_map(after, &functions, skip);
        map.ram = Some(Self::playground());
        Ok(map)
    }

    fn memory_tree(&mut self) -> Result<mtree::MemoryTree> {
        let qemu = self.qemu().ok_or(Error::Dead)?;
        mtree::parse(&qemu.qmp().human("info mtree -f", PATIENCE)?)
    }
}
