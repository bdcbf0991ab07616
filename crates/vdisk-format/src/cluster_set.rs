//! [`ClusterSet`]: which clusters of a file are claimed. Memory follows what is in the set, not the length of the file.

use std::collections::BTreeMap;
use std::ops::Range;

/// Clusters that one chunk covers.
pub(crate) const CHUNK: u64 = 1 << 16;
/// Words of a dense chunk.
const WORDS: usize = (CHUNK / 64) as usize;
/// A sparse chunk holds two bytes a cluster, and becomes dense where it would hold more than a dense one.
const MOST_SPARSE: usize = WORDS * 8 / 2;
/// So many clusters fit in a slot.
const FEW: usize = 6;
/// Dense chunks are faster, and may take so much however little is in them: enough for 2 TiB in 64 KiB clusters.
const FREE: usize = 4 << 20;

/// So many chunks have a slot each, which is fast: enough for 4 TiB in 512-byte clusters. Those behind are looked up, for in
/// so long a file most of them have nothing.
const NEAR: u64 = 1 << 17;

/// A set of cluster numbers below a fixed end.
#[derive(Debug, Default)]
pub(crate) struct ClusterSet {
    near: Vec<Option<Chunk>>,
    far: BTreeMap<u64, Chunk>,
    /// How many chunks there may be.
    chunks: u64,
    /// How many chunks are dense.
    dense: usize,
    /// How many clusters were added to dense chunks, at least: what they saved, others may take.
    added: usize,
}

#[derive(Debug)]
enum Chunk {
    /// Sorted, as many as the first number says.
    Few(u8, [u16; FEW]),
    /// Sorted. In a box, so that a slot is small: there may be half a million empty ones.
    #[expect(clippy::box_collection, reason = "16 bytes a slot instead of 24")]
    Sparse(Box<Vec<u16>>),
    /// A bit a cluster.
    Dense(Box<[u64; WORDS]>),
}

impl ClusterSet {
    /// An empty set for clusters below `end`. Clusters from `end` on are ignored.
    pub(crate) fn new(end: u64) -> Self {
        let chunks = end.div_ceil(CHUNK);
        let mut near = Vec::new();
        near.resize_with(chunks.min(NEAR) as usize, || None);
        Self { near, far: BTreeMap::new(), chunks, dense: 0, added: 0 }
    }

    fn chunk(&self, index: u64) -> Option<&Chunk> {
        match self.near.get(index as usize) {
            Some(slot) => slot.as_ref(),
            None => self.far.get(&index),
        }
    }

    /// Adds `count` clusters from `first` on, and tells `seen` which of them were in the set already. Returns how many.
    pub(crate) fn insert(&mut self, first: u64, count: u64, mut seen: impl FnMut(Range<u64>)) -> u64 {
        let mut already = Pieces::default();
        for (index, part) in parts(first..first.saturating_add(count)) {
            if index >= self.chunks {
                break;
            }
            let base = index * CHUNK;
            let fill = (part.end - part.start) as usize;
            let has_room = self.dense * WORDS * 8 < FREE + 2 * self.added;
            let new = Chunk::Few(0, [0; FEW]);
            let chunk = match self.near.get_mut(index as usize) {
                Some(slot) => slot.get_or_insert(new),
                None => self.far.entry(index).or_insert(new),
            };
            let has = chunk.list().len();
            if !matches!(chunk, Chunk::Dense(_)) && (has_room || has + fill > MOST_SPARSE) {
                let mut words = empty();
                for &cluster in chunk.list() {
                    set(&mut words, cluster.into()..u64::from(cluster) + 1, |_| {});
                }
                *chunk = Chunk::Dense(words);
                self.dense += 1;
                self.added += has;
            } else if matches!(chunk, Chunk::Few(..)) && has + fill > FEW {
                *chunk = Chunk::Sparse(Box::new(chunk.list().to_vec()));
            }
            let mut found = |range: Range<u64>| already.add(base + range.start..base + range.end, &mut seen);
            match chunk {
                Chunk::Dense(words) => {
                    self.added += fill;
                    set(words, part, &mut found);
                }
                Chunk::Sparse(clusters) => merge(clusters, part, &mut found),
                Chunk::Few(count, few) => {
                    let mut list = few.iter().take((*count).into()).copied().collect();
                    merge(&mut list, part, &mut found);
                    *count = list.len() as u8;
                    few.iter_mut().zip(list).for_each(|(to, from)| *to = from);
                }
            }
        }
        already.finish(&mut seen)
    }

