//! Where a machine can be reached: the listings that there are of it, and one map of them all.
//!
//! A listing is read from what a kernel says ([`proc_ioports`]), from what QEMU says ([`mtree`]), from the PCI functions
//! themselves ([`pci`]), or from a [`file`](mod@file). [`region_map`] makes one [`RegionMap`] of them.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::quoted::quoted;
use crate::region::{Region, RegionMap, Space};
use crate::skip::SkipList;

pub mod file;
pub mod mtree;
pub mod pci;
pub mod proc_ioports;

/// What a text lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listing {
    /// The regions, in the order of the text.
    pub regions: Vec<Region>,
    /// The lines that were left out, and why.
    pub notes: Vec<Note>,
}

impl Listing {
    fn note(&mut self, line: usize, text: &str, why: &'static str) {
        self.notes.push(Note { line, text: quoted(text), why });
    }
}

/// A line that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Note {
    /// Its number, from 1.
    pub line: usize,
    /// The line, in quotation marks, escaped and shortened.
    pub text: String,
    /// Why it was left out.
    pub why: &'static str,
}

/// One map of what QEMU says and of the PCI functions, without what `skip` names: ports first, then memory, each by its
/// address. A base address register, or a part of one, that leads to storage is no region: nothing sees what is written
/// to a frame buffer.
#[must_use]
pub fn region_map(tree: mtree::MemoryTree, scan: &pci::Scan, skip: &SkipList) -> RegionMap {
    let storage = &tree.storage;
    let bars = scan.functions.iter().flat_map(|function| &function.bars);
    let bars = bars.flat_map(|bar| {
        storage.iter().fold(vec![bar.clone()], |parts, kept| {
            parts.into_iter().flat_map(|part| outside(part, kept)).collect()
        })
    });
    let mut regions: Vec<Region> = tree.ports.into_iter().chain(tree.memory).chain(bars).collect();
    // A machine whose base address registers are in use lists them in its memory tree, too: the tree's names stay.
    regions.sort_by_key(|region| (region.space, region.first, Reverse(region.last)));
    regions.dedup_by_key(|region| (region.space, region.first, region.last));
    let mut map = RegionMap::from_regions(regions);
    map.pci = scan.functions.clone();
    map.prologue = scan.prologue_text();
    map.ram = tree.ram;
    skip.apply(&mut map);
    map
}

/// What of `region` is not in `other`.
fn outside(region: Region, other: &Region) -> Vec<Region> {
    if region.meets(other.space, other.first, other.last) {
        region.without(other.first, other.last).collect()
    } else {
        vec![region]
    }
}

/// The narrowest cover of `regions`: they may overlap, and in the answer each port or byte belongs to one of them, the
/// narrowest that has it; where several are equal, the last one. A region around others comes out in pieces.
///
/// Ordered by address, ports first.
///
/// ```
/// use guest_fuzz::enumerate::{leaves, proc_ioports};
/// let text = b"0000-001f : bus\n  0004-0007 : timer\n";
/// let leaves = leaves(&proc_ioports::parse(text)?.regions);
/// let ranges: Vec<_> = leaves.iter().map(|leaf| (leaf.first, leaf.last, leaf.name.as_str())).collect();
/// assert_eq!(ranges, [(0, 3, "bus"), (4, 7, "timer"), (8, 0x1f, "bus")]);
/// # Ok::<(), guest_fuzz::Error>(())
/// ```
#[must_use]
pub fn leaves(regions: &[Region]) -> Vec<Region> {
    [Space::Port, Space::Memory].iter().flat_map(|&space| leaves_of(space, regions)).collect()
}

