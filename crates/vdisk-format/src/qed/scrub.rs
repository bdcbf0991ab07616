//! [`scrub`]: a copy of an image's metadata without a byte of what the guest stored, for bug reports.

mod blank;

use std::fs::File;
use std::io;
use std::ops::Range;

use crate::bytes::clipped;
use crate::cluster_set::ClusterSet;
use crate::error::{Error, Reason, Result};
use crate::qed::geometry::Invalid;
use crate::qed::header::{FEATURE_BACKING_FILE, Header, HeaderFields};
use crate::qed::tables::Tables;
use crate::view::View;
use blank::Blank;

/// Bytes of a table that are copied at once.
const PIECE: u64 = 128 << 10;
/// Kernels copy to the start of a page twice as fast as to elsewhere.
const ALIGNMENT: usize = 4096;
/// What is zero is left out in blocks of this many bytes, as file systems have them.
const BLOCK: usize = 4096;

/// What was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct Scrubbed {
    /// Length in bytes that the copy must have: that of the image.
    pub length: u64,
    /// L2 tables that were copied, in whole or in part.
    pub tables: u64,
    /// Entries that were replaced, for they might be bytes of a guest that something took for a table.
    pub replaced: u64,
}

/// Copies the header, the backing file's name, the L1 table and the L2 tables, and hands what is not zero to
/// `write(offset, bytes)`. Everything else of the copy has to be zero.
///
/// Whatever claims to be a table may be a guest's data, if the image is damaged. So of an entry of a table only these
/// are copied: 0, 1, and offsets of clusters of the file. Any other is replaced by a value that is wrong in the same way:
/// off the cluster boundary, or past the end of the file. What is wrong with the image is then wrong with the copy, and
/// [`check`](crate::qed::check::check) finds the same. The backing file's name is copied if it is in the first cluster.
///
/// # Errors
/// [`Error::Truncated`] where there is no header; [`Error::Io`] where `write` fails.
pub fn scrub<'a>(
    image: impl Into<View<'a>>,
    mut write: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> Result<Scrubbed> {
    let view = image.into();
    let length = view.length();
    let header = Header::parse(view.bytes())?;
    let mut put = |at: u64, bytes: &[u8]| write(at, bytes).map_err(Error::io("cannot write the copy"));
    put(0, &header.fields.to_bytes())?;
    match Tables::new(view) {
        Ok(tables) => {
            put_name(&header, tables.geometry().cluster_size(), &mut put)?;
            let mut copy = Copy::new(&tables, &mut put);
            copy.all()?;
            Ok(Scrubbed { length, ..copy.scrubbed })
        }
        Err(error) if error.reason() == Some(Reason::BadGeometry) => {
            Ok(Scrubbed { length, ..Scrubbed::default() })
        }
        Err(error) => Err(error),
    }
}

/// As [`scrub`], into an empty file.
///
/// # Errors
/// As [`scrub`]; [`Error::Io`] also where the file cannot be made as long as the image.
pub fn scrub_to<'a>(image: impl Into<View<'a>>, out: &File) -> Result<Scrubbed> {
    let scrubbed = scrub(image, |at, bytes| crate::image::write_all_at(out, bytes, at))?;
    out.set_len(scrubbed.length).map_err(Error::io("cannot give the copy its length"))?;
    Ok(scrubbed)
}

/// No cluster but the first is the header's for certain.
fn put_name(
    header: &Header<'_>,
    cluster_size: u64,
    put: &mut impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let HeaderFields { features, backing_filename_offset: at, backing_filename_size: size, .. } =
        header.fields;
    let end = u64::from(at) + u64::from(size);
    if features & FEATURE_BACKING_FILE == 0 || end > cluster_size {
        return Ok(());
    }
    put(at.into(), clipped(header.image(), at.into(), size.into()))
}

/// A copy of tables on its way.
struct Copy<'t, 'a, W> {
    tables: &'t Tables<'a>,
    put: W,
    /// Clusters whose part of a table is in the copy.
    copied: ClusterSet,
    blank: Blank,
    buffer: Vec<u8>,
    scrubbed: Scrubbed,
}