    /// Those of `clusters` that are named twice or more often. Clusters from `end` on are ignored.
    pub(crate) fn named_twice(clusters: impl Iterator<Item = u64>, end: u64) -> Self {
        let (mut once, mut twice) = (Self::new(end), Self::new(end));
        for cluster in clusters {
            if once.insert(cluster, 1, |_| {}) > 0 {
                twice.insert(cluster, 1, |_| {});
            }
        }
        twice
    }

    /// Adds a cluster that is not in the set, where that costs next to nothing. `false`: it did not, and the set is as
    /// it was; [`insert`](Self::insert) knows more.
    #[inline(always)]
    pub(crate) fn insert_new(&mut self, cluster: u64) -> bool {
        if let Some(Some(Chunk::Dense(words))) = self.near.get_mut((cluster / CHUNK) as usize)
            && let Some(word) = words.get_mut((cluster % CHUNK / 64) as usize)
        {
            let bit = 1 << (cluster % 64);
            let is_new = *word & bit == 0;
            *word |= bit;
            return is_new;
        }
        false
    }

    /// Notes how many clusters [`insert_new`](Self::insert_new) added: it has no time for that.
    pub(crate) fn note_added(&mut self, count: u64) {
        self.added += count as usize;
    }

    /// Whether any of `count` clusters from `first` on is in the set.
    pub(crate) fn intersects(&self, first: u64, count: u64) -> bool {
        // A claim may be for 2^64 bytes: behind its last chunk, the set has nothing.
        let end = first.saturating_add(count);
        if first >= end {
            return false;
        }
        let near = first..end.min(self.near.len() as u64 * CHUNK).max(first);
        parts(near).any(|(index, part)| self.chunk(index).is_some_and(|chunk| chunk.intersects(&part)))
            || !self.far.is_empty() && self.far_intersects(first..end)
    }

    fn far_intersects(&self, clusters: Range<u64>) -> bool {
        let chunks = clusters.start / CHUNK..clusters.end.div_ceil(CHUNK);
        self.far.range(chunks).any(|(index, chunk)| {
            let base = index * CHUNK;
            let part = clusters.start.saturating_sub(base)..(clusters.end - base).min(CHUNK);
            chunk.intersects(&part)
        })
    }

    /// Tells `absent` of each range of `clusters` that is not in the set. Returns how many clusters these are.
    pub(crate) fn gaps(&self, clusters: Range<u64>, mut absent: impl FnMut(Range<u64>)) -> u64 {
        let mut gaps = Pieces::default();
        for (index, part) in parts(clusters) {
            let base = index * CHUNK;
            let mut add = |range: Range<u64>| gaps.add(base + range.start..base + range.end, &mut absent);
            match self.chunk(index) {
                Some(Chunk::Dense(words)) => {
                    for (word, mask) in masks(part) {
                        let missing = !words.get(word).copied().unwrap_or(0) & mask;
                        bits(missing, word as u64 * 64, &mut add);
                    }
                }
                Some(chunk) => {
                    let mut at = part.start;
                    for cluster in chunk.list().iter().map(|&cluster| u64::from(cluster)) {
                        if part.contains(&cluster) {
                            add(at..cluster);
                            at = cluster + 1;
                        }
                    }
                    add(at..part.end);
                }
                None => add(part),
            }
        }
        gaps.finish(&mut absent)
    }
}

impl Chunk {
    /// The clusters of a chunk that is not dense, sorted.
    fn list(&self) -> &[u16] {
        match self {
            Self::Few(count, few) => few.get(..usize::from(*count)).unwrap_or_default(),
            Self::Sparse(clusters) => clusters,
            Self::Dense(_) => &[],
        }
    }

