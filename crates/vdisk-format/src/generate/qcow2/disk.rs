//! The disk as it changes from snapshot to snapshot: which clusters are written anew, which are shared.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Qcow2;
use super::compress::compress;
use super::geometry::Geometry;
use super::packer::{Packer, Stream};
use super::place::Items;
use super::references::References;
use crate::generate::GenerateError;
use crate::generate::guest::{Contents, Extent, Operation};
use crate::generate::tables;

/// The state of the disk after some steps. A step is what happens between two snapshots.
///
/// This is gone through twice, with the same result: to count what there will be, and to write it.
#[derive(Debug)]
pub(super) struct Disk<'a> {
    geometry: Geometry,
    compression_type: u8,
    /// Whether the data is in an external file.
    external: bool,
    contents: Contents<'a>,
    /// By the first guest cluster. None reaches over the end of its L2 table.
    runs: BTreeMap<u64, Run>,
    /// By the index of the L1 entry.
    tables: BTreeMap<u64, Table>,
    /// The number of the current step. The first one has number 1.
    step: u64,
    items: Items,
    packer: Packer,
    references: References,
}

/// An L2 table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table {
    /// Its number among the items.
    pub(super) item: u64,
    /// The number of the step that wrote it.
    pub(super) since: u64,
}

/// Guest clusters in a row that have the same state.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    /// The number of clusters.
    pub(super) count: u64,
    /// As in an [`Extent`].
    pub(super) subclusters: u64,
    pub(super) place: Place,
    /// The number of the step that wrote it.
    pub(super) since: u64,
}

/// Where the clusters of a run are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    Nowhere,
    /// At their guest offset in the external data file.
    External,
    /// In the item of this number, and those that follow.
    Items(u64),
    /// Only one cluster.
    Compressed(Stream),
}

impl<'a> Disk<'a> {
    /// An empty disk before the first step.
    pub(super) fn new(wanted: &Qcow2, geometry: Geometry) -> Self {
        Disk {
            geometry,
            compression_type: wanted.compression_type,
            external: wanted.data_file.is_some(),
            contents: Contents::default(),
            runs: BTreeMap::new(),
            tables: BTreeMap::new(),
            step: 0,
            items: Items::new(wanted.order),
            packer: Packer::new(geometry.cluster_size(), geometry.refcount_max()),
            references: References::default(),
        }
    }

    /// Does one more step, and gives the indices of the L1 entries whose L2 tables are new,
    /// ascending.
    pub(super) fn step(&mut self, operations: &'a [Operation]) -> Result<Vec<u64>, GenerateError> {
        self.step += 1;
        let cluster_size = self.geometry.cluster_size();
        let mut touched = Vec::new();
        for operation in operations {
            let Range { start, end } = self.contents.apply(operation, self.geometry.grain())?;
            if start < end {
                touched.push(start / cluster_size..end.div_ceil(cluster_size));
            }
        }
        let mut changed = Vec::new();
        for clusters in merged(touched) {
            let extents = self.contents.extents_of(clusters, self.geometry.grain());
            for extent in tables::split(extents, self.geometry.l2_entries()) {
                let l1_index = extent.first / self.geometry.l2_entries();
                if changed.last() != Some(&l1_index) {
                    self.renew_table(l1_index);
                    changed.push(l1_index);
                }
                self.replace(&extent);
            }
        }
        Ok(changed)
    }

