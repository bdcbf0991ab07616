//! [`ClusterCounts`]: how often each cluster of a file is referred to. Memory follows what is counted, not the length of
//! the file.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::cluster_set::{CHUNK, masks, parts};

const WORDS: usize = (CHUNK / 64) as usize;
/// Slots that are made at a time.
const SLOTS: u64 = 512;
/// So many clusters fit in a slot.
const FEW: usize = 3;
/// A list holds four bytes a cluster, and becomes a dense chunk where it would hold more than one.
const MOST_LISTED: usize = WORDS * 16 / 4;
/// Dense chunks are faster, and may take so much however little is in them: enough for 1 TiB in 64 KiB clusters.
const FREE: usize = 4 << 20;
/// Ranges of so many clusters are remembered as such: they cost nothing, however long they claim to be.
const LONG: u64 = 64;
/// So many clusters of a dense chunk have counts above 1 before all of them have a number.
const MOST_MANY: usize = 4096;
/// Of the first dense chunks, which are all of a small file, so many do: hostile files are counted faster.
const FIRST: usize = 16;
const MOST_MANY_FIRST: usize = 64;

/// References to clusters: how many, and whether one of them claims to be the only one.
///
/// That claim is qcow2's `COPIED` flag: a reference with it is *marked* here.
#[derive(Debug)]
pub(crate) struct ClusterCounts {
    slots: Vec<Option<Box<[Option<Chunk>; SLOTS as usize]>>>,
    end: u64,
    /// How many chunks are dense.
    dense: usize,
    /// How many clusters were added to dense chunks, at least: what they saved, others may take.
    added: usize,
    /// Counts that 16 bits do not hold.
    huge: BTreeMap<u64, u64>,
    /// Where how many references from long ranges begin or end; from [`settle`](Self::settle) on, how many there are from
    /// each place on.
    ranges: Vec<(u64, i64)>,
    /// Whether no more ranges are to come.
    settled: bool,
}

/// Clusters with the same number of references.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CountedRun {
    /// Cluster numbers.
    pub(crate) clusters: Range<u64>,
    /// References to each.
    pub(crate) count: u64,
    /// Whether there is a marked one among them.
    pub(crate) marked: bool,
}

#[derive(Debug)]
enum Chunk {
    /// Sorted by cluster, as many as the first number says.
    Few(u8, [Item; FEW]),
    /// Sorted by cluster. In a box, so that a slot is small.
    #[expect(clippy::box_collection, reason = "16 bytes a slot instead of 24")]
    List(Box<Vec<Item>>),
    Dense(Box<Dense>),
}

/// A cluster of a chunk, whether it is marked, and the number of its references, up to 14 bits of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Item(u32);

impl Item {
    const MARKED: u32 = 1 << 15;
    const MOST: u32 = (1 << 15) - 1;

    fn cluster(self) -> u64 {
        u64::from(self.0 >> 16)
    }

    fn marked(self) -> bool {
        self.0 & Self::MARKED != 0
    }

    fn count(self) -> u64 {
        u64::from(self.0 & Self::MOST)
    }
}

#[derive(Debug)]
struct Dense {
    /// Of 64 clusters each: those with a marked reference, and those with another one. Side by side, for both are asked.
    words: [[u64; 2]; WORDS],
    many: Many,
    /// How many clusters may have some before all of them have a number.
    most_many: usize,
}

/// References beyond the first.
#[derive(Debug)]
enum Many {
    Few(BTreeMap<u16, u16>),
    All(Box<[u16; CHUNK as usize]>),
}

/// Stands for a count that is in [`ClusterCounts::huge`].
const HUGE: u16 = u16::MAX;

impl ClusterCounts {
    /// No references to clusters below `end`. Those from `end` on are ignored.
    pub(crate) fn new(end: u64) -> Self {
        let mut slots = Vec::new();
        slots.resize_with(usize::try_from(end.div_ceil(CHUNK * SLOTS)).unwrap_or(0), || None);
        Self { slots, end, dense: 0, added: 0, huge: BTreeMap::new(), ranges: Vec::new(), settled: false }
    }

    /// The end of the clusters that are counted.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Clusters below `end`, which is not before the one that there was, are counted from now on.
    pub(crate) fn extend(&mut self, end: u64) {
        self.end = self.end.max(end);
        let slots = usize::try_from(self.end.div_ceil(CHUNK * SLOTS)).unwrap_or(0);
        self.slots.resize_with(slots.max(self.slots.len()), || None);
    }

