//! [`StandIns`]: refcounts that are wrong, replaced by others that are wrong in the same way.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::cluster_counts::ClusterCounts;

/// Most numbers that have a stand-in of their own.
const MOST: usize = 1 << 20;

/// Refcounts of up to `1 << this` bits are narrow: each of their bits may be a finding.
pub(super) const MOST_NARROW: u32 = 2;
/// And of up to so many, each of them is.
const ALWAYS_NARROW: u32 = 1;
/// Bytes of a doubtful block's word that are copied for the findings that they are. More are as good as a guest's data.
const MOST_DOUBTFUL: usize = 3;

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

    fn of(&self, refcount: u64) -> u64 {
        if refcount <= 1 || self.known.contains(&refcount) {
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

/// Eight bytes of a refcount block.
#[derive(Debug, Clone, Copy)]
pub(super) struct RefcountWord<'c> {
    pub(super) counts: &'c ClusterCounts,
    pub(super) order: u32,
    /// The cluster that the first refcount is about.
    pub(super) first: u64,
    /// Whether they may be a guest's data.
    pub(super) is_doubtful: bool,
}

impl StandIns {
    /// What stands in for a word, and whether what it says is withheld. Of clusters that a check does not look at, it is only
    /// asked whether their refcount is 1.
    pub(super) fn of_word(&self, place: &RefcountWord<'_>, word: u64) -> (u64, bool) {
        let &RefcountWord { counts, order, first, is_doubtful } = place;
        let old = word.to_be_bytes();
        let each = |value: &dyn Fn(u64, u64) -> u64| {
            (0..64u64 >> order).fold(old, |new, index| {
                let value = value(first.saturating_add(index), refcount(old, order, index));
                with_refcount(new, order, index, value)
            })
        };
        let new = each(&|cluster, value| {
            if cluster < counts.end() { self.of(value) } else { u64::from(value == 1 && !is_doubtful) }
        });
        // What is about no cluster of the file is as good as any bits.
        let has_room = first.saturating_add(64 >> order) > counts.end() && word != 0;
        let may_tell = is_doubtful || order <= ALWAYS_NARROW || order <= MOST_NARROW && has_room;
        if !may_tell {
            return (u64::from_be_bytes(new), false);
        }
        let mut references = [0u64; 64];
        counts.runs(first..first.saturating_add(64 >> order), |run| {
            let skipped = usize::try_from(run.clusters.start - first).unwrap_or(usize::MAX);
            let length = usize::try_from(run.clusters.end - run.clusters.start).unwrap_or(usize::MAX);
            let these = references.iter_mut().skip(skipped).take(length);
            these.for_each(|references| *references = run.count.min(self.most));
        });
        let of_cluster = |cluster: u64| references.get((cluster - first) as usize).copied().unwrap_or(0);
        let right = each(&|cluster, _| of_cluster(cluster));
        // A byte whose refcounts are all alike is no guest's more than anybody's.
        let width = 1 << order;
        let is_uniform = |byte: u8| byte.rotate_left(width) == byte;
        let bytes = new.into_iter().zip(old).zip(right);
        let telling = bytes.filter(|((new, old), right)| new == old && new != right && !is_uniform(*new));
        let is_withheld = telling.count() > MOST_DOUBTFUL;
        (u64::from_be_bytes(if is_withheld { right } else { new }), is_withheld)
    }
}

/// Refcount `index` of eight bytes, `1 << order` bits wide.
fn refcount(word: [u8; 8], order: u32, index: u64) -> u64 {
    let bits = 1u64 << order;
    let value = u64::from_be_bytes(word);
    if bits == 64 {
        return value;
    }
    value >> shift(bits, index) & ((1 << bits) - 1)
}

/// Eight bytes with another refcount `index`.
fn with_refcount(word: [u8; 8], order: u32, index: u64, refcount: u64) -> [u8; 8] {
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

    #[test]
    fn a_word_that_says_too_much_is_withheld() {
        let mut counts = ClusterCounts::new(64);
        counts.add(0, 64, 1, false);
        let stand_ins = StandIns::new(&counts, 0);
        let place = RefcountWord { counts: &counts, order: 0, first: 0, is_doubtful: true };
        assert_eq!(stand_ins.of_word(&place, 0xc59a_e3b7_d1f5_8ea7), (u64::MAX, true));
        // Two clusters without a refcount, and half of them.
        for word in [0xff7f_ffff_ffdf_ffff, 0xffff_ffff_0000_0000] {
            assert_eq!(stand_ins.of_word(&place, word), (word, false));
        }
        // Nor does a block that is one have such a word, behind the end of the file or before it.
        for first in [0, 64] {
            let sound = RefcountWord { is_doubtful: false, first, ..place };
            assert!(stand_ins.of_word(&sound, 0xc59a_e3b7_d1f5_8ea7).1);
        }
        // Where the file was cut short, there is more than it has.
        let behind = RefcountWord { is_doubtful: false, first: 64, ..place };
        assert_eq!(stand_ins.of_word(&behind, u64::MAX), (u64::MAX, false));
    }

    proptest! {
        #[test]
        fn refcounts_are_where_the_block_has_them(word: [u8; 8], order in 0..=6u32, index: u64, value: u64) {
            let index = index % (64 >> order);
            let view = View::from(word.as_slice());
            let block = RefcountBlock::new(&view, 0.into(), order, 8);
            prop_assert_eq!(block.unwrap().count_at(index), Some(refcount(word, order, index)));
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
