//! [`Family`]: what is known about a kind of device, from a data file; and [`Instance`]: such a device in a map.
//!
//! A data file is lines of words; `#` begins a comment.
//!
//! | line | meaning |
//! |---|---|
//! | `device NAME` | the first line: what it is |
//! | `port FIRST` | a device whose registers begin at this port |
//! | `name GLOB` | a device whose registers begin where a region of this name does; `*` is any text |
//! | `pci VENDOR:DEVICE SPACE [N]` | a device whose registers are in base address register number N (from 0) of those in `port` or `memory`; a `*` for DEVICE is any |
//! | `register NAME OFFSET WIDTHS [VALUES]` | a register; widths are some of `bwlq`; `any` where no values are given |
//! | `fixed NAME PORT WIDTHS [VALUES]` | a port of another chip, wherever the device is |
//! | `layout NAME FIELD…` | what is laid into RAM for the device, up to eight in a row. A field is `WIDTH:VALUES` |
//! | `steps [xWEIGHT] STEP…` | what a driver does, in this order |
//!
//! Values are alternatives, parted by `|`: a number; `A-B`, a number from A to B; `&M`, some bits of M; `A&M`, A and
//! some bits of M; `any`; `small`; `bit`; `length`; `ram`, the address of something in RAM, which may end in `>>N` or
//! `+A`. A step is `REGISTER` (write one of its values), `REGISTER=VALUES`, `REGISTER?` (read), each maybe with `*N`
//! behind it (so many times); `@LAYOUT`; or `~`, a delay.

mod instance;
mod parse;

use std::sync::LazyLock;

use super::memory::{Memory, value};
use crate::instruction::Width;
use crate::random::Random;
use crate::region::Space;

pub(super) use instance::Instance;

/// The data files, by name.
const FILES: &[(&str, &str)] = &[
    ("ac97-mixer", include_str!("families/ac97-mixer.txt")),
    ("ac97", include_str!("families/ac97.txt")),
    ("adlib", include_str!("families/adlib.txt")),
    ("ahci", include_str!("families/ahci.txt")),
    ("bus-master-ide", include_str!("families/bus-master-ide.txt")),
    ("dma-controller", include_str!("families/dma-controller.txt")),
    ("e1000", include_str!("families/e1000.txt")),
    ("eepro100", include_str!("families/eepro100.txt")),
    ("ehci", include_str!("families/ehci.txt")),
    ("es1370", include_str!("families/es1370.txt")),
    ("floppy", include_str!("families/floppy.txt")),
    ("hda", include_str!("families/hda.txt")),
    ("ide", include_str!("families/ide.txt")),
    ("interrupt-controller", include_str!("families/interrupt-controller.txt")),
    ("keyboard", include_str!("families/keyboard.txt")),
    ("lsi53c895a", include_str!("families/lsi53c895a.txt")),
    ("megasas", include_str!("families/megasas.txt")),
    ("ne2000", include_str!("families/ne2000.txt")),
    ("ohci", include_str!("families/ohci.txt")),
    ("parallel", include_str!("families/parallel.txt")),
    ("pcnet", include_str!("families/pcnet.txt")),
    ("pvscsi", include_str!("families/pvscsi.txt")),
    ("rtl8139", include_str!("families/rtl8139.txt")),
    ("sdhci", include_str!("families/sdhci.txt")),
    ("serial", include_str!("families/serial.txt")),
    ("sound-blaster", include_str!("families/sound-blaster.txt")),
    ("test-devices", include_str!("families/test-devices.txt")),
    ("timers", include_str!("families/timers.txt")),
    ("tulip", include_str!("families/tulip.txt")),
    ("uhci", include_str!("families/uhci.txt")),
    ("vga", include_str!("families/vga.txt")),
    ("virtio", include_str!("families/virtio.txt")),
    ("vmxnet3", include_str!("families/vmxnet3.txt")),
    ("xhci", include_str!("families/xhci.txt")),
];

static FAMILIES: LazyLock<Vec<Family>> = LazyLock::new(|| {
    // A test proves that each file is right.
    FILES.iter().filter_map(|(name, text)| parse::family(name, text).ok()).collect()
});

