//! [`StandIns`]: refcounts that are wrong, replaced by others that are wrong in the same way.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::cluster_counts::ClusterCounts;

/// Most numbers that have a stand-in of their own.
const MOST: usize = 1 << 20;

/// What stands in for a refcount. How often clusters are referred to, 0 and 1 stand for themselves. Any other number is
/// replaced by one that lies between the same two of these, and equal numbers by equal ones: so a refcount is too high, too
/// low or right as it was, and neighbours are equal as they were.
#[derive(Debug)]
pub(super) struct StandIns {
    /// How often clusters are referred to.
    known: BTreeSet<u64>,
    most: u64,
    others: RefCell<Others>,
}

#[derive(Debug, Default)]
struct Others {
    stand_ins: BTreeMap<u64, u64>,
    /// How many were given behind a number of `known`.
    given: BTreeMap<u64, u64>,
}

impl StandIns {
    /// For refcounts of `1 << order` bits.
    pub(super) fn new(counts: &ClusterCounts, order: u32) -> Self {
        let most = u64::MAX >> (64 - (1u32 << order.min(6)));
        let mut known = BTreeSet::from([0, 1]);
        counts.runs(0..counts.end(), |run| {
            if known.len() < MOST {
                known.insert(run.count.min(most));
            }
        });
        Self { known, most, others: RefCell::default() }
    }

    pub(super) fn of(&self, refcount: u64) -> u64 {
        if self.known.contains(&refcount) {
            return refcount;
        }
        let Some(&below) = self.known.range(..refcount).next_back() else { return refcount };
        let mut others = self.others.borrow_mut();
        if let Some(&known) = others.stand_ins.get(&refcount) {
            return known;
        }
        if others.stand_ins.len() >= MOST {
            return below.saturating_add(1).min(self.most);
        }
        let given = others.given.entry(below).or_default();
        *given += 1;
        // There are as many numbers between two known ones as can be asked for.
        let stand_in = below + *given;
        others.stand_ins.insert(refcount, stand_in);
        stand_in
    }
}

/// Refcount `index` of eight bytes, `1 << order` bits wide.
pub(super) fn refcount(word: [u8; 8], order: u32, index: u64) -> u64 {
    let bits = 1u64 << order;
    let value = u64::from_be_bytes(word);
    if bits == 64 {
        return value;
    }
    value >> shift(bits, index) & ((1 << bits) - 1)
}

/// Eight bytes with another refcount `index`.
pub(super) fn with_refcount(word: [u8; 8], order: u32, index: u64, refcount: u64) -> [u8; 8] {
    let bits = 1u64 << order;
    if bits == 64 {
        return refcount.to_be_bytes();
    }
    let (mask, shift) = ((1u64 << bits) - 1, shift(bits, index));
    (u64::from_be_bytes(word) & !(mask << shift) | (refcount & mask) << shift).to_be_bytes()
}

/// Below a byte, the least significant bits come first.
const fn shift(bits: u64, index: u64) -> u64 {
    let bit = index * bits % 64;
    if bits < 8 { 56 - bit / 8 * 8 + bit % 8 } else { 64 - bits - bit }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qcow2::refcount::RefcountBlock;
    use crate::view::View;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn refcounts_are_where_the_block_has_them(word: [u8; 8], order in 0..=6u32, index: u64, value: u64) {
            let index = index % (64 >> order);
            let view = View::from(word.as_slice());
            let block = RefcountBlock::new(&view, 0.into(), order, 8);
            prop_assert_eq!(block.count_at(index), Some(refcount(word, order, index)));
            let value = value & u64::MAX >> (64 - (1 << order));
            let changed = with_refcount(word, order, index, value);
            prop_assert_eq!(refcount(changed, order, index), value);
            let back = with_refcount(changed, order, index, refcount(word, order, index));
            prop_assert_eq!(back, word);
        }

        #[test]
        fn what_stands_in_compares_as_the_number_does(
            order in 0..=6u32,
            references in proptest::collection::vec(0..40u64, 0..9),
            refcounts in proptest::collection::vec(prop_oneof![0..50u64, any::<u64>()], 0..99),
        ) {
            let most = u64::MAX >> (64 - (1u32 << order));
            let mut counts = ClusterCounts::new(9);
            for (cluster, &times) in (0..).zip(&references) {
                counts.add(cluster, 1, times, false);
            }
            let stand_ins = StandIns::new(&counts, order);
            let refcounts: Vec<u64> = refcounts.iter().map(|refcount| refcount & most).collect();
            for &a in &refcounts {
                prop_assert!(stand_ins.of(a) <= most);
                for &known in references.iter().chain(&[0, 1]) {
                    let known = known.min(most);
                    prop_assert_eq!(a.cmp(&known), stand_ins.of(a).cmp(&known));
                }
                for &b in &refcounts {
                    prop_assert_eq!(a == b, stand_ins.of(a) == stand_ins.of(b));
                }
            }
        }
    }
}