    /// Counts `times` references, none of them marked, to each of `count` clusters from `first` on: as [`add`](Self::add),
    /// but at no cost where the clusters are many. Those are seen from [`settle`](Self::settle) on.
    pub(crate) fn add_range(&mut self, first: u64, count: u64, times: u64) {
        let end = first.saturating_add(count).min(self.end);
        match i64::try_from(times) {
            Ok(times) if !self.settled && end.saturating_sub(first) >= LONG => {
                self.ranges.extend([(first, times), (end, -times)]);
            }
            _ => self.add(first, count, times, false),
        }
    }

    /// All ranges are known.
    pub(crate) fn settle(&mut self) {
        self.settled = true;
        self.ranges.sort_unstable();
        let mut references = 0i64;
        for (_, change) in &mut self.ranges {
            references = references.saturating_add(*change);
            *change = references;
        }
    }

    /// Counts `times` references to each of `count` clusters from `first` on.
    pub(crate) fn add(&mut self, first: u64, count: u64, times: u64, marked: bool) {
        let end = first.saturating_add(count).min(self.end);
        if times == 0 || first >= end {
            return;
        }
        for (index, part) in parts(first..end) {
            let fill = (part.end - part.start) as usize;
            let has_room = self.dense * size_of::<Dense>() < FREE + 2 * self.added;
            let Some(slot) = self.slots.get_mut((index / SLOTS) as usize) else { break };
            let slots = slot.get_or_insert_with(|| Box::new([const { None }; SLOTS as usize]));
            let Some(slot) = slots.get_mut((index % SLOTS) as usize) else { break };
            let chunk = slot.get_or_insert(Chunk::Few(0, [Item::default(); FEW]));
            let has = chunk.items().len();
            let fits = times <= u64::from(Item::MOST)
                && chunk.items().iter().all(|item| item.count() + times <= u64::from(Item::MOST));
            if !matches!(chunk, Chunk::Dense(_)) && (has_room || has + fill > MOST_LISTED || !fits) {
                let most_many = if self.dense < FIRST { MOST_MANY_FIRST } else { MOST_MANY };
                let many = Many::Few(BTreeMap::new());
                let mut dense = Box::new(Dense { words: [[0; 2]; WORDS], many, most_many });
                for item in chunk.items() {
                    let cluster = item.cluster();
                    dense.add(
                        cluster..cluster + 1,
                        item.count(),
                        item.marked(),
                        index * CHUNK,
                        &mut self.huge,
                    );
                }
                *chunk = Chunk::Dense(dense);
                self.dense += 1;
                self.added += has;
            }
            match chunk {
                Chunk::Dense(dense) => {
                    self.added += fill;
                    dense.add(part, times, marked, index * CHUNK, &mut self.huge);
                }
                Chunk::List(items) => merge(items, part, times, marked),
                Chunk::Few(..) => {
                    let mut items = chunk.items().to_vec();
                    merge(&mut items, part, times, marked);
                    *chunk = if items.len() <= FEW {
                        let mut few = [Item::default(); FEW];
                        few.iter_mut().zip(&items).for_each(|(to, from)| *to = *from);
                        Chunk::Few(items.len() as u8, few)
                    } else {
                        Chunk::List(Box::new(items))
                    };
                }
            }
        }
    }

    /// Counts one marked reference to a cluster that has none, where that costs next to nothing. `false`: it did not, and
    /// nothing was counted; [`add`](Self::add) knows more.
    #[inline(always)]
    pub(crate) fn add_new_marked(&mut self, cluster: u64) -> bool {
        let index = cluster / CHUNK;
        if let Some(Some(slots)) = self.slots.get_mut((index / SLOTS) as usize)
            && let Some(Some(Chunk::Dense(dense))) = slots.get_mut((index % SLOTS) as usize)
            && let Some([marked, other]) = dense.words.get_mut((cluster % CHUNK / 64) as usize)
        {
            let bit = 1 << (cluster % 64);
            let is_new = (*marked | *other) & bit == 0;
            *marked |= if is_new { bit } else { 0 };
            return is_new;
        }
        false
    }

    /// Notes how many references [`add_new_marked`](Self::add_new_marked) counted: it has no time for that.
    pub(crate) fn note_added(&mut self, count: u64) {
        self.added += count as usize;
    }

