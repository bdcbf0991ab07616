//! `/proc/ioports`: the port ranges that a Linux kernel knows, each with the name that its driver gave.
//!
//! A range stands in a line of its own, and a range inside another stands below it, two spaces farther in:
//!
//! ```text
//! 0000-0cf7 : PCI Bus 0000:00
//!   0060-0060 : keyboard
//!   0070-0077 : rtc0
//! ```
//!
//! Windows of PCI buses are listed like devices, and together hold nearly all ports: [`leaves`](super::leaves) gives
//! those ports to what is inside the windows.

use std::collections::HashMap;

use super::Listing;
use crate::error::{Error, Result};
use crate::region::{Region, Space};

const WHAT: &str = "/proc/ioports";

/// All ranges of `text`, nested ones too, in the order of the lines.
///
/// Lines that are no ranges, such as a shell's prompt, are left out with a note. Names keep their spaces and colons;
/// bytes that are not UTF-8, and control characters, become U+FFFD.
///
/// # Errors
/// Where all ranges are zeroes: that is what a reader sees who is not root.
pub fn parse(text: &[u8]) -> Result<Listing> {
    let text = String::from_utf8_lossy(text);
    let mut listing = Listing::default();
    let (mut ranges, mut zeroes) = (0usize, 0usize);
    for (line, text) in (1..).zip(text.lines()) {
        let Some((first, last, name)) = range(text) else {
            if !text.trim().is_empty() {
                listing.note(line, text, "not a port range");
            }
            continue;
        };
        ranges += 1;
        zeroes += usize::from((first, last) == (0, 0));
        let name: String = name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        match Region::new(Space::Port, first, last.min(u16::MAX.into()), name) {
            Some(region) => {
                if last > u16::MAX.into() {
                    listing.note(line, text, "cut: a port is at most 0xffff");
                }
                listing.regions.push(region);
            }
            None if first > last => listing.note(line, text, "ends before it begins"),
            None => listing.note(line, text, "a port is at most 0xffff"),
        }
    }
    if ranges > 0 && zeroes == ranges {
        let why = "all zeroes: the kernel shows addresses to root alone".to_owned();
        return Err(Error::Unsupported { what: WHAT.to_owned(), why });
    }
    Ok(listing)
}

/// `regions` with each range once, where it stands first, with the name that it has last: what is left of a listing
/// in a table whose keys are the ranges. A PCI function's range and its driver's, which are often equal, become one.
#[must_use]
pub fn by_range(regions: &[Region]) -> Vec<Region> {
    let mut places = HashMap::new();
    let mut unique: Vec<Region> = Vec::new();
    for region in regions {
        let place = *places.entry((region.space, region.first, region.last)).or_insert(unique.len());
        match unique.get_mut(place) {
            Some(before) => before.name.clone_from(&region.name),
            None => unique.push(region.clone()),
        }
    }
    unique
}

/// Whether `line` is one of the kernel's: how a [`file`](super::file) knows this format.
pub(super) fn is_range(line: &str) -> bool {
    range(line).is_some()
}

/// First, last and name: `  03f8-03ff : serial`.
fn range(line: &str) -> Option<(u64, u64, &str)> {
    let (range, name) = line.split_once(" :")?;
    let (first, last) = range.trim_start().split_once('-')?;
    Some((address(first)?, address(last)?, name.trim()))
}

