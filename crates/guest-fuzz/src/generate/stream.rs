//! [`Stream`]: a blind stream, made to reach deep into devices. Each episode is a different swarm: a few devices, a few
//! of their registers, its own share of writes; and RAM full of what devices may take for descriptors.

use std::sync::Arc;

use super::memory::{Memory, value};
use super::places::{Area, Device, Places};
use crate::instruction::{Instruction, PortWidth, Width};
use crate::random::Random;
use crate::region::Space;

/// The most devices of an episode, and the most areas of a device in it.
const MANY: usize = 64;
/// How many registers of an area an episode returns to.
const HOT: usize = 4;
/// The largest burst. Larger ones are not needed for what must arrive together.
const BURST: u64 = 32;

/// The instructions of `stream`, without end.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    places: Arc<Places>,
    random: Random,
    memory: Option<Memory>,
    spots: Vec<Spot>,
    /// Of 256 accesses, how many write.
    writes: u64,
    /// How far a number of 256 is shifted to choose a width: how often it is the narrowest.
    narrow: u64,
    last: u64,
    again: Option<(Instruction, u64)>,
    /// How many instructions of a burst are to come.
    burst: u64,
}

/// An area of an episode, and the registers in it that are hot.
#[derive(Clone, Copy, Debug)]
struct Spot {
    area: Area,
    hot: [u64; HOT],
}

impl Stream {
    /// The stream of an episode over all of `places`, of which a few devices are chosen.
    pub(super) fn new(places: &Arc<Places>, mut random: Random) -> Self {
        let count = if random.one_in(6) { MANY as u64 } else { 1 + random.below(4) };
        let devices = swarm(&places.devices, count, &mut random);
        Self::over(places, &devices, random)
    }

    /// The stream of an episode over the devices of these numbers.
    pub(super) fn over(places: &Arc<Places>, devices: &[usize], mut random: Random) -> Self {
        let memory = places.ram.map(|ram| Memory::new(ram, &mut random));
        let devices = devices.iter().filter_map(|&device| places.devices.get(device));
        let spots = devices.flat_map(|device| spots(device, &mut random)).collect();
        let writes = *random.choose(&[128, 176, 208, 240]).unwrap_or(&176);
        let narrow = random.below(4);
        let places = Arc::clone(places);
        Self { places, random, memory, spots, writes, narrow, last: 0, again: None, burst: 0 }
    }

    /// The next instruction; `None` where there is nothing to do anything with.
    pub(super) fn next_of(&mut self, left: u64) -> Option<Instruction> {
        if let Some(again) = self.repeated() {
            return Some(again);
        }
        let draw = self.random.next_u64();
        let special = match draw & 0xff {
            0..=11 => self.memory.as_ref().and_then(|memory| memory.fill(&mut self.random)),
            12..=15 => self.configuration(),
            16 => self.pause(draw >> 8),
            17 => self.begin_burst(left),
            _ => None,
        };
        special.or_else(|| self.access()).or_else(|| self.configuration())
    }

    /// Counts an instruction of a burst, if there is one.
    pub(super) fn count_burst(&mut self) {
        self.burst = self.burst.saturating_sub(1);
    }

    /// Whether the next instruction to be counted is one of a burst.
    pub(super) fn in_burst(&self) -> bool {
        self.burst > 1
    }

    pub(super) fn memory(&self) -> Option<&Memory> {
        self.memory.as_ref()
    }

    fn repeated(&mut self) -> Option<Instruction> {
        self.count_burst();
        let (instruction, count) = self.again.take()?;
        if count > 1 {
            self.again = Some((instruction.clone(), count - 1));
        }
        Some(instruction)
    }

    fn begin_burst(&mut self, left: u64) -> Option<Instruction> {
        let most = BURST.min(left.saturating_sub(1));
        if self.burst > 0 || most < 2 {
            return None;
        }
        let count = 2 + self.random.below(most - 1);
        self.burst = count + 1;
        Some(Instruction::Burst { count: count as u16 })
    }

    /// Gives the machine time. Not within a burst, whose instructions belong together.
    fn pause(&mut self, draw: u64) -> Option<Instruction> {
        if self.burst > 0 || draw & 7 != 0 {
            return None;
        }
        if draw & 0x18 == 0 {
            return Some(Instruction::ClockStep { nanoseconds: 1 << (draw >> 16 & 15) });
        }
        self.places.delays.then_some(Instruction::Delay { count: 1 + (draw >> 16 & 63) as u32 })
    }

    /// An access to the configuration of a PCI function: not to what enables it, nor to what says where it is.
    pub(super) fn configuration(&mut self) -> Option<Instruction> {
        let function = *self.random.choose(&self.places.pci)?;
        let draw = self.random.next_u64();
        let width = *PortWidth::ALL.get((draw & 3) as usize).unwrap_or(&PortWidth::Long);
        let register = (draw >> 8) as u8 & !(width.bytes() as u8 - 1);
        if draw & 4 == 0 || matches!(register, 0x04..0x08 | 0x10..0x34) {
            return Some(Instruction::PciRead { function, register, width });
        }
        let value = value(&mut self.random, self.memory.as_ref(), self.last) as u32 & width.max();
        Some(Instruction::PciWrite { function, register, width, value })
    }