    /// References to a cluster.
    pub(crate) fn count(&self, cluster: u64) -> u64 {
        let mut found = 0;
        self.runs(cluster..cluster.saturating_add(1), |run| found = run.count);
        found
    }

    /// Tells `visit` of the clusters in `range`, in order: neighbours with the same references together, those with none
    /// as well.
    pub(crate) fn runs(&self, range: Range<u64>, visit: impl FnMut(CountedRun)) {
        let ranges = if self.settled { self.ranges.as_slice() } else { &[] };
        let mut runs = Joined { ranges, last: None, visit };
        for (index, part) in parts(range.start..range.end.max(range.start)) {
            let base = index * CHUNK;
            let slots = self.slots.get((index / SLOTS) as usize).and_then(Option::as_ref);
            let chunk = slots.and_then(|slots| slots.get((index % SLOTS) as usize)?.as_ref());
            match chunk {
                Some(Chunk::Dense(dense)) => dense.runs(part, base, &self.huge, &mut runs),
                Some(chunk) => {
                    let mut at = part.start;
                    for item in chunk.items().iter().filter(|item| part.contains(&item.cluster())) {
                        runs.add(base + at..base + item.cluster(), 0, false);
                        at = item.cluster() + 1;
                        runs.add(base + item.cluster()..base + at, item.count(), item.marked());
                    }
                    runs.add(base + at..base + part.end, 0, false);
                }
                None => runs.add(base + part.start..base + part.end, 0, false),
            }
        }
        runs.finish();
    }
}

impl Chunk {
    /// The clusters of a chunk that is not dense.
    fn items(&self) -> &[Item] {
        match self {
            Self::Few(count, few) => few.get(..usize::from(*count)).unwrap_or_default(),
            Self::List(items) => items,
            Self::Dense(_) => &[],
        }
    }
}

impl Dense {
    fn add(&mut self, range: Range<u64>, times: u64, marked: bool, base: u64, huge: &mut BTreeMap<u64, u64>) {
        for (index, mask) in masks(range) {
            let Some([with_mark, other]) = self.words.get_mut(index) else { break };
            let seen = (*with_mark | *other) & mask;
            *if marked { with_mark } else { other } |= mask;
            let mut again = |bits: u64, times: u64| {
                let at = index as u64 * 64;
                if times > 0 && bits != 0 && !self.many.add_to_all(at, bits, times) {
                    each(bits, |bit| self.many.add(at + bit, times, self.most_many, base, huge));
                }
            };
            again(seen, times);
            again(mask & !seen, times - 1);
        }
    }

    fn runs(
        &self,
        range: Range<u64>,
        base: u64,
        huge: &BTreeMap<u64, u64>,
        runs: &mut Joined<'_, impl FnMut(CountedRun)>,
    ) {
        let simple = matches!(&self.many, Many::Few(many) if many.is_empty());
        for (index, mask) in masks(range) {
            let [marked, other] = self.words.get(index).copied().unwrap_or_default();
            let at = base + index as u64 * 64;
            let mut left = mask;
            while left != 0 {
                let first = left.trailing_zeros();
                let same = |word: u64| {
                    let word = word >> first;
                    let length = if word & 1 == 1 { word.trailing_ones() } else { word.trailing_zeros() };
                    (word & 1 == 1, length)
                };
                let ((is_marked, a), (is_other, b)) = (same(marked), same(other));
                let mut length = a.min(b).min((left >> first).trailing_ones());
                let mut count = u64::from(is_marked || is_other);
                if !simple && count > 0 {
                    let more = |bit: u32| self.many.of(index as u64 * 64 + u64::from(bit), base, huge);
                    count += more(first);
                    let alike = (first + 1..first + length).take_while(|&bit| 1 + more(bit) == count);
                    length = 1 + alike.count() as u32;
                }
                let start = at + u64::from(first);
                runs.add(start..start + u64::from(length), count, is_marked);
                left &= u64::MAX.checked_shl(first + length).unwrap_or(0);
            }
        }
    }
}

