//! [`Geometry`]: what the header's sizes make together, and where it says the tables are.

use std::ops::Range;

use crate::error::{Error, Reason, Result};
use crate::limits::CLUSTER_BITS;
use crate::qcow2::header::{Header, known_fields};
use crate::units::HostOffset;

/// Incompatible feature bit 2: guest clusters are in an external data file.
pub const INCOMPATIBLE_DATA_FILE: u64 = 1 << 2;
/// Incompatible feature bit 3: `compression_type` is not 0.
pub const INCOMPATIBLE_COMPRESSION_TYPE: u64 = 1 << 3;
/// Incompatible feature bit 4: L2 entries have 16 bytes, and clusters have subclusters.
pub const INCOMPATIBLE_EXTENDED_L2: u64 = 1 << 4;
/// The bits of `incompatible_features` that the specification defines. An image with any other must not be opened.
pub const KNOWN_INCOMPATIBLE_FEATURES: u64 = 0x1f;
/// Autoclear feature bit 1: the external data file is a raw image of its own.
pub const AUTOCLEAR_RAW_DATA_FILE: u64 = 1 << 1;

/// The least `cluster_bits` that the specification allows where L2 entries are extended.
pub const MIN_EXTENDED_L2_CLUSTER_BITS: u32 = 14;
/// The largest `refcount_order` that the specification allows: refcounts of 64 bits.
pub const MAX_REFCOUNT_ORDER: u32 = 6;
/// Subclusters of a cluster whose L2 entry is extended.
pub const SUBCLUSTERS: u32 = 32;

/// Bits 9 to 55: the offset of a cluster in entries of the L1 table, of L2 tables and of bitmap tables.
pub const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;

/// The largest L1 table that QEMU takes, in bytes.
pub const MAX_L1_BYTES: u64 = 32 << 20;

/// Sizes that can be worked with: one checked cluster size, and what follows from it. All the rest of the header is as
/// it is, right or wrong.
///
/// ```
/// use vdisk_format::qcow2::{Geometry, Header};
/// # let mut image = vec![0; 0x20000];
/// # image[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
/// # image[23] = 16;
/// # image[24..32].copy_from_slice(&(1u64 << 40).to_be_bytes());
/// # image[99] = 4;
/// // a header with cluster_bits 16, size 1 TiB, refcount_order 4
/// let geometry = Geometry::new(&Header::parse(&image)?, image.len() as u64)?;
/// assert_eq!(geometry.cluster_size(), 65536);
/// assert_eq!(geometry.l2_entries(), 8192);
/// assert_eq!(geometry.l1_entries_needed(), 2048);
/// assert_eq!(geometry.refcount_block_entries(), Some(32768));
/// image[23] = 22;
/// let error = Geometry::new(&Header::parse(&image)?, 0).unwrap_err();
/// assert_eq!(error.to_string(), "cluster_bits at offset 0x14: expected 9 to 21, found 22");
/// # Ok::<(), vdisk_format::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Geometry {
    version: u32,
    cluster_bits: u32,
    virtual_size: u64,
    refcount_order: Option<u32>,
    extended_l2: bool,
    data_file: bool,
    raw_data_file: bool,
    compression: Compression,
    crypt_method: u32,
    l1_table: Area,
    refcount_table: Area,
    file_length: u64,
}

/// How compressed clusters are compressed. Specification: "compression_type".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Compression {
    /// 0: a raw deflate stream, which QEMU calls zlib.
    Zlib,
    /// 1: zstd frames.
    Zstd,
    /// Nothing that the specification defines.
    Unknown(u8),
}

/// A range of the image file that something in it claims. Nobody has looked whether it is there, aligned or free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Area {
    /// Where it starts.
    pub offset: HostOffset,
    /// Its length in bytes.
    pub length: u64,
}

impl Area {
    /// The range from `offset` on of `length` bytes.
    #[must_use]
    pub const fn new(offset: u64, length: u64) -> Self {
        Self { offset: HostOffset(offset), length }
    }

    /// Where it ends, or the largest number there is.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.offset.0.saturating_add(self.length)
    }

    /// The part of it that is in a file of `length` bytes.
    #[must_use]
    pub fn clipped(self, length: u64) -> Self {
        Self { length: self.length.min(length.saturating_sub(self.offset.0)), ..self }
    }
}