impl<'t, 'a, W: FnMut(u64, &[u8]) -> Result<()>> Copy<'t, 'a, W> {
    fn new(tables: &'t Tables<'a>, put: W) -> Self {
        let geometry = tables.geometry();
        Self {
            tables,
            put,
            copied: ClusterSet::new(geometry.clusters()),
            blank: Blank::new(geometry),
            buffer: vec![0; PIECE as usize + ALIGNMENT],
            scrubbed: Scrubbed::default(),
        }
    }

    fn all(&mut self) -> Result<()> {
        let (tables, geometry) = (self.tables, self.tables.geometry());
        if let Some(l1) = tables.readable_l1_table() {
            self.table(l1.0)?;
        }
        // First those that a check looks into, so that neighbouring entries are copied one behind the other.
        for (l1_index, value) in tables.l1_entries() {
            if let Ok(table) = geometry.table_offset(value) {
                // All L1 entries may name one table: giving its pages back each time would take longer than the copy.
                if self.table(table.0)? {
                    self.scrubbed.tables += 1;
                    tables.was_visited(l1_index, table);
                }
            }
        }
        for (_, value) in tables.l1_entries() {
            if geometry.table_offset(value) == Err(Invalid::CutShort) {
                self.scrubbed.tables += u64::from(self.table(value)?);
            }
        }
        self.scrubbed.replaced = self.blank.replaced();
        Ok(())
    }

    /// Copies what is not copied yet of the table at `at`, and returns whether that was anything.
    fn table(&mut self, at: u64) -> Result<bool> {
        let geometry = self.tables.geometry();
        let bits = geometry.cluster_bits();
        let mut new = Vec::new();
        let first = at >> bits;
        let end = (first + geometry.table_clusters()).min(geometry.clusters());
        self.copied.gaps(first..end, |clusters| new.push(clusters));
        self.copied.insert(first, geometry.table_clusters(), |_| {});
        for clusters in &new {
            self.range(clusters.start << bits..clusters.end << bits)?;
        }
        Ok(!new.is_empty())
    }

    fn range(&mut self, range: Range<u64>) -> Result<()> {
        let view = self.tables.view();
        let mut at = range.start;
        while let Some(data) = view.next_data(at..range.end) {
            // Entries are whole, whatever the pieces of the file are.
            let start = data.start / 8 * 8;
            at = data.end.next_multiple_of(8).min(start + PIECE);
            self.piece(start, at - start)?;
        }
        Ok(())
    }

    fn piece(&mut self, at: u64, length: u64) -> Result<()> {
        // A copy first: what is judged is what is written, whoever writes to the image meanwhile.
        let aligned = self.buffer.as_ptr().align_offset(ALIGNMENT);
        let buffer = self.buffer.get_mut(aligned..).and_then(|buffer| buffer.get_mut(..length as usize));
        let bytes = self.tables.view().read(at, buffer.unwrap_or_default());
        let (entries, rest) = bytes.as_chunks_mut::<8>();
        self.blank.entries(entries);
        rest.fill(0); // no whole entry
        put_not_zero(at, bytes, &mut self.put)
    }
}

/// Writes the blocks that are not zero, those that follow one another together.
fn put_not_zero(at: u64, bytes: &[u8], put: &mut impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
    const ZEROES: [u8; BLOCK] = [0; BLOCK];
    let mut offset = at;
    let is_zero = |block: &[u8]| ZEROES.starts_with(block);
    let blocks: Vec<&[u8]> = bytes.chunks(BLOCK).collect();
    for same in blocks.chunk_by(|a, b| is_zero(a) == is_zero(b)) {
        let length: usize = same.iter().map(|block| block.len()).sum();
        if same.first().is_some_and(|block| !is_zero(block)) {
            put(offset, clipped(bytes, offset - at, length as u64))?;
        }
        offset += length as u64;
    }
    Ok(())
}