impl Many {
    /// More references to cluster `at` of the chunk at `base`; a map holds `most` clusters.
    fn add(&mut self, at: u64, times: u64, most: usize, base: u64, huge: &mut BTreeMap<u64, u64>) {
        let number = match self {
            Self::Few(few) if few.len() < most || few.contains_key(&(at as u16)) => {
                few.entry(at as u16).or_default()
            }
            Self::Few(few) => {
                // Pages that are not written take no memory. Of so many numbers a slice can always become the array.
                let all = vec![0u16; CHUNK as usize].into_boxed_slice();
                let Ok(mut all): Result<Box<[u16; CHUNK as usize]>, _> = all.try_into() else { return };
                for (&at, &many) in few.iter() {
                    if let Some(number) = all.get_mut(usize::from(at)) {
                        *number = many;
                    }
                }
                *self = Self::All(all);
                return self.add(at, times, most, base, huge);
            }
            Self::All(all) => match all.get_mut(at as usize) {
                Some(number) => number,
                None => return,
            },
        };
        if *number == HUGE {
            let many = huge.entry(base + at).or_default();
            *many = many.saturating_add(times);
            return;
        }
        let many = u64::from(*number).saturating_add(times);
        *number = match u16::try_from(many) {
            Ok(many) if many < HUGE => many,
            _ => {
                huge.insert(base + at, many);
                HUGE
            }
        };
    }

    /// As [`add`](Self::add), to the clusters behind `first` that `bits` says, where these are neighbours and all numbers
    /// hold their sums. `false`: nothing was counted.
    fn add_to_all(&mut self, first: u64, bits: u64, times: u64) -> bool {
        let (start, count) = (bits.trailing_zeros(), bits.count_ones());
        let is_run = bits.leading_zeros() + count + start == u64::BITS;
        let (Self::All(all), true) = (self, is_run && times < u64::from(HUGE)) else { return false };
        let times = times as u16;
        let start = first as usize + start as usize;
        let Some(numbers) = all.get_mut(start..start + count as usize) else { return false };
        let most = numbers.iter().copied().max().unwrap_or(0);
        if most >= HUGE - times {
            return false;
        }
        numbers.iter_mut().for_each(|number| *number += times);
        true
    }

    fn of(&self, at: u64, base: u64, huge: &BTreeMap<u64, u64>) -> u64 {
        let number = match self {
            Self::Few(few) => few.get(&(at as u16)).copied(),
            Self::All(all) => all.get(at as usize).copied(),
        };
        match number.unwrap_or(0) {
            HUGE => huge.get(&(base + at)).copied().unwrap_or(u64::MAX),
            number => number.into(),
        }
    }
}

fn each(mut bits: u64, mut visit: impl FnMut(u64)) {
    while bits != 0 {
        visit(u64::from(bits.trailing_zeros()));
        bits &= bits - 1;
    }
}

/// Counts references to a range in a sorted list.
fn merge(items: &mut Vec<Item>, range: Range<u64>, times: u64, marked: bool) {
    let from = items.partition_point(|item| item.cluster() < range.start);
    let to = items.partition_point(|item| item.cluster() < range.end);
    let mark = if marked { Item::MARKED } else { 0 };
    let mut known = items.get(from..to).unwrap_or_default().iter().peekable();
    let new: Vec<Item> = range
        .map(|cluster| {
            let old = known.next_if(|item| item.cluster() == cluster).copied().unwrap_or_default();
            let count = (old.count() + times).min(u64::from(Item::MOST)) as u32;
            Item((cluster as u32) << 16 | old.0 & Item::MARKED | mark | count)
        })
        .collect();
    items.splice(from..to, new);
}

/// Joins neighbours that are alike before they are told.
struct Joined<'r, F> {
    /// References that come on top: from each place on, so many.
    ranges: &'r [(u64, i64)],
    last: Option<CountedRun>,
    visit: F,
}

