//! [`segments`]: tables that overlap, cut so that each entry is read once.

use std::collections::{BTreeMap, BTreeSet};

use crate::qcow2::geometry::Area;

/// A part of the file, and the tables that it is part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::qcow2) struct Segment {
    pub(in crate::qcow2) area: Area,
    /// How many tables.
    pub(in crate::qcow2) times: u64,
    /// The first of them, as they were given: [`MOST_TABLES`] at most.
    pub(in crate::qcow2) tables: Vec<usize>,
}

/// How many tables a segment names.
pub(in crate::qcow2) const MOST_TABLES: usize = 4;

/// The parts of `tables`, each once, in the order of the file. What an entry of an L1 or a bitmap table says does not
/// depend on where the table begins: a thousand tables that overlap cost what they are long together.
pub(in crate::qcow2) fn segments(tables: impl IntoIterator<Item = Area>) -> Vec<Segment> {
    // Where which tables end, and begin.
    let mut changes: BTreeMap<u64, [Vec<usize>; 2]> = BTreeMap::new();
    for (number, table) in tables.into_iter().enumerate().filter(|(_, table)| table.length > 0) {
        let [_, begin] = changes.entry(table.offset.0).or_default();
        begin.push(number);
        let [end, _] = changes.entry(table.end()).or_default();
        end.push(number);
    }
    let mut segments = Vec::new();
    let mut open = BTreeSet::new();
    let mut changes = changes.into_iter().peekable();
    while let Some((start, [ended, begun])) = changes.next() {
        for number in &ended {
            open.remove(number);
        }
        open.extend(begun);
        if let Some(&(end, _)) = changes.peek().filter(|_| !open.is_empty()) {
            segments.push(Segment {
                area: Area::new(start, end - start),
                times: open.len() as u64,
                tables: open.iter().copied().take(MOST_TABLES).collect(),
            });
        }
    }
    segments
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_byte_is_there_once_and_as_often_as_it_is_claimed(
            tables in proptest::collection::vec((0..60u64, 0..20u64), 0..12),
        ) {
            let segments = segments(tables.iter().map(|&(start, length)| Area::new(start, length)));
            for at in 0..90 {
                let claim = |&number: &usize| {
                    let (start, length) = tables[number];
                    (start..start + length).contains(&at)
                };
                let mut claims: Vec<usize> = (0..tables.len()).filter(claim).collect();
                let found: Vec<_> = segments
                    .iter()
                    .filter(|segment| (segment.area.offset.0..segment.area.end()).contains(&at))
                    .map(|segment| (segment.times, segment.tables.clone()))
                    .collect();
                let times = claims.len() as u64;
                claims.truncate(MOST_TABLES);
                prop_assert_eq!(found, if times > 0 { vec![(times, claims)] } else { vec![] });
            }
        }
    }

    #[test]
    fn tables_reach_to_the_end_of_numbers() {
        let found = segments([Area::new(u64::MAX - 8, 100), Area::new(0, 0)]);
        assert_eq!(found, [Segment { area: Area::new(u64::MAX - 8, 8), times: 1, tables: vec![0] }]);
    }
}
