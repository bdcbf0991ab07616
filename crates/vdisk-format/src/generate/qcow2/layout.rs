//! The plan: gives every structure of the image its place in the file.

use super::bitmap::BitmapPlan;
use super::disk::Disk;
use super::geometry::Geometry;
use super::luks::Luks;
use super::place::{Items, Places};
use super::refcounts::{self, Refcounts};
use super::references::References;
use super::validate::{self, narrow};
use super::{Bitmap, Qcow2};
use crate::generate::GenerateError;
use crate::generate::guest::Operation;

/// Host offsets have 56 bits, in descriptors of compressed clusters perhaps less.
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
pub(super) struct Layout {
    pub(super) geometry: Geometry,
    /// Clusters of the refcount table, a u32 in the header.
    pub(super) refcount_table: Span,
    pub(super) refcount_blocks: Span,
    pub(super) refcounts: Refcounts,
    /// The number of L1 entries, a u32 in the header.
    pub(super) l1_size: u32,
    /// The active L1 table. Without an entry it has no place.
    pub(super) l1_table: Span,
    /// The LUKS header with its key material.
    pub(super) luks: Span,
    /// The L1 table of each snapshot.
    pub(super) snapshot_l1_tables: Vec<Span>,
    pub(super) snapshot_table: Span,
    pub(super) bitmaps: Vec<BitmapPlan>,
    pub(super) bitmap_directory: Span,
}

impl Layout {
    /// Plans an image, or says why there is none.
    pub(super) fn plan(wanted: &Qcow2) -> Result<Self, GenerateError> {
        let g = validate::geometry(wanted)?;
        let l1_size = narrow("the L1 table", g.l1_size())?;
        let bitmaps = wanted.bitmaps.iter().map(|bitmap| BitmapPlan::new(bitmap, &g));
        let bitmaps = bitmaps.collect::<Result<_, _>>()?;
        let mut disk = Disk::new(wanted, g);
        for (operations, _) in wanted.steps() {
            disk.step(operations)?;
        }
        let data_file_clusters = if wanted.data_file.is_some() { disk.end() } else { 0 };
        let (items, references) = disk.finish();
        if references.max() > g.refcount_max() {
            let (refcount, bits) = (references.max(), g.refcount_bits());
            return Err(GenerateError::RefcountTooLarge { refcount, bits });
        }
        let layout = Self::place(wanted, g, l1_size, bitmaps, items, references);
        let compressed = wanted.contents.iter().any(Operation::is_compressed);
        let most = if compressed { g.compressed_offset_bits() } else { HOST_OFFSET_BITS };
        let bits = most.min(HOST_OFFSET_BITS);
        let clusters = layout.refcounts.clusters.max(data_file_clusters);
        if clusters > 1 << (bits - g.cluster_bits) {
            return Err(GenerateError::FileTooLarge { clusters, bits });
        }
        validate::header_fits(wanted, &g)?;
        Ok(layout)
    }

    /// The length of the image file in bytes.
    pub(super) fn file_length(&self) -> u64 {
        self.refcounts.clusters << self.geometry.cluster_bits
    }

    /// The places of the L2 tables and the data.
    pub(super) fn places(&self) -> &Places {
        &self.refcounts.places
    }

    fn place(
        wanted: &Qcow2,
        g: Geometry,
        l1_size: u32,
        mut bitmaps: Vec<BitmapPlan>,
        items: Items,
        references: References,
    ) -> Self {
        let snapshots = wanted.snapshots.len() as u64;

        // How much there is, which says how many reference counts there are.
        let l1_clusters = g.clusters_for(u64::from(l1_size) * 8);
        let luks_clusters = if wanted.luks.is_some() { g.clusters_for(Luks::length()) } else { 0 };
        let snapshot_table = wanted.snapshots.iter().map(|(_, snapshot)| snapshot.entry_length()).sum();
        let directory = wanted.bitmaps.iter().map(Bitmap::entry_length).sum();
        let others = 1
            + l1_clusters * (1 + snapshots)
            + luks_clusters
            + items.count()
            + g.clusters_for(snapshot_table)
            + bitmaps.iter().map(|bitmap| bitmap.clusters(&g)).sum::<u64>()
            + g.clusters_for(directory);
        let (table, blocks) = refcounts::clusters(&g, others);

        // Where it is.
        let mut allocator = Allocator::from(1);
        let refcount_table = allocator.take(table);
        let refcount_blocks = allocator.take(blocks);
        let l1_table = allocator.take(l1_clusters);
        let luks = allocator.take(luks_clusters);
        let places = Places::new(items, allocator.take(items.count()).first);
        let snapshot_l1_tables = (0..snapshots).map(|_| allocator.take(l1_clusters)).collect();
        let snapshot_table = allocator.take(g.clusters_for(snapshot_table));
        for bitmap in &mut bitmaps {
            bitmap.place(&g, &mut allocator);
        }
        let bitmap_directory = allocator.take(g.clusters_for(directory));
        let clusters = allocator.next;
        debug_assert_eq!(clusters, others + table + blocks, "the plan and the places differ");
        Layout {
            geometry: g,
            refcount_table,
            refcount_blocks,
            refcounts: Refcounts { clusters, places, references },
            l1_size,
            l1_table,
            luks,
            snapshot_l1_tables,
            snapshot_table,
            bitmaps,
            bitmap_directory,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{Order, Snapshot};

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
    fn a_full_disk_of_1_tib_counts_all_of_its_clusters() {
        for order in [Order::InOrder, Order::TablesFirst, Order::Random(1)] {
            let wanted = Qcow2::new(1 << 40).allocate(0..1 << 40).order(order);
            let layout = Layout::plan(&wanted).unwrap();
            let others = 1 + 1 + 2048 + (1 << 24);
            assert_eq!(layout.refcount_blocks.count, 513);
            assert_eq!(layout.refcounts.clusters, others + 513 + 1);
        }
    }

    #[test]
    fn everything_has_its_own_place() {
        let wanted = Qcow2::new(8 << 30)
            .cluster_bits(9)
            .refcount_order(6)
            .data(5000, [1; 3000])
            .zero(1 << 30..(1 << 30) + (64 << 10))
            .luks(Luks::new(1))
            .snapshot(Snapshot::new("1", "a"))
            .bitmap(Bitmap::new("b").dirty(0..1));
        let layout = Layout::plan(&wanted).unwrap();
        // 2 MiB of L1 table, twice.
        assert_eq!((layout.l1_size, layout.l1_table.count), (1 << 18, 4096));
        assert_eq!(layout.luks.first, layout.l1_table.first + 4096);
        let items_end = layout.luks.first + layout.luks.count + 3 + 7;
        assert_eq!(layout.snapshot_l1_tables[0].first, items_end);
        assert_eq!(layout.snapshot_table.first, items_end + 4096);
        assert_eq!(layout.bitmap_directory.first + 1, layout.refcounts.clusters);
        assert_eq!(layout.refcounts.references.of(0), 2);
    }

    #[test]
    fn external_data_is_not_in_the_file() {
        let wanted = Qcow2::new(1 << 30).data_file("d", false).allocate(1 << 20..1 << 30);
        assert_eq!(Layout::plan(&wanted).unwrap().refcounts.clusters, 4 + 2);
    }
}
