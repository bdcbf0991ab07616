//! [`segments`]: tables that overlap, cut so that each entry is read once.

use std::collections::BTreeMap;

use crate::qcow2::geometry::Area;

/// A part of the file, and how many tables it is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::qcow2) struct Segment {
    pub(in crate::qcow2) area: Area,
    pub(in crate::qcow2) times: u64,
}

/// The parts of `tables`, each once, in the order of the file. What an entry of an L1 or a bitmap table says does not
/// depend on where the table begins: a thousand tables that overlap cost what they are long together.
pub(in crate::qcow2) fn segments(tables: impl IntoIterator<Item = Area>) -> Vec<Segment> {
    let mut changes: BTreeMap<u64, i64> = BTreeMap::new();
    for table in tables.into_iter().filter(|table| table.length > 0) {
        *changes.entry(table.offset.0).or_default() += 1;
        *changes.entry(table.end()).or_default() -= 1;
    }
    let mut segments = Vec::new();
    let mut times = 0i64;
    let mut changes = changes.into_iter().peekable();
    while let Some((start, change)) = changes.next() {
        times += change;
        if let (Some(&(end, _)), Ok(times @ 1..)) = (changes.peek(), u64::try_from(times)) {
            segments.push(Segment { area: Area::new(start, end - start), times });
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
                let claims = tables.iter().filter(|&&(start, length)| (start..start + length).contains(&at)).count();
                let found: Vec<u64> = segments
                    .iter()
                    .filter(|segment| (segment.area.offset.0..segment.area.end()).contains(&at))
                    .map(|segment| segment.times)
                    .collect();
                prop_assert_eq!(found, if claims > 0 { vec![claims as u64] } else { vec![] });
            }
        }
    }

    #[test]
    fn tables_reach_to_the_end_of_numbers() {
        let found = segments([Area::new(u64::MAX - 8, 100), Area::new(0, 0)]);
        assert_eq!(found, [Segment { area: Area::new(u64::MAX - 8, 8), times: 1 }]);
    }
}
