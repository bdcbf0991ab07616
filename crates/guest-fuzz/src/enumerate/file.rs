//! Regions that a person writes down, and [`PortSelection`]: which of all regions are wanted.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::{Listing, proc_ioports};
use crate::error::{Error, Result};
use crate::pattern::{Pattern, port_range, range, range_text};
use crate::quoted::quoted;
use crate::region::{Region, RegionMap, Space};

/// The largest file of regions, in bytes.
pub const MAX_FILE: u64 = 1 << 24;

/// The regions of a text: one in a line, or a saved `/proc/ioports`.
///
/// ```
/// let text = b"# the first serial port\nport 0x3f8-0x3ff serial\n0x80 # a port alone\nmemory 0xfec00000-0xfec00fff ioapic\n";
/// let regions = guest_fuzz::enumerate::file::parse("ports.txt", text)?.regions;
/// let names: Vec<_> = regions.iter().map(|region| region.name.as_str()).collect();
/// assert_eq!(names, ["serial", "0x0080", "ioapic"]);
/// # Ok::<(), guest_fuzz::Error>(())
/// ```
///
/// Without a word before them, numbers are ports. Where no name follows, the range is the name.
///
/// # Errors
/// The first line that is no region, named by `what`, which is the file's name.
pub fn parse(what: &str, text: &[u8]) -> Result<Listing> {
    let words = String::from_utf8_lossy(text);
    let first = words.lines().map(without_comment).find(|line| !line.is_empty());
    if first.is_some_and(proc_ioports::is_range) {
        return proc_ioports::parse(text);
    }
    let mut listing = Listing::default();
    for (line, text) in (1..).zip(words.lines()) {
        let entry = without_comment(text);
        if entry.is_empty() {
            continue;
        }
        listing.regions.push(region(entry).ok_or_else(|| {
            Error::Syntax {
                what: what.to_owned(),
                line,
                expected:
                    "`port FIRST-LAST NAME` or `memory FIRST-LAST NAME`, with 0x before hexadecimal numbers"
                        .to_owned(),
                found: quoted(text.trim()),
            }
        })?);
    }
    Ok(listing)
}

/// The regions of the file `path`: see [`parse`].
///
/// # Errors
/// Where it cannot be read, is longer than [`MAX_FILE`], or has a line that is no region.
pub fn read(path: &Path) -> Result<Listing> {
    let what = path.display().to_string();
    let file = File::open(path).map_err(Error::io(&what))?;
    let mut text = Vec::new();
    // /proc/ioports says that it is empty, and /dev/zero has no end: what counts is what is read.
    file.take(MAX_FILE + 1).read_to_end(&mut text).map_err(Error::io(&what))?;
    if text.len() as u64 > MAX_FILE {
        return Err(Error::Unsupported { what, why: format!("longer than {MAX_FILE} bytes") });
    }
    parse(&what, &text)
}

/// A comment begins at a `#` that stands first or behind a space: names may have one inside.
fn without_comment(line: &str) -> &str {
    let is_comment = |&(at, _): &(usize, &str)| {
        line.get(..at).is_some_and(|before| before.is_empty() || before.ends_with(char::is_whitespace))
    };
    let end = line.match_indices('#').find(is_comment).map_or(line.len(), |(at, _)| at);
    line.get(..end).unwrap_or_default().trim()
}

fn region(entry: &str) -> Option<Region> {
    let (word, rest) = next_word(entry);
    let (space, (numbers, name)) = match word {
        "port" => (Space::Port, next_word(rest)),
        "memory" => (Space::Memory, next_word(rest)),
        _ => (Space::Port, (word, rest)),
    };
    let (first, last) = range(numbers)?;
    let name: String = name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    let name = if name.is_empty() { range_text(space, first, last) } else { name };
    Region::new(space, first, last, name)
}

fn next_word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim())
}

/// Which regions are wanted: ports, names, files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortSelection {
    items: Vec<Item>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Ports(u64, u64),
    Named(String, Pattern),
    Regions(Vec<Region>),
}

impl PortSelection {
    /// Reads items between commas: ports (`0x60-0x6f`, `0x80`), a region's name, in which `*` stands for any characters
    /// and `?` for one, or a file of regions (`@FILE`, or a path with a `/` in it).
    ///
    /// # Errors
    /// Where ports are none, or a file is not to be read.
    pub fn parse(text: &str) -> Result<Self> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        Ok(Self { items: items.map(Item::parse).collect::<Result<_>>()? })
    }

    /// `map` with the wanted regions alone, in the order of the items, each once. Ports that are wanted and not in any
    /// region of the map become a region of their own. Memory is wanted where its name is.
    ///
    /// # Errors
    /// Where no region has a name that is wanted. The map is then as it was.
    pub fn apply(&self, map: &mut RegionMap) -> Result<()> {
        let mut wanted = Vec::new();
        for item in &self.items {
            wanted.append(&mut item.select(&map.regions)?);
        }
        let mut seen = HashSet::new();
        wanted.retain(|region| seen.insert(region.clone()));
        map.regions = wanted;
        Ok(())
    }
}

impl Item {
    fn parse(text: &str) -> Result<Self> {
        if let Some(path) = text.strip_prefix('@').or_else(|| text.contains('/').then_some(text)) {
            return Ok(Self::Regions(read(Path::new(path))?.regions));
        }
        Ok(match port_range("--ports", text)? {
            Some((first, last)) => Self::Ports(first, last),
            None => Self::Named(text.to_owned(), Pattern::new(text)),
        })
    }

