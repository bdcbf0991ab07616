//! [`Blank`]: replaces what in a table might be a guest's data.

use crate::cluster_set::ClusterSet;
use crate::qed::geometry::Geometry;

/// An offset that is smaller than a cluster, and no multiple of one.
const SMALL: u64 = 2;
/// Bits of the filter: 64 KiB.
const FILTER: usize = 1 << 19;
/// Entries that are judged at once.
const AT_ONCE: usize = 16;

/// Replaces entries, in the order of their tables. What follows the entry before it still does, and what does not, does
/// not, so that fragments are counted as before.
///
/// What an entry is replaced by is the smallest offset that is wrong in the same way, or the next one, where the smallest
/// would follow the entry before it. So it is no larger than the entry was, and fits where the file cuts it short.
pub(super) struct Blank {
    cluster_size: u64,
    /// Below it, an aligned offset says nothing but where a cluster of the file is.
    file_end: u64,
    /// From here on, an aligned offset is neither in the file nor in the header.
    past_end: u64,
    /// The last offset, as it was and as it is.
    last: Option<(u64, u64)>,
    replaced: u64,
    cluster_bits: u32,
    watched: ClusterSet,
    /// A bit for each watched cluster number, and for all that end in the same bits: most questions end here.
    filter: Vec<u64>,
    found: Vec<u64>,
}

impl Blank {
    pub(super) fn new(geometry: Geometry) -> Self {
        // A header of no cluster does not make an offset of 0 right.
        let file_end = geometry.file_end().0.max(geometry.cluster_size());
        let past_end = geometry.header_end().0.max(file_end);
        Self {
            cluster_size: geometry.cluster_size(),
            file_end,
            past_end,
            last: None,
            replaced: 0,
            cluster_bits: geometry.cluster_bits(),
            watched: ClusterSet::new(geometry.clusters()),
            filter: vec![0; FILTER / 64],
            found: Vec::new(),
        }
    }

    /// Notes clusters, to tell from now on when an entry names one.
    pub(super) fn watch(&mut self, first: u64, count: u64) {
        self.watched.insert(first, count, |_| {});
        for cluster in first..first + count {
            let bit = cluster as usize % FILTER;
            if let Some(word) = self.filter.get_mut(bit / 64) {
                *word |= 1 << (bit % 64);
            }
        }
    }

    /// The watched clusters that entries named since the last call.
    pub(super) fn watched(&mut self) -> Vec<u64> {
        let mut found = std::mem::take(&mut self.found);
        found.retain(|&cluster| self.watched.intersects(cluster, 1));
        found
    }

    fn note(&mut self, value: u64) {
        let cluster = value >> self.cluster_bits;
        let bit = cluster as usize % FILTER;
        if self.filter.get(bit / 64).is_some_and(|word| word >> (bit % 64) & 1 != 0) && value != 0 {
            self.found.push(cluster);
        }
    }

    /// Entries that were replaced so far.
    pub(super) fn replaced(&self) -> u64 {
        self.replaced
    }

    pub(super) fn entries(&mut self, entries: &mut [[u8; 8]]) {
        for chunk in entries.chunks_mut(AT_ONCE) {
            let value = |entry: &[u8; 8]| u64::from_le_bytes(*entry);
            let (bits, most) = chunk
                .iter()
                .fold((0, 0), |(bits, most), entry| (bits | value(entry), value(entry).max(most)));
            if bits & (self.cluster_size - 1) == 0 && most < self.file_end {
                if most == 0 {
                    continue;
                }
                chunk.iter().for_each(|entry| self.note(value(entry)));
                let last = chunk.iter().map(value).rfind(|&value| value != 0);
                self.last = last.map(|value| (value, value)).or(self.last);
                continue;
            }
            for entry in chunk {
                *entry = self.entry(value(entry)).to_le_bytes();
            }
        }
    }

    /// What an entry is replaced by.
    pub(super) fn entry(&mut self, value: u64) -> u64 {
        let size = self.cluster_size;
        let is_aligned = value & (size - 1) == 0;
        if value < 2 {
            return value;
        }
        let new = match self.last {
            _ if is_aligned && value < self.file_end => value,
            // As long as that is wrong in the same way.
            Some((last, new))
                if last.wrapping_add(size) == value
                    && (!is_aligned
                        || (new.wrapping_add(size) < self.past_end) == (value < self.past_end)) =>
            {
                new.wrapping_add(size)
            }
            last => {
                let smallest = match value {
                    _ if value < size => SMALL,
                    _ if !is_aligned => size + SMALL,
                    _ if value < self.past_end => self.file_end,
                    _ => self.past_end,
                };
                let follows = last.is_some_and(|(_, new)| new.wrapping_add(size) == smallest);
                if follows { smallest + size } else { smallest }
            }
        };
        if new == value {
            self.note(value);
        } else {
            self.replaced += 1;
        }
        self.last = Some((value, new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qed::header::{Header, HeaderFields};
    use proptest::prelude::*;

    fn geometry() -> Geometry {
        let mut bytes =
            HeaderFields { cluster_size: 4096, table_size: 1, header_size: 1, ..Default::default() }
                .to_bytes();
        bytes.resize(20 * 4096, 0);
        Geometry::new(&Header::parse(&bytes).unwrap()).unwrap()
    }

    proptest! {
        #[test]
        fn what_is_wrong_stays_wrong_in_the_same_way(
            runs in proptest::collection::vec((prop_oneof![0..3u64, (0..40u64).prop_map(|n| n << 12), any::<u64>(), 0..5000u64], 1..20u64), 0..20)
        ) {
            let geometry = geometry();
            let before: Vec<u64> = runs.iter()
                .flat_map(|&(value, count)| (0..count).map(move |i| if value < 2 { value } else { value.wrapping_add(i << 12) }))
                .collect();
            let mut bytes: Vec<[u8; 8]> = before.iter().map(|value| value.to_le_bytes()).collect();
            // In pieces, as a table is read.
            bytes.chunks_mut(50).scan(Blank::new(geometry), |blank, piece| { blank.entries(piece); Some(()) }).for_each(drop);
            let after: Vec<u64> = bytes.iter().map(|entry| u64::from_le_bytes(*entry)).collect();
            let (mut last, mut new_last) = (None, None);
            for (&old, &new) in before.iter().zip(&after) {
                prop_assert_eq!(geometry.entry(old), geometry.entry(new), "{:#x} became {:#x}", old, new);
                prop_assert_eq!(geometry.table_offset(old), geometry.table_offset(new));
                prop_assert_eq!(old < 4096, new < 4096, "{:#x} became {:#x}", old, new);
                let is_public = old < 2 || old % 4096 == 0 && old < 20 << 12;
                let goes_on = last == new_last && last.is_some_and(|last: u64| last.wrapping_add(4096) == old);
                let is_standard = new % 4096 == SMALL || (20 << 12..22 << 12).contains(&new);
                let first = new_last.is_none_or(|last: u64| last.wrapping_add(4096) != new);
                prop_assert!(is_public || goes_on || is_standard || !first, "{:#x} is told", old);
                prop_assert!(!is_public || old == new, "{:#x} became {:#x}", old, new);
                if old > 1 {
                    let follows = |last: Option<u64>, value| last.is_some_and(|last| last.wrapping_add(4096) == value);
                    prop_assert_eq!(follows(last, old), follows(new_last, new), "{:#x} became {:#x}", old, new);
                    (last, new_last) = (Some(old), Some(new));
                }
            }
        }
    }
}
