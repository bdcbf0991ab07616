//! Generators: which instruction comes next. All of them depend on a region map and a seed, and on nothing else.
//!
//! A run is cut into episodes, which have nothing to do with one another: each can be made again without those before
//! it, and the machine is reset between them.

mod classic;
mod family;
mod memory;
mod model;
mod places;
#[cfg(test)]
mod samples;
mod stream;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::Error;
use crate::instruction::Instruction;
use crate::random::Random;
use crate::region::RegionMap;
use classic::Classic;
use model::Model;
use places::{Area, Places, port_areas};
use stream::Stream;

/// How many instructions an episode has, except for those of [`Generator::Classic`].
pub const EPISODE: u64 = 65_536;
/// How many random writes `classic` makes for each port, where nothing else is said: as many as the original.
pub const FUZZ_COUNT: u32 = 10;

/// A way to make instructions.
///
/// Its text is its name: `mixed`, `stream`, `model`, `classic`, or `classic:COUNT` with a count that is not
/// [`FUZZ_COUNT`].
///
/// ```
/// use guest_fuzz::generate::Generator;
/// use guest_fuzz::region::{Region, RegionMap, Space};
/// let serial = Region { space: Space::Port, first: 0x3f8, last: 0x3ff, name: "serial".to_owned() };
/// let map = RegionMap { regions: vec![serial], ..RegionMap::default() };
/// let generator: Generator = "classic".parse()?;
/// // Eight reads, eight zeroes, and ten random values for each port.
/// assert_eq!(generator.episode(&map, 1, 0).count(), 8 + 8 + 80);
/// # Ok::<(), guest_fuzz::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Generator {
    /// Reads every port of a range, writes 0 to every port, then random bytes to random ports of it; range by range,
    /// in the map's order. An episode is all of that.
    Classic {
        /// How many random writes there are for each port.
        fuzz_count: u32,
    },
    /// Random accesses of all kinds, to a few devices per episode.
    Stream,
    /// What drivers do, with mistakes, where the device is known; else [`Generator::Stream`].
    Model,
    /// [`Generator::Stream`] or [`Generator::Model`], as chance has it, episode by episode.
    #[default]
    Mixed,
}

impl Generator {
    /// Its name, without parameters.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Classic { .. } => "classic",
            Self::Stream => "stream",
            Self::Model => "model",
            Self::Mixed => "mixed",
        }
    }

    /// The instructions of the part of a run that has the number `episode`. Who wants several prepares the map once,
    /// with [`prepare`](Self::prepare).
    #[must_use]
    pub fn episode(&self, map: &RegionMap, seed: u64, episode: u64) -> Episode {
        self.prepare(map).episode(seed, episode)
    }

    /// This generator, for `map`: as many episodes as wanted can be made of it.
    ///
    /// What a map skips is cut out of its regions: a region that is skipped in its middle becomes two. PCI functions are
    /// configured only where the map has ports 0xcf8 and 0xcfc to 0xcff, and then no other access goes to 0xcf8 to 0xcff.
    #[must_use]
    pub fn prepare(&self, map: &RegionMap) -> Prepared {
        let (places, areas) = match self {
            Self::Classic { .. } => (Places::new(&RegionMap::default()), port_areas(map)),
            _ => (Places::new(map), Vec::new()),
        };
        Prepared { generator: *self, places: Arc::new(places), areas: areas.into() }
    }
}

impl fmt::Display for Generator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Classic { fuzz_count } if *fuzz_count != FUZZ_COUNT => write!(f, "classic:{fuzz_count}"),
            _ => f.write_str(self.name()),
        }
    }
}

impl FromStr for Generator {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let count = text.strip_prefix("classic:").and_then(|count| count.parse().ok());
        match (text, count) {
            (_, Some(fuzz_count)) => Ok(Self::Classic { fuzz_count }),
            ("classic", _) => Ok(Self::Classic { fuzz_count: FUZZ_COUNT }),
            ("stream", _) => Ok(Self::Stream),
            ("model", _) => Ok(Self::Model),
            ("mixed", _) => Ok(Self::Mixed),
            _ => Err(Error::Syntax {
                what: "generator".to_owned(),
                line: 1,
                expected: "mixed, stream, model, classic or classic:COUNT".to_owned(),
                found: text.chars().take(40).collect(),
            }),
        }
    }
}

/// A [`Generator`] and a map, ready to make episodes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Prepared {
    generator: Generator,
    places: Arc<Places>,
    areas: Arc<[Area]>,
}

impl Prepared {
    /// The generator.
    #[must_use]
    pub fn generator(&self) -> Generator {
        self.generator
    }

    /// How many instructions each episode has: 0 where the map has nothing that could be touched.
    #[must_use]
    pub fn length(&self) -> u64 {
        match self.generator {
            Generator::Classic { fuzz_count } => Classic::count(&self.areas, fuzz_count),
            _ if self.places.is_empty() => 0,
            _ => EPISODE,
        }
    }

    /// The instructions of the episode of this number.
    #[must_use]
    pub fn episode(&self, seed: u64, episode: u64) -> Episode {
        let random = Random::part(seed, episode);
        let stream = |random| Maker::Stream(Box::new(Stream::new(&self.places, random)));
        let model = |random| Maker::Model(Box::new(Model::new(&self.places, random)));
        let maker = match self.generator {
            Generator::Classic { fuzz_count } => {
                Maker::Classic(Classic::new(Arc::clone(&self.areas), fuzz_count, random))
            }
            Generator::Stream => stream(random),
            Generator::Model => model(random),
            // Drawn, not in turn: one of two shards would have nothing but streams.
            Generator::Mixed if Random::part(!seed, episode).one_in(2) => stream(random),
            Generator::Mixed => model(random),
        };
        Episode { maker, left: self.length() }
    }
}

/// The instructions of an episode, made one by one.
#[derive(Clone, Debug)]
pub struct Episode {
    maker: Maker,
    left: u64,
}

#[derive(Clone, Debug)]
enum Maker {
    Classic(Classic),
    Stream(Box<Stream>),
    Model(Box<Model>),
}

impl Iterator for Episode {
    type Item = Instruction;

    #[inline]
    fn next(&mut self) -> Option<Instruction> {
        if self.left == 0 {
            return None;
        }
        let instruction = match &mut self.maker {
            Maker::Classic(classic) => classic.next(),
            Maker::Stream(stream) => stream.next_of(self.left),
            Maker::Model(model) => model.next_of(self.left),
        };
        self.left -= 1;
        instruction
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // Not the lower bound as well: what a caller reserves should not depend on a hostile map.
        (0, usize::try_from(self.left).ok())
    }
}
