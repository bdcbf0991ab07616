//! Entries of an L1 table: where the L2 tables are. Specification: "Cluster mapping".

use crate::qcow2::geometry::OFFSET_MASK;
use crate::units::HostOffset;

/// One entry of an L1 table, active or a snapshot's. Any bits are an entry.
///
/// ```
/// use vdisk_format::qcow2::L1Entry;
/// let entry = L1Entry(0x8000_0000_0003_0000);
/// assert_eq!((entry.l2_table().0, entry.copied(), entry.reserved()), (0x30000, true, 0));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(transparent))]
pub struct L1Entry(pub u64);

impl L1Entry {
    /// Bit 63: the L2 table's refcount is exactly one. Accurate in the active L1 table only.
    pub const COPIED: u64 = 1 << 63;
    /// Bits 0 to 8 and 56 to 62, which must be 0.
    pub const RESERVED: u64 = !(Self::COPIED | OFFSET_MASK);

    /// Offset of the L2 table, which must be a multiple of the cluster size; 0: there is none, and all its clusters are
    /// unallocated.
    #[inline]
    #[must_use]
    pub const fn l2_table(self) -> HostOffset {
        HostOffset(self.0 & OFFSET_MASK)
    }

    /// Whether there is an L2 table.
    #[inline]
    #[must_use]
    pub const fn is_allocated(self) -> bool {
        self.0 & OFFSET_MASK != 0
    }

    /// Whether it says that its L2 table's refcount is exactly one.
    #[inline]
    #[must_use]
    pub const fn copied(self) -> bool {
        self.0 & Self::COPIED != 0
    }

    /// The reserved bits that are set.
    #[inline]
    #[must_use]
    pub const fn reserved(self) -> u64 {
        self.0 & Self::RESERVED
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bits_are_the_specifications() {
        assert_eq!(L1Entry::RESERVED, 0x7f00_0000_0000_01ff);
        assert!(!L1Entry(L1Entry::COPIED | L1Entry::RESERVED).is_allocated());
    }

    proptest! {
        #[test]
        fn the_parts_are_the_entry(value: u64) {
            let entry = L1Entry(value);
            let copied = if entry.copied() { L1Entry::COPIED } else { 0 };
            prop_assert_eq!(entry.l2_table().0 | entry.reserved() | copied, value);
            prop_assert_eq!(entry.is_allocated(), entry.l2_table().0 != 0);
        }
    }
}
