//! Clusters of data that are holes of the file.

use std::ops::Range;

use super::{Extent, ExtentKind};
use crate::qcow2::tables::Tables;
use crate::units::{GuestOffset, HostOffset};
use crate::view::{SECTOR, View};

/// Whether QEMU looks for holes in the file where the tables say that there are data: it does where the refcounts count
/// clearly more clusters than the file has blocks for, as with `preallocation=metadata`. Then zeroes that nobody wrote are
/// told from data ([`with_holes`]).
///
/// `allocated` is what the file takes on its file system in bytes ([`Image::allocated`](crate::Image::allocated)).
///
/// ```
/// use vdisk_format::generate::Qcow2;
/// use vdisk_format::qcow2::{Tables, map::metadata_is_preallocated};
/// let image = Qcow2::new(1 << 20).allocate(0..1 << 20).build()?;
/// let tables = Tables::new(&image)?;
/// assert!(!metadata_is_preallocated(&tables, image.len() as u64));
/// assert!(metadata_is_preallocated(&tables, 5 << 16)); // nothing but the tables
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn metadata_is_preallocated(tables: &Tables<'_>, allocated: u64) -> bool {
    let geometry = tables.geometry();
    let Some(per_block) = geometry.refcount_block_entries() else { return false };
    let real = u128::from(allocated >> geometry.cluster_bits());
    let enough = (real * 10 / 9).max(real + 2);
    let end = geometry.file_clusters();
    // Each block is there once in a sound image, however often a hostile one names it.
    let mut bytes_left = (2 * u128::from(allocated)).max(16 << 20);
    let mut used = 0;
    for (index, entry) in tables.refcount_table_entries() {
        let first = index.saturating_mul(per_block);
        if first >= end {
            break;
        }
        let block = entry.block();
        let Some(left) = bytes_left.checked_sub(geometry.cluster_size().into()) else { return false };
        bytes_left = left;
        if !geometry.is_aligned(block.0) {
            return false; // where QEMU's count ends with an error
        }
        let Some(block) = tables.refcount_block(block).filter(|_| block.0 != 0) else { continue };
        for run in block.runs().filter(|run| run.refcount > 0) {
            let there = (end - first).saturating_sub(run.index).min(run.count);
            used += u128::from(there);
            if used >= enough {
                return true;
            }
        }
        tables.view().was_read();
    }
    false
}

/// The same extents, but for the data of which `file` has a hole instead, or no more bytes: these are
/// [`Hole`](ExtentKind::Hole)s. The file is the image, or its external data file.
///
/// ```no_run
/// use vdisk_format::qcow2::{Tables, map::{map, with_holes}};
/// use vdisk_format::{Image, View};
/// let image = Image::open("disk.qcow2")?;
/// let (tables, file) = (Tables::new(&image)?, View::from(&image));
/// for extent in with_holes(map(&tables), &file) {
///     println!("{extent:?}");
/// }
/// # Ok::<(), vdisk_format::Error>(())
/// ```
pub fn with_holes<'v, I>(extents: I, file: &'v View<'_>) -> impl Iterator<Item = Extent> + 'v + use<'v, I>
where
    I: Iterator<Item = Extent> + 'v,
{
    let (mut extents, pieces) = (extents, Pieces::new(file));
    let mut rest: Option<Extent> = None;
    std::iter::from_fn(move || {
        let extent = rest.take().or_else(|| extents.next())?;
        let ExtentKind::Data { offset } = extent.kind else { return Some(extent) };
        let (is_data, length) = pieces.at(offset.0, extent.length);
        if length < extent.length {
            let (start, offset) = (GuestOffset(extent.start.0 + length), HostOffset(offset.0 + length));
            rest = Some(Extent { start, length: extent.length - length, kind: ExtentKind::Data { offset } });
        }
        let kind = if is_data { extent.kind } else { ExtentKind::Hole { offset } };
        Some(Extent { length, kind, ..extent })
    })
}

/// As many pieces of data are remembered; of a file with more of them, the rest is asked for each time.
const MOST_PIECES: usize = 1 << 16;
/// So many slots a piece.
const SLOTS: usize = 4;

/// The pieces of a file that are no holes.
///
/// Where clusters are in no order, each is looked for: so the file is divided into slots, of which is known with which
/// piece to begin.
struct Pieces<'v, 'a> {
    file: &'v View<'a>,
    pieces: Vec<Range<u64>>,
    /// They are all that there are before this offset.
    known: u64,
    /// Index of the first piece that ends behind the start of each slot.
    slots: Vec<u32>,
    slot_bits: u32,
}

impl<'v, 'a> Pieces<'v, 'a> {
    fn new(file: &'v View<'a>) -> Self {
        let length = file.length().next_multiple_of(SECTOR);
        let mut pieces = Vec::new();
        let mut known = 0;
        while let Some(piece) = next_data(file, known..length).filter(|_| pieces.len() < MOST_PIECES) {
            known = piece.end;
            pieces.push(piece);
        }
        if pieces.len() < MOST_PIECES {
            known = u64::MAX;
        }
        let slots = (pieces.len() as u64 * SLOTS as u64).max(1);
        let slot_bits = (length / slots).checked_ilog2().unwrap_or(0);
        let mut this = Self { file, pieces, known, slots: Vec::new(), slot_bits };
        this.slots = this.slots(length);
        this
    }

