//! The plan: gives every structure of the image its place in the file.

use super::bitmap::BitmapPlan;
use super::geometry::Geometry;
use super::refcounts::{self, Refcounts};
use super::validate::{self, narrow};
use super::{Bitmap, Qcow2, Snapshot};
use crate::generate::GenerateError;
use crate::generate::guest::{Contents, Extent};
use crate::generate::tables::{self, L2Table};

/// Host offsets have 56 bits.
const HOST_OFFSET_BITS: u32 = 56;

/// Host clusters in a row.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Span {
    /// The first host cluster.
    pub(super) first: u64,
    /// The number of clusters.
    pub(super) count: u64,
}

impl Span {
    /// Where it begins, in bytes from the start of the image file.
    pub(super) fn offset(&self, g: &Geometry) -> u64 {
        self.first << g.cluster_bits
    }
}

/// Hands out host clusters, in order.
#[derive(Debug)]
pub(super) struct Allocator {
    next: u64,
}

impl Allocator {
    /// Begins with the host cluster `next`.
    pub(super) fn from(next: u64) -> Self {
        Allocator { next }
    }

    /// The next `count` clusters.
    pub(super) fn take(&mut self, count: u64) -> Span {
        let first = self.next;
        self.next += count;
        Span { first, count }
    }
}

/// Where everything is. The header is the first cluster.
#[derive(Debug)]
pub(super) struct Layout<'a> {
    pub(super) geometry: Geometry,
    /// Clusters of the refcount table, a u32 in the header.
    pub(super) refcount_table: Span,
    pub(super) refcount_blocks: Span,
    pub(super) refcounts: Refcounts,
    /// The number of L1 entries, a u32 in the header.
    pub(super) l1_size: u32,
    /// The active L1 table. Without an entry it has no place.
    pub(super) l1_table: Span,
    pub(super) l2_tables: Vec<L2Table>,
    /// Runs of guest clusters, ascending. None reaches over the end of its L2 table.
    pub(super) extents: Vec<Extent>,
    pub(super) contents: Contents<'a>,
    /// The L1 table of each snapshot.
    pub(super) snapshot_l1_tables: Vec<Span>,
    pub(super) snapshot_table: Span,
    pub(super) bitmaps: Vec<BitmapPlan>,
    pub(super) bitmap_directory: Span,
}

impl<'a> Layout<'a> {
    /// Plans an image, or says why there is none.
    pub(super) fn plan(wanted: &'a Qcow2) -> Result<Self, GenerateError> {
        let g = validate::geometry(wanted)?;
        let l1_size = narrow("the L1 table", g.l1_size())?;
        let contents = Contents::paint(&wanted.contents, g.grain())?;
        let extents = tables::split(contents.extents(g.grain()), g.l2_entries());
        let l2_tables = tables::l2_tables(&extents, g.l2_entries());
        let bitmaps = wanted.bitmaps.iter().map(|bitmap| BitmapPlan::new(bitmap, &g));
        let mut layout = Layout {
            geometry: g,
            refcount_table: Span::default(),
            refcount_blocks: Span::default(),
            refcounts: Refcounts { clusters: 0, shared: 0..0, references: 1 },
            l1_size,
            l1_table: Span::default(),
            l2_tables,
            extents,
            contents,
            snapshot_l1_tables: Vec::new(),
            snapshot_table: Span::default(),
            bitmaps: bitmaps.collect::<Result<_, _>>()?,
            bitmap_directory: Span::default(),
        };
        layout.place(wanted)?;
        validate::header_fits(wanted, &g)?;
        Ok(layout)
    }

    /// The length of the image file in bytes.
    pub(super) fn file_length(&self) -> u64 {
        self.refcounts.clusters << self.geometry.cluster_bits
    }

    /// Whether clusters are in use more than once, and so need a copy before a write.
    pub(super) fn is_shared(&self) -> bool {
        self.refcounts.references > 1
    }

