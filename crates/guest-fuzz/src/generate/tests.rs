//! Tests of all generators.

use super::*;
use crate::instruction::{
    MAX_BLOCK, MAX_BURST, MAX_CLOCK_STEP, MAX_DELAY, MAX_FILL, MAX_STRING, PortWidth, Width,
};
use crate::region::{PciFunction, Region, Skipped, Space};
use proptest::prelude::*;
use std::collections::BTreeMap;

const ALL: [Generator; 4] =
    [Generator::Classic { fuzz_count: 2 }, Generator::Stream, Generator::Model, Generator::Mixed];

/// FNV-1a of the text of the first instructions of a few episodes.
fn digest(generator: Generator) -> u64 {
    let prepared = generator.prepare(&samples::pc());
    let instructions = (0..8).flat_map(|episode| prepared.episode(2026, episode).take(3000));
    let text = instructions.map(|instruction| format!("{instruction:?}\n"));
    text.flat_map(String::into_bytes)
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Whether an instruction may be made for `map`: what is wrong with it.
fn check(map: &RegionMap, instruction: &Instruction) -> Result<(), String> {
    let free = |space, first: u64, bytes: u64| {
        let Some(last) = first.checked_add(bytes - 1) else { return false };
        let overlaps =
            |region: &Region| region.space == space && region.first <= last && first <= region.last;
        !map.skipped.iter().any(|skipped| overlaps(&skipped.region))
    };
    let within = |space, first: u64, bytes: u64| {
        let Some(last) = first.checked_add(bytes - 1) else { return false };
        let holds = |region: &Region| region.space == space && region.first <= first && last <= region.last;
        map.regions.iter().any(holds) && free(space, first, bytes)
    };
    let ram = |first: u64, bytes: u64| {
        let (Some((start, length)), Some(last)) = (map.ram, first.checked_add(bytes - 1)) else {
            return false;
        };
        first >= start && last - start < length && free(Space::Memory, first, bytes)
    };
    let port = |port: u16, width: PortWidth| within(Space::Port, port.into(), width.bytes().into());
    let memory = |at: u64, width: Width| {
        within(Space::Memory, at, width.bytes().into()) || ram(at, width.bytes().into())
    };
    let function = |address| map.pci.iter().any(|function| function.pci_address() == address);
    let bytes = |width: PortWidth, count: u32| u64::from(width.bytes()) * u64::from(count);
    let right = match *instruction {
        Instruction::In { port: at, width } => port(at, width),
        Instruction::Out { port: at, width, value } => port(at, width) && value <= width.max(),
        Instruction::InString { port: at, width, address, count }
        | Instruction::OutString { port: at, width, address, count } => {
            port(at, width) && (1..=MAX_STRING).contains(&count) && ram(address, bytes(width, count))
        }
        Instruction::Read { address, width } => memory(address, width),
        Instruction::Write { address, width, value } => memory(address, width) && value <= width.max(),
        Instruction::WriteBlock { address, bytes: ref block } => {
            (1..=MAX_BLOCK).contains(&block.len()) && ram(address, block.len() as u64)
        }
        Instruction::Fill { address, length, width, pattern } => {
            (1..=MAX_FILL).contains(&length) && ram(address, length.into()) && pattern <= width.max()
        }
        Instruction::PciRead { function: address, register, width } => {
            function(address) && u32::from(register) % width.bytes() == 0
        }
        Instruction::PciWrite { function: address, register, width, value } => {
            let enables = matches!(register, 4..8 | 0x10..0x34);
            function(address) && u32::from(register) % width.bytes() == 0 && value <= width.max() && !enables
        }
        Instruction::Delay { count } => (1..=MAX_DELAY).contains(&count) && free(Space::Port, 0x80, 1),
        Instruction::ClockStep { nanoseconds } => nanoseconds <= MAX_CLOCK_STEP,
        Instruction::Burst { count } => (1..=MAX_BURST).contains(&count),
        Instruction::Reset => false,
    };
    if right { Ok(()) } else { Err(format!("{instruction:?}")) }
}

/// An instruction's kind and width.
fn kind(instruction: &Instruction) -> String {
    let text = format!("{instruction:?}");
    let name = text.split([' ', '{']).next().unwrap_or_default().to_owned();
    let width =
        ["Byte", "Word", "Long", "Quad"].into_iter().find(|width| text.contains(&format!("width: {width}")));
    format!("{name} {}", width.unwrap_or_default())
}

#[test]
fn the_same_seed_makes_the_same_and_another_makes_another() {
    let map = samples::pc();
    for generator in ALL {
        let made = |seed, episode| {
            generator.episode(&map, seed, episode).skip(100_000).take(2000).collect::<Vec<_>>()
        };
        let early = |seed, episode| generator.episode(&map, seed, episode).take(60_000).collect::<Vec<_>>();
        assert_eq!(early(1, 2), early(1, 2));
        assert_eq!(made(1, 2), made(1, 2));
        let differ = early(1, 2) != early(2, 2) && early(1, 2) != early(1, 3);
        assert!(differ || made(1, 2) != made(2, 2) && made(1, 2) != made(1, 3), "{generator}");
    }
}

/// A journal keeps no instructions, but what makes them again: a change of these numbers makes old journals worthless.
#[test]
fn nothing_has_changed_that_journals_rely_on() {
    assert_eq!(digest(Generator::Classic { fuzz_count: 10 }), CLASSIC);
    assert_eq!(digest(Generator::Stream), STREAM);
}
const CLASSIC: u64 = 13_625_743_120_620_386_850;
const STREAM: u64 = 13_735_562_223_893_470_163;

#[test]
fn every_kind_and_width_is_made() {
    let map = samples::pc();
    for generator in [Generator::Stream, Generator::Model] {
        let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
        let prepared = generator.prepare(&map);
        for instruction in (0..24).flat_map(|episode| prepared.episode(3, episode)) {
            check(&map, &instruction).unwrap();
            *kinds.entry(kind(&instruction)).or_default() += 1;
        }
        for name in ["In", "Out", "InString", "OutString", "PciRead", "PciWrite"] {
            for width in ["Byte", "Word", "Long"] {
                assert!(kinds.contains_key(&format!("{name} {width}")), "{name} {width}: {kinds:?}");
            }
        }
        for width in ["Byte", "Word", "Long", "Quad"] {
            assert!(
                kinds.contains_key(&format!("Read {width}")) && kinds.contains_key(&format!("Write {width}"))
            );
        }
        for name in ["WriteBlock ", "Fill Byte", "Fill Quad", "Delay ", "ClockStep ", "Burst "] {
            assert!(kinds.contains_key(name), "{name}: {kinds:?}");
        }
    }
}

#[test]
fn bursts_are_whole_and_hold_nothing_that_waits() {
    for generator in [Generator::Stream, Generator::Model] {
        for episode in 0..4 {
            let mut left = 0u32;
            for instruction in generator.episode(&samples::pc(), 4, episode) {
                let waits = matches!(instruction, Instruction::Delay { .. } | Instruction::ClockStep { .. });
                match instruction {
                    Instruction::Burst { count } => {
                        assert_eq!(left, 0);
                        left = count.into();
                    }
                    _ => {
                        assert!(left == 0 || !waits);
                        left = left.saturating_sub(1);
                    }
                }
            }
            assert_eq!(left, 0);
        }
    }
}

#[test]
fn episodes_have_the_length_that_is_said() {
    for generator in ALL {
        let prepared = generator.prepare(&samples::pc());
        assert_eq!(prepared.episode(1, 1).count() as u64, prepared.length(), "{generator}");
        assert_eq!(generator.prepare(&RegionMap::default()).length(), 0);
        assert_eq!(generator.episode(&RegionMap::default(), 1, 1).next(), None);
    }
}

#[test]
fn the_model_knows_what_drivers_do() {
    let map = samples::pc();
    let prepared = Generator::Model.prepare(&map);
    // The real-time clock: an index, then a datum.
    let made: Vec<_> = (0..40).flat_map(|episode| prepared.episode(1, episode)).collect();
    let pairs = made.windows(2).filter(|pair| {
        matches!(pair, [Instruction::Out { port: 0x70, .. }, Instruction::Out { port: 0x71, .. }])
    });
    assert!(pairs.count() > 100);
    // A ring in RAM is made known to the network card.
    let ring = made.iter().filter(|instruction| match instruction {
        Instruction::Write { address: 0xfebc_3800, value, .. } => (0x10_0000..0x80_0000).contains(value),
        _ => false,
    });
    assert!(ring.count() > 100);
}

#[test]
fn names() {
    for text in ["mixed", "stream", "model", "classic", "classic:3"] {
        let generator: Generator = text.parse().unwrap();
        assert_eq!(generator.to_string(), text);
        assert!(text.starts_with(generator.name()));
    }
    for text in ["", "classics", "classic:", "classic:-1", "classic:99999999999", "Mixed"] {
        assert!(text.parse::<Generator>().is_err(), "{text}");
    }
    assert_eq!("classic".parse::<Generator>().unwrap(), Generator::Classic { fuzz_count: FUZZ_COUNT });
}

fn any_region() -> impl Strategy<Value = Region> {
    let place = prop_oneof![0..0x1000u64, 0xf000..0x1_1000u64, any::<u64>(), Just(u64::MAX), Just(0)];
    let length = prop_oneof![0..20u64, 0..0x1_0000u64, any::<u64>(), Just(u64::MAX)];
    (any::<bool>(), place, length, "[a-c]").prop_map(|(port, first, length, name)| {
        let space = if port { Space::Port } else { Space::Memory };
        // Now and then it ends before it begins.
        let last = if length % 7 == 6 { first / 2 } else { first.saturating_add(length) };
        Region { space, first, last, name }
    })
}

fn any_map() -> impl Strategy<Value = RegionMap> {
    let id = prop_oneof![
        Just((0x8086, 0x100e)),
        Just((0x10ec, 0x8139)),
        Just((0x1000, 0x0012)),
        Just((0x8086, 0x1229)),
        any::<(u16, u16)>()
    ];
    let function = (any::<u16>(), id, any::<u32>(), prop::collection::vec(any_region(), 0..3)).prop_map(
        |(address, (vendor, device), class, bars)| PciFunction { address, vendor, device, class, bars },
    );
    let ram = prop::option::of((any_region(), 0..9u64).prop_map(|(region, small)| {
        (region.first, if small == 8 { region.last.wrapping_sub(region.first) } else { small * 100 / 3 })
    }));
    let configuration = any::<bool>();
    let regions = prop::collection::vec(any_region(), 0..8);
    let skipped = prop::collection::vec(any_region(), 0..4);
    (regions, skipped, prop::collection::vec(function, 0..4), ram, configuration).prop_map(
        |(mut regions, skipped, pci, ram, configuration)| {
            regions.extend(pci.iter().flat_map(|function| function.bars.iter().cloned()));
            if configuration {
                regions.push(samples::region(Space::Port, 0xcf8, 0xcff));
            }
            let skipped =
                skipped.into_iter().map(|region| Skipped { region, reason: String::new() }).collect();
            RegionMap { regions, skipped, pci, prologue: Vec::new(), ram }
        },
    )
}

proptest! {
    #[test]
    fn whatever_the_map_nothing_else_is_touched(map in any_map(), seed: u64, episode: u64) {
        for generator in ALL {
            for instruction in generator.episode(&map, seed, episode).take(1500) {
                let checked = check(&map, &instruction);
                prop_assert!(checked.is_ok(), "{}: {:?}", generator, checked);
            }
        }
    }
}
