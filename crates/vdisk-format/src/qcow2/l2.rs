//! Entries of an L2 table: where the guest's clusters are. Specification: "Cluster mapping", "Extended L2 Entries".

use crate::qcow2::geometry::{Geometry, OFFSET_MASK, SUBCLUSTERS};
use crate::units::HostOffset;

/// How many bytes compressed data are counted in.
const SECTOR: u64 = 512;

/// One entry of an L2 table: 64 bits, and 64 more where L2 entries are extended. Any bits are an entry.
///
/// Nothing here knows whether an offset lies inside the file, is aligned, or belongs to something else.
///
/// ```
/// use vdisk_format::qcow2::{L2Entry, L2Format, l2::Mapping};
/// # let mut image = vec![0; 104];
/// # image[4..8].copy_from_slice(&3u32.to_be_bytes());
/// # image[20..24].copy_from_slice(&16u32.to_be_bytes());
/// # let header = vdisk_format::qcow2::Header::parse(&image)?;
/// # let geometry = vdisk_format::qcow2::Geometry::new(&header, 0)?;
/// let format = L2Format::new(&geometry); // of version 3, clusters of 64 KiB
/// assert_eq!(L2Entry::new(0x8000_0000_0005_0000).mapping(&format), Mapping::Data(0x50000.into()));
/// assert_eq!(L2Entry::new(1).mapping(&format), Mapping::Zero { preallocated: None });
/// assert_eq!(L2Entry::new(0).mapping(&format), Mapping::Unallocated { preallocated: None });
/// # Ok::<(), vdisk_format::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct L2Entry {
    /// The entry, or the first half of an extended one.
    pub raw: u64,
    /// The second half of an extended entry; 0 in any other.
    pub bitmap: SubclusterBitmap,
}

/// What the entries of an image's L2 tables look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct L2Format {
    extended: bool,
    /// Bit 0 where it means that the cluster reads as zeroes; 0 where it is reserved.
    zero_flag: u64,
    /// Whether offset 0 is one: with an external data file.
    offset_0: bool,
    standard_reserved: u64,
    compressed_reserved: u64,
    compressed_offset: u64,
    split: u32,
    sectors: u64,
}

/// What an L2 entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(tag = "kind", rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Mapping {
    /// Reads come from the backing file, or are zeroes.
    Unallocated {
        /// An extended entry none of whose subclusters is allocated can have a cluster all the same.
        preallocated: Option<HostOffset>,
    },
    /// Reads are zeroes, whatever the backing file has.
    Zero {
        /// The cluster that a write will go to, if there is one. It is not read.
        preallocated: Option<HostOffset>,
    },
    /// The data are in the cluster at this offset: of the image file, or of the external data file.
    Data(#[cfg_attr(feature = "serde", serde(serialize_with = "as_offset"))] HostOffset),
    /// The data are compressed.
    Compressed(Compressed),
    /// An extended entry whose subclusters are not all of one kind; see [`SubclusterBitmap::state`].
    Subclusters {
        /// The cluster of those that are allocated; `None` where there is none, and none should be.
        host: Option<HostOffset>,
    },
}

/// Where a compressed cluster's data are. Specification: "Compressed Clusters Descriptor".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Compressed {
    /// Where they start; as a rule at no multiple of anything.
    pub offset: HostOffset,
    /// Bytes from there to the end of their last 512-byte sector: the data are that long or shorter.
    pub length: u64,
    /// 512-byte sectors that they touch, at least 1.
    pub sectors: u64,
}

/// An object, which a number with a tag would not be.
#[cfg(feature = "serde")]
fn as_offset<S: serde::Serializer>(offset: &HostOffset, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(serde::Serialize)]
    struct Data<'o> {
        offset: &'o HostOffset,
    }
    serde::Serialize::serialize(&Data { offset }, serializer)
}