    fn slots(&self, length: u64) -> Vec<u32> {
        let mut index = 0;
        let starts = (0..=length >> self.slot_bits).map(|slot| slot << self.slot_bits);
        let first = starts.map(|start| {
            while self.pieces.get(index).is_some_and(|piece| piece.end <= start) {
                index += 1;
            }
            index as u32
        });
        first.collect()
    }

    /// Whether there are data at `at`, and for how many of `length` bytes that is so.
    fn at(&self, at: u64, length: u64) -> (bool, u64) {
        let end = at.saturating_add(length);
        let next = if at < self.known { self.known_at(at) } else { next_data(self.file, at..end) };
        match next {
            Some(piece) if piece.start <= at => (true, length.min(piece.end - at)),
            Some(piece) => (false, length.min(piece.start - at)),
            None => (false, length),
        }
    }

    /// The piece at `at`, or the next one behind it.
    fn known_at(&self, at: u64) -> Option<Range<u64>> {
        let slot = usize::try_from(at >> self.slot_bits).ok()?;
        let first = *self.slots.get(slot)? as usize;
        let last = self.slots.get(slot + 1).map_or(self.pieces.len(), |&last| last as usize + 1);
        let pieces = self.pieces.get(first..last.min(self.pieces.len())).unwrap_or_default();
        let index = first + pieces.partition_point(|piece| piece.end <= at);
        self.pieces.get(index).cloned()
    }
}

/// The first piece of data of a range: sectors are whole, as QEMU sees files.
fn next_data(file: &View<'_>, range: Range<u64>) -> Option<Range<u64>> {
    let data = file.next_data(range)?;
    let end = if data.end == file.length() { data.end.next_multiple_of(SECTOR) } else { data.end };
    Some(data.start..end)
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};

    use super::*;
    use crate::Image;

    /// A file with a byte of data in each of these blocks of 4 KiB, and holes between.
    fn sparse(blocks: &[u64], length: u64) -> (tempfile::NamedTempFile, Image) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        for block in blocks {
            file.seek(SeekFrom::Start(block << 12)).unwrap();
            file.write_all(b"x").unwrap();
        }
        file.as_file().set_len(length).unwrap();
        let image = Image::open(file.path()).unwrap();
        (file, image)
    }

    fn data(start: u64, length: u64, offset: u64) -> Extent {
        Extent::new(start, length, ExtentKind::Data { offset: HostOffset(offset) })
    }

    #[test]
    fn data_are_told_from_holes() {
        // Far enough from one another that no file system joins them.
        let blocks = [0, 256, 257, 1024];
        let (_file, image) = sparse(&blocks, 8 << 20);
        let view = View::from(&image);
        let found: Vec<_> = with_holes([data(1 << 30, 9 << 20, 0)].into_iter(), &view).collect();
        let mut end = 1 << 30;
        for extent in &found {
            assert_eq!(extent.start.0, end);
            end = extent.end();
            let (ExtentKind::Data { offset } | ExtentKind::Hole { offset }) = extent.kind else { panic!() };
            assert_eq!(offset.0, extent.start.0 - (1 << 30));
            let is_data = matches!(extent.kind, ExtentKind::Data { .. });
            for block in blocks {
                let has_block = (offset.0..offset.0 + extent.length).contains(&(block << 12));
                assert!(is_data || !has_block, "{block}, {extent:?}");
            }
        }
        assert_eq!(end, (1 << 30) + (9 << 20));
        assert_eq!(found.len(), 6, "{found:?}");
    }

    #[test]
    fn every_place_is_found() {
        let blocks: Vec<u64> = (0..200).map(|n| n * n).collect();
        let (_file, image) = sparse(&blocks, 200 << 20);
        let view = View::from(&image);
        let pieces = Pieces::new(&view);
        for at in (0..201 << 20).step_by(4096 * 3 + 512) {
            let piece = view.next_data(at..at + 100_000);
            let expected = match piece {
                Some(piece) if piece.start <= at => (true, piece.end - at),
                Some(piece) => (false, piece.start - at),
                None => (false, 100_000),
            };
            assert_eq!(pieces.at(at, 100_000), expected, "{at:#x}");
        }
    }

    #[test]
    fn bytes_have_no_holes_but_an_end() {
        let bytes = vec![0; 1000];
        let view = View::from(&bytes);
        let kinds: Vec<_> = with_holes([data(0, 4096, 512)].into_iter(), &view)
            .map(|extent| (extent.length, matches!(extent.kind, ExtentKind::Data { .. })))
            .collect();
        assert_eq!(kinds, [(512, true), (3584, false)]);
    }
}
