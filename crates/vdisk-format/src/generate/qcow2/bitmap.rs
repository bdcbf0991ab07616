//! Persistent bitmaps: directory entry, bitmap table and bitmap data.

use std::io::{self, Seek, Write};
use std::ops::Range;

use super::geometry::Geometry;
use super::layout::{Allocator, Span};
use crate::generate::GenerateError;
use crate::generate::guest::within;
use crate::generate::sink::Sink;

/// A dirty tracking bitmap.
///
/// ```
/// use vdisk_format::generate::{Bitmap, Qcow2};
///
/// let bitmap = Bitmap::new("b0").granularity_bits(12).auto(false).dirty(0..4096);
/// let image = Qcow2::new(1 << 20).bitmap(bitmap).build()?;
/// # Ok::<(), vdisk_format::generate::GenerateError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Bitmap {
    name: String,
    granularity_bits: u8,
    in_use: bool,
    auto: bool,
    extra_data_compatible: bool,
    extra_data: Vec<u8>,
    dirty: Vec<Range<u64>>,
}

impl Bitmap {
    /// An empty bitmap that is enabled (`auto`), with the default granularity of 64 KiB.
    pub fn new(name: impl Into<String>) -> Self {
        Bitmap {
            name: name.into(),
            granularity_bits: 16,
            in_use: false,
            auto: true,
            extra_data_compatible: false,
            extra_data: Vec::new(),
            dirty: Vec::new(),
        }
    }

    /// A bit stands for `1 << granularity_bits` bytes of the disk: 0 to 63, of which QEMU supports
    /// 9 to 31. The default is 16.
    pub fn granularity_bits(mut self, granularity_bits: u8) -> Self {
        self.granularity_bits = granularity_bits;
        self
    }

    /// Flag 0: the bitmap was not saved correctly. The default is `false`.
    pub fn in_use(mut self, in_use: bool) -> Self {
        self.in_use = in_use;
        self
    }

    /// Flag 1: the bitmap is enabled, it follows all writes. The default is `true`.
    pub fn auto(mut self, auto: bool) -> Self {
        self.auto = auto;
        self
    }

    /// Extra data, and with `compatible` flag 2, which says that who does not know the extra data
    /// may use the bitmap nevertheless. QEMU does not use a bitmap with extra data.
    pub fn extra_data(mut self, extra_data: impl Into<Vec<u8>>, compatible: bool) -> Self {
        self.extra_data = extra_data.into();
        self.extra_data_compatible = compatible;
        self
    }