impl L2Format {
    /// The format of an image's L2 entries.
    #[must_use]
    pub const fn new(geometry: &Geometry) -> Self {
        let extended = geometry.extended_l2();
        let zero_flag = if extended || geometry.version() == 2 { 0 } else { 1 };
        let split = geometry.compressed_split();
        // Where the offset has more bits than any other, these must be 0.
        let compressed_reserved = ((1 << split) - 1) & !((1 << 56) - 1);
        Self {
            extended,
            zero_flag,
            offset_0: geometry.data_file(),
            standard_reserved: 0x3f00_0000_0000_01ff & !zero_flag,
            compressed_reserved,
            compressed_offset: (1 << split) - 1,
            split,
            sectors: (1 << (geometry.cluster_bits() - 8)) - 1,
        }
    }

    /// Whether entries have 16 bytes, and clusters have subclusters.
    #[inline]
    #[must_use]
    pub const fn extended(&self) -> bool {
        self.extended
    }

    /// Numbers of 64 bits an entry: 1 or 2.
    #[inline]
    #[must_use]
    pub const fn words(&self) -> u64 {
        if self.extended { 2 } else { 1 }
    }
}

impl L2Entry {
    /// Bit 63: the cluster's refcount is exactly one. Accurate in tables of the active L1 table only.
    pub const COPIED: u64 = 1 << 63;
    /// Bit 62: the cluster is compressed.
    pub const COMPRESSED: u64 = 1 << 62;

    /// An entry of 64 bits.
    #[inline]
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self { raw, bitmap: SubclusterBitmap(0) }
    }

    /// An extended entry.
    #[inline]
    #[must_use]
    pub const fn extended(raw: u64, bitmap: u64) -> Self {
        Self { raw, bitmap: SubclusterBitmap(bitmap) }
    }

    /// Whether it says that its cluster's refcount is exactly one.
    #[inline]
    #[must_use]
    pub const fn copied(self) -> bool {
        self.raw & Self::COPIED != 0
    }

    /// Whether its cluster is compressed.
    #[inline]
    #[must_use]
    pub const fn is_compressed(self) -> bool {
        self.raw & Self::COMPRESSED != 0
    }

    /// Bits 9 to 55, of an entry that is not compressed.
    #[inline]
    #[must_use]
    pub const fn offset(self) -> HostOffset {
        HostOffset(self.raw & OFFSET_MASK)
    }

    /// Whether bit 0 is set, of an entry that is not compressed: with version 2 and in extended entries that is a
    /// reserved bit, and means nothing.
    #[inline]
    #[must_use]
    pub const fn zero_flag(self) -> bool {
        self.raw & 1 != 0
    }

    /// The cluster of an entry that is not compressed, whether it is read or only preallocated. Offset 0 is that of a
    /// cluster with an external data file and bit 63 only, and not with the zero flag.
    #[inline]
    #[must_use]
    pub const fn host_cluster(self, format: &L2Format) -> Option<HostOffset> {
        let offset = self.raw & OFFSET_MASK;
        let may_be_0 = format.offset_0 && self.copied() && self.raw & format.zero_flag == 0;
        if offset != 0 || may_be_0 { Some(HostOffset(offset)) } else { None }
    }

    /// The descriptor of an entry that is compressed. Bits of the offset above 55, which must be 0, are part of it.
    #[inline]
    #[must_use]
    pub const fn compressed(self, format: &L2Format) -> Compressed {
        let offset = self.raw & format.compressed_offset;
        let sectors = (self.raw >> format.split & format.sectors) + 1;
        Compressed { offset: HostOffset(offset), length: sectors * SECTOR - offset % SECTOR, sectors }
    }

    /// The reserved bits of the first 64 that are set. In version 2, and where entries are extended, the zero flag is one
    /// of them.
    #[inline]
    #[must_use]
    pub const fn reserved(self, format: &L2Format) -> u64 {
        self.raw & if self.is_compressed() { format.compressed_reserved } else { format.standard_reserved }
    }

    /// What the entry says, were its [`reserved`](Self::reserved) bits 0.
    #[inline]
    #[must_use]
    pub const fn mapping(self, format: &L2Format) -> Mapping {
        if self.is_compressed() {
            return Mapping::Compressed(self.compressed(format));
        }
        let host = self.host_cluster(format);
        if format.extended {
            return self.bitmap.mapping(host);
        }
        match host {
            _ if self.raw & format.zero_flag != 0 => Mapping::Zero { preallocated: host },
            Some(host) => Mapping::Data(host),
            None => Mapping::Unallocated { preallocated: None },
        }
    }
}