    /// Whether one of its clusters in `part` is there.
    fn intersects(&self, part: &Range<u64>) -> bool {
        if let Self::Dense(words) = self {
            return masks(part.clone())
                .any(|(word, mask)| words.get(word).is_some_and(|word| word & mask != 0));
        }
        let clusters = self.list();
        let at = clusters.partition_point(|&cluster| u64::from(cluster) < part.start);
        clusters.get(at).is_some_and(|&cluster| u64::from(cluster) < part.end)
    }
}

fn empty() -> Box<[u64; WORDS]> {
    Box::new([0; WORDS])
}

/// The chunks that a range touches, each with the part of the range that lies in it, from the chunk's start.
pub(crate) fn parts(clusters: Range<u64>) -> impl Iterator<Item = (u64, Range<u64>)> {
    let mut at = clusters.start;
    std::iter::from_fn(move || {
        let (index, start) = (at / CHUNK, at % CHUNK);
        let end = start.saturating_add(clusters.end.checked_sub(at).filter(|&left| left > 0)?).min(CHUNK);
        at += end - start;
        Some((index, start..end))
    })
}

/// The words that a range of bits touches, each with the mask of the bits concerned.
pub(crate) fn masks(bits: Range<u64>) -> impl Iterator<Item = (usize, u64)> {
    let words = bits.start / 64..bits.end.div_ceil(64);
    words.map(move |word| {
        let low = bits.start.saturating_sub(word * 64).min(63);
        let high = (bits.end - word * 64).min(64);
        (word as usize, (u64::MAX >> (64 - (high - low))) << low)
    })
}

/// Calls `add` with every run of ones in `word`, as a range that starts from `base`.
fn bits(mut word: u64, base: u64, add: &mut impl FnMut(Range<u64>)) {
    while word != 0 {
        let start = word.trailing_zeros();
        let length = (word >> start).trailing_ones();
        add(base + u64::from(start)..base + u64::from(start + length));
        word &= u64::MAX.checked_shl(start + length).unwrap_or(0);
    }
}

/// Sets a range of bits, and calls `seen` with those that were set already.
fn set(words: &mut [u64; WORDS], range: Range<u64>, mut seen: impl FnMut(Range<u64>)) {
    for (index, mask) in masks(range) {
        let Some(word) = words.get_mut(index) else { break };
        let already = *word & mask;
        *word |= mask;
        bits(already, index as u64 * 64, &mut seen);
    }
}

/// Adds a range to a sorted list, and calls `seen` with what was there already.
fn merge(list: &mut Vec<u16>, range: Range<u64>, mut seen: impl FnMut(Range<u64>)) {
    let from = list.partition_point(|&cluster| u64::from(cluster) < range.start);
    let to = list.partition_point(|&cluster| u64::from(cluster) < range.end);
    for &cluster in list.get(from..to).unwrap_or_default() {
        seen(cluster.into()..u64::from(cluster) + 1);
    }
    let more = (range.end - range.start) as usize - (to - from);
    if list.capacity() - list.len() < more {
        // Not twice as much, as a Vec would: two bytes a cluster are promised, and little more.
        list.reserve_exact(more + list.len() / 8);
    }
    list.splice(from..to, range.map(|cluster| cluster as u16));
}

/// Joins neighbouring ranges before they are told, and counts.
#[derive(Default)]
struct Pieces {
    last: Range<u64>,
    count: u64,
}

impl Pieces {
    fn add(&mut self, range: Range<u64>, tell: &mut impl FnMut(Range<u64>)) {
        self.count += range.end.saturating_sub(range.start);
        if self.last.end == range.start {
            self.last.end = range.end;
        } else if !range.is_empty() {
            if !self.last.is_empty() {
                tell(self.last.clone());
            }
            self.last = range;
        }
    }

