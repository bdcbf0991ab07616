//! QEMU's own list: what its monitor answers to `info mtree -f`.
//!
//! The answer is a list of flat views, each with the address spaces that see it:
//!
//! ```text
//! FlatView #0
//!  AS "I/O", root: io
//!  Root memory region: io
//!   0000000000000070-0000000000000070 (prio 0, i/o): rtc-index
//!   0000000000000071-0000000000000071 (prio 0, i/o): rtc @0000000000000001
//! ```
//!
//! Of a region that is covered in its middle each visible piece has a line; pieces stay regions of their own.

use super::{Listing, Note};
use crate::error::{Error, Result};
use crate::region::{Region, Space};

const WHAT: &str = "info mtree -f";

/// What QEMU lists, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryTree {
    /// Ports that a device answers.
    pub ports: Vec<Region>,
    /// Ports that nothing answers: the pieces of the address space's root.
    pub unassigned: Vec<Region>,
    /// Memory that a device answers. Flash is among it: it is read like RAM, but a device sees what is written.
    pub memory: Vec<Region>,
    /// Memory in which bytes are kept and no device sees who writes them: RAM, ROM, a frame buffer.
    pub storage: Vec<Region>,
    /// The longest piece of RAM: address and length.
    pub ram: Option<(u64, u64)>,
    /// The lines that were left out, and why.
    pub notes: Vec<Note>,
}

/// The ports and the memory of the machine, as a processor sees them.
///
/// Understood is what QEMU 7.2 to 10.0 write, with owners (`-o`) or without.
///
/// # Errors
/// Where no view has the ports: that is no answer to `info mtree -f`.
///
/// ```
/// let answer = "FlatView #0\r\n AS \"I/O\", root: io\r\n Root memory region: io\r\n  \
///     0000000000000000-0000000000000007 (prio 0, i/o): dma-chan\r\n";
/// let tree = guest_fuzz::enumerate::mtree::parse(answer)?;
/// assert_eq!(tree.ports[0].name, "dma-chan");
/// # Ok::<(), guest_fuzz::Error>(())
/// ```
pub fn parse(text: &str) -> Result<MemoryTree> {
    let views = views(text);
    let of = |space: &str| views.iter().find(|view| view.spaces.contains(&space));
    let Some(io) = of("I/O") else {
        let start = "FlatView …, AS \"I/O\"".to_owned();
        let found = format!("{} flat views without it", views.len());
        return Err(Error::Syntax { what: WHAT.to_owned(), line: 1, expected: start, found });
    };
    let mut tree = MemoryTree::default();
    for (region, kind, offset) in io.regions(Space::Port, &mut tree.notes) {
        match kind {
            // The root's own pieces start where their offset says. A device may well have the root's name.
            Kind::Device if region.name == io.root && region.first == offset => tree.unassigned.push(region),
            Kind::Device => tree.ports.push(region),
            Kind::Ram | Kind::Other => {}
        }
    }
    let Some(memory) = of("memory").or_else(|| of("cpu-memory-0")) else { return Ok(tree) };
    for (region, kind, _) in memory.regions(Space::Memory, &mut tree.notes) {
        match kind {
            Kind::Device => tree.memory.push(region),
            Kind::Other => tree.storage.push(region),
            Kind::Ram => {
                let length = (region.last - region.first).saturating_add(1);
                if tree.ram.is_none_or(|(_, longest)| longest < length) {
                    tree.ram = Some((region.first, length));
                }
                tree.storage.push(region);
            }
        }
    }
    Ok(tree)
}

/// Who answers a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A device: `i/o`, and `romd`, which is flash.
    Device,
    /// `ram`.
    Ram,
    /// `rom`, `ramd` (a piece of a host's device), and what later versions may add.
    Other,
}

/// One flat view: its lines are read only where it is one of the two that are wanted.
#[derive(Debug, Default)]
struct View<'t> {
    spaces: Vec<&'t str>,
    root: &'t str,
    lines: Vec<(usize, &'t str)>,
}

