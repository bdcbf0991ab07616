//! [`L2Tables`]: which L2 tables the L1 tables name, and how often.

/// How many L1 entries refer to an L2 table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::qcow2) struct Referrers {
    /// Of the active L1 table.
    pub(in crate::qcow2) active: u64,
    /// Of the snapshots' L1 tables.
    pub(in crate::qcow2) snapshots: u64,
}

impl Referrers {
    pub(in crate::qcow2) fn all(self) -> u64 {
        self.active.saturating_add(self.snapshots)
    }

    fn add(&mut self, more: Self) {
        self.active += more.active;
        self.snapshots += more.snapshots;
    }
}

/// So many may be added before they are sorted.
const MOST_NEW: usize = 1 << 12;

/// The L2 tables, by their offsets. A list that is sorted now and then takes half the memory of a map, and a fraction of its
/// time; a table of a thousand snapshots is in it once all the same.
#[derive(Debug, Default)]
pub(in crate::qcow2) struct L2Tables {
    tables: Vec<(u64, Referrers)>,
    /// How many of them are sorted, and each there once.
    settled: usize,
}

impl L2Tables {
    /// One more entry that names a table.
    pub(in crate::qcow2) fn add(&mut self, table: u64, by: Referrers) {
        if self.tables.len() - self.settled > MOST_NEW.max(self.settled) {
            self.settle();
        }
        self.tables.push((table, by));
    }

    /// No more are to come, for now: all that follows is for those that are settled.
    pub(in crate::qcow2) fn settle(&mut self) {
        self.tables.sort_unstable_by_key(|(table, _)| *table);
        self.tables.dedup_by(|(next, more), (table, by)| {
            let is_same = next == table;
            if is_same {
                by.add(*more);
            }
            is_same
        });
        self.settled = self.tables.len();
    }

    pub(in crate::qcow2) fn len(&self) -> usize {
        self.tables.len()
    }

    /// In the order of the file.
    pub(in crate::qcow2) fn iter(&self) -> impl Iterator<Item = (u64, Referrers)> {
        self.tables.iter().copied()
    }

    /// Who refers to a table; `None`: nobody.
    pub(in crate::qcow2) fn get(&self, table: u64) -> Option<Referrers> {
        let at = self.tables.binary_search_by_key(&table, |(table, _)| *table).ok()?;
        self.tables.get(at).map(|(_, by)| *by)
    }

    /// Forgets those that `is_kept` says so of, which is asked in the order of the file.
    pub(in crate::qcow2) fn retain(&mut self, mut is_kept: impl FnMut(u64) -> bool) {
        self.tables.retain(|(table, _)| is_kept(*table));
        self.settled = self.tables.len();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Beside a map; more than are added before they are sorted.
        #[test]
        fn each_table_is_there_once(
            named in proptest::collection::vec((0..200u64, 0..3u64, 0..3u64), 0..400),
            rounds in 1..60u64,
        ) {
            let (mut tables, mut map) = (L2Tables::default(), BTreeMap::<u64, Referrers>::new());
            for (round, &(table, active, snapshots)) in (0..rounds).flat_map(|n| named.iter().map(move |t| (n, t))) {
                let (table, by) = (table << (round % 3), Referrers { active, snapshots });
                tables.add(table, by);
                map.entry(table).or_default().add(by);
            }
            prop_assert!(tables.len() <= 2 * map.len().max(MOST_NEW) + 1);
            tables.settle();
            prop_assert!(tables.iter().eq(map.clone()));
            for table in 0..900 {
                prop_assert_eq!(tables.get(table), map.get(&table).copied());
            }
            tables.retain(|table| table % 2 == 0);
            map.retain(|table, _| table % 2 == 0);
            prop_assert!(tables.iter().eq(map));
        }
    }
}
