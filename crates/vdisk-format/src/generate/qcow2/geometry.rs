//! The sizes that follow from `cluster_bits`, `refcount_order` and the L2 entry format.

use crate::generate::guest::Grain;

/// The shape of the tables of an image. All fields are within their valid ranges.
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    /// Virtual disk size in bytes.
    pub(super) size: u64,
    /// 9..=21: a cluster has `1 << cluster_bits` bytes.
    pub(super) cluster_bits: u32,
    /// 0..=6: a reference count has `1 << refcount_order` bits.
    pub(super) refcount_order: u32,
    /// Whether an L2 entry has 16 bytes and describes 32 subclusters.
    pub(super) extended_l2: bool,
}

impl Geometry {
    /// The size of a cluster in bytes.
    pub(super) fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// The size of a cluster in bytes, as the length of a buffer.
    pub(super) fn cluster_len(&self) -> usize {
        1 << self.cluster_bits
    }

    /// The size of an L2 entry in bytes.
    pub(super) fn l2_entry_size(&self) -> u64 {
        if self.extended_l2 { 16 } else { 8 }
    }

    /// The number of entries of an L2 table.
    pub(super) fn l2_entries(&self) -> u64 {
        self.cluster_size() / self.l2_entry_size()
    }

    /// The parts of a cluster that an L2 entry can describe on their own: 1 or 32.
    pub(super) fn subclusters(&self) -> u64 {
        if self.extended_l2 { 32 } else { 1 }
    }

    /// How finely the L2 tables describe the disk.
    pub(super) fn grain(&self) -> Grain {
        let per_cluster = self.subclusters();
        Grain { disk_size: self.size, size: self.cluster_size() / per_cluster, per_cluster }
    }

    /// The number of guest clusters.
    pub(super) fn guest_clusters(&self) -> u64 {
        self.size.div_ceil(self.cluster_size())
    }

    /// The number of L1 entries that the disk needs.
    pub(super) fn l1_size(&self) -> u64 {
        self.guest_clusters().div_ceil(self.l2_entries())
    }

    /// The width of a reference count in bits.
    pub(super) fn refcount_bits(&self) -> u32 {
        1 << self.refcount_order
    }

    /// The greatest reference count.
    pub(super) fn refcount_max(&self) -> u64 {
        u64::MAX >> (64 - self.refcount_bits())
    }

    /// The width of the host offset in a compressed cluster descriptor, in bits.
    pub(super) fn compressed_offset_bits(&self) -> u32 {
        62 - (self.cluster_bits - 8)
    }

    /// The number of reference counts in a refcount block.
    pub(super) fn refcount_block_entries(&self) -> u64 {
        (self.cluster_size() * 8) >> self.refcount_order
    }

    /// How many clusters `bytes` bytes take.
    pub(super) fn clusters_for(&self, bytes: u64) -> u64 {
        bytes.div_ceil(self.cluster_size())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_from_the_bits() {
        let g = Geometry { size: 1 << 40, cluster_bits: 16, refcount_order: 4, extended_l2: false };
        assert_eq!((g.l2_entries(), g.l1_size(), g.guest_clusters()), (8192, 2048, 1 << 24));
        assert_eq!((g.refcount_block_entries(), g.refcount_max()), (32768, 65535));
        let g = Geometry { extended_l2: true, refcount_order: 6, ..g };
        assert_eq!((g.l2_entries(), g.l1_size(), g.grain().size), (4096, 4096, 2048));
        assert_eq!((g.refcount_block_entries(), g.refcount_max()), (8192, u64::MAX));
        let g = Geometry { size: 1, refcount_order: 0, ..g };
        assert_eq!((g.guest_clusters(), g.l1_size(), g.refcount_max()), (1, 1, 1));
    }
}