    /// Marks a range of the disk, in bytes, as written to: sets every bit that it touches.
    pub fn dirty(mut self, range: Range<u64>) -> Self {
        self.dirty.push(range);
        self
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Refuses what a directory entry cannot say.
    pub(super) fn validate(&self) -> Result<(), GenerateError> {
        let (length, max) = (self.name.len() as u64, u64::from(u16::MAX));
        if !(1..=max).contains(&length) {
            return Err(GenerateError::Length { what: "a bitmap name", length, min: 1, max });
        }
        let (length, max) = (self.extra_data.len() as u64, u64::from(u32::MAX));
        if length > max {
            let what = "a bitmap's extra data";
            return Err(GenerateError::Length { what, length, min: 0, max });
        }
        if self.granularity_bits > 63 {
            let (field, value) = ("granularity_bits", u64::from(self.granularity_bits));
            return Err(GenerateError::Field { field, value, valid: "0 to 63" });
        }
        Ok(())
    }

    /// The length of its directory entry in bytes, with the padding.
    pub(super) fn entry_length(&self) -> u64 {
        let variable = self.extra_data.len() as u64 + self.name.len() as u64;
        (24 + variable).next_multiple_of(8)
    }

    /// Appends its directory entry to `directory`.
    pub(super) fn encode(&self, plan: &BitmapPlan, g: &Geometry, directory: &mut Vec<u8>) {
        let flags =
            u32::from(self.in_use) | u32::from(self.auto) << 1 | u32::from(self.extra_data_compatible) << 2;
        directory.extend(plan.table.offset(g).to_be_bytes());
        directory.extend(plan.table_size.to_be_bytes());
        directory.extend(flags.to_be_bytes());
        directory.push(1); // type: dirty tracking bitmap
        directory.push(self.granularity_bits);
        directory.extend((self.name.len() as u16).to_be_bytes());
        directory.extend((self.extra_data.len() as u32).to_be_bytes());
        directory.extend(&self.extra_data);
        directory.extend(self.name.as_bytes());
        directory.resize(directory.len().next_multiple_of(8), 0);
    }

    /// The bits that are set, as ranges that neither overlap nor touch, ascending.
    fn bits(&self, size: u64) -> Result<Vec<Range<u64>>, GenerateError> {
        let mut bits: Vec<Range<u64>> = Vec::new();
        let mut dirty = self.dirty.clone();
        dirty.sort_by_key(|range| range.start);
        for range in dirty {
            within(&range, size, "a bitmap's contents")?;
            if range.is_empty() {
                continue;
            }
            let first = range.start >> self.granularity_bits;
            let end = ((range.end - 1) >> self.granularity_bits) + 1;
            match bits.last_mut() {
                Some(last) if last.end >= first => last.end = last.end.max(end),
                _ => bits.push(first..end),
            }
        }
        Ok(bits)
    }
}

/// Entries of a bitmap table that are not zero: one with data, or several that are all ones.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    first: u64,
    count: u64,
    /// `None`: all ones, without a cluster.
    host: Option<u64>,
}

/// Where a bitmap is, and what is in it.
#[derive(Debug)]
pub(super) struct BitmapPlan {
    bits: Vec<Range<u64>>,
    runs: Vec<Run>,
    table: Span,
    /// The number of entries of the bitmap table.
    table_size: u32,
}

impl BitmapPlan {
    /// Finds out which entries the bitmap table has. They have no place yet.
    pub(super) fn new(bitmap: &Bitmap, g: &Geometry) -> Result<Self, GenerateError> {
        let bits = bitmap.bits(g.size)?;
        let per_cluster = g.cluster_size() * 8;
        let entries = g.size.div_ceil(1 << bitmap.granularity_bits).div_ceil(per_cluster);
        let table_size = u32::try_from(entries).map_err(|_| GenerateError::TableTooLong {
            what: "the bitmap table",
            entries,
            max: u64::from(u32::MAX),
        })?;
        let mut runs: Vec<Run> = Vec::new();
        for range in &bits {
            let mut at = range.start;
            while at < range.end {
                let (first, left) = (at / per_cluster, range.end - at);
                if at % per_cluster == 0 && left >= per_cluster {
                    let count = left / per_cluster;
                    runs.push(Run { first, count, host: None });
                    at += count * per_cluster;
                } else {
                    if runs.last().is_none_or(|last| last.first + last.count <= first) {
                        runs.push(Run { first, count: 1, host: Some(0) });
                    }
                    at = range.end.min((first + 1) * per_cluster);
                }
            }
        }
        Ok(BitmapPlan { bits, runs, table: Span::default(), table_size })
    }

    /// The clusters that the bitmap data takes.
    fn data_clusters(&self) -> u64 {
        self.runs.iter().filter(|run| run.host.is_some()).count() as u64
    }

    /// The clusters that the bitmap table takes.
    fn table_clusters(&self, g: &Geometry) -> u64 {
        g.clusters_for(u64::from(self.table_size) * 8)
    }

    /// The clusters that data and table take.
    pub(super) fn clusters(&self, g: &Geometry) -> u64 {
        self.data_clusters() + self.table_clusters(g)
    }

