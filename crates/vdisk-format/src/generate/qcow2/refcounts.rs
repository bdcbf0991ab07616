//! How large the refcount structures are, and what is in them.

use super::geometry::Geometry;
use super::place::Places;
use super::references::References;

/// How many clusters the refcount table and the refcount blocks of an image take, if everything
/// else takes `others`: `(table, blocks)`.
///
/// They also count themselves, so this goes up until they are enough.
pub(super) fn clusters(g: &Geometry, others: u64) -> (u64, u64) {
    let (mut table, mut blocks) = (1, 1);
    loop {
        let total = others + table + blocks;
        let need_blocks = total.div_ceil(g.refcount_block_entries());
        let need_table = g.clusters_for(need_blocks * 8);
        if (need_table, need_blocks) == (table, blocks) {
            return (table, blocks);
        }
        (table, blocks) = (need_table, need_blocks);
    }
}

/// The reference counts of all clusters of an image.
#[derive(Debug)]
pub(super) struct Refcounts {
    /// The number of host clusters. Each is in use, those without an item once.
    pub(super) clusters: u64,
    pub(super) places: Places,
    pub(super) references: References,
}

impl Refcounts {
    /// Fills `block`, which has the size of a cluster, with the refcount block `index`.
    pub(super) fn fill(&self, g: &Geometry, index: u64, block: &mut [u8]) {
        block.fill(0);
        let entries = g.refcount_block_entries();
        let first = index * entries;
        let all_single = self.references.are_single();
        for cluster in first..self.clusters.min(first + entries) {
            let refcount = if all_single { 1 } else { self.of(cluster) };
            set(block, (cluster - first) as usize, g.refcount_order, refcount);
        }
    }

    fn of(&self, cluster: u64) -> u64 {
        self.places.item(cluster).map_or(1, |item| self.references.of(item))
    }
}

/// Sets an entry of a block of zeros.
fn set(block: &mut [u8], index: usize, order: u32, refcount: u64) {
    if order < 3 {
        // Several in a byte, from the least significant bit on.
        let in_byte = 3 - order;
        let shift = (index % (1 << in_byte)) << order;
        if let Some(byte) = block.get_mut(index >> in_byte) {
            *byte |= (refcount << shift) as u8;
        }
    } else {
        let width = 1 << (order - 3);
        let bytes = refcount.to_be_bytes();
        let low = bytes.get(bytes.len() - width..).unwrap_or_default();
        if let Some(entry) = block.get_mut(index * width..(index + 1) * width) {
            entry.copy_from_slice(low);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::Order;
    use crate::generate::qcow2::place::Items;

    fn geometry(cluster_bits: u32, refcount_order: u32) -> Geometry {
        Geometry { size: 0, cluster_bits, refcount_order, extended_l2: false }
    }

    #[test]
    fn the_refcount_structures_count_themselves() {
        // 64 entries in a block, 64 blocks in a cluster of the table.
        let g = geometry(9, 6);
        assert_eq!(clusters(&g, 1), (1, 1));
        assert_eq!(clusters(&g, 62), (1, 1));
        assert_eq!(clusters(&g, 63), (1, 2));
        assert_eq!(clusters(&g, 64 * 64 - 65), (1, 64));
        assert_eq!(clusters(&g, 64 * 64 - 64), (2, 65));
        for others in 1..20_000 {
            let (table, blocks) = clusters(&g, others);
            assert!(blocks * 64 >= others + table + blocks, "{others}: too few");
            assert!((blocks - 1) * 64 < others + table + blocks, "{others}: too many");
            assert_eq!(table, blocks.div_ceil(64));
        }
        assert_eq!(clusters(&geometry(16, 4), 1 << 24), (1, 513));
    }

    #[test]
    fn entries_of_every_width() {
        let mut items = Items::new(Order::InOrder);
        items.data(10);
        let mut references = References::default();
        references.add(1, 2, 3);
        let places = Places::new(items, 512);
        let refcounts = Refcounts { clusters: 600, places, references: references.sorted() };
        let mut block = vec![0xff; 512];
        let mut start = |order, index, length| {
            refcounts.fill(&geometry(9, order), index, &mut block);
            block.get(..length).unwrap().to_vec()
        };
        // Clusters 512.. have the reference counts 1, 3, 3, 1, 1, …
        assert_eq!(start(1, 0, 129)[128], 0b01_11_11_01);
        assert_eq!(start(2, 0, 258)[256..], [0x31, 0x13]);
        assert_eq!(start(3, 1, 4), [1, 3, 3, 1]);
        assert_eq!(start(4, 2, 6), [0, 1, 0, 3, 0, 3]);
        assert_eq!(start(5, 4, 8), [0, 0, 0, 1, 0, 0, 0, 3]);
        assert_eq!(start(6, 8, 16), [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 3]);
        let whole = start(0, 0, 512);
        assert_eq!((&whole[..75], &whole[75..]), ([0xff; 75].as_slice(), [0; 437].as_slice()));
    }
}
