//! The guest's disk: from the calls of the builder to runs of clusters.

use std::collections::BTreeMap;
use std::ops::Range;

use super::GenerateError;

/// One call that describes contents of the guest's disk. Ranges are in bytes.
#[derive(Debug, Clone)]
pub(super) enum Operation {
    /// These bytes at this offset.
    Data { offset: u64, bytes: Vec<u8> },
    /// These bytes at this offset, in compressed clusters. Only qcow2 has these.
    Compressed { offset: u64, bytes: Vec<u8> },
    /// Clusters with a place in the file but nothing in it.
    Allocate(Range<u64>),
    /// Zero clusters, perhaps with a place in the file.
    Zero { range: Range<u64>, preallocated: bool },
}

impl Operation {
    /// Whether this needs zero clusters, which version 2 does not have.
    pub(super) fn is_zero(&self) -> bool {
        matches!(self, Operation::Zero { .. })
    }

    /// Whether this needs compressed clusters.
    pub(super) fn is_compressed(&self) -> bool {
        matches!(self, Operation::Compressed { .. })
    }
}

/// How finely a format describes the guest's disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grain {
    /// Virtual disk size in bytes.
    pub(super) disk_size: u64,
    /// The size in bytes of what an L2 entry can describe on its own: a cluster or a subcluster.
    pub(super) size: u64,
    /// How many of these a cluster has: 1 or 32.
    pub(super) per_cluster: u64,
}

impl Grain {
    /// The size of a cluster in bytes.
    pub(super) fn cluster_size(&self) -> u64 {
        self.size * self.per_cluster
    }

    /// Refuses a range that does not begin and end at multiples of `alignment`, or end with the disk.
    fn aligned(&self, range: &Range<u64>, alignment: u64) -> Result<(), GenerateError> {
        let Range { start, end } = *range;
        if start.is_multiple_of(alignment) && (end.is_multiple_of(alignment) || end == self.disk_size) {
            return Ok(());
        }
        Err(GenerateError::Unaligned { start, end, alignment })
    }
}

/// What a range of the guest's disk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content<'a> {
    Data(&'a [u8]),
    /// Begins and ends inside a cluster where a later call took the rest, which is data then.
    Compressed(&'a [u8]),
    Allocated,
    Zero {
        preallocated: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece<'a> {
    end: u64,
    content: Content<'a>,
}

/// The guest's disk as pieces that do not overlap, by their first byte.
#[derive(Debug, Default)]
pub(super) struct Contents<'a> {
    pieces: BTreeMap<u64, Piece<'a>>,
}

/// Guest clusters in a row that have the same state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// The first guest cluster.
    pub(super) first: u64,
    /// The number of clusters.
    pub(super) count: u64,
    /// The subclusters of each cluster, as in an extended L2 entry: bits 0-31 allocated, bits
    /// 32-63 zero. Without extended L2 entries a cluster is one subcluster.
    pub(super) subclusters: u64,
    /// Whether the clusters have a place in the file.
    pub(super) allocated: bool,
    /// Whether each of the clusters is to be compressed.
    pub(super) compressed: bool,
    /// The first host cluster, once that is known.
    pub(super) host: Option<u64>,
}

impl<'a> Contents<'a> {
    /// Replays the operations, of which the later win.
    pub(super) fn paint(operations: &'a [Operation], grain: Grain) -> Result<Self, GenerateError> {
        let mut contents = Contents::default();
        for operation in operations {
            contents.apply(operation, grain)?;
        }
        Ok(contents)
    }

    /// Replays one more operation, and gives the range that it covers, in bytes.
    pub(super) fn apply(
        &mut self,
        operation: &'a Operation,
        grain: Grain,
    ) -> Result<Range<u64>, GenerateError> {
        let behind = |offset: u64, bytes: &[u8]| offset..offset.saturating_add(bytes.len() as u64);
        let (range, content) = match operation {
            Operation::Data { offset, bytes } => (behind(*offset, bytes), Content::Data(bytes)),
            Operation::Compressed { offset, bytes } => {
                let range = behind(*offset, bytes);
                grain.aligned(&range, grain.cluster_size())?;
                (range, Content::Compressed(bytes))
            }
            Operation::Allocate(range) => (range.clone(), Content::Allocated),
            Operation::Zero { range, preallocated } => {
                grain.aligned(range, grain.size)?;
                (range.clone(), Content::Zero { preallocated: *preallocated })
            }
        };
        within(&range, grain.disk_size, "guest contents")?;
        self.put(range.clone(), content);
        Ok(range)
    }

    fn put(&mut self, range: Range<u64>, content: Content<'a>) {
        if range.is_empty() {
            return;
        }
        self.split(range.start);
        self.split(range.end);
        let hidden: Vec<u64> = self.pieces.range(range.clone()).map(|(&start, _)| start).collect();
        for start in hidden {
            self.pieces.remove(&start);
        }
        self.pieces.insert(range.start, Piece { end: range.end, content });
    }