/// Goes through all addresses at which a region begins or ends, and keeps the set of those that have the address, the
/// narrowest first.
fn leaves_of(space: Space, regions: &[Region]) -> Vec<Region> {
    let mut edges = Vec::new();
    for (index, region) in regions.iter().enumerate().filter(|(_, region)| region.space == space) {
        let key = (region.last.saturating_sub(region.first), Reverse(index));
        edges.push((region.first, true, key));
        edges.extend(region.last.checked_add(1).map(|end| (end, false, key)));
    }
    edges.sort_unstable();
    let mut open = BTreeSet::new();
    let mut pieces: Vec<(usize, u64, u64)> = Vec::new();
    let mut edges = edges.into_iter().peekable();
    while let Some((address, begins, key)) = edges.next() {
        if begins {
            open.insert(key);
        } else {
            open.remove(&key);
        }
        let last = match edges.peek() {
            Some(&(next, ..)) if next == address => continue,
            Some(&(next, ..)) => next - 1,
            None => u64::MAX,
        };
        let Some(&(_, Reverse(index))) = open.first() else { continue };
        match pieces.last_mut() {
            Some(piece) if piece.0 == index && piece.2.checked_add(1) == Some(address) => piece.2 = last,
            _ => pieces.push((index, address, last)),
        }
    }
    let piece =
        |(index, first, last)| regions.get(index).and_then(|region: &Region| region.part(first, last));
    pieces.into_iter().filter_map(piece).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_regions() -> impl Strategy<Value = Vec<Region>> {
        let region = (0..2u8, 0..200u64, 0..50u64, 0..5u8).prop_map(|(space, first, length, name)| {
            let space = if space == 0 { Space::Port } else { Space::Memory };
            Region::new(space, first, first + length, format!("r{name}")).unwrap()
        });
        proptest::collection::vec(region, 0..12)
    }

    proptest! {
        #[test]
        fn leaves_are_disjoint_and_cover_the_union_with_the_narrowest(regions in any_regions()) {
            let leaves = leaves(&regions);
            for space in [Space::Port, Space::Memory] {
                for address in 0..260 {
                    let narrowest = regions
                        .iter()
                        .enumerate()
                        .filter(|(_, region)| region.meets(space, address, address))
                        .min_by_key(|(index, region)| (region.last - region.first, Reverse(*index)))
                        .map(|(_, region)| &region.name);
                    let here: Vec<_> = leaves
                        .iter()
                        .filter(|region| region.meets(space, address, address))
                        .map(|region| &region.name)
                        .collect();
                    prop_assert_eq!(here, narrowest.into_iter().collect::<Vec<_>>());
                }
            }
            let sorted = leaves.windows(2).all(|two| (two[0].space, two[0].last) < (two[1].space, two[1].first));
            prop_assert!(sorted);
        }
    }

    #[test]
    fn leaves_reach_the_end_of_memory() {
        let whole = Region::new(Space::Memory, 0, u64::MAX, "all").unwrap();
        let end = Region::new(Space::Memory, u64::MAX, u64::MAX, "end").unwrap();
        let leaves = leaves(&[whole, end.clone()]);
        assert_eq!(leaves[1], end);
        assert_eq!((leaves[0].first, leaves[0].last), (0, u64::MAX - 1));
    }

    #[test]
    fn a_frame_buffer_is_no_region() {
        let memory = |first, last, name: &str| Region::new(Space::Memory, first, last, name).unwrap();
        let tree = mtree::MemoryTree {
            memory: vec![memory(0xe100_0000, 0xe100_0fff, "vga.mmio")],
            storage: vec![memory(0, 0x9_ffff, "pc.ram"), memory(0xe000_0000, 0xe0ff_ffff, "vga.vram")],
            ..mtree::MemoryTree::default()
        };
        let bars = vec![
            memory(0xe000_0000, 0xe0ff_ffff, "bar 0"),
            memory(0xe100_0000, 0xe100_0fff, "bar 2"),
            memory(0xe0ff_f000, 0xe100_1fff, "half of it"),
            Region::new(Space::Port, 0xc000, 0xc00f, "ports").unwrap(),
        ];
        let function = crate::region::PciFunction { address: 0x10, vendor: 1, device: 2, class: 3, bars };
        let scan = pci::Scan { functions: vec![function.clone()], ..pci::Scan::default() };
        let map = region_map(tree, &scan, &SkipList::default());
        let here: Vec<_> =
            map.regions.iter().map(|region| (region.first, region.last, region.name.as_str())).collect();
        let expected = [
            (0xc000, 0xc00f, "ports"),
            (0xe100_0000, 0xe100_1fff, "half of it"),
            (0xe100_0000, 0xe100_0fff, "vga.mmio"),
        ];
        assert_eq!(here, expected);
        assert_eq!(map.pci, [function], "which still has all of its registers");
    }

    #[test]
    fn one_map_in_the_order_of_addresses_without_what_is_skipped() {
        let port = |first, last, name: &str| Region::new(Space::Port, first, last, name).unwrap();
        let memory = Region::new(Space::Memory, 0xfec0_0000, 0xfec0_0fff, "ioapic").unwrap();
        let tree = mtree::MemoryTree {
            ports: vec![port(0xc000, 0xc0ff, "rtl8139"), port(0x60, 0x60, "kbd"), port(0x64, 0x64, "kbd")],
            memory: vec![memory.clone()],
            ram: Some((0, 4096)),
            ..mtree::MemoryTree::default()
        };
        let bars = vec![port(0xc000, 0xc0ff, "bar 0"), port(0xc100, 0xc10f, "bar 1")];
        let function = crate::region::PciFunction { address: 0x18, vendor: 1, device: 2, class: 3, bars };
        let scan = pci::Scan { functions: vec![function], ..pci::Scan::default() };
        let map = region_map(tree, &scan, &SkipList::parse("0x64").unwrap());
        let names: Vec<_> = map.regions.iter().map(|region| region.name.as_str()).collect();
        assert_eq!(names, ["kbd", "rtl8139", "bar 1", "ioapic"]);
        assert_eq!(map.skipped.len(), 1);
        assert_eq!((map.ram, map.pci.len()), (Some((0, 4096)), 1));
    }
}