    /// The guest's bytes after the last step.
    pub(super) fn contents(&self) -> &Contents<'a> {
        &self.contents
    }

    /// The end of the last guest cluster that an L2 table describes.
    pub(super) fn end(&self) -> u64 {
        self.runs.last_key_value().map_or(0, |(first, run)| first + run.count)
    }

    /// All L2 tables after the last step, by the index of their L1 entry, ascending.
    pub(super) fn tables(&self) -> impl Iterator<Item = (u64, Table)> {
        self.tables.iter().map(|(&l1_index, &table)| (l1_index, table))
    }

    /// The L2 table of an L1 entry, and its runs by their first guest cluster.
    pub(super) fn table(&self, l1_index: u64) -> Option<(Table, impl Iterator<Item = (u64, Run)>)> {
        let first = l1_index * self.geometry.l2_entries();
        let runs = self.runs.range(first..first + self.geometry.l2_entries());
        Some((*self.tables.get(&l1_index)?, runs.map(|(&first, &run)| (first, run))))
    }

    /// Whether it is the last step that wrote what was written in the step `since`.
    pub(super) fn is_new(&self, since: u64) -> bool {
        since == self.step
    }

    /// The compressed form of a guest cluster, unless that is no shorter.
    pub(super) fn compressed(&self, cluster: u64) -> Option<Vec<u8>> {
        let g = &self.geometry;
        let mut bytes = vec![0; g.cluster_len()];
        let start = cluster << g.cluster_bits;
        for (at, data) in self.contents.data(start..start.saturating_add(g.cluster_size())) {
            let within = (at - start) as usize;
            if let Some(place) = bytes.get_mut(within..within + data.len()) {
                place.copy_from_slice(data);
            }
        }
        let stream = compress(self.compression_type, &bytes);
        (stream.len() < bytes.len()).then_some(stream)
    }

    /// Ends it: how many items there are, and how often each is referred to, by the disk and by
    /// one snapshot for each step but the last.
    pub(super) fn finish(mut self) -> (Items, References) {
        self.step += 1;
        for table in std::mem::take(&mut self.tables).into_values() {
            self.references.add(table.item, 1, self.step - table.since);
        }
        for run in std::mem::take(&mut self.runs).into_values() {
            self.retire(&run);
        }
        (self.items, self.references.sorted())
    }

    /// Gives the L2 table a new place.
    fn renew_table(&mut self, l1_index: u64) {
        let new = Table { item: self.items.table(), since: self.step };
        if let Some(old) = self.tables.insert(l1_index, new) {
            self.references.add(old.item, 1, self.step - old.since);
        }
    }

    /// Puts new clusters in the place of whatever there was.
    fn replace(&mut self, extent: &Extent) {
        let end = extent.first + extent.count;
        self.split(extent.first);
        self.split(end);
        let old: Vec<u64> = self.runs.range(extent.first..end).map(|(&first, _)| first).collect();
        for first in old {
            if let Some(run) = self.runs.remove(&first) {
                self.retire(&run);
            }
        }
        if !extent.compressed {
            let place = match (extent.allocated, self.external) {
                (false, _) => Place::Nowhere,
                (true, true) => Place::External,
                (true, false) => Place::Items(self.items.data(extent.count)),
            };
            self.insert(extent.first, extent.count, extent.subclusters, place);
            return;
        }
        for cluster in extent.first..end {
            let (subclusters, place) = match self.compressed(cluster) {
                Some(stream) => {
                    let stream = self.packer.place(stream.len() as u64, &mut self.items);
                    (0, Place::Compressed(stream))
                }
                None => (extent.subclusters, Place::Items(self.items.data(1))),
            };
            self.insert(cluster, 1, subclusters, place);
        }
    }

    fn insert(&mut self, first: u64, count: u64, subclusters: u64, place: Place) {
        self.runs.insert(first, Run { count, subclusters, place, since: self.step });
    }

    /// Makes sure that no run reaches over the guest cluster `at`.
    fn split(&mut self, at: u64) {
        let Some((&first, run)) = self.runs.range_mut(..at).next_back() else { return };
        let before = at - first;
        if run.count <= before {
            return;
        }
        let mut tail = *run;
        tail.count -= before;
        run.count = before;
        if let Place::Items(item) = &mut tail.place {
            *item += before;
        }
        self.runs.insert(at, tail);
    }

    /// Notes how many steps had the run, now that it is gone.
    fn retire(&mut self, run: &Run) {
        let references = self.step - run.since;
        match run.place {
            Place::Nowhere | Place::External => {}
            Place::Items(item) => self.references.add(item, run.count, references),
            Place::Compressed(stream) => {
                for item in stream.items(self.geometry.cluster_size()) {
                    self.references.add_stream(item, references);
                }
            }
        }
    }
}

/// The same numbers as ranges that neither overlap nor touch, ascending.
fn merged(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    ranges.dedup_by(|next, last| {
        let touches = next.start <= last.end;
        if touches {
            last.end = last.end.max(next.end);
        }
        touches
    });
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::Snapshot;

    const G: Geometry = Geometry { size: 1 << 20, cluster_bits: 9, refcount_order: 4, extended_l2: false };

    /// The disk after all steps.
    fn disk(wanted: &Qcow2) -> Disk<'_> {
        let mut disk = Disk::new(wanted, G);
        for (operations, _) in wanted.steps() {
            disk.step(operations).unwrap();
        }
        disk
    }

    #[test]
    fn what_no_later_step_touches_is_shared() {
        // 64 clusters, of 512 bytes, have an L2 table.
        let wanted = Qcow2::new(G.size).cluster_bits(9).allocate(0..130 << 9);
        let wanted = wanted.snapshot(Snapshot::new("1", "")).data(10 << 9, [1; 1024]);
        let wanted = wanted.snapshot(Snapshot::new("2", "")).snapshot(Snapshot::new("3", ""));
        let disk = disk(&wanted);
        let (table, runs) = disk.table(0).unwrap();
        let runs: Vec<_> = runs.map(|(first, run)| (first, run.count, run.since)).collect();
        assert_eq!((table.since, runs), (2, vec![(0, 10, 1), (10, 2, 2), (12, 52, 1)]));
        assert_eq!(disk.tables().map(|(_, table)| table.item).collect::<Vec<_>>(), [133, 65, 130]);
        let (items, references) = disk.finish();
        assert_eq!(items.count(), 3 + 130 + 1 + 2);
        // First the old table and its data, of which two clusters were replaced, then new ones.
        let of = [0, 1, 10, 11, 12, 13, 65, 133, 134, 135].map(|item| references.of(item));
        assert_eq!(of, [1, 4, 4, 1, 1, 4, 4, 3, 3, 3]);
    }

    #[test]
    fn ranges_are_merged() {
        assert_eq!(merged(vec![7..9, 0..3, 2..5, 5..6]), [0..6, 7..9]);
    }
}