    /// Makes sure that no piece reaches over `at`.
    fn split(&mut self, at: u64) {
        let Some((&start, piece)) = self.pieces.range_mut(..at).next_back() else { return };
        if piece.end <= at {
            return;
        }
        let mut tail = *piece;
        piece.end = at;
        match (&mut piece.content, &mut tail.content) {
            (Content::Data(head), Content::Data(rest))
            | (Content::Compressed(head), Content::Compressed(rest)) => {
                (*head, *rest) = head.split_at((at - start) as usize);
            }
            _ => {}
        }
        self.pieces.insert(at, tail);
    }

    /// The data within a range of the guest's disk: offsets in bytes, ascending.
    pub(super) fn data(&self, range: Range<u64>) -> impl Iterator<Item = (u64, &'a [u8])> {
        let before = self.pieces.range(..range.start).next_back();
        let (start, end) = (range.start, range.end);
        before.into_iter().chain(self.pieces.range(range)).filter_map(move |(&at, piece)| {
            let (Content::Data(bytes) | Content::Compressed(bytes)) = piece.content else { return None };
            let skip = start.saturating_sub(at);
            let take = end.min(piece.end).saturating_sub(at);
            let bytes = bytes.get(skip as usize..take as usize).filter(|bytes| !bytes.is_empty())?;
            Some((at + skip, bytes))
        })
    }

    /// The clusters that an L2 entry describes, ascending.
    pub(super) fn extents(&self, grain: Grain) -> Vec<Extent> {
        self.extents_of(0..grain.disk_size.div_ceil(grain.cluster_size()), grain)
    }

    /// Those among the clusters of a range.
    pub(super) fn extents_of(&self, clusters: Range<u64>, grain: Grain) -> Vec<Extent> {
        let Grain { disk_size, size, per_cluster } = grain;
        let cluster_size = grain.cluster_size();
        let mut extents = Extents { subclusters: per_cluster, list: Vec::new() };
        let last = clusters.end.saturating_mul(per_cluster);
        let mut done = clusters.start * per_cluster;
        let bytes = clusters.start * cluster_size..clusters.end.saturating_mul(cluster_size);
        let before = self.pieces.range(..bytes.start).next_back();
        for (&start, piece) in before.into_iter().chain(self.pieces.range(bytes)) {
            let to_the_end = piece.end == disk_size;
            // Data takes the subclusters that it touches; zeros have those that are left.
            let (first, end) = match piece.content {
                Content::Zero { .. } if !to_the_end => (start.div_ceil(size), piece.end / size),
                Content::Zero { .. } => (start.div_ceil(size), piece.end.div_ceil(size)),
                _ => (start / size, piece.end.div_ceil(size)),
            };
            let mut push = |first: u64, end: u64, content| {
                let run = first.max(done)..end.min(last);
                if !run.is_empty() {
                    done = run.end;
                    extents.push(run, content);
                }
            };
            if let Content::Compressed(bytes) = piece.content {
                // The clusters of which it has every byte.
                let whole = start.div_ceil(cluster_size) * per_cluster;
                let ends_at =
                    if to_the_end { piece.end.div_ceil(cluster_size) } else { piece.end / cluster_size };
                push(first, whole.min(end), Content::Data(bytes));
                push(whole, ends_at * per_cluster, piece.content);
                push(first, end, Content::Data(bytes));
            } else {
                push(first, end, piece.content);
            }
        }
        extents.list
    }
}

/// Collects runs of subclusters into extents of clusters.
struct Extents {
    /// Subclusters per cluster: 1 or 32.
    subclusters: u64,
    list: Vec<Extent>,
}

impl Extents {
    fn push(&mut self, run: Range<u64>, content: Content<'_>) {
        let mut at = run.start;
        while at < run.end {
            let (cluster, within) = (at / self.subclusters, at % self.subclusters);
            let left = run.end - at;
            let (clusters, take) = if within == 0 && left >= self.subclusters {
                (left / self.subclusters, self.subclusters)
            } else {
                (1, left.min(self.subclusters - within))
            };
            let ones = (u64::MAX >> (64 - take)) << within;
            let (subclusters, allocated) = match content {
                Content::Data(_) | Content::Compressed(_) | Content::Allocated => (ones, true),
                Content::Zero { preallocated } => (ones << 32, preallocated),
            };
            at += clusters * take;
            match self.list.last_mut() {
                Some(last) if last.first + last.count > cluster => {
                    last.subclusters |= subclusters;
                    last.allocated |= allocated;
                }
                _ => {
                    let (first, count) = (cluster, clusters);
                    let compressed = matches!(content, Content::Compressed(_));
                    self.list.push(Extent { first, count, subclusters, allocated, compressed, host: None });
                }
            }
        }
    }
}

