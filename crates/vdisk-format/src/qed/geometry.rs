//! [`Geometry`]: what the header's sizes make together, and what an entry of a table means under them.

use std::ops::RangeInclusive;

use crate::error::{Error, Reason, Result};
use crate::qed::header::{Header, known_fields};
use crate::table::Run;
use crate::units::HostOffset;
use crate::view::SECTOR;

/// The cluster sizes that the specification allows, in bytes; powers of two only.
pub const CLUSTER_SIZES: RangeInclusive<u32> = 1 << 12..=1 << 26;
/// The table sizes that the specification allows, in clusters; powers of two only.
pub const TABLE_SIZES: RangeInclusive<u32> = 1..=16;

/// Sizes that can be worked with: a cluster size and a table size that the specification allows, on a file of a length.
///
/// ```
/// use vdisk_format::qed::{Entry, Geometry, Header, HeaderFields, Invalid};
/// let fields = HeaderFields { cluster_size: 65536, table_size: 4, header_size: 1, ..Default::default() };
/// let mut image = fields.to_bytes();
/// image.resize(10 * 65536, 0);
/// let geometry = Geometry::new(&Header::parse(&image)?)?;
/// assert_eq!(geometry.entries(), 4 * 65536 / 8);
/// assert_eq!(geometry.entry(0x20000), Entry::Data(0x20000.into()));
/// assert_eq!(geometry.entry(0xa0000), Entry::Invalid(Invalid::PastEnd));
/// assert_eq!(geometry.table_offset(0x70000), Err(Invalid::CutShort)); // a table takes four clusters
/// # Ok::<(), vdisk_format::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    cluster_bits: u32,
    table_bits: u32,
    header_end: u64,
    clusters: u64,
    image_size: u64,
}

/// What is wrong with an entry of an L1 or L2 table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Invalid {
    /// It is no multiple of the cluster size.
    Unaligned,
    /// It lies in the header's clusters.
    InHeader,
    /// It lies behind the last whole cluster of the file.
    PastEnd,
    /// A table begins inside the file and ends behind its last whole cluster.
    CutShort,
    /// Its table, or a part of it, is that of too many other entries.
    TooOften,
}

/// What an entry of an L2 table says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Entry {
    /// 0: reads come from the backing file, or are zeroes.
    Unallocated,
    /// 1: reads are zeroes, whatever the backing file has.
    Zero,
    /// The data are in the cluster at this offset.
    Data(HostOffset),
    /// Nothing that the specification allows.
    Invalid(Invalid),
}

impl Geometry {
    /// The geometry of an image: `header` tells its sizes and its file's length.
    ///
    /// # Errors
    /// A refusal with [`Reason::BadGeometry`] where the cluster size or the table size is none that the specification
    /// allows.
    pub fn new(header: &Header<'_>) -> Result<Self> {
        let fields = &header.fields;
        Self::validated("cluster_size", fields.cluster_size, &CLUSTER_SIZES)?;
        Self::validated("table_size", fields.table_size, &TABLE_SIZES)?;
        let cluster_bits = fields.cluster_size.trailing_zeros();
        // QEMU sees files in sectors: one that ends inside a sector has all of it.
        let length = (header.image().len() as u64).next_multiple_of(SECTOR);
        Ok(Self {
            cluster_bits,
            table_bits: fields.table_size.trailing_zeros(),
            header_end: u64::from(fields.header_size) << cluster_bits,
            clusters: length >> cluster_bits,
            image_size: fields.image_size,
        })
    }

    fn validated(name: &str, value: u32, allowed: &RangeInclusive<u32>) -> Result<()> {
        if value.is_power_of_two() && allowed.contains(&value) {
            return Ok(());
        }
        let offset = known_fields().find(|field| field.name == name).map(|field| HostOffset(field.offset));
        let expected = format!("a power of two from {} to {}", allowed.start(), allowed.end());
        Err(Error::refused(Reason::BadGeometry, name, offset, expected, value.to_string()))
    }

    /// Bytes a cluster.
    #[must_use]
    pub fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    pub(crate) fn cluster_bits(&self) -> u32 {
        self.cluster_bits
    }

    /// Clusters a table.
    #[must_use]
    pub fn table_clusters(&self) -> u64 {
        1 << self.table_bits
    }