/// The kernel writes four digits, or more where the addresses of the machine need them.
fn address(digits: &str) -> Option<u64> {
    let valid = (4..=16).contains(&digits.len()) && digits.chars().all(|digit| digit.is_ascii_hexdigit());
    valid.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::enumerate::leaves;

    const I440FX: &str = "\
0000-0cf7 : PCI Bus 0000:00
  0000-001f : dma1
  0020-0021 : pic1
  0040-0043 : timer0
  0050-0053 : timer1
  0060-0060 : keyboard
  0064-0064 : keyboard
  0070-0077 : rtc0
  0080-008f : dma page reg
  00a0-00a1 : pic2
  00c0-00df : dma2
  00f0-00ff : fpu
  0170-0177 : 0000:00:01.1
    0170-0177 : ata_piix
  01f0-01f7 : 0000:00:01.1
    01f0-01f7 : ata_piix
  0376-0376 : 0000:00:01.1
    0376-0376 : ata_piix
  03c0-03df : vga+
  03f2-03f2 : floppy
  03f8-03ff : serial
  0600-063f : 0000:00:01.3
    0600-0603 : ACPI PM1a_EVT_BLK
    0604-0605 : ACPI PM1a_CNT_BLK
    0608-060b : ACPI PM_TMR
  0700-070f : 0000:00:01.3
    0700-0708 : piix4_smbus
0cf8-0cff : PCI conf1
0d00-ffff : PCI Bus 0000:00
  afe0-afe3 : ACPI GPE0_BLK
  c040-c04f : 0000:00:01.1
    c040-c04f : ata_piix
";
    const LAPTOP: &str = "\
0000-0cf7 : PCI Bus 0000:00
  0062-0062 : EC data
  0066-0066 : EC cmd
  0680-069f : pnp 00:02
0cf8-0cff : PCI conf1
0d00-ffff : PCI Bus 0000:00
  1800-18fe : pnp 00:02
    1800-1803 : ACPI PM1a_EVT_BLK
    1850-1850 : ACPI PM2_CNT_BLK
    1854-1857 : pnp 00:04
  3000-303f : 0000:00:02.0 (VGA: boot)
  efa0-efbf : 0000:00:1f.4
    efa0-efbf : i801_smbus
";
    const Q35: &str = "\
0000-0cf7 : PCI Bus 0000:00
  0620-062f : ACPI GPE0_BLK
  0cc0-0cd7 : ACPI PCI hotplug
0cf8-0cff : PCI conf1
0d00-ffff : PCI Bus 0000:00
  1000-1fff : PCI Bus 0000:01
  6060-607f : 0000:00:1f.2
    6060-607f : ahci
";
    const CLOUD: &str = "\
0000-001f : dma1
02f8-02ff : serial
03f8-03ff : serial
c000-c03f : 0000:00:03.0
  c000-c03f : virtio-pci-legacy
";

    fn regions(text: &str) -> Vec<Region> {
        let listing = parse(text.as_bytes()).unwrap();
        assert_eq!(listing.notes, []);
        assert_eq!(listing.regions.len(), text.lines().count());
        listing.regions
    }

    fn name_at(regions: &[Region], port: u64) -> Option<&str> {
        let mut here = regions.iter().filter(|region| region.meets(Space::Port, port, port));
        let name = here.next().map(|region| region.name.as_str());
        assert_eq!(here.next(), None, "{port:#x} twice");
        name
    }

    #[test]
    fn a_pc_under_qemu() {
        let all = regions(I440FX);
        assert_eq!((all[0].first, all[0].last, all[0].name.as_str()), (0, 0xcf7, "PCI Bus 0000:00"));
        let leaves = leaves(&all);
        for (port, name) in [
            (0x3f8, "serial"),
            (0x170, "ata_piix"),
            (0x604, "ACPI PM1a_CNT_BLK"),
            (0x606, "0000:00:01.3"),
            (0x61, "PCI Bus 0000:00"),
            (0xcf8, "PCI conf1"),
            (0xffff, "PCI Bus 0000:00"),
        ] {
            assert_eq!(name_at(&leaves, port), Some(name), "{port:#x}");
        }
    }

    #[test]
    fn names_with_spaces_colons_and_brackets() {
        let names: Vec<_> = regions(LAPTOP).into_iter().map(|region| region.name).collect();
        assert!(names.contains(&"0000:00:02.0 (VGA: boot)".to_owned()));
        assert_eq!(name_at(&leaves(&regions(LAPTOP)), 0x1854), Some("pnp 00:04"));
        assert_eq!(name_at(&leaves(&regions(Q35)), 0x1234), Some("PCI Bus 0000:01"));
    }

    #[test]
    fn ports_outside_all_ranges_belong_to_nobody() {
        let leaves = leaves(&regions(CLOUD));
        assert_eq!(name_at(&leaves, 0x80), None);
        assert_eq!(name_at(&leaves, 0xc03f), Some("virtio-pci-legacy"));
    }

    #[test]
    fn equal_ranges_are_one_with_the_later_name_at_the_first_place() {
        let unique = by_range(&regions(I440FX));
        assert_eq!(unique.len(), I440FX.lines().count() - 4);
        assert_eq!(unique[12].name, "ata_piix");
        // Two drivers may share a name, and two ranges of one device stay two.
        assert_eq!(unique.iter().filter(|region| region.name == "ata_piix").count(), 4);
    }

    #[test]
    fn zeroes_mean_that_root_is_needed() {
        let text = "0000-0000 : PCI Bus 0000:00\n  0000-0000 : dma1\n  0000-0000 : \n";
        let error = parse(text.as_bytes()).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }));
        assert!(error.to_string().contains("root"), "{error}");
        // One range of a single port 0 among others is a range.
        assert_eq!(parse(b"0000-0000 : a\n0001-0001 : b").unwrap().regions.len(), 2);
    }

    #[test]
    fn what_is_no_range_becomes_a_note() {
        let text =
            b"# cat /proc/ioports\r\n03f8-03ff : serial\r\n\r\n0010-0001 : back\nff-ff : short\nroot@vm:~# ";
        let listing = parse(text).unwrap();
        assert_eq!(listing.regions, [Region::new(Space::Port, 0x3f8, 0x3ff, "serial").unwrap()]);
        let notes: Vec<_> = listing.notes.iter().map(|note| (note.line, note.why)).collect();
        let none = "not a port range";
        assert_eq!(notes, [(1, none), (4, "ends before it begins"), (5, none), (6, none)]);
    }

    #[test]
    fn wide_addresses_are_cut_at_the_last_port() {
        let listing = parse(b"00000000-0001ffff : /pci@1\n00020000-0002ffff : far\n").unwrap();
        assert_eq!((listing.regions.len(), listing.regions[0].last), (1, 0xffff));
        assert_eq!(listing.notes.len(), 2);
    }

    #[test]
    fn names_are_cleaned() {
        let listing = parse(b"0001-0002 : a\xffb\x1b[2J\n0003-0003 :\n").unwrap();
        assert_eq!(listing.regions[0].name, "a\u{fffd}b\u{fffd}[2J");
        assert_eq!(listing.regions[1].name, "");
    }

    proptest! {
        #[test]
        fn any_bytes(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&text);
        }

        #[test]
        fn nearly_right_text(text in "( {0,4}[0-9a-f]{3,9}-[0-9a-f]{3,9} :? ?[ a-z:]{0,9}\r?\n){0,8}") {
            let Ok(listing) = parse(text.as_bytes()) else { return Ok(()) };
            prop_assert!(listing.regions.iter().all(|region| region.first <= region.last && region.last < 65_536));
            prop_assert!(listing.regions.len() <= text.lines().count());
        }
    }
}