fn views(text: &str) -> Vec<View<'_>> {
    let mut views: Vec<View<'_>> = Vec::new();
    for (line, text) in (1..).zip(text.lines().map(str::trim)) {
        if text.starts_with("FlatView #") {
            views.push(View::default());
            continue;
        }
        let Some(view) = views.last_mut() else { continue };
        if let Some(space) = text.strip_prefix("AS \"") {
            // What follows the name names its root.
            view.spaces.extend(space.rsplit_once("\", root: ").map(|(name, _)| name));
        } else if let Some(root) = text.strip_prefix("Root memory region: ") {
            view.root = root;
        } else if !text.is_empty() && text != "No rendered FlatView" {
            view.lines.push((line, text));
        }
    }
    views
}

impl View<'_> {
    /// Each region with who answers it and its offset in what it is a piece of.
    fn regions(&self, space: Space, notes: &mut Vec<Note>) -> Vec<(Region, Kind, u64)> {
        let mut regions = Vec::new();
        let mut listing = Listing::default();
        for &(line, text) in &self.lines {
            let Some(range) = Line::parse(text) else {
                listing.note(line, text, "not a region");
                continue;
            };
            match Region::new(space, range.first, range.last, range.name) {
                Some(region) => regions.push((region, range.kind, range.offset)),
                None => listing.note(line, text, "ends before it begins, or is no port"),
            }
        }
        notes.append(&mut listing.notes);
        regions
    }
}

/// `FIRST-LAST (prio N, KIND): NAME @OFFSET owner:{…} parent:{…} ACCELERATOR`, where all behind the name may be missing.
struct Line<'t> {
    first: u64,
    last: u64,
    kind: Kind,
    name: &'t str,
    offset: u64,
}

impl<'t> Line<'t> {
    fn parse(text: &'t str) -> Option<Self> {
        let (range, rest) = text.split_once(" (prio ")?;
        let (first, last) = range.split_once('-')?;
        let (priority, name) = rest.split_once("):")?;
        let (_, kind) = priority.split_once(", ")?;
        let kind = match kind.strip_prefix("nv-").unwrap_or(kind) {
            "i/o" | "romd" => Kind::Device,
            "ram" => Kind::Ram,
            _ => Kind::Other,
        };
        let name = [" owner:{", " parent:{"].iter().fold(name, |name, end| match name.split_once(end) {
            Some((name, _)) => name,
            None => name,
        });
        let (name, offset) = split_offset(name.trim());
        Some(Self { first: hexadecimal(first)?, last: hexadecimal(last)?, kind, name, offset })
    }
}

/// The name without its offset, and the offset: 0 where there is none. Behind it an accelerator may have its name.
fn split_offset(name: &str) -> (&str, u64) {
    let behind = |tail: &str| tail.split_whitespace().next().and_then(hexadecimal);
    let found = name.rsplit_once(" @").and_then(|(head, tail)| Some((head, behind(tail)?)));
    let (name, offset) = found.unwrap_or((name, 0));
    let accelerator =
        [" kvm", " KVM", " whpx", " hvf", " nvmm"].iter().find_map(|end| name.strip_suffix(end));
    (accelerator.unwrap_or(name).trim_end(), offset)
}