    /// An access to a register.
    pub(super) fn access(&mut self) -> Option<Instruction> {
        let spot = *self.random.choose(&self.spots)?;
        let draw = self.random.next_u64();
        let width = self.width(&spot.area, draw);
        let address = spot.address(width, draw >> 8, &mut self.random);
        let writes = draw >> 48 & 0xff < self.writes;
        let string = spot.area.space == Space::Port && draw >> 56 & 31 == 0;
        let instruction = match string.then(|| self.string(address as u16, width, writes)).flatten() {
            Some(string) => string,
            None => self.plain(spot.area.space, address, width, writes),
        };
        // Once in sixteen times it is done again, and then mostly a few times.
        if draw >> 32 & 15 == 0 {
            let count = 1 + self.random.below(1 << (draw >> 36 & 7));
            self.again = Some((instruction.clone(), count));
        }
        Some(instruction)
    }

    fn plain(&mut self, space: Space, address: u64, width: Width, writes: bool) -> Instruction {
        if !writes {
            return read(space, address, width);
        }
        self.last = value(&mut self.random, self.memory.as_ref(), self.last) & width.max();
        write(space, address, width, self.last)
    }

    fn string(&mut self, port: u16, width: Width, writes: bool) -> Option<Instruction> {
        let memory = self.memory.as_ref()?;
        let bits = self.random.below(10);
        let count = 1 + self.random.below(1 << bits) as u32;
        let address = memory.place(u64::from(count) * u64::from(width.bytes()), &mut self.random)?;
        let width = port_width(width);
        Some(match writes {
            true => Instruction::OutString { port, width, address, count },
            false => Instruction::InString { port, width, address, count },
        })
    }

    fn width(&self, area: &Area, draw: u64) -> Width {
        let wide = draw & 0xff;
        let width = match (wide >> 6).saturating_sub(self.narrow.saturating_sub(1)) {
            0 => Width::Byte,
            1 => Width::Word,
            2 => Width::Long,
            _ if area.space == Space::Memory => Width::Quad,
            _ => Width::Long,
        };
        let narrower = Width::ALL.into_iter().rev().filter(|other| other.bytes() <= width.bytes());
        narrower.into_iter().find(|width| u64::from(width.bytes()) <= area.length()).unwrap_or(Width::Byte)
    }
}

impl Spot {
    fn new(area: Area, random: &mut Random) -> Self {
        let mut hot =
            || if random.one_in(2) { low(area.length(), random) } else { random.below(area.length()) };
        Self { area, hot: [hot(), hot(), hot(), hot()] }
    }

    /// Where in the area, aligned as a rule.
    fn address(&self, width: Width, draw: u64, random: &mut Random) -> u64 {
        let length = self.area.length();
        let offset = match draw & 7 {
            0..=2 => random.choose(&self.hot).copied().unwrap_or(0),
            3 => low(length, random),
            _ => random.below(length),
        };
        let bytes = u64::from(width.bytes());
        let address = self.area.first + offset.min(length.saturating_sub(bytes));
        let aligned = address & !(bytes - 1);
        let crooked = draw & 0xf8 == 0;
        if crooked || aligned < self.area.first { address } else { aligned }
    }
}

/// A few of `devices`, at random. Windows, in which mostly nothing is, are chosen seldom.
/// Their numbers.
pub(super) fn swarm(devices: &[Device], count: u64, random: &mut Random) -> Vec<usize> {
    let mut draw = |_| {
        let mut at = random.below(devices.len() as u64) as usize;
        for _ in 0..3 {
            if devices.get(at)?.window && !random.one_in(8) {
                at = random.below(devices.len() as u64) as usize;
            }
        }
        Some(at)
    };
    let count = count.min(devices.len() as u64);
    let mut chosen: Vec<usize> = (0..count).filter_map(&mut draw).collect();
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

/// One or more spots of each area: how often it is there says how often it is chosen.
fn spots(device: &Device, random: &mut Random) -> Vec<Spot> {
    let start = random.below(device.areas.len() as u64) as usize;
    let areas = device.areas.iter().cycle().skip(start).take(device.areas.len().min(MANY));
    let weights = areas.map(|area| (*area, 1 + random.below(3)));
    let weighted: Vec<_> = weights.collect();
    weighted
        .into_iter()
        .flat_map(|(area, weight)| (0..weight).map(move |_| area))
        .map(|area| Spot::new(area, random))
        .collect()
}

/// A number below `end`, of any size: small ones are as likely as large ones.
fn low(end: u64, random: &mut Random) -> u64 {
    let bits = u64::from(u64::BITS - end.leading_zeros());
    random.below(end) >> random.below(bits.max(1))
}

pub(super) fn read(space: Space, address: u64, width: Width) -> Instruction {
    match space {
        Space::Port => Instruction::In { port: address as u16, width: port_width(width) },
        Space::Memory => Instruction::Read { address, width },
    }
}

/// A write of `value`, which fits `width`.
pub(super) fn write(space: Space, address: u64, width: Width, value: u64) -> Instruction {
    match space {
        Space::Port => {
            Instruction::Out { port: address as u16, width: port_width(width), value: value as u32 }
        }
        Space::Memory => Instruction::Write { address, width, value },
    }
}

fn port_width(width: Width) -> PortWidth {
    match width {
        Width::Byte => PortWidth::Byte,
        Width::Word => PortWidth::Word,
        Width::Long | Width::Quad => PortWidth::Long,
    }
}