impl Geometry {
    /// The geometry of an image whose file has `file_length` bytes.
    ///
    /// # Errors
    /// A refusal with [`Reason::BadGeometry`] where `cluster_bits` is not 9 to 21: whatever else is wrong with the header
    /// does not stop anybody from looking at the tables.
    pub fn new(header: &Header<'_>, file_length: u64) -> Result<Self> {
        let (v2, v3) = (&header.v2, &header.v3);
        if !CLUSTER_BITS.contains(&v2.cluster_bits) {
            let field = known_fields().find(|field| field.name == "cluster_bits");
            return Err(Error::refused(
                Reason::BadGeometry,
                "cluster_bits",
                field.map(|field| HostOffset(field.offset)),
                format!("{} to {}", CLUSTER_BITS.start(), CLUSTER_BITS.end()),
                v2.cluster_bits.to_string(),
            ));
        }
        let data_file = v3.incompatible_features & INCOMPATIBLE_DATA_FILE != 0;
        Ok(Self {
            version: v2.version,
            cluster_bits: v2.cluster_bits,
            virtual_size: v2.size,
            refcount_order: (v3.refcount_order <= MAX_REFCOUNT_ORDER).then_some(v3.refcount_order),
            extended_l2: v3.incompatible_features & INCOMPATIBLE_EXTENDED_L2 != 0,
            data_file,
            raw_data_file: data_file && v3.autoclear_features & AUTOCLEAR_RAW_DATA_FILE != 0,
            compression: match header.additional().compression_type().unwrap_or(0) {
                0 => Compression::Zlib,
                1 => Compression::Zstd,
                other => Compression::Unknown(other),
            },
            crypt_method: v2.crypt_method,
            l1_table: Area::new(v2.l1_table_offset, u64::from(v2.l1_size) * 8),
            refcount_table: Area::new(
                v2.refcount_table_offset,
                u64::from(v2.refcount_table_clusters) << v2.cluster_bits,
            ),
            file_length,
        })
    }

    /// The version that the header claims: 2 or 3, or another.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// 9 to 21.
    #[must_use]
    pub const fn cluster_bits(&self) -> u32 {
        self.cluster_bits
    }

    /// Bytes a cluster.
    #[must_use]
    pub const fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Bytes a subcluster; those of the cluster where L2 entries are not extended.
    #[must_use]
    pub const fn subcluster_size(&self) -> u64 {
        if self.extended_l2 { self.cluster_size() / SUBCLUSTERS as u64 } else { self.cluster_size() }
    }

    /// Size of the virtual disk in bytes.
    #[must_use]
    pub const fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    /// Clusters of the virtual disk, the last one perhaps in part.
    #[must_use]
    pub const fn guest_clusters(&self) -> u64 {
        self.virtual_size.div_ceil(self.cluster_size())
    }

    /// Length of the image file in bytes.
    #[must_use]
    pub const fn file_length(&self) -> u64 {
        self.file_length
    }

    /// Clusters of the image file, the last one perhaps in part.
    #[must_use]
    pub const fn file_clusters(&self) -> u64 {
        self.file_length.div_ceil(self.cluster_size())
    }

    /// Whether L2 entries have 16 bytes, and clusters have subclusters.
    #[must_use]
    pub const fn extended_l2(&self) -> bool {
        self.extended_l2
    }

    /// Bytes an L2 entry: 8 or 16.
    #[must_use]
    pub const fn l2_entry_size(&self) -> u64 {
        if self.extended_l2 { 16 } else { 8 }
    }

    /// Entries of an L2 table, which is one cluster.
    #[must_use]
    pub const fn l2_entries(&self) -> u64 {
        self.cluster_size() / self.l2_entry_size()
    }

    /// Bytes of the virtual disk that an L2 table is for.
    #[must_use]
    pub const fn l2_span(&self) -> u64 {
        self.l2_entries() << self.cluster_bits
    }

    /// L1 entries that the virtual disk needs.
    #[must_use]
    pub const fn l1_entries_needed(&self) -> u64 {
        self.virtual_size.div_ceil(self.l2_span())
    }

