//! [`Blank`]: replaces what in a table might be a guest's data.

use crate::qed::geometry::Geometry;

/// Where replaced offsets begin: behind the end of every file, and of every header.
const ALIGNED: u64 = 1 << 62;
const UNALIGNED: u64 = (1 << 61) + 2;
/// An offset that is smaller than a cluster.
const SMALL: u64 = 2;
/// Entries that are judged at once.
const AT_ONCE: usize = 16;

/// Replaces entries, in the order of their tables. What follows the entry before it still does, and what does not, does
/// not, so that fragments are counted as before.
pub(super) struct Blank {
    cluster_size: u64,
    /// Below it, an aligned offset says nothing but where a cluster of the file is.
    end: u64,
    /// The last offset, as it was and as it is.
    last: Option<(u64, u64)>,
    aligned: u64,
    unaligned: u64,
    replaced: u64,
}

impl Blank {
    pub(super) fn new(geometry: Geometry) -> Self {
        Self {
            cluster_size: geometry.cluster_size(),
            end: geometry.file_end().0.max(geometry.header_end().0),
            last: None,
            aligned: ALIGNED,
            unaligned: UNALIGNED,
            replaced: 0,
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
            if bits & (self.cluster_size - 1) == 0 && most < self.end {
                let last = chunk.iter().map(value).rfind(|&value| value != 0);
                self.last = last.map(|value| (value, value)).or(self.last);
                continue;
            }
            for entry in chunk {
                *entry = self.entry(value(entry)).to_le_bytes();
            }
        }
    }

    fn entry(&mut self, value: u64) -> u64 {
        let size = self.cluster_size;
        let is_aligned = value & (size - 1) == 0;
        if value < 2 {
            return value;
        }
        let new = match self.last {
            _ if is_aligned && value < self.end => value,
            Some((last, new)) if last.wrapping_add(size) == value => new.wrapping_add(size),
            _ if value < size => SMALL,
            _ if is_aligned => self.aligned,
            _ => self.unaligned,
        };
        self.replaced += u64::from(new != value);
        // The next one must not seem to follow this one.
        if new >= ALIGNED {
            self.aligned = new + 2 * size;
        } else if new >= UNALIGNED {
            self.unaligned = new + 2 * size;
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
                prop_assert!(is_public || goes_on || new >= UNALIGNED || new % 4096 == SMALL, "{:#x} is told", old);
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
