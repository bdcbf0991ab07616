//! Goes through the plan, front to back, and writes what is not zero.

use std::io::{self, Seek, Write};

use super::disk::{Disk, Place, Run};
use super::geometry::Geometry;
use super::layout::{Layout, Span};
use super::{Qcow2, header};
use crate::generate::GenerateError;
use crate::generate::guest::Contents;
use crate::generate::sink::Sink;

/// L1 and L2 entries: the reference count is exactly one, so a write needs no copy.
const COPIED: u64 = 1 << 63;
/// L2 entries: the descriptor of a compressed cluster.
const COMPRESSED: u64 = 1 << 62;
/// L2 entries: the cluster reads as zeros.
const ZERO: u64 = 1;
/// The subclusters that are allocated, of those in a [`Run`].
const ALLOCATED: u64 = 0xffff_ffff;
/// Compressed data is counted in sectors of this many bytes.
const SECTOR_SIZE: u64 = 512;

/// Writes the image file. Returns its length in bytes.
pub(super) fn image<W: Write + Seek>(
    wanted: &Qcow2,
    layout: &Layout,
    out: &mut W,
) -> Result<u64, GenerateError> {
    let g = &layout.geometry;
    let mut sink = Sink::new(out);
    sink.put(0, &header::encode(wanted, layout))?;
    if let Some(luks) = &wanted.luks {
        sink.put(layout.luks.offset(g), &luks.encode())?;
    }
    refcounts(layout, &mut sink)?;
    let mut disk = Disk::new(wanted, *g);
    let mut snapshot_l1_tables = layout.snapshot_l1_tables.iter();
    for (operations, snapshot) in wanted.steps() {
        let changed = disk.step(operations)?;
        let step = Step { layout, disk: &disk, is_last: snapshot.is_none() };
        step.l2_tables(&changed, &mut sink)?;
        let l1_table = snapshot_l1_tables.next().unwrap_or(&layout.l1_table);
        step.l1_table(l1_table, &mut sink)?;
    }
    sink.put(layout.snapshot_table.offset(g), &snapshot_table(wanted, layout))?;
    let mut directory = Vec::new();
    for (bitmap, plan) in wanted.bitmaps.iter().zip(&layout.bitmaps) {
        plan.write(g, &mut sink)?;
        bitmap.encode(plan, g, &mut directory);
    }
    sink.put(layout.bitmap_directory.offset(g), &directory)?;
    Ok(sink.finish(layout.file_length())?)
}

/// Writes the guest's disk as a raw image. Returns its length in bytes.
pub(super) fn raw<W: Write + Seek>(
    wanted: &Qcow2,
    layout: &Layout,
    out: &mut W,
) -> Result<u64, GenerateError> {
    let g = &layout.geometry;
    let contents = Contents::paint(&wanted.contents, g.grain())?;
    let mut sink = Sink::new(out);
    for (at, bytes) in contents.data(0..g.size) {
        sink.put(at, bytes)?;
    }
    Ok(sink.finish(g.size)?)
}

fn refcounts<W: Write + Seek>(layout: &Layout, sink: &mut Sink<'_, W>) -> io::Result<()> {
    let g = &layout.geometry;
    let (table, blocks) = (layout.refcount_table, layout.refcount_blocks);
    for index in 0..blocks.count {
        let entry = ((blocks.first + index) << g.cluster_bits).to_be_bytes();
        sink.put(table.offset(g) + index * 8, &entry)?;
    }
    let mut buffer = vec![0; g.cluster_len()];
    for index in 0..blocks.count {
        layout.refcounts.fill(g, index, &mut buffer);
        sink.put((blocks.first + index) << g.cluster_bits, &buffer)?;
    }
    Ok(())
}

/// What a step of the disk adds to the file.
struct Step<'a> {
    layout: &'a Layout,
    disk: &'a Disk<'a>,
    /// Whether no snapshot has what is new.
    is_last: bool,
}