    /// Bytes a table.
    #[must_use]
    pub fn table_bytes(&self) -> u64 {
        1 << (self.cluster_bits + self.table_bits)
    }

    /// Entries of a table: of the L1 table, and of each L2 table.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.table_bytes() / 8
    }

    /// Offset of the first cluster that is not the header's.
    #[must_use]
    pub fn header_end(&self) -> HostOffset {
        HostOffset(self.header_end)
    }

    /// Whole clusters of the file; as for QEMU, its last sector counts as whole.
    #[must_use]
    pub fn clusters(&self) -> u64 {
        self.clusters
    }

    /// Where these end.
    #[must_use]
    pub fn file_end(&self) -> HostOffset {
        HostOffset(self.clusters << self.cluster_bits)
    }

    /// Clusters of the virtual disk, the last one perhaps in part.
    #[must_use]
    pub fn guest_clusters(&self) -> u64 {
        self.image_size.div_ceil(self.cluster_size())
    }

    /// Size of the virtual disk in bytes.
    #[must_use]
    pub fn image_size(&self) -> u64 {
        self.image_size
    }

    /// The largest virtual disk that these tables address, in bytes: beyond 2^64 where they are large.
    #[must_use]
    pub fn max_image_size(&self) -> u128 {
        (u128::from(self.entries()) * u128::from(self.entries())) << self.cluster_bits
    }

    /// The guest offset that entry `l2_index` of the L2 table of L1 entry `l1_index` is for; `None` where that is no
    /// `u64`.
    #[must_use]
    pub fn guest_offset(&self, l1_index: u64, l2_index: u64) -> Option<u64> {
        l1_index.checked_mul(self.entries())?.checked_add(l2_index)?.checked_mul(self.cluster_size())
    }

    /// The indices in the L1 and in the L2 table of the entries for a guest offset.
    #[must_use]
    pub fn indices(&self, guest: u64) -> (u64, u64) {
        let cluster = guest >> self.cluster_bits;
        (cluster / self.entries(), cluster % self.entries())
    }

    /// What an L2 entry says.
    #[must_use]
    pub fn entry(&self, value: u64) -> Entry {
        match value {
            0 => Entry::Unallocated,
            1 => Entry::Zero,
            _ => self.invalid(value).map_or(Entry::Data(HostOffset(value)), Entry::Invalid),
        }
    }

    /// What is wrong with `offset` as that of a cluster.
    fn invalid(&self, offset: u64) -> Option<Invalid> {
        if offset & (self.cluster_size() - 1) != 0 {
            Some(Invalid::Unaligned)
        } else if offset < self.header_end || offset == 0 {
            // As QEMU sees it: where the header claims more than the file has, this comes first.
            Some(Invalid::InHeader)
        } else if offset >= self.file_end().0 {
            Some(Invalid::PastEnd)
        } else {
            None
        }
    }

    /// What is wrong with `offset` as that of a table, in an L1 entry that is not 0 or in the header.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn table_offset(&self, offset: u64) -> Result<HostOffset, Invalid> {
        match self.invalid(offset) {
            Some(invalid) => Err(invalid),
            None if self.file_end().0 - offset < self.table_bytes() => Err(Invalid::CutShort),
            None => Ok(HostOffset(offset)),
        }
    }

    /// The parts of a run that are of one kind each: of a run of offsets that reaches from the header's clusters into
    /// those behind them, or over the end of the file.
    pub fn kinds(&self, run: Run) -> impl Iterator<Item = (Entry, Run)> + use<> {
        let (geometry, mut left) = (*self, run);
        std::iter::from_fn(move || {
            if left.count == 0 {
                return None;
            }
            let entry = geometry.entry(left.value);
            let bits = geometry.cluster_bits;
            let end = match entry {
                Entry::Data(_) => Some(geometry.file_end().0),
                Entry::Invalid(Invalid::InHeader) => Some(geometry.header_end),
                _ => None,
            };
            let count = end.map_or(left.count, |end| left.count.min((end - left.value) >> bits));
            let part = Run { count, ..left };
            left.count -= count;
            left.index += count;
            if left.count > 0 {
                left.value += count << bits;
            }
            Some((entry, part))
        })
    }
}

