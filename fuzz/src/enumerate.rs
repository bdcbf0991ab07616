//! Any bytes as a listing of a machine's ports and memory.

use guest_fuzz::enumerate::file::{self, PortSelection};
use guest_fuzz::enumerate::{Listing, leaves, mtree, proc_ioports};
use guest_fuzz::region::{Region, RegionMap, Space};
use guest_fuzz::skip::SkipList;

/// Reads `/proc/ioports`.
///
/// # Panics
/// Where the library breaks a promise: ranges are valid, no more than there are lines, and their leaves are disjoint.
pub fn proc_ioports(text: &[u8]) {
    let Ok(listing) = proc_ioports::parse(text) else { return };
    one_listing(&listing, text);
    let unique = proc_ioports::by_range(&listing.regions);
    assert!(unique.len() <= listing.regions.len());
    assert_eq!(proc_ioports::by_range(&unique), unique);
    narrowest(&listing.regions);
}

/// Reads what QEMU answers to `info mtree -f`.
///
/// # Panics
/// Where the library breaks a promise: ranges are valid, and of the space that they are listed in.
pub fn mtree(text: &[u8]) {
    let Ok(tree) = mtree::parse(&String::from_utf8_lossy(text)) else { return };
    for region in tree.ports.iter().chain(&tree.unassigned) {
        valid(region);
        assert_eq!(region.space, Space::Port);
    }
    for region in &tree.memory {
        valid(region);
        assert_eq!(region.space, Space::Memory);
    }
    narrowest(&tree.ports);
    narrowest(&tree.memory);
}

/// Reads a file of regions, and takes the first line as what to select and the second as what to skip.
///
/// # Panics
/// Where the library breaks a promise: ranges are valid, what is selected is valid, and nothing is lost in skipping.
pub fn region_file(text: &[u8]) {
    let words = String::from_utf8_lossy(text);
    let mut lines = words.splitn(3, '\n');
    let (selection, skip) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let rest = lines.next().unwrap_or_default();
    let Ok(listing) = file::parse("input", rest.as_bytes()) else { return };
    one_listing(&listing, rest.as_bytes());
    let mut map = RegionMap::from_regions(listing.regions);
    // A fuzzer's input names no files.
    if !selection.contains(['/', '@'])
        && let Ok(selection) = PortSelection::parse(selection)
    {
        let before = map.clone();
        if selection.apply(&mut map).is_err() {
            assert_eq!(map, before);
        }
        map.regions.iter().for_each(valid);
    }
    if let Ok(skip) = SkipList::parse(skip) {
        let before = amount(&map.regions);
        skip.apply(&mut map);
        let skipped: Vec<Region> = map.skipped.iter().map(|skipped| skipped.region.clone()).collect();
        assert_eq!(amount(&map.regions) + amount(&skipped), before);
        map.regions.iter().chain(&skipped).for_each(valid);
        // What is skipped once is not there to be skipped again.
        let count = map.skipped.len();
        skip.apply(&mut map);
        assert_eq!(map.skipped.len(), count);
    }
}

fn one_listing(listing: &Listing, text: &[u8]) {
    listing.regions.iter().for_each(valid);
    let lines = String::from_utf8_lossy(text).lines().count();
    assert!(listing.regions.len() <= lines);
    assert!(listing.notes.iter().all(|note| (1..=lines).contains(&note.line)));
}

fn valid(region: &Region) {
    assert!(region.first <= region.last, "{region:?}");
    assert!(region.space == Space::Memory || region.last <= u64::from(u16::MAX), "{region:?}");
    assert!(!region.name.contains('\n'), "{region:?}");
}

/// Leaves are in order, without overlaps, and a leaf's own leaves are itself.
fn narrowest(regions: &[Region]) {
    let pieces = leaves(regions);
    pieces.iter().for_each(valid);
    for (before, behind) in pieces.iter().zip(pieces.iter().skip(1)) {
        assert!((before.space, before.last) < (behind.space, behind.first), "{before:?} {behind:?}");
    }
    for region in regions {
        for end in [region.first, region.last] {
            let here = pieces.iter().filter(|piece| piece.meets(region.space, end, end)).count();
            assert_eq!(here, 1, "{end:#x}");
        }
    }
}

fn amount(regions: &[Region]) -> u128 {
    regions.iter().map(|region| u128::from(region.last - region.first) + 1).sum()
}

/// A text to begin with, of lines that mean something, one for each of `choices`.
pub(crate) fn texts(name: &str, choices: &[u8]) -> Vec<u8> {
    let (head, lines): (&str, &[&str]) = match name {
        "proc_ioports" => ("", &PROC_IOPORTS),
        "mtree" => ("FlatView #0\n AS \"I/O\", root: io\n Root memory region: io\n", &MTREE),
        _ => ("0x60-0x6f,ser*\npower,0x64,rtc?\n", &REGION_FILE),
    };
    let mut text = head.to_owned();
    for &choice in choices {
        let line = lines.get(usize::from(choice) % lines.len()).copied().unwrap_or_default();
        text.push_str(line);
        text.push('\n');
    }
    text.into_bytes()
}

const PROC_IOPORTS: [&str; 7] = [
    "0000-0cf7 : PCI Bus 0000:00",
    "  0060-0060 : keyboard",
    "    03f8-03ff : serial (set)",
    "0cf8-0cff : PCI conf1",
    "0000-0000 : dma1",
    "00010000-0001ffff : far",
    "root@vm:~# ",
];
const MTREE: [&str; 7] = [
    "  0000000000000000-000000000000001f (prio 0, i/o): io",
    "  0000000000000071-0000000000000071 (prio 0, i/o): rtc @0000000000000001 owner:{dev id=rtc}",
    "  0000000000000cf9-0000000000000cf9 (prio 1, i/o): reset",
    "\nFlatView #1\n AS \"memory\", root: system\n Root memory region: system",
    "  0000000000000000-0000000007ffffff (prio 0, ram): pc.ram KVM",
    "  00000000fffc0000-00000000ffffffff (prio 0, romd): system.flash0",
    "  No rendered FlatView",
];
const REGION_FILE: [&str; 6] = [
    "port 0x3f8-0x3ff serial",
    "0x60-0x64 keyboard # and more",
    "128",
    "memory 0xfec00000-0xfec00fff ioapic",
    "# nothing",
    "0x70-0x77 rtc0",
];