fn hexadecimal(digits: &str) -> Option<u64> {
    let digits = digits.strip_prefix("0x").unwrap_or(digits);
    let valid = !digits.is_empty() && digits.chars().all(|digit| digit.is_ascii_hexdigit());
    valid.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAMPLE: &str = r#"FlatView #0
 AS "nic", root: bus master container
 Root memory region: (none)
  No rendered FlatView

FlatView #1
 AS "cpu-smm-0", root: memory
 Root memory region: memory
  00000000000a0000-00000000000affff (prio 0, i/o): smm-only

FlatView #2
 AS "I/O", root: io
 Root memory region: io
  0000000000000000-000000000000006f (prio 0, i/o): io
  0000000000000070-0000000000000070 (prio 0, i/o): rtc-index
  0000000000000071-0000000000000071 (prio 0, i/o): rtc @0000000000000001
  0000000000000072-0000000000000cf7 (prio 0, i/o): io @0000000000000072
  0000000000000cf8-0000000000000cf8 (prio 0, i/o): pci-conf-idx owner:{dev path=/machine/pci host}
  0000000000000cf9-0000000000000cf9 (prio 1, i/o): reset owner:{obj type=x} parent:{dev id=y}
  0000000000000cfa-0000000000000cfb (prio 0, i/o): pci-conf-idx @0000000000000002 owner:{dev id=a}
  0000000000000cfc-0000000000000cff (prio -1, i/o): io
  0000000000000d00-000000000000ffff (prio 0, i/o): io @0000000000000d00

FlatView #3
 AS "memory", root: system
 AS "cpu-memory-0", root: system
 Root memory region: system
  0000000000000000-000000000009ffff (prio 0, ram): pc.ram KVM
  00000000000c0000-00000000000dffff (prio 1, rom): pc.rom
  0000000000100000-0000000007ffffff (prio 0, ram): pc.ram @0000000000100000 KVM
  00000000e0000000-00000000e0000fff (prio 1, ramd): vfio
  00000000fec00000-00000000fec00fff (prio 0, i/o): io apic: first
  00000000fffc0000-00000000ffffffff (prio 0, romd): system.flash0 KVM
"#;

    fn ranges(regions: &[Region]) -> Vec<(u64, u64, &str)> {
        regions.iter().map(|region| (region.first, region.last, region.name.as_str())).collect()
    }

    #[test]
    fn ports_are_those_of_devices() {
        let tree = parse(SAMPLE).unwrap();
        let expected = [
            (0x70, 0x70, "rtc-index"),
            (0x71, 0x71, "rtc"),
            (0xcf8, 0xcf8, "pci-conf-idx"),
            (0xcf9, 0xcf9, "reset"),
            (0xcfa, 0xcfb, "pci-conf-idx"),
            // Called like the root, and not a piece of it.
            (0xcfc, 0xcff, "io"),
        ];
        assert_eq!(ranges(&tree.ports), expected);
        assert_eq!(tree.unassigned.len(), 3);
        assert_eq!(tree.notes, []);
    }

    #[test]
    fn memory_is_that_of_devices_and_flash() {
        let tree = parse(SAMPLE).unwrap();
        let expected =
            [(0xfec0_0000, 0xfec0_0fff, "io apic: first"), (0xfffc_0000, 0xffff_ffff, "system.flash0")];
        assert_eq!(ranges(&tree.memory), expected);
        assert_eq!(tree.ram, Some((0x10_0000, 0x7f0_0000)));
        let storage: Vec<_> =
            tree.storage.iter().map(|region| (region.first, region.name.as_str())).collect();
        let expected = [(0, "pc.ram"), (0xc_0000, "pc.rom"), (0x10_0000, "pc.ram"), (0xe000_0000, "vfio")];
        assert_eq!(storage, expected);
    }

    #[test]
    fn widths_and_line_ends_do_not_matter() {
        let narrow = SAMPLE
            .replace("  00000000", "  ")
            .replace("-00000000", "-")
            .replace("\n", "\r\n")
            .replace("  ", "\t ");
        assert_eq!(parse(&narrow).unwrap(), parse(SAMPLE).unwrap());
    }

    #[test]
    fn the_memory_of_the_first_processor_will_do() {
        let other = SAMPLE.replace(" AS \"memory\", root: system\n", "");
        assert_eq!(parse(&other).unwrap(), parse(SAMPLE).unwrap());
    }

    #[test]
    fn another_answer_is_an_error() {
        for text in
            ["", "address-space: I/O\n  0000-ffff (prio 0, i/o): io\n", "unknown command: 'info mtree'"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn odd_lines_become_notes() {
        let odd = "  Dispatch\n  0f-0e (prio 0, i/o): back\n  0-10000 (prio 0, i/o): wide\n  zz-zz (prio 0, i/o): z\n";
        let text = format!("FlatView #0\n AS \"I/O\", root: io\n Root memory region: io\n{odd}");
        let tree = parse(&text).unwrap();
        assert_eq!(tree.notes.iter().map(|note| note.line).collect::<Vec<_>>(), [4, 5, 6, 7]);
        assert_eq!(tree.ports, []);
    }

    proptest! {
        #[test]
        fn any_text(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn nearly_right_text(lines in "( {1,2}[0-9a-f]{1,17}-[0-9a-f]{1,17} \\(prio [0-9], (i/o|ram|romd)\\): ?[a-z @0]{0,9}\r?\n){0,8}") {
            let text = format!("FlatView #0\n AS \"I/O\", root: io\n AS \"memory\", root: io\n{lines}");
            let tree = parse(&text).unwrap();
            for region in tree.ports.iter().chain(&tree.unassigned) {
                prop_assert!(region.first <= region.last && region.last < 65_536);
            }
            prop_assert!(tree.memory.iter().all(|region| region.first <= region.last));
        }
    }
}