    /// Where the active L1 table is.
    #[must_use]
    pub const fn l1_table(&self) -> Area {
        self.l1_table
    }

    /// Entries of the active L1 table, as the header claims.
    #[must_use]
    pub const fn l1_size(&self) -> u64 {
        self.l1_table.length / 8
    }

    /// The indices in the L1 and in the L2 table of the entries for a guest offset.
    #[must_use]
    pub const fn indices(&self, guest: u64) -> (u64, u64) {
        let cluster = guest >> self.cluster_bits;
        (cluster / self.l2_entries(), cluster % self.l2_entries())
    }

    /// The guest offset that entry `l2_index` of the L2 table of L1 entry `l1_index` is for; `None` where that is no
    /// `u64`.
    #[must_use]
    pub fn guest_offset(&self, l1_index: u64, l2_index: u64) -> Option<u64> {
        l1_index.checked_mul(self.l2_entries())?.checked_add(l2_index)?.checked_mul(self.cluster_size())
    }

    /// What ends before this is counted as in the file, as QEMU does it: the file's last sector is whole, and a cluster may
    /// go beyond.
    #[must_use]
    pub(crate) const fn reach(&self) -> u64 {
        let sectors = self.file_length().div_ceil(512);
        sectors.saturating_mul(512).saturating_add(self.cluster_size())
    }

    /// Whether guest clusters are in an external data file.
    #[must_use]
    pub const fn data_file(&self) -> bool {
        self.data_file
    }

    /// Whether that file is a raw image of its own.
    #[must_use]
    pub const fn raw_data_file(&self) -> bool {
        self.raw_data_file
    }

    /// How compressed clusters are compressed.
    #[must_use]
    pub const fn compression(&self) -> Compression {
        self.compression
    }

    /// 0: none, 1: AES, 2: LUKS, or what nobody has defined.
    #[must_use]
    pub const fn crypt_method(&self) -> u32 {
        self.crypt_method
    }

    /// Where the refcount table is.
    #[must_use]
    pub const fn refcount_table(&self) -> Area {
        self.refcount_table
    }

    /// A refcount is `1 << refcount_order` bits wide; `None` where the header has an order above 6.
    #[must_use]
    pub const fn refcount_order(&self) -> Option<u32> {
        self.refcount_order
    }

    /// Refcounts of a refcount block, which is one cluster; `None` where the order is wrong.
    #[must_use]
    pub fn refcount_block_entries(&self) -> Option<u64> {
        self.refcount_order.map(|order| (self.cluster_size() * 8) >> order)
    }

    /// The cluster that refcount `index` of the block of refcount table entry `block` is about; `None` where that is no
    /// `u64`, or the order is wrong.
    #[must_use]
    pub fn refcounted_cluster(&self, block: u64, index: u64) -> Option<u64> {
        block.checked_mul(self.refcount_block_entries()?)?.checked_add(index)
    }

    /// The entry of the refcount table, and the refcount in its block, that are about a cluster; `None` where the order
    /// is wrong.
    #[must_use]
    pub fn refcount_indices(&self, cluster: u64) -> Option<(u64, u64)> {
        let entries = self.refcount_block_entries()?;
        Some((cluster / entries, cluster % entries))
    }

    /// Whether an offset is a multiple of the cluster size.
    #[must_use]
    pub const fn is_aligned(&self, offset: u64) -> bool {
        offset & (self.cluster_size() - 1) == 0
    }

    /// The clusters of the file that a range touches, also behind the end of the file.
    #[must_use]
    pub const fn clusters(&self, area: Area) -> Range<u64> {
        let first = area.offset.0 >> self.cluster_bits;
        if area.length == 0 { first..first } else { first..area.end().div_ceil(self.cluster_size()) }
    }

