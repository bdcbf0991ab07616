//! Randomness that can be replayed.

use std::env;

/// SplitMix64: tiny, and the same everywhere.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    #[must_use]
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.number() % u64::try_from(end).unwrap()).unwrap()
    }

    /// One of `from`.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// That many bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.number().to_be_bytes()[0]).collect()
    }
}

/// The seed of this run, from `VDISK_SEED` or fixed, and printed.
#[must_use]
pub fn seed() -> u64 {
    let seed = setting("VDISK_SEED", 2012);
    println!("VDISK_SEED={seed}");
    seed
}

/// A number from the environment, or `otherwise`.
#[must_use]
pub fn setting(name: &str, otherwise: u64) -> u64 {
    let Ok(value) = env::var(name) else { return otherwise };
    value.parse().unwrap_or_else(|e| panic!("{name}={value}: {e}"))
}
