//! Goes through the plan, front to back, and writes what is not zero.

use std::io::{self, Seek, Write};

use super::geometry::Geometry;
use super::layout::Layout;
use super::{Qcow2, header};
use crate::generate::GenerateError;
use crate::generate::guest::Extent;
use crate::generate::sink::Sink;
use crate::generate::tables::L2Table;

/// L1 and L2 entries: the reference count is exactly one, so a write needs no copy.
const COPIED: u64 = 1 << 63;
/// L2 entries: the cluster reads as zeros.
const ZERO: u64 = 1;
/// The subclusters that are allocated, of those in an [`Extent`].
const ALLOCATED: u64 = 0xffff_ffff;

/// Writes the image file. Returns its length in bytes.
pub(super) fn image<W: Write + Seek>(
    wanted: &Qcow2,
    layout: &Layout<'_>,
    out: &mut W,
) -> Result<u64, GenerateError> {
    let g = &layout.geometry;
    let mut sink = Sink::new(out);
    sink.put(0, &header::encode(wanted, layout))?;
    refcounts(layout, &mut sink)?;
    let copied = if layout.is_shared() { 0 } else { COPIED };
    l1_table(layout, layout.l1_table.offset(g), copied, &mut sink)?;
    let mut buffer = vec![0; g.cluster_len()];
    for table in &layout.l2_tables {
        let extents = layout.extents.get(table.extents.clone()).unwrap_or_default();
        fill_l2_table(g, extents, copied, &mut buffer);
        sink.put(table.host << g.cluster_bits, &buffer)?;
        if wanted.data_file.is_none() {
            data(layout, extents, &mut sink)?;
        }
    }
    for l1 in &layout.snapshot_l1_tables {
        l1_table(layout, l1.offset(g), 0, &mut sink)?;
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
pub(super) fn raw<W: Write + Seek>(layout: &Layout<'_>, out: &mut W) -> Result<u64, GenerateError> {
    let mut sink = Sink::new(out);
    for (at, bytes) in layout.contents.data(0..layout.geometry.size) {
        sink.put(at, bytes)?;
    }
    Ok(sink.finish(layout.geometry.size)?)
}

fn refcounts<W: Write + Seek>(layout: &Layout<'_>, sink: &mut Sink<'_, W>) -> io::Result<()> {
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

/// Writes an L1 table at the offset `at`.
fn l1_table<W: Write + Seek>(
    layout: &Layout<'_>,
    at: u64,
    copied: u64,
    sink: &mut Sink<'_, W>,
) -> io::Result<()> {
    for L2Table { l1_index, host, .. } in &layout.l2_tables {
        let entry = (host << layout.geometry.cluster_bits) | copied;
        sink.put(at + l1_index * 8, &entry.to_be_bytes())?;
    }
    Ok(())
}

/// Fills `table`, which has the size of a cluster, with the entries of one L2 table.
fn fill_l2_table(g: &Geometry, extents: &[Extent], copied: u64, table: &mut [u8]) {
    table.fill(0);
    let size = g.l2_entry_size() as usize;
    for extent in extents {
        let first = (extent.first % g.l2_entries()) as usize * size;
        let end = first + extent.count as usize * size;
        let entries = table.get_mut(first..end).unwrap_or_default();
        for (host, entry) in (extent.host.unwrap_or(0)..).zip(entries.chunks_exact_mut(size)) {
            let place = if extent.allocated { (host << g.cluster_bits) | copied } else { 0 };
            let zero = if extent.subclusters & ALLOCATED == 0 { ZERO } else { 0 };
            let (descriptor, bitmap) = entry.split_at_mut(8);
            if g.extended_l2 {
                descriptor.copy_from_slice(&place.to_be_bytes());
                bitmap.copy_from_slice(&extent.subclusters.to_be_bytes());
            } else {
                descriptor.copy_from_slice(&(place | zero).to_be_bytes());
            }
        }
    }
}

/// Writes the data that the extents hold.
fn data<W: Write + Seek>(layout: &Layout<'_>, extents: &[Extent], sink: &mut Sink<'_, W>) -> io::Result<()> {
    let g = &layout.geometry;
    for extent in extents {
        let Some(host) = extent.host else { continue };
        let start = extent.first << g.cluster_bits;
        let end = start.saturating_add(extent.count << g.cluster_bits).min(g.size);
        for (at, bytes) in layout.contents.data(start..end) {
            sink.put((host << g.cluster_bits) + (at - start), bytes)?;
        }
    }
    Ok(())
}

fn snapshot_table(wanted: &Qcow2, layout: &Layout<'_>) -> Vec<u8> {
    let mut table = Vec::new();
    for (snapshot, l1) in wanted.snapshots.iter().zip(&layout.snapshot_l1_tables) {
        let offset = l1.offset(&layout.geometry);
        snapshot.encode(offset, layout.l1_size, wanted.size, &mut table);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::Snapshot;

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
}