impl Invalid {
    /// In words, for a finding.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Unaligned => "no multiple of the cluster size",
            Self::InHeader => "a cluster of the header",
            Self::PastEnd => "an offset past the end of the file",
            Self::CutShort => "a table that the end of the file cuts short",
            Self::TooOften => "a table of too many other entries",
        }
    }

    /// The last part of a finding's code.
    pub(crate) const fn codes(self) -> (&'static str, &'static str) {
        match self {
            Self::Unaligned => ("l1-entry-unaligned", "l2-entry-unaligned"),
            Self::InHeader => ("l1-entry-in-header", "l2-entry-in-header"),
            Self::PastEnd => ("l1-entry-past-end", "l2-entry-past-end"),
            Self::CutShort => ("l2-table-cut-short", "l2-table-cut-short"),
            Self::TooOften => ("l2-table-overlap", "l2-table-overlap"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qed::header::HeaderFields;
    use proptest::prelude::*;

    fn geometry(header_size: u32, clusters: u64) -> Geometry {
        Geometry {
            cluster_bits: 12,
            table_bits: 1,
            header_end: u64::from(header_size) << 12,
            clusters,
            image_size: 1 << 30,
        }
    }

    #[test]
    fn what_an_entry_says() {
        let geometry = geometry(2, 10);
        for (value, entry) in [
            (0, Entry::Unallocated),
            (1, Entry::Zero),
            (2, Entry::Invalid(Invalid::Unaligned)),
            (0x1000, Entry::Invalid(Invalid::InHeader)),
            (0x2000, Entry::Data(HostOffset(0x2000))),
            (0x9000, Entry::Data(HostOffset(0x9000))),
            (0x9001, Entry::Invalid(Invalid::Unaligned)),
            (0xa000, Entry::Invalid(Invalid::PastEnd)),
            (u64::MAX << 12, Entry::Invalid(Invalid::PastEnd)),
        ] {
            assert_eq!(geometry.entry(value), entry, "{value:#x}");
        }
        assert_eq!(geometry.table_offset(0x8000), Ok(HostOffset(0x8000)));
        assert_eq!(geometry.table_offset(0x9000), Err(Invalid::CutShort));
    }

    #[test]
    fn the_last_sector_counts_as_whole() {
        let fields = HeaderFields { cluster_size: 4096, table_size: 2, ..HeaderFields::default() };
        let clusters = |length: usize| {
            let mut bytes = fields.to_bytes();
            bytes.resize(length, 0);
            Geometry::new(&Header::parse(&bytes).unwrap()).unwrap().clusters()
        };
        assert_eq!([8191, 8192, 7680, 7681].map(clusters), [2, 2, 1, 2]);
    }

    #[test]
    fn sizes_that_the_specification_forbids_are_refused() {
        for (cluster_size, table_size) in
            [(0, 4), (2048, 4), (1 << 27, 4), (65535, 4), (65536, 0), (65536, 3), (65536, 32)]
        {
            let bytes = HeaderFields { cluster_size, table_size, ..HeaderFields::default() }.to_bytes();
            let error = Geometry::new(&Header::parse(&bytes).unwrap()).unwrap_err();
            assert_eq!(error.reason(), Some(Reason::BadGeometry), "{cluster_size} {table_size}");
        }
    }

    proptest! {
        #[test]
        fn the_parts_of_a_run_are_the_run(
            value in prop_oneof![0..20u64, (0..20u64).prop_map(|n| n << 12), any::<u64>()],
            count in 1..30u64,
            header_size in 0..20u32,
            clusters in 0..20u64,
        ) {
            let geometry = geometry(header_size, clusters);
            let count = if value < 2 { count } else { count.min(((u64::MAX - value) >> 12) + 1) };
            let values = |run: Run| (0..run.count).map(move |i| if run.value < 2 { run.value } else { run.value + (i << 12) });
            let mut all = Vec::new();
            for (entry, part) in geometry.kinds(Run { index: 5, count, value }) {
                prop_assert_eq!(part.index, 5 + all.len() as u64);
                for value in values(part) {
                    let kind = |entry| match entry { Entry::Data(_) => Entry::Data(HostOffset(0)), other => other };
                    prop_assert_eq!(kind(geometry.entry(value)), kind(entry));
                    all.push(value);
                }
            }
            prop_assert_eq!(all, values(Run { index: 5, count, value }).collect::<Vec<_>>());
        }
    }
}