impl Step<'_> {
    /// Writes an L1 table: that of the snapshot that follows, or the active one.
    fn l1_table<W: Write + Seek>(&self, span: &Span, sink: &mut Sink<'_, W>) -> io::Result<()> {
        let g = &self.layout.geometry;
        for (l1_index, table) in self.disk.tables() {
            let entry = self.host_offset(table.item) | self.copied(table.since);
            sink.put(span.offset(g) + l1_index * 8, &entry.to_be_bytes())?;
        }
        Ok(())
    }

    /// Writes the L2 tables of these L1 entries, and all data that is new.
    fn l2_tables<W: Write + Seek>(&self, l1_indices: &[u64], sink: &mut Sink<'_, W>) -> io::Result<()> {
        let g = &self.layout.geometry;
        let mut buffer = vec![0; g.cluster_len()];
        for &l1_index in l1_indices {
            let Some((table, runs)) = self.disk.table(l1_index) else { continue };
            buffer.fill(0);
            let mut new = Vec::new();
            for (first, run) in runs {
                self.fill(first, &run, &mut buffer);
                new.extend(self.disk.is_new(run.since).then_some((first, run)));
            }
            sink.put(self.host_offset(table.item), &buffer)?;
            for (first, run) in new {
                self.data(first, &run, sink)?;
            }
        }
        Ok(())
    }

    /// Fills in the entries of one run. `table` has the size of a cluster.
    fn fill(&self, first: u64, run: &Run, table: &mut [u8]) {
        let g = &self.layout.geometry;
        let size = g.l2_entry_size() as usize;
        let start = (first % g.l2_entries()) as usize * size;
        let entries = table.get_mut(start..start + run.count as usize * size).unwrap_or_default();
        let zero = if g.extended_l2 || run.subclusters & ALLOCATED != 0 { 0 } else { ZERO };
        let copied = self.copied(run.since);
        for (index, entry) in (0..).zip(entries.chunks_exact_mut(size)) {
            let value = match run.place {
                Place::Nowhere => zero,
                Place::External => ((first + index) << g.cluster_bits) | COPIED | zero,
                Place::Items(item) => self.host_offset(item + index) | copied | zero,
                Place::Compressed(stream) => {
                    descriptor(g, self.host_offset(stream.item) + stream.within, stream.length)
                }
            };
            let (descriptor, bitmap) = entry.split_at_mut(8);
            descriptor.copy_from_slice(&value.to_be_bytes());
            if g.extended_l2 {
                bitmap.copy_from_slice(&run.subclusters.to_be_bytes());
            }
        }
    }

    /// Writes the data of one run.
    fn data<W: Write + Seek>(&self, first: u64, run: &Run, sink: &mut Sink<'_, W>) -> io::Result<()> {
        let g = &self.layout.geometry;
        match run.place {
            Place::Nowhere | Place::External => {}
            Place::Compressed(stream) => {
                let at = self.host_offset(stream.item) + stream.within;
                sink.put(at, &self.disk.compressed(first).unwrap_or_default())?;
            }
            Place::Items(item) => {
                let start = first << g.cluster_bits;
                let end = start.saturating_add(run.count << g.cluster_bits).min(g.size);
                for (mut at, mut bytes) in self.disk.contents().data(start..end) {
                    while !bytes.is_empty() {
                        let (index, within) = ((at - start) >> g.cluster_bits, at % g.cluster_size());
                        let room = (g.cluster_size() - within) as usize;
                        let (here, rest) = bytes.split_at(room.min(bytes.len()));
                        sink.put(self.host_offset(item + index) + within, here)?;
                        at += here.len() as u64;
                        bytes = rest;
                    }
                }
            }
        }
        Ok(())
    }

    /// The flag for what was written in this step: it is only accurate where it can be reached
    /// from the active L1 table.
    fn copied(&self, since: u64) -> u64 {
        if self.is_last && self.disk.is_new(since) { COPIED } else { 0 }
    }

    /// Where an item is, in bytes.
    fn host_offset(&self, item: u64) -> u64 {
        self.layout.places().host(item) << self.layout.geometry.cluster_bits
    }
}

/// The compressed cluster descriptor of `length` bytes at the host offset `at`.
fn descriptor(g: &Geometry, at: u64, length: u64) -> u64 {
    let sectors = (at + length - 1) / SECTOR_SIZE - at / SECTOR_SIZE;
    COMPRESSED | (sectors << g.compressed_offset_bits()) | at
}