    /// Where the number of sectors begins in the descriptor of a compressed cluster, the specification's x; below it is
    /// the offset.
    #[must_use]
    pub const fn compressed_split(&self) -> u32 {
        62 - (self.cluster_bits - 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(change: impl Fn(&mut [u8])) -> Vec<u8> {
        let mut bytes = vec![0; 112];
        bytes[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        bytes[23] = 16;
        bytes[99] = 4;
        bytes[103] = 112;
        change(&mut bytes);
        bytes
    }

    fn geometry(change: impl Fn(&mut [u8])) -> Geometry {
        Geometry::new(&Header::parse(&header(change)).unwrap(), 0x10001).unwrap()
    }

    #[test]
    fn cluster_bits_are_9_to_21() {
        for bits in 0..=255 {
            let bytes = header(|bytes| bytes[23] = bits);
            let geometry = Geometry::new(&Header::parse(&bytes).unwrap(), 0);
            assert_eq!(geometry.is_ok(), (9..=21).contains(&bits), "{bits}");
            assert!(
                geometry.is_ok_and(|geometry| geometry.cluster_size() == 1 << bits)
                    || !(9..=21).contains(&bits)
            );
        }
    }

    #[test]
    fn a_wrong_refcount_order_stops_nothing_else() {
        let geometry = geometry(|bytes| bytes[99] = 7);
        assert_eq!((geometry.refcount_order(), geometry.refcount_indices(5)), (None, None));
        assert_eq!(geometry.l2_entries(), 8192);
    }

    #[test]
    fn version_2_has_refcounts_of_16_bits_and_no_features() {
        let geometry = geometry(|bytes| {
            bytes[7] = 2;
            bytes[72..112].fill(0xff);
        });
        assert_eq!(geometry.refcount_block_entries(), Some(32768));
        assert!(!geometry.extended_l2() && !geometry.data_file() && !geometry.raw_data_file());
        assert_eq!(geometry.compression(), Compression::Zlib);
    }

    #[test]
    fn features_say_what_is_where() {
        let extended = geometry(|bytes| bytes[79] = 0x10);
        assert_eq!(
            (extended.l2_entry_size(), extended.l2_entries(), extended.subcluster_size()),
            (16, 4096, 2048)
        );
        // Raw means nothing without an external data file.
        assert!(!geometry(|bytes| bytes[95] = 2).raw_data_file());
        let raw = geometry(|bytes| (bytes[79], bytes[95]) = (4, 2));
        assert!(raw.data_file() && raw.raw_data_file());
        assert_eq!(geometry(|bytes| bytes[104] = 1).compression(), Compression::Zstd);
        assert_eq!(geometry(|bytes| bytes[104] = 2).compression(), Compression::Unknown(2));
    }

    #[test]
    fn claims_of_any_size_are_ranges() {
        let claims = geometry(|bytes| bytes[36..60].fill(0xff));
        assert_eq!(claims.l1_table(), Area::new(u64::MAX, u64::from(u32::MAX) * 8));
        assert_eq!(claims.refcount_table().length, u64::from(u32::MAX) << 16);
        let clusters = claims.clusters(claims.refcount_table());
        assert_eq!(clusters, (u64::MAX >> 16)..(u64::MAX >> 16) + 1);
        assert_eq!(claims.clusters(Area::new(0x1ffff, 2)), 1..3);
        assert_eq!(claims.clusters(Area::new(0x1ffff, 0)), 1..1);
        assert_eq!(claims.file_clusters(), 2);
    }

    proptest! {
        #[test]
        fn indices_are_the_guest_offset(bits in 9u8..=21, extended: bool, guest: u64, size: u64) {
            let geometry = geometry(|bytes| {
                bytes[23] = bits;
                bytes[79] = u8::from(extended) << 4;
                bytes[24..32].copy_from_slice(&size.to_be_bytes());
            });
            let (l1_index, l2_index) = geometry.indices(guest);
            let start = geometry.guest_offset(l1_index, l2_index).unwrap();
            prop_assert_eq!(start, guest & !(geometry.cluster_size() - 1));
            prop_assert_eq!(guest < size, l1_index < geometry.l1_entries_needed() && guest < size);
        }

        #[test]
        fn every_cluster_has_one_refcount(bits in 9u8..=21, order in 0u8..=6, cluster: u64) {
            let geometry = geometry(|bytes| (bytes[23], bytes[99]) = (bits, order));
            let (block, index) = geometry.refcount_indices(cluster).unwrap();
            prop_assert_eq!(geometry.refcounted_cluster(block, index), Some(cluster));
        }
    }
}