/// Refuses a range that does not lie within the disk.
pub(super) fn within(range: &Range<u64>, size: u64, what: &'static str) -> Result<(), GenerateError> {
    if range.start <= range.end && range.end <= size {
        return Ok(());
    }
    Err(GenerateError::OutOfRange { what, start: range.start, end: range.end, size })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Grain = Grain { disk_size: 1000, size: 512, per_cluster: 1 };
    const EXTENDED: Grain = Grain { disk_size: 65000, size: 512, per_cluster: 32 };

    fn states(operations: &[Operation], grain: Grain) -> Vec<(u64, u64, u64, bool)> {
        let contents = Contents::paint(operations, grain).unwrap();
        let extents = contents.extents(grain);
        extents.iter().map(|e| (e.first, e.count, e.subclusters, e.allocated)).collect()
    }

    #[test]
    fn later_operations_win() {
        let operations = [
            Operation::Data { offset: 0, bytes: vec![1; 600] },
            Operation::Zero { range: 0..512, preallocated: false },
            Operation::Data { offset: 100, bytes: vec![2; 10] },
            Operation::Data { offset: 105, bytes: vec![3; 1] },
        ];
        let contents = Contents::paint(&operations, PLAIN).unwrap();
        let data: Vec<_> = contents.data(0..1000).collect();
        assert_eq!(
            data,
            [
                (100, [2; 5].as_slice()),
                (105, [3].as_slice()),
                (106, [2; 4].as_slice()),
                (512, [1; 88].as_slice())
            ]
        );
        let data: Vec<_> = contents.data(103..513).map(|(at, b)| (at, b.len())).collect();
        assert_eq!(data, [(103, 2), (105, 1), (106, 4), (512, 1)]);
        assert_eq!(states(&operations, PLAIN), [(0, 1, 1, true), (1, 1, 1, true)]);
    }

    #[test]
    fn zeros_end_with_the_disk() {
        let zero = |range| Operation::Zero { range, preallocated: false };
        assert_eq!(states(&[zero(512..1000)], PLAIN), [(1, 1, 1 << 32, false)]);
        for range in [1..1000, 0..513, 0..999] {
            let error = Contents::paint(&[zero(range)], PLAIN).unwrap_err();
            assert!(matches!(error, GenerateError::Unaligned { alignment: 512, .. }));
        }
        for range in [Range { start: 512, end: 0 }, 512..1024] {
            let error = Contents::paint(&[zero(range)], PLAIN).unwrap_err();
            assert!(matches!(error, GenerateError::OutOfRange { size: 1000, .. }));
        }
    }

    #[test]
    fn subclusters_of_a_cluster_are_put_together() {
        let operations = [
            Operation::Data { offset: 511, bytes: vec![1; 2] },
            Operation::Zero { range: 1024..16384 + 512, preallocated: false },
            Operation::Allocate(32768..49152),
            Operation::Zero { range: 49152..65000, preallocated: true },
        ];
        assert_eq!(
            states(&operations, EXTENDED),
            [
                (0, 1, 0xffff_fffc_0000_0003, true),
                (1, 1, 1 << 32, false),
                (2, 1, 0xffff_ffff, true),
                (3, 1, 0x7fff_ffff << 32, true),
            ]
        );
    }

    #[test]
    fn clusters_are_compressed_while_no_later_call_touches_them() {
        let grain = Grain { disk_size: 5000, ..PLAIN };
        let compressed = |operations: &[Operation]| -> Vec<(u64, u64, bool)> {
            let contents = Contents::paint(operations, grain).unwrap();
            contents.extents(grain).iter().map(|e| (e.first, e.count, e.compressed)).collect()
        };
        let whole = Operation::Compressed { offset: 512, bytes: vec![1; 4488] };
        assert_eq!(compressed(std::slice::from_ref(&whole)), [(1, 9, true)]);
        let data = Operation::Data { offset: 1540, bytes: vec![2; 500] };
        let operations = [whole, data];
        assert_eq!(compressed(&operations), [(1, 2, true), (3, 1, false), (4, 6, true)]);
        let contents = Contents::paint(&operations, grain).unwrap();
        let bytes: Vec<u8> = contents.data(1536..2048).flat_map(|(_, bytes)| bytes).copied().collect();
        assert_eq!(bytes, [&[1; 4][..], &[2; 500], &[1; 8]].concat());
        assert_eq!(contents.extents_of(2..5, grain).len(), 3);
        let unaligned = Operation::Compressed { offset: 512, bytes: vec![1; 700] };
        let error = Contents::paint(&[unaligned], grain).unwrap_err();
        assert!(matches!(error, GenerateError::Unaligned { alignment: 512, .. }));
    }
}
