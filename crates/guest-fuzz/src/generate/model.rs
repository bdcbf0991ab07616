//! [`Model`]: what drivers do, from the data files of [families](super::family), done wrong now and then. Devices that no
//! file knows get the blind stream.

use std::sync::Arc;

use super::family::{Instance, Step, Values};
use super::memory::value;
use super::places::Places;
use super::stream::{Stream, read, swarm, write};
use crate::instruction::Instruction;
use crate::random::Random;

/// The most entries of a layout that are laid in a row.
const ENTRIES: u64 = 8;
/// How often something to do is looked for, before the blind stream is asked.
const TRIES: usize = 32;
/// The most instructions of the blind stream in a row.
const BLIND: u64 = 32;
/// The most reads of a delay.
const DELAY: u64 = 64;

/// The instructions of `model`, without end.
#[derive(Clone, Debug)]
pub(super) struct Model {
    places: Arc<Places>,
    random: Random,
    /// What is done between the steps: random accesses to the same devices.
    stream: Stream,
    /// Numbers of devices and of instances in them.
    instances: Vec<(usize, usize)>,
    current: Option<Current>,
    /// How many instructions of the blind stream come next.
    blind: u64,
}

/// Steps that are being gone.
#[derive(Clone, Copy, Debug)]
struct Current {
    instance: (usize, usize),
    steps: &'static [Step],
    /// How often the first of the steps is yet to be done; `None` where it was not begun.
    left: Option<u32>,
}

impl Model {
    pub(super) fn new(places: &Arc<Places>, mut random: Random) -> Self {
        let count = if random.one_in(8) { 16 } else { 1 + random.below(3) };
        let mut devices = swarm(&places.devices, count, &mut random);
        let known = |devices: &[usize]| -> Vec<(usize, usize)> {
            let of = |&at: &usize| {
                let count = places.devices.get(at).map_or(0, |device| device.instances.len());
                (0..count).map(move |instance| (at, instance))
            };
            devices.iter().flat_map(of).collect()
        };
        if known(&devices).is_empty() {
            devices.extend(swarm(&places.devices, count, &mut random));
        }
        let instances = known(&devices);
        let seed = random.next_u64();
        let stream = Stream::over(places, &devices, Random::new(seed));
        Self { places: Arc::clone(places), random, stream, instances, current: None, blind: 0 }
    }

    /// The next instruction; `None` where there is nothing to do anything with. `left` are left of the episode.
    pub(super) fn next_of(&mut self, left: u64) -> Option<Instruction> {
        self.blind = self.blind.saturating_sub(1);
        if self.instances.is_empty() || self.blind > 0 {
            return self.stream.next_of(left);
        }
        for _ in 0..TRIES {
            let instruction = match self.current {
                Some(current) => self.advance(current),
                None => match self.random.below(32) {
                    0..=3 => {
                        self.blind = 1 + self.random.below(BLIND);
                        return self.stream.next_of(left);
                    }
                    4..=6 => self.lone_access(),
                    _ => {
                        self.begin();
                        None
                    }
                },
            };
            if let Some(instruction) = instruction {
                self.stream.count_burst();
                return Some(instruction);
            }
        }
        self.stream.next_of(left)
    }

    fn instance(places: &Places, (device, instance): (usize, usize)) -> Option<&Instance> {
        places.devices.get(device)?.instances.get(instance)
    }

    fn begin(&mut self) {
        let Some(&at) = self.random.choose(&self.instances) else { return };
        let steps = Self::instance(&self.places, at).and_then(|instance| instance.steps(&mut self.random));
        self.current = steps.map(|steps| Current { instance: at, steps, left: None });
    }

    /// A known register is read, or gets one of its values.
    fn lone_access(&mut self) -> Option<Instruction> {
        let at = *self.random.choose(&self.instances)?;
        let instance = Self::instance(&self.places, at)?;
        let place = instance.any_register(&mut self.random)?;
        let width = place.width(&mut self.random);
        if self.random.one_in(3) {
            return Some(read(place.space, place.address, width));
        }
        let value = place.values.draw(&mut self.random, self.stream.memory()) & width.max();
        Some(write(place.space, place.address, width, value))
    }

    /// Does the next step. `None` where there is nothing to do in it; it is over then.
    fn advance(&mut self, current: Current) -> Option<Instruction> {
        let Some((step, rest)) = current.steps.split_first() else {
            self.current = None;
            return None;
        };
        let done = Some(Current { steps: rest, left: None, ..current });
        let left = match current.left {
            Some(left) => left,
            // Now and then a step is left out, or is done less often, or twice.
            None => match (self.random.below(64), step.count()) {
                (0..=1, _) => 0,
                (2, count) => count + 1,
                (3..=8, count) => 1 + self.random.below(count.into()) as u32,
                (_, count) => count,
            },
        };
        if left == 0 {
            self.current = done;
            return None;
        }
        self.current = if left == 1 { done } else { Some(Current { left: Some(left - 1), ..current }) };
        let instruction = self.perform(current.instance, step);
        if instruction.is_none() {
            self.current = done;
        }
        instruction
    }

    fn perform(&mut self, at: (usize, usize), step: &'static Step) -> Option<Instruction> {
        let places = Arc::clone(&self.places);
        let instance = Self::instance(&places, at)?;
        match step {
            Step::Read { register, .. } => {
                let place = instance.register(*register)?;
                Some(read(place.space, place.address, place.width(&mut self.random)))
            }
            Step::Write { register, values, .. } => {
                let place = instance.register(*register)?;
                let width = place.width(&mut self.random);
                let values = values.as_ref().unwrap_or(place.values);
                let value = self.value(values) & width.max();
                Some(write(place.space, place.address, width, value))
            }
            Step::Lay(layout) => {
                let entries = 1 + self.random.below(ENTRIES);
                let fields = &instance.layout(*layout)?.fields;
                let mut bytes = Vec::with_capacity(64);
                for (width, values) in (0..entries).flat_map(|_| fields) {
                    let value = self.value(values).to_le_bytes();
                    bytes.extend(value.into_iter().take(width.bytes() as usize));
                }
                let memory = self.stream.memory()?;
                let address = memory.fit(memory.page(&mut self.random), bytes.len() as u64)?;
                Some(Instruction::WriteBlock { address, bytes: bytes.into() })
            }
            Step::Delay => {
                let count = 1 + self.random.below(DELAY) as u32;
                (places.delays && !self.stream.in_burst()).then_some(Instruction::Delay { count })
            }
        }
    }

    /// One of `values`, or now and then something else.
    fn value(&mut self, values: &Values) -> u64 {
        match self.random.below(64) {
            0 => value(&mut self.random, self.stream.memory(), 0),
            1 => values.draw(&mut self.random, self.stream.memory()) ^ 1 << self.random.below(32),
            _ => values.draw(&mut self.random, self.stream.memory()),
        }
    }
}

impl Step {
    fn count(&self) -> u32 {
        match self {
            Self::Read { count, .. } | Self::Write { count, .. } => *count,
            Self::Lay(_) | Self::Delay => 1,
        }
    }
}