    fn select(&self, regions: &[Region]) -> Result<Vec<Region>> {
        match self {
            Self::Ports(first, last) => Ok(ports(*first, *last, regions)),
            Self::Regions(regions) => Ok(regions.clone()),
            Self::Named(name, pattern) => {
                let named = regions.iter().filter(|region| pattern.matches(&region.name));
                let named: Vec<Region> = named.cloned().collect();
                if named.is_empty() {
                    let why = "no region has this name; `iofuzz ports` lists them".to_owned();
                    return Err(Error::Unsupported { what: format!("--ports {}", quoted(name)), why });
                }
                Ok(named)
            }
        }
    }
}

/// The parts of `regions` from `first` to `last`, then what none of them has.
fn ports(first: u64, last: u64, regions: &[Region]) -> Vec<Region> {
    let inside = regions.iter().filter(|region| region.space == Space::Port);
    let mut parts: Vec<Region> = inside.filter_map(|region| region.part(first, last)).collect();
    let mut covered: Vec<(u64, u64)> = parts.iter().map(|part| (part.first, part.last)).collect();
    covered.sort_unstable();
    let mut next = first;
    for (start, end) in covered.into_iter().chain([(last + 1, last + 1)]) {
        if next < start {
            let name = range_text(Space::Port, next, start - 1);
            parts.extend(Region::new(Space::Port, next, start - 1, name));
        }
        next = next.max(end + 1);
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn port(first: u64, last: u64, name: &str) -> Region {
        Region::new(Space::Port, first, last, name).unwrap()
    }

    fn selected(selection: &str, regions: Vec<Region>) -> Result<Vec<Region>> {
        let mut map = RegionMap::from_regions(regions);
        PortSelection::parse(selection)?.apply(&mut map)?;
        Ok(map.regions)
    }

    #[test]
    fn lines_of_all_kinds() {
        let text = b"# all\r\n\r\nport 0x3f8-0x3ff serial (set)\r\n 128\tdiag #1\nmemory 0xfebf0000-0xfebf0fff rtl8139\n";
        let regions = parse("list", text).unwrap().regions;
        let memory = Region::new(Space::Memory, 0xfebf_0000, 0xfebf_0fff, "rtl8139").unwrap();
        assert_eq!(regions, [port(0x3f8, 0x3ff, "serial (set)"), port(128, 128, "diag"), memory]);
    }

    #[test]
    fn a_hash_inside_a_name_stays() {
        assert_eq!(parse("list", b"0x80 a#b").unwrap().regions, [port(0x80, 0x80, "a#b")]);
    }

    #[test]
    fn wrong_lines_are_errors_with_their_number() {
        for bad in ["serial", "port", "port serial", "0x10000 x", "0x6-0x5 x", "memory -", "0060-006f kbd"] {
            let error = parse("list", format!("0x80 a\n{bad}\n").as_bytes()).unwrap_err();
            assert!(matches!(error, Error::Syntax { line: 2, .. }), "{bad}: {error}");
        }
    }

    #[test]
    fn a_saved_proc_ioports_is_known() {
        let listing =
            parse("list", b"# saved\n0000-0cf7 : PCI Bus 0000:00\n  0060-0060 : keyboard\n").unwrap();
        assert_eq!(listing.regions[1], port(0x60, 0x60, "keyboard"));
    }

    #[test]
    fn ports_are_cut_out_of_regions_and_keep_their_names() {
        let regions = vec![port(0x60, 0x64, "kbd"), port(0x70, 0x77, "rtc")];
        let expected = [
            port(0x62, 0x64, "kbd"),
            port(0x70, 0x71, "rtc"),
            port(0x65, 0x6f, "0x0065-0x006f"),
            port(0x80, 0x80, "0x0080"),
        ];
        assert_eq!(selected("0x62-0x71,0x80", regions).unwrap(), expected);
        let all = selected("0x0-0xffff", vec![]).unwrap();
        assert_eq!(all, [port(0, 0xffff, "0x0000-0xffff")]);
    }

    #[test]
    fn names_choose_regions_once() {
        let regions = vec![port(1, 1, "serial"), port(2, 2, "serial2"), port(3, 3, "rtc")];
        assert_eq!(selected("serial", regions.clone()).unwrap(), [regions[0].clone()]);
        assert_eq!(selected("rtc, ser*, serial", regions.clone()).unwrap().len(), 3);
        assert_eq!(selected("rtc, ser*", regions.clone()).unwrap()[0].name, "rtc");
        assert!(selected("kbd", regions).unwrap_err().to_string().contains("--ports \"kbd\""));
    }

    #[test]
    fn files_choose_their_regions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        std::fs::write(&path, "0x80 diag\n").unwrap();
        assert_eq!(selected(&format!("@{}", path.display()), vec![]).unwrap(), [port(0x80, 0x80, "diag")]);
        assert_eq!(selected(path.to_str().unwrap(), vec![]).unwrap().len(), 1);
        assert!(matches!(selected("./no/such", vec![]), Err(Error::Io { .. })));
        std::fs::write(&path, "#".repeat(MAX_FILE as usize + 1)).unwrap();
        assert!(matches!(read(&path), Err(Error::Unsupported { .. })));
    }

    proptest! {
        #[test]
        fn any_bytes(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse("list", &text);
        }

        #[test]
        fn selected_ports_are_exactly_those(first in 0..80u64, length in 0..40u64, cuts in proptest::collection::vec((0..100u64, 0..20u64), 0..6)) {
            let regions = cuts.into_iter().map(|(first, length)| port(first, first + length, "r")).collect();
            let last = first + length;
            let selected = selected(&format!("{first}-{last}"), regions).unwrap();
            for address in 0..130 {
                let there = selected.iter().any(|region| region.meets(Space::Port, address, address));
                prop_assert_eq!(there, (first..=last).contains(&address));
            }
        }
    }
}