/// What is known about a kind of device.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Family {
    name: String,
    matches: Vec<Match>,
    registers: Vec<Register>,
    layouts: Vec<Layout>,
    pub(super) steps: Vec<Steps>,
}

/// Where a device of a family may be.
#[derive(Debug, PartialEq, Eq)]
enum Match {
    Port(u16),
    Name(String),
    Pci { vendor: u16, device: Option<u16>, space: Space, number: usize },
}

#[derive(Debug, PartialEq, Eq)]
struct Register {
    name: String,
    offset: u64,
    /// A port wherever the device is, and not an offset.
    fixed: bool,
    widths: Vec<Width>,
    values: Values,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    name: String,
    pub(super) fields: Vec<(Width, Values)>,
}

/// What a driver does, and how often it is chosen.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Steps {
    pub(super) weight: u64,
    pub(super) steps: Vec<Step>,
}

/// One step of a driver. Numbers are indexes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Read { register: usize, count: u32 },
    Write { register: usize, values: Option<Values>, count: u32 },
    Lay(usize),
    Delay,
}

/// Alternatives.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Values(Vec<Value>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Range(u64, u64),
    Bits { base: u64, mask: u64 },
    Any,
    Small,
    Bit,
    Length,
    Ram { shift: u32, plus: u64 },
}

impl Values {
    /// One of them, of any width.
    pub(super) fn draw(&self, random: &mut Random, memory: Option<&Memory>) -> u64 {
        let draw = random.next_u64();
        match random.choose(&self.0).copied().unwrap_or(Value::Any) {
            Value::Range(first, last) => first + random.below((last - first).saturating_add(1)),
            Value::Bits { base, mask } => base | draw & mask,
            Value::Any => value(random, memory, 0),
            Value::Small => draw & 15,
            Value::Bit => 1 << (draw & 31),
            Value::Length => length(draw),
            Value::Ram { shift, plus } => {
                memory.map_or(draw, |memory| (memory.page(random) >> shift).wrapping_add(plus))
            }
        }
    }
}

/// Lengths of frames and buffers.
const USUAL: [u64; 8] = [60, 64, 1514, 1518, 2048, 4096, 9014, 16_384];

/// A length that a buffer may have, around the limits of drivers and devices as often as not.
fn length(draw: u64) -> u64 {
    let around = 1 << (draw >> 8 & 15);
    match draw & 7 {
        0 => around - 1,
        1 => around + 1,
        2..=3 => around,
        4 => *USUAL.get((draw >> 8 & 7) as usize).unwrap_or(&60),
        5 => draw >> 8 & 0xffff,
        _ => draw >> 8 & 0xfff,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_data_file_is_right() {
        for (name, text) in FILES {
            let family = parse::family(name, text).unwrap();
            assert!(!family.steps.is_empty() && !family.matches.is_empty(), "{name}");
            for (at, register) in family.registers.iter().enumerate() {
                let twins = family.registers.iter().skip(at + 1).filter(|other| other.name == register.name);
                assert_eq!(twins.count(), 0, "{name}: {}", register.name);
            }
        }
        assert_eq!(FAMILIES.len(), FILES.len());
    }

    #[test]
    fn every_file_of_the_folder_is_used() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/generate/families");
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), FILES.len());
    }

    #[test]
    fn values_are_what_the_file_says() {
        let mut random = Random::new(1);
        let mut draws = |text: &str| -> Vec<u64> {
            let values = parse::values(text).unwrap();
            (0..200).map(|_| values.draw(&mut random, None)).collect()
        };
        assert!(draws("0x10-0x13|7").iter().all(|value| matches!(value, 7 | 0x10..=0x13)));
        assert!(draws("0x100&0x3").iter().all(|value| (0x100..0x104).contains(value)));
        assert!(draws("bit").iter().all(|value| value.count_ones() == 1));
        assert!(draws("0-0xffffffffffffffff").iter().any(|value| *value > 1 << 60));
        let memory = Memory::new(crate::generate::memory::Ram { first: 0x5000, length: 0x1000 }, &mut random);
        assert_eq!(parse::values("ram>>12").unwrap().draw(&mut random, Some(&memory)), 5);
        assert_eq!(parse::values("ram+3").unwrap().draw(&mut random, Some(&memory)), 0x5003);
    }
}