/// The second half of an extended L2 entry: which subclusters are allocated (bits 0 to 31), and which read as zeroes
/// (bits 32 to 63). With a compressed cluster all of it is reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(transparent))]
pub struct SubclusterBitmap(pub u64);

/// What an extended L2 entry says of a subcluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum Subcluster {
    /// Reads come from the backing file, or are zeroes.
    Unallocated,
    /// Reads are zeroes, whatever the backing file has.
    Zero,
    /// The data are in the entry's cluster.
    Data,
    /// Both bits are set, which the specification forbids.
    Invalid,
}

impl SubclusterBitmap {
    /// The subclusters that are allocated, a bit each.
    #[inline]
    #[must_use]
    pub const fn allocated(self) -> u32 {
        self.0 as u32
    }

    /// The subclusters that read as zeroes, a bit each.
    #[inline]
    #[must_use]
    pub const fn zeroes(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The subclusters that have both bits, which the specification forbids.
    #[inline]
    #[must_use]
    pub const fn invalid(self) -> u32 {
        self.allocated() & self.zeroes()
    }

    /// What is with subcluster `index`, 0 to 31.
    #[inline]
    #[must_use]
    pub const fn state(self, index: u32) -> Subcluster {
        let index = index % SUBCLUSTERS;
        match (self.allocated() >> index & 1, self.zeroes() >> index & 1) {
            (0, 0) => Subcluster::Unallocated,
            (0, _) => Subcluster::Zero,
            (_, 0) => Subcluster::Data,
            _ => Subcluster::Invalid,
        }
    }

    /// The subclusters in order, neighbours of one state together: the first, how many, and their state.
    pub fn runs(self) -> impl Iterator<Item = (u32, u32, Subcluster)> {
        let mut next = 0;
        std::iter::from_fn(move || {
            let first = (next < SUBCLUSTERS).then_some(next)?;
            let state = self.state(first);
            while next < SUBCLUSTERS && self.state(next) == state {
                next += 1;
            }
            Some((first, next - first, state))
        })
    }

    #[inline]
    const fn mapping(self, host: Option<HostOffset>) -> Mapping {
        match (self.allocated(), self.zeroes(), host) {
            (0, 0, _) => Mapping::Unallocated { preallocated: host },
            (0, u32::MAX, _) => Mapping::Zero { preallocated: host },
            (u32::MAX, 0, Some(host)) => Mapping::Data(host),
            _ => Mapping::Subclusters { host },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qcow2::header::Header;
    use proptest::prelude::*;

    fn format(version: u8, cluster_bits: u8, incompatible: u8) -> L2Format {
        let mut bytes = vec![0; 104];
        (bytes[7], bytes[23], bytes[79]) = (version, cluster_bits, incompatible);
        L2Format::new(&Geometry::new(&Header::parse(&bytes).unwrap(), 0).unwrap())
    }

    const HOST: HostOffset = HostOffset(0x5_0000);

    #[test]
    fn the_zero_flag_is_one_in_version_3_only() {
        let preallocated = Mapping::Zero { preallocated: Some(HOST) };
        let entry = L2Entry::new(0x8000_0000_0005_0001);
        for (format, mapping, reserved) in [
            (format(3, 16, 0), preallocated, 0),
            (format(2, 16, 0), Mapping::Data(HOST), 1),
            (format(3, 16, 16), Mapping::Unallocated { preallocated: Some(HOST) }, 1),
        ] {
            assert_eq!((entry.mapping(&format), entry.reserved(&format)), (mapping, reserved));
        }
    }

    #[test]
    fn offset_0_is_one_with_an_external_data_file() {
        let entry = L2Entry::new(L2Entry::COPIED);
        assert_eq!(entry.mapping(&format(3, 16, 4)), Mapping::Data(HostOffset(0)));
        assert_eq!(entry.mapping(&format(3, 16, 0)), Mapping::Unallocated { preallocated: None });
        assert_eq!(L2Entry::new(0).mapping(&format(3, 16, 4)), Mapping::Unallocated { preallocated: None });
        let zero = L2Entry::new(L2Entry::COPIED | 1);
        assert_eq!(zero.mapping(&format(3, 16, 4)), Mapping::Zero { preallocated: None });
    }

    #[test]
    fn compressed_descriptors_split_where_the_cluster_size_says() {
        // cluster_bits, raw, offset, sectors, length
        for (bits, raw, offset, sectors, length) in [
            (16, 1 << 62 | 2 << 54 | 0x1_2345, 0x1_2345, 3, 3 * 512 - 0x145),
            (9, 1 << 62 | 1 << 61 | 0x200, 0x200, 2, 1024),
            (21, 0x7fff_ffff_ffff_ffff, (1 << 49) - 1, 8192, 8191 * 512 + 1),
            (21, 1 << 62, 0, 1, 512),
        ] {
            let compressed = L2Entry::new(raw).compressed(&format(3, bits, 0));
            assert_eq!(compressed, Compressed { offset: HostOffset(offset), length, sectors }, "{bits}");
        }
        let entry = L2Entry::new(1 << 62 | 1 << 56);
        assert_eq!(entry.reserved(&format(3, 9, 0)), 1 << 56);
        assert_eq!(entry.reserved(&format(3, 14, 0)), 0); // a number of sectors here
    }

    #[test]
    fn subclusters_have_their_states() {
        let bitmap = SubclusterBitmap(0b0110 | 0b1100 << 32);
        let states: Vec<_> = bitmap.runs().collect();
        assert_eq!(
            states,
            [
                (0, 1, Subcluster::Unallocated),
                (1, 1, Subcluster::Data),
                (2, 1, Subcluster::Invalid),
                (3, 1, Subcluster::Zero),
                (4, 28, Subcluster::Unallocated)
            ]
        );
        assert_eq!(bitmap.invalid(), 0b100);
        let format = format(3, 16, 16);
        for (bitmap, raw, mapping) in [
            (0, 0, Mapping::Unallocated { preallocated: None }),
            (0xffff_ffff, 0x5_0000, Mapping::Data(HOST)),
            (0xffff_ffff, 0, Mapping::Subclusters { host: None }),
            (0xffff_ffff << 32, 0x5_0000, Mapping::Zero { preallocated: Some(HOST) }),
            (1, 0x5_0000, Mapping::Subclusters { host: Some(HOST) }),
        ] {
            assert_eq!(L2Entry::extended(raw, bitmap).mapping(&format), mapping, "{bitmap:#x}");
        }
    }

    proptest! {
        #[test]
        fn the_parts_are_the_entry(raw: u64, bits in 9u8..=21, version in 2u8..=3, extended: bool) {
            let format = format(version, bits, if extended { 16 } else { 0 });
            let entry = L2Entry::new(raw);
            let high = raw & (L2Entry::COPIED | L2Entry::COMPRESSED);
            let low = if entry.is_compressed() {
                let compressed = entry.compressed(&format);
                prop_assert!(compressed.length > 0 && compressed.length <= compressed.sectors * 512);
                prop_assert_eq!((compressed.offset.0 + compressed.length) % 512, 0);
                compressed.offset.0 | (compressed.sectors - 1) << (70 - u32::from(bits))
            } else {
                let zero = u64::from(entry.zero_flag() && version == 3 && !extended);
                prop_assert_eq!(entry.reserved(&format) & zero, 0);
                entry.offset().0 | entry.reserved(&format) | zero
            };
            prop_assert_eq!(high | low, raw);
        }

        #[test]
        fn subcluster_runs_cover_the_cluster(bitmap: u64) {
            let bitmap = SubclusterBitmap(bitmap);
            let mut next = 0;
            for (first, count, state) in bitmap.runs() {
                prop_assert_eq!(first, next);
                next += count;
                prop_assert!((first..next).all(|index| bitmap.state(index) == state));
            }
            prop_assert_eq!(next, 32);
        }
    }
}