    /// Gives data and table their place.
    pub(super) fn place(&mut self, g: &Geometry, allocator: &mut Allocator) {
        for run in self.runs.iter_mut().filter(|run| run.host.is_some()) {
            run.host = Some(allocator.take(1).first);
        }
        self.table = allocator.take(self.table_clusters(g));
    }

    /// Writes data and table.
    pub(super) fn write<W: Write + Seek>(&self, g: &Geometry, sink: &mut Sink<'_, W>) -> io::Result<()> {
        let mut cluster = vec![0; g.cluster_len()];
        for run in &self.runs {
            let Some(host) = run.host else { continue };
            self.fill(run.first * g.cluster_size() * 8, &mut cluster);
            sink.put(host << g.cluster_bits, &cluster)?;
        }
        for run in &self.runs {
            // Offset 0 and bit 0: reads as all ones.
            let entry = run.host.map_or(1, |host| host << g.cluster_bits).to_be_bytes();
            for index in run.first..run.first + run.count {
                sink.put(self.table.offset(g) + index * 8, &entry)?;
            }
        }
        Ok(())
    }

    /// Fills a cluster with the bits from `first` on, the least significant of a byte first.
    fn fill(&self, first: u64, cluster: &mut [u8]) {
        cluster.fill(0);
        let end = first + cluster.len() as u64 * 8;
        let skip = self.bits.partition_point(|range| range.end <= first);
        for range in self.bits.iter().skip(skip).take_while(|range| range.start < end) {
            let (start, end) = (range.start.max(first) - first, range.end.min(end) - first);
            for index in start / 8..end.div_ceil(8) {
                let (from, to) = (start.max(index * 8) - index * 8, end.min(index * 8 + 8) - index * 8);
                if let Some(byte) = cluster.get_mut(index as usize) {
                    *byte |= (0xff >> (8 - (to - from))) << from;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const G: Geometry = Geometry { size: 10 << 20, cluster_bits: 9, refcount_order: 4, extended_l2: false };

    #[test]
    fn touched_bits_are_merged() {
        let bitmap = Bitmap::new("b").granularity_bits(9).dirty(1024..1025).dirty(0..513);
        assert_eq!(bitmap.bits(G.size).unwrap(), vec![Range { start: 0, end: 3 }]);
        assert!(bitmap.clone().dirty(0..G.size + 1).bits(G.size).is_err());
        let plan = BitmapPlan::new(&bitmap, &G).unwrap();
        let mut cluster = vec![0xff; 512];
        plan.fill(0, &mut cluster);
        assert_eq!(cluster[..2], [7, 0]);
    }

    #[test]
    fn full_clusters_are_all_ones() {
        // A cluster of bits stands for 2 MiB, and the table has five entries.
        let bitmap = Bitmap::new("b").granularity_bits(9);
        let bitmap = bitmap.dirty(1 << 20..7 << 20).dirty(0..1).dirty(7 << 20..(7 << 20) + 1);
        let mut plan = BitmapPlan::new(&bitmap, &G).unwrap();
        assert_eq!((plan.table_size, plan.clusters(&G)), (5, 3));
        let mut allocator = Allocator::from(100);
        plan.place(&G, &mut allocator);
        let run = |first, count, host| Run { first, count, host };
        assert_eq!(plan.runs, [run(0, 1, Some(100)), run(1, 2, None), run(3, 1, Some(101))]);
        assert_eq!(plan.table.first, 102);
    }

    #[test]
    fn what_an_entry_cannot_say_is_refused() {
        assert!(Bitmap::new("").validate().is_err());
        assert!(Bitmap::new("n".repeat(65536)).validate().is_err());
        assert!(Bitmap::new("n").granularity_bits(64).validate().is_err());
        let g = Geometry { size: 1 << 50, ..G };
        let error = BitmapPlan::new(&Bitmap::new("n").granularity_bits(0), &g).unwrap_err();
        assert!(matches!(error, GenerateError::TableTooLong { .. }));
    }
}