    fn finish(self, tell: &mut impl FnMut(Range<u64>)) -> u64 {
        if !self.last.is_empty() {
            tell(self.last);
        }
        self.count
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    fn flat(ranges: &[Range<u64>]) -> Vec<u64> {
        ranges.iter().cloned().flatten().collect()
    }

    #[test]
    fn a_range_to_the_end_of_numbers_costs_no_more_than_the_set() {
        let mut set = ClusterSet::new(2 * CHUNK);
        assert!(!set.intersects(0, u64::MAX) && !set.intersects(u64::MAX - 1, u64::MAX));
        set.insert(CHUNK, 1, |_| {});
        assert!(set.intersects(0, u64::MAX) && !set.intersects(CHUNK + 1, u64::MAX));
    }

    #[test]
    fn a_range_of_nothing_is_nowhere() {
        let mut set = ClusterSet::new((NEAR + 2) * CHUNK);
        for cluster in [CHUNK + 5, NEAR * CHUNK + 5] {
            set.insert(cluster, 1, |_| {});
            assert!(set.intersects(cluster, 1) && !set.intersects(cluster, 0));
            assert!(!set.intersects(cluster + 1, CHUNK) && !set.intersects(cluster - 5, 5));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Beside a set of numbers, with chunks that are dense, sparse, and sparse until they are full.
        #[test]
        fn is_a_set(
            dense in prop_oneof![Just(0), Just(FREE)],
            base in prop_oneof![Just(0), Just((NEAR - 1) * CHUNK), Just(NEAR * CHUNK)],
            runs in proptest::collection::vec((0..3 * CHUNK, prop_oneof![1..4u64, 1..6000u64]), 1..12),
            near in proptest::collection::vec(0..9u64, 0..20),
        ) {
            let end = base + 3 * CHUNK;
            let mut set = ClusterSet { dense, ..ClusterSet::new(end) };
            let mut model = BTreeSet::new();
            for (first, count) in near.into_iter().map(|n| (CHUNK + n, 1)).chain(runs) {
                let first = base + first;
                let count = count.min(end - first);
                let expected: Vec<u64> = (first..first + count).filter(|n| model.contains(n)).collect();
                prop_assert_eq!(set.intersects(first, count), !expected.is_empty());
                let mut seen = Vec::new();
                let already = set.insert(first, count, |range| seen.push(range));
                prop_assert_eq!(already, expected.len() as u64);
                prop_assert_eq!(flat(&seen), expected);
                prop_assert!(seen.windows(2).all(|pair| pair[0].end < pair[1].start), "joined: {:?}", seen);
                model.extend(first..first + count);
            }
            let all = base + 5..end - 5;
            let expected: Vec<u64> = all.clone().filter(|n| !model.contains(n)).collect();
            let mut gaps = Vec::new();
            prop_assert_eq!(set.gaps(all, |range| gaps.push(range)), expected.len() as u64);
            prop_assert_eq!(flat(&gaps), expected);
            prop_assert!(gaps.windows(2).all(|pair| pair[0].end < pair[1].start), "joined: {:?}", gaps);
        }
    }

    #[test]
    fn what_lies_behind_the_end_is_ignored() {
        let mut set = ClusterSet::new(10);
        assert_eq!(set.insert(u64::MAX - 1, 100, |_| {}), 0);
        assert_eq!(set.gaps(0..10, |_| {}), 10);
    }

    #[test]
    fn memory_follows_what_is_in_it() {
        // 16 TiB in 4 KiB clusters, one of every thousand in use.
        let mut set = ClusterSet::new(1 << 32);
        for cluster in (0..1 << 32).step_by(1000) {
            set.insert(cluster, 1, |_| {});
        }
        let bytes: usize = set
            .near
            .iter()
            .flatten()
            .chain(set.far.values())
            .map(|chunk| match chunk {
                Chunk::Dense(_) => WORDS * 8,
                Chunk::Sparse(list) => list.capacity() * 2,
                Chunk::Few(..) => 0,
            })
            .sum();
        assert!(bytes < 4_300_000 * 9 / 4 + (4 << 20), "{bytes} bytes");
    }
}
