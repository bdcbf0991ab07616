//! How often items are referred to.

use std::collections::BTreeMap;

/// Counts references to items. Those that are not counted here have one.
#[derive(Debug, Default)]
pub(super) struct References {
    /// Items in a row that have more than one; after [`sorted`](Self::sorted) ascending.
    runs: Vec<Run>,
    /// The items that compressed clusters are packed into.
    streams: BTreeMap<u64, u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    first: u64,
    count: u64,
    references: u64,
}

impl References {
    /// Counts all references to `count` items in a row, to which there are no others.
    pub(super) fn add(&mut self, first: u64, count: u64, references: u64) {
        if references > 1 {
            self.runs.push(Run { first, count, references });
        }
    }

    /// Counts the references to one of the streams of an item.
    pub(super) fn add_stream(&mut self, item: u64, references: u64) {
        *self.streams.entry(item).or_insert(0) += references;
    }

    /// Ends the counting.
    pub(super) fn sorted(mut self) -> Self {
        for (item, references) in std::mem::take(&mut self.streams) {
            self.add(item, 1, references);
        }
        self.runs.sort_unstable_by_key(|run| run.first);
        self.runs.dedup_by(|next, last| {
            let follows = last.first + last.count == next.first && last.references == next.references;
            if follows {
                last.count += next.count;
            }
            follows
        });
        self
    }

    /// Whether every item has one reference.
    pub(super) fn are_single(&self) -> bool {
        self.runs.is_empty()
    }

    /// The most that an item has.
    pub(super) fn max(&self) -> u64 {
        self.runs.iter().map(|run| run.references).max().unwrap_or(1)
    }

    /// The references to an item.
    pub(super) fn of(&self, item: u64) -> u64 {
        let behind = self.runs.partition_point(|run| run.first <= item);
        let run = behind.checked_sub(1).and_then(|index| self.runs.get(index));
        run.filter(|run| item - run.first < run.count).map_or(1, |run| run.references)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_add_up() {
        let mut references = References::default();
        references.add(10, 5, 2);
        references.add(3, 1, 1);
        references.add(5, 5, 2);
        references.add(1 << 62, 1, 7);
        for (item, count) in [(20, 1), (20, 3), (21, 1)] {
            references.add_stream(item, count);
        }
        let references = references.sorted();
        assert_eq!(references.runs.len(), 3);
        let of = [0, 3, 4, 5, 14, 15, 20, 21, 1 << 62].map(|item| references.of(item));
        assert_eq!(of, [1, 1, 1, 2, 2, 1, 4, 1, 7]);
        assert_eq!((references.max(), references.are_single()), (7, false));
        assert!(References::default().sorted().are_single());
    }
}
