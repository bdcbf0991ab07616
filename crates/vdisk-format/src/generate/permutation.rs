//! [`Permutation`]: numbers in no order, each once, without a list of them.

/// A bijection of the numbers below `count`, chosen by a seed.
///
/// A number is taken for a pair, `left * width + right`. Each round adds to one half a number that depends on the other
/// half only, which subtracting the same number takes back: so a round is a bijection of the pairs, and all rounds
/// together are. There may be a few more pairs than numbers. A number that lands outside goes through it again; as it
/// moves on a cycle that it is on itself, and which begins inside, it comes back inside, and no two come to the same.
#[derive(Debug, Clone, Copy)]
pub(super) struct Permutation {
    count: u64,
    width: u64,
    height: u64,
    seed: u64,
}

const ROUNDS: u64 = 3;

impl Permutation {
    pub(super) fn new(count: u64, seed: u64) -> Self {
        let width = count.isqrt().max(1);
        Self { count, width, height: count.div_ceil(width).max(1), seed }
    }

    /// Where `number`, which is below `count`, goes.
    pub(super) fn of(&self, number: u64) -> u64 {
        let mut number = number;
        loop {
            number = self.once(number);
            if number < self.count {
                return number;
            }
        }
    }

    /// The number that goes to `place`, which is below `count`: what undoes [`of`](Self::of).
    pub(super) fn undo(&self, place: u64) -> u64 {
        let mut number = place;
        loop {
            number = self.undo_once(number);
            if number < self.count {
                return number;
            }
        }
    }

    fn once(&self, number: u64) -> u64 {
        let (mut left, mut right) = (number / self.width, number % self.width);
        for round in 0..ROUNDS {
            left = add(left, chosen(right, self.seed ^ (2 * round), self.height), self.height);
            right = add(right, chosen(left, self.seed ^ (2 * round + 1), self.width), self.width);
        }
        left * self.width + right
    }

    fn undo_once(&self, number: u64) -> u64 {
        let (mut left, mut right) = (number / self.width, number % self.width);
        for round in (0..ROUNDS).rev() {
            right = subtract(right, chosen(left, self.seed ^ (2 * round + 1), self.width), self.width);
            left = subtract(left, chosen(right, self.seed ^ (2 * round), self.height), self.height);
        }
        left * self.width + right
    }
}

/// `number + more` modulo `modulus`, of numbers below it. Without a division, which takes long.
fn add(number: u64, more: u64, modulus: u64) -> u64 {
    let sum = number + more;
    if sum < modulus { sum } else { sum - modulus }
}

/// What undoes [`add`].
fn subtract(number: u64, less: u64, modulus: u64) -> u64 {
    if number < less { number + modulus - less } else { number - less }
}

/// A number below `end`, by the bits of [`mix`].
fn chosen(number: u64, seed: u64, end: u64) -> u64 {
    ((u128::from(mix(number, seed)) * u128::from(end)) >> 64) as u64
}

/// The finalizer of SplitMix64: every bit of the result depends on every bit of both.
fn mix(number: u64, seed: u64) -> u64 {
    let z = number ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_number_comes_once(count in 1..3000u64, seed: u64) {
            let permutation = Permutation::new(count, seed);
            let mut numbers: Vec<u64> = (0..count).map(|number| permutation.of(number)).collect();
            let back = numbers.iter().map(|&place| permutation.undo(place));
            prop_assert!(back.eq(0..count));
            numbers.sort_unstable();
            prop_assert_eq!(numbers, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn neighbours_are_torn_apart() {
        let permutation = Permutation::new(100_000, 7);
        let neighbours = (1..100_000).filter(|&n| permutation.of(n) == permutation.of(n - 1) + 1).count();
        assert!(neighbours < 20, "{neighbours}");
        assert_ne!(permutation.of(5), Permutation::new(100_000, 8).of(5));
    }
}