impl<F: FnMut(CountedRun)> Joined<'_, F> {
    #[inline]
    fn add(&mut self, clusters: Range<u64>, count: u64, marked: bool) {
        if self.ranges.is_empty() {
            return self.join(clusters, count, marked);
        }
        let mut from = clusters.start;
        let behind = self.ranges.partition_point(|(start, _)| *start <= from);
        let (before, ranges) = self.ranges.split_at(behind);
        let mut more = before.last().map_or(0, |(_, more)| *more);
        for &(start, next) in ranges.iter().take_while(|(start, _)| *start < clusters.end) {
            self.join(from..start, count.saturating_add_signed(more), marked);
            (from, more) = (start, next);
        }
        self.join(from..clusters.end, count.saturating_add_signed(more), marked);
    }

    #[inline]
    fn join(&mut self, clusters: Range<u64>, count: u64, marked: bool) {
        if clusters.is_empty() {
            return;
        }
        match &mut self.last {
            Some(last)
                if last.count == count && last.marked == marked && last.clusters.end == clusters.start =>
            {
                last.clusters.end = clusters.end;
            }
            last => {
                if let Some(run) = last.replace(CountedRun { clusters, count, marked }) {
                    (self.visit)(run);
                }
            }
        }
    }

    fn finish(mut self) {
        if let Some(run) = self.last.take() {
            (self.visit)(run);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn flat(counts: &ClusterCounts, range: Range<u64>) -> Vec<(u64, bool)> {
        let mut flat = Vec::new();
        let mut last: Option<CountedRun> = None;
        counts.runs(range.clone(), |run| {
            assert_eq!(run.clusters.start, last.as_ref().map_or(range.start, |last| last.clusters.end));
            assert!(last.as_ref().is_none_or(|last| (last.count, last.marked) != (run.count, run.marked)));
            flat.extend(run.clusters.clone().map(|_| (run.count, run.marked)));
            last = Some(run);
        });
        assert_eq!(flat.len() as u64, range.end - range.start);
        flat
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Beside a list of numbers, with chunks of all kinds.
        #[test]
        fn counts(
            dense in prop_oneof![Just(0), Just(FREE)],
            runs in proptest::collection::vec(
                (0..3 * CHUNK, prop_oneof![1..4u64, 1..6000u64], prop_oneof![Just(1), 1..5u64, Just(40_000), Just(70_000)], any::<bool>()),
                1..14,
            ),
            near in proptest::collection::vec((0..9u64, any::<bool>()), 0..20),
            ranges in proptest::collection::vec((0..3 * CHUNK, 1..2 * CHUNK, 1..4u64), 0..6),
        ) {
            let end = 3 * CHUNK;
            let mut counts = ClusterCounts { dense, ..ClusterCounts::new(end) };
            let mut model = vec![(0, false); end as usize];
            let near = near.into_iter().map(|(n, marked)| (CHUNK + n, 1, 1, marked));
            for (first, count, times, marked) in near.chain(runs) {
                let fast = count == 1 && times == 1 && marked && model[first as usize].0 == 0 && counts.add_new_marked(first);
                if !fast {
                    counts.add(first, count, times, marked);
                }
                for (number, has_mark) in model.iter_mut().skip(first as usize).take(count as usize) {
                    *number += times;
                    *has_mark |= marked;
                }
            }
            for (first, count, times) in ranges {
                counts.add_range(first, count, times);
                model.iter_mut().skip(first as usize).take(count as usize).for_each(|(number, _)| *number += times);
            }
            counts.settle();
            counts.add_range(0, LONG, 1);
            model.iter_mut().take(LONG as usize).for_each(|(number, _)| *number += 1);
            prop_assert_eq!(flat(&counts, 5..end - 5), &model[5..end as usize - 5]);
            prop_assert_eq!(counts.count(CHUNK), model[CHUNK as usize].0);
        }
    }

    #[test]
    fn what_lies_behind_the_end_is_ignored_until_it_does_not() {
        let mut counts = ClusterCounts::new(10);
        counts.add(9, u64::MAX, 1, false);
        counts.add(u64::MAX - 1, 100, 1, false);
        assert_eq!(flat(&counts, 8..12), [(0, false), (1, false), (0, false), (0, false)]);
        counts.extend(12);
        counts.add(10, 5, 2, true);
        assert_eq!(flat(&counts, 9..12), [(1, false), (2, true), (2, true)]);
    }

    #[test]
    fn memory_follows_what_is_counted() {
        // 16 TiB in 512 byte clusters, one of every 100,000 referred to.
        let mut counts = ClusterCounts::new(1 << 35);
        for cluster in (0..1 << 35).step_by(100_000) {
            counts.add(cluster, 1, 3, false);
        }
        let chunks = counts.slots.iter().flatten().flat_map(|slots| slots.iter()).flatten();
        let bytes = |chunk: &Chunk| match chunk {
            Chunk::Few(..) => 0,
            Chunk::List(items) => items.capacity() * 4 + 24,
            Chunk::Dense(_) => size_of::<Dense>(),
        };
        let slots = counts.slots.iter().flatten().count() * SLOTS as usize * size_of::<Option<Chunk>>();
        assert_eq!(size_of::<Option<Chunk>>(), 16);
        let sum = slots + chunks.map(bytes).sum::<usize>();
        assert!(sum < 14 << 20, "{sum} bytes");
    }
}
