//! The images of a chain, one on top of the other.

use tool_support::image::map::MapEntry;

use super::layer::{Entries, Entry, Wrong};

/// One image, and how far it was read.
struct Layer<'l> {
    size: u64,
    entries: Entries<'l>,
    current: Option<Entry>,
}

/// What the disk has that `layers` make together, each with its size, the image itself first. All are read side by side,
/// from their start to their end.
pub(super) fn stacked(layers: Vec<(u64, Entries<'_>)>) -> impl Iterator<Item = Entry> + '_ {
    let layers = layers.into_iter().map(|(size, entries)| Layer { size, entries, current: None });
    let mut layers: Vec<_> = layers.collect();
    let mut at = 0;
    std::iter::from_fn(move || {
        let entry = entry_at(&mut layers, at)?;
        at += entry.entry.length;
        Some(entry)
    })
}

/// What is wrong comes with it if it is what is read there, in whichever image; what lies hidden below is nobody's concern.
fn entry_at(layers: &mut [Layer<'_>], at: u64) -> Option<Entry> {
    let mut above: Option<Entry> = None;
    for (layer, depth) in layers.iter_mut().zip(0..) {
        let Some(Entry { entry, wrong }) = layer.entry_at(at) else {
            // Behind the end of a backing file there are zeroes, which it does not have.
            return above.map(|above| Entry { entry: MapEntry { zero: true, ..above.entry }, ..above });
        };
        let length = above.map_or(entry.length, |above| above.entry.length.min(entry.length));
        let wrong = wrong.map(|wrong| Wrong { depth, ..wrong });
        let entry = MapEntry { depth, length, ..entry };
        let entry = Entry { entry, wrong: above.and_then(|above| above.wrong).or(wrong) };
        if entry.entry.present || entry.entry.zero {
            return Some(entry);
        }
        above = Some(entry);
    }
    above
}

impl Layer<'_> {
    /// What is at `at`; `None` behind the end. It is asked for places further and further behind.
    fn entry_at(&mut self, at: u64) -> Option<Entry> {
        if at >= self.size {
            return None;
        }
        while self.current.is_none_or(|Entry { entry, .. }| entry.start + entry.length <= at) {
            self.current = Some(self.entries.next()?);
        }
        let Entry { entry, wrong } = self.current?;
        let MapEntry { start, length, offset, .. } = entry;
        let skipped = at.checked_sub(start)?;
        let offset = offset.map(|offset| offset.saturating_add(skipped));
        let wrong = wrong.map(|wrong| Wrong { start: at, ..wrong });
        Some(Entry { entry: MapEntry { start: at, length: length - skipped, offset, ..entry }, wrong })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UNIT: u64 = 512;

    /// A layer in which each sector is unallocated (0), zero (1) or data, and offsets are those of a raw file.
    fn layer(kinds: &[u8]) -> (u64, Entries<'static>) {
        let entries: Vec<_> = (0..).zip(kinds).map(|(index, kind)| entry(index, *kind)).collect();
        let joined = tool_support::image::map::joined(entries.into_iter());
        (kinds.len() as u64 * UNIT, Box::new(joined.map(|entry| Entry { entry, wrong: None })))
    }

    fn entry(index: u64, kind: u8) -> MapEntry {
        let start = index * UNIT;
        let entry = MapEntry { start, length: UNIT, ..MapEntry::default() };
        match kind {
            0 => entry,
            1 => MapEntry { present: true, zero: true, ..entry },
            _ => MapEntry { present: true, data: true, offset: Some(start), ..entry },
        }
    }

    proptest! {
        #[test]
        fn the_first_layer_that_knows_is_asked(
            layers in proptest::collection::vec(proptest::collection::vec(0..3u8, 0..12), 1..5)
        ) {
            let found: Vec<_> = stacked(layers.iter().map(|kinds| layer(kinds)).collect()).collect();
            let mut index = 0;
            for Entry { entry: piece, .. } in found {
                prop_assert_eq!(piece.start, index * UNIT);
                for sector in 0..piece.length / UNIT {
                    let depth = piece.depth as usize;
                    let at = (index + sector) as usize;
                    prop_assert!(layers[..depth].iter().all(|kinds| kinds.get(at) == Some(&0)));
                    let ends_below = layers.get(depth + 1).is_some_and(|kinds| at >= kinds.len());
                    let expected = entry(at as u64, layers[depth][at]);
                    let zero = expected.zero || (ends_below && layers[depth][at] == 0);
                    prop_assert_eq!((piece.present, piece.zero, piece.data), (expected.present, zero, expected.data));
                    prop_assert_eq!(piece.offset.map(|offset| offset + sector * UNIT), expected.offset);
                }
                index += piece.length / UNIT;
            }
            prop_assert_eq!(index, layers[0].len() as u64);
        }
    }
}
