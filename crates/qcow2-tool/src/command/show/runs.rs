//! Runs of entries of L1 and refcount tables: all equal, or each a cluster further than the one before.

/// Entries that follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) index: u64,
    pub(super) count: u64,
    /// The first entry.
    pub(super) first: u64,
    /// How much further each is than the one before: a cluster, or 0.
    pub(super) step: u64,
}

impl Run {
    /// The run's part from `index` on, `count` entries of it.
    pub(super) fn part(self, (index, count): (u64, u64)) -> Self {
        let skipped = index.saturating_sub(self.index);
        Self { index, count, first: self.entry(skipped), step: self.step }
    }

    fn entry(&self, i: u64) -> u64 {
        self.first.wrapping_add(i.wrapping_mul(self.step))
    }

    pub(super) fn last(&self) -> u64 {
        self.entry(self.count - 1)
    }
}

/// The runs of a table of `end` entries, of which `entries` are those that are not 0. `offset` is what an entry points to.
pub(super) fn runs(
    entries: impl Iterator<Item = (u64, u64)>,
    end: u64,
    cluster_size: u64,
    offset: fn(u64) -> u64,
) -> impl Iterator<Item = Run> {
    let mut entries = entries.peekable();
    let mut next = 0;
    std::iter::from_fn(move || {
        let behind_hole = entries.peek().map_or(end, |&(index, _)| index);
        if behind_hole > next {
            let hole = Run { index: next, count: behind_hole - next, first: 0, step: 0 };
            next = behind_hole;
            return Some(hole);
        }
        let (index, first) = entries.next()?;
        let mut run = Run { index, count: 1, first, step: 0 };
        while let Some(&(_, entry)) = entries.peek().filter(|(other, _)| *other == index + run.count) {
            // The second entry decides.
            if run.count == 1 && entry == first.wrapping_add(cluster_size) && offset(first) != 0 {
                run.step = cluster_size;
            }
            let is_next = entry == run.entry(run.count)
                && offset(first).checked_add(run.count * run.step) == Some(offset(entry));
            if !is_next {
                break;
            }
            entries.next();
            run.count += 1;
        }
        next = index + run.count;
        Some(run)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(entries: &[u64]) -> Vec<(u64, u64, u64, u64)> {
        let used = (0..).zip(entries.iter().copied()).filter(|(_, entry)| *entry != 0);
        let runs = runs(used, entries.len() as u64, 512, |entry| entry & !0x1ff & !(1 << 63));
        runs.map(|run| (run.index, run.count, run.first, run.step)).collect()
    }

    #[test]
    fn runs_are_of_one_kind() {
        let copied = 1 << 63;
        assert_eq!(
            of(&[0, 0, 512, 1024, 1536, 1536, 1536, copied | 512, copied | 1024, 0]),
            [(0, 2, 0, 0), (2, 3, 512, 512), (5, 2, 1536, 0), (7, 2, copied | 512, 512), (9, 1, 0, 0)]
        );
        // A flag alone is no offset, and no run goes on into the flags.
        assert_eq!(of(&[copied, copied | 512]).len(), 2);
        assert_eq!(of(&[(1 << 63) - 512, 1 << 63, 512]).len(), 3);
    }

    #[test]
    fn parts_of_runs_begin_where_they_should() {
        let run = Run { index: 5, count: 10, first: 512, step: 512 };
        let part = run.part((7, 3));
        assert_eq!((part.first, part.last()), (3 * 512, 5 * 512));
    }
}
