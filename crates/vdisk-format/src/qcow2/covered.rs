//! [`Covered`]: what was read already, so that tables that overlap are read once.

use std::collections::BTreeMap;

use crate::qcow2::geometry::Area;

/// Parts of the file, none of which touches another: where each starts, and where it ends.
#[derive(Debug, Default)]
pub(super) struct Covered(BTreeMap<u64, u64>);

impl Covered {
    /// Adds `area`: the parts of it that are new, in order.
    pub(super) fn add(&mut self, area: Area) -> Vec<Area> {
        let (start, end) = (area.offset.0, area.end());
        if start == end {
            return Vec::new();
        }
        let before = self.0.range(..start).next_back().filter(|(_, last)| **last >= start);
        let first = before.map_or(start, |(&first, _)| first);
        let (mut new, mut at, mut last) = (Vec::new(), start, end);
        while let Some((&from, &to)) = self.0.range(first..=end).next() {
            if from > at {
                new.push(Area::new(at, from - at));
            }
            (at, last) = (at.max(to), last.max(to));
            self.0.remove(&from);
        }
        if at < end {
            new.push(Area::new(at, end - at));
        }
        self.0.insert(first, last);
        new
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_byte_is_new_once(areas in proptest::collection::vec((0..60u64, 0..20u64), 0..12)) {
            let mut covered = Covered::default();
            let mut seen = [false; 90];
            for (start, length) in areas {
                let new = covered.add(Area::new(start, length));
                for at in 0..90 {
                    let is_new = (start..start + length).contains(&at) && !seen[at as usize];
                    let found = new.iter().filter(|part| (part.offset.0..part.end()).contains(&at)).count();
                    prop_assert_eq!(found, usize::from(is_new));
                }
                (start..start + length).for_each(|at| seen[at as usize] = true);
            }
            prop_assert!(covered.0.iter().zip(covered.0.iter().skip(1)).all(|((_, end), (start, _))| end < start));
        }
    }
}