    fn place(&mut self, wanted: &Qcow2) -> Result<(), GenerateError> {
        let g = self.geometry;
        let external = wanted.data_file.is_some();
        let snapshots = wanted.snapshots.len() as u64;

        // How much there is, which says how many reference counts there are.
        let l1_clusters = g.clusters_for(u64::from(self.l1_size) * 8);
        let data_clusters = if external { 0 } else { tables::allocated(&self.extents) };
        let snapshot_table = wanted.snapshots.iter().map(Snapshot::entry_length).sum();
        let directory = wanted.bitmaps.iter().map(Bitmap::entry_length).sum();
        let bitmaps: u64 = self.bitmaps.iter().map(|bitmap| bitmap.clusters(&g)).sum();
        let others = 1
            + l1_clusters * (1 + snapshots)
            + self.l2_tables.len() as u64
            + data_clusters
            + g.clusters_for(snapshot_table)
            + bitmaps
            + g.clusters_for(directory);
        let (table, blocks) = refcounts::clusters(&g, others);
        let clusters = others + table + blocks;
        let data_file_end = self.extents.last().filter(|_| external);
        let data_file_clusters = data_file_end.map_or(0, |extent| extent.first + extent.count);
        let largest = clusters.max(data_file_clusters);
        if largest > 1 << (HOST_OFFSET_BITS - g.cluster_bits) {
            return Err(GenerateError::FileTooLarge { clusters: largest, bits: HOST_OFFSET_BITS });
        }

        // Where it is.
        let mut allocator = Allocator::from(1);
        self.refcount_table = allocator.take(table);
        self.refcount_blocks = allocator.take(blocks);
        self.l1_table = allocator.take(l1_clusters);
        let shared_from = allocator.next;
        for l2_table in &mut self.l2_tables {
            l2_table.host = allocator.take(1).first;
            let extents = self.extents.get_mut(l2_table.extents.clone()).unwrap_or_default();
            for extent in extents.iter_mut().filter(|extent| extent.allocated) {
                let same = Span { first: extent.first, count: extent.count };
                let span = if external { same } else { allocator.take(extent.count) };
                extent.host = Some(span.first);
            }
        }
        let shared = shared_from..allocator.next;
        self.snapshot_l1_tables = (0..snapshots).map(|_| allocator.take(l1_clusters)).collect();
        self.snapshot_table = allocator.take(g.clusters_for(snapshot_table));
        for bitmap in &mut self.bitmaps {
            bitmap.place(&g, &mut allocator);
        }
        self.bitmap_directory = allocator.take(g.clusters_for(directory));
        debug_assert_eq!(allocator.next, clusters, "the plan and the places differ");

        let references = 1 + snapshots;
        if !shared.is_empty() && references > g.refcount_max() {
            let bits = g.refcount_bits();
            return Err(GenerateError::RefcountTooLarge { refcount: references, bits });
        }
        self.refcounts = Refcounts { clusters, shared, references };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_image_is_laid_out_as_by_qemu_img() {
        let wanted = Qcow2::new(64 << 20);
        let layout = Layout::plan(&wanted).unwrap();
        assert_eq!((layout.refcount_table.first, layout.refcount_table.count), (1, 1));
        assert_eq!((layout.refcount_blocks.first, layout.refcount_blocks.count), (2, 1));
        assert_eq!((layout.l1_table.first, layout.l1_table.count), (3, 1));
        assert_eq!((layout.l1_size, layout.file_length()), (1, 4 << 16));
    }

    #[test]
    fn a_full_disk_of_1_tib_needs_one_extent_for_each_l2_table() {
        let wanted = Qcow2::new(1 << 40).allocate(0..1 << 40);
        let layout = Layout::plan(&wanted).unwrap();
        assert_eq!((layout.l2_tables.len(), layout.extents.len()), (2048, 2048));
        let others = 1 + 1 + 2048 + (1 << 24);
        assert_eq!(layout.refcount_blocks.count, 513);
        assert_eq!(layout.refcounts.clusters, others + 513 + 1);
        let last = layout.extents.last().unwrap();
        assert_eq!(last.host.unwrap() + last.count, layout.refcounts.clusters);
    }

    #[test]
    fn everything_has_its_own_place() {
        let wanted = Qcow2::new(8 << 30)
            .cluster_bits(9)
            .refcount_order(6)
            .data(5000, [1; 3000])
            .zero(1 << 30..(1 << 30) + (64 << 10))
            .snapshot(Snapshot::new("1", "a"))
            .bitmap(Bitmap::new("b").dirty(0..1));
        let layout = Layout::plan(&wanted).unwrap();
        // 2 MiB of L1 table, twice.
        assert_eq!((layout.l1_size, layout.l1_table.count), (1 << 18, 4096));
        assert_eq!(layout.l2_tables.len(), 3);
        assert_eq!(layout.refcounts.shared.end - layout.refcounts.shared.start, 3 + 7);
        assert_eq!(layout.snapshot_l1_tables[0].first, layout.refcounts.shared.end);
        assert_eq!(layout.snapshot_table.first, layout.refcounts.shared.end + 4096);
        assert_eq!(layout.bitmap_directory.first + 1, layout.refcounts.clusters);
    }

    #[test]
    fn external_data_has_its_own_offsets() {
        let wanted = Qcow2::new(1 << 30).data_file("d", false).allocate(1 << 20..1 << 30);
        let layout = Layout::plan(&wanted).unwrap();
        assert_eq!(layout.refcounts.clusters, 4 + 2);
        assert!(layout.extents.iter().all(|extent| extent.host == Some(extent.first)));
    }
}