fn snapshot_table(wanted: &Qcow2, layout: &Layout) -> Vec<u8> {
    let mut table = Vec::new();
    for ((_, snapshot), l1) in wanted.snapshots.iter().zip(&layout.snapshot_l1_tables) {
        let offset = l1.offset(&layout.geometry);
        snapshot.encode(offset, layout.l1_size, wanted.size, &mut table);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::Snapshot;
    use crate::generate::qcow2::compress::compress;

    fn entry(image: &[u8], at: usize) -> u64 {
        u64::from_be_bytes(image[at..at + 8].try_into().unwrap())
    }

    #[test]
    fn the_copied_flag_follows_the_reference_count() {
        let wanted = Qcow2::new(1 << 20).data(65536, b"x").zero(0..65536);
        let image = wanted.build().unwrap();
        assert_eq!(entry(&image, 3 << 16), COPIED | 4 << 16);
        assert_eq!(entry(&image, 4 << 16), ZERO);
        assert_eq!(entry(&image, (4 << 16) + 8), COPIED | 5 << 16);
        let image = wanted.snapshot(Snapshot::new("1", "s")).build().unwrap();
        assert_eq!(entry(&image, 3 << 16), 4 << 16);
        assert_eq!(entry(&image, (4 << 16) + 8), 5 << 16);
        assert_eq!(entry(&image, 6 << 16), 4 << 16, "the snapshot's L1 table");
        // Header, refcounts and L1 table once; L2 table and data twice.
        assert_eq!(image[2 << 16..(2 << 16) + 12], [0, 1, 0, 1, 0, 1, 0, 1, 0, 2, 0, 2]);
    }

    #[test]
    fn extended_entries_have_no_zero_flag() {
        let wanted = Qcow2::new(1 << 20).extended_l2(true).zero(0..65536).data(65536, b"x");
        let image = wanted.zero_preallocated(131_072..196_608).build().unwrap();
        let entries: Vec<u64> = (0..6).map(|index| entry(&image, (4 << 16) + index * 8)).collect();
        let all_zero = 0xffff_ffff << 32;
        assert_eq!(entries, [0, all_zero, COPIED | 5 << 16, 1, COPIED | 6 << 16, all_zero]);
    }

    #[test]
    fn external_data_is_at_its_own_offset_and_elsewhere() {
        let wanted = Qcow2::new(200_000).data_file("d", true).data(70_000, b"abc").data(0, b"z");
        let image = wanted.build().unwrap();
        assert_eq!(image.len(), 5 << 16);
        assert_eq!(entry(&image, 4 << 16), COPIED);
        assert_eq!(entry(&image, (4 << 16) + 8), COPIED | 65536);
        let raw = wanted.build_raw().unwrap();
        assert_eq!((raw.len(), &raw[..1], &raw[70_000..70_003]), (200_000, &b"z"[..], &b"abc"[..]));
    }

    #[test]
    fn compressed_clusters_share_host_clusters() {
        let wanted = Qcow2::new(1 << 20).cluster_bits(9).compressed(0, [[1; 512], [2; 512]].concat());
        let image = wanted.build().unwrap();
        // Header, refcount table, refcount block, L1 table, L2 table, data.
        let (l2_table, data) = (4 * 512, 5 * 512);
        let length = compress(0, &[1; 512]).len();
        let entries = [entry(&image, l2_table), entry(&image, l2_table + 8)];
        assert_eq!(entries, [COMPRESSED | data, COMPRESSED | (data + length as u64)]);
        assert_eq!(image[1024 + 8..1024 + 14], [0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn descriptors_count_sectors_behind_the_first() {
        let g = Geometry { size: 0, cluster_bits: 16, refcount_order: 4, extended_l2: false };
        let sectors = |at, length| (descriptor(&g, at, length) - COMPRESSED - at) >> 54;
        assert_eq!([sectors(0, 512), sectors(0, 513), sectors(511, 1), sectors(511, 2)], [0, 1, 0, 1]);
        assert_eq!(sectors(65_535, 65_535), 128);
    }
}
