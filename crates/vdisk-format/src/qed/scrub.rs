//! [`scrub`]: a copy of an image's metadata without a byte of what the guest stored, for bug reports.

mod blank;

use std::fs::File;
use std::io;
use std::ops::Range;

use crate::bytes::clipped;
use crate::cluster_set::ClusterSet;
use crate::error::{Error, Reason, Result};
use crate::qed::geometry::CLUSTER_SIZES;
use crate::qed::header::{FEATURE_BACKING_FILE, Header, HeaderFields};
use crate::qed::tables::Tables;
use crate::sparse::put_not_zero;
use crate::view::View;
use blank::Blank;

/// Bytes of a table that are copied at once.
const PIECE: u64 = 128 << 10;
/// Kernels copy to the start of a page twice as fast as to elsewhere.
const ALIGNMENT: usize = 4096;

/// What was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
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
/// Whatever claims to be a table may be a guest's data, if the image is damaged. What another table says is data, or has
/// for a table of its own, before an L1 entry names it, is not copied. And of an entry of a table only these
/// are copied: 0, 1, and offsets of clusters of the file. Any other is replaced by a value that is wrong in the same way:
/// off the cluster boundary, or past the end of the file. What is wrong with the image is then wrong with the copy, and
/// [`check`](crate::qed::check::check) finds the same. The backing file's name is copied if it lies in the file's first 4 KiB, which are
/// the header's whatever its sizes say.
///
/// ```
/// use vdisk_format::qed::{self, check::check, scrub::scrub};
/// # let mut image = qed::HeaderFields { magic: qed::header::MAGIC, cluster_size: 4096, table_size: 1, header_size: 1,
/// #     l1_table_offset: 4096, image_size: 8192, ..Default::default() }.to_bytes();
/// # image.resize(4 * 4096, 0);
/// # image[4096..4104].copy_from_slice(&8192u64.to_le_bytes());
/// image[8192..8200].copy_from_slice(&0x3000u64.to_le_bytes());
/// image[0x3000..0x3006].copy_from_slice(b"secret");
/// let mut copy = vec![0; image.len()];
/// scrub(&image, |at, bytes| {
///     copy[at as usize..][..bytes.len()].copy_from_slice(bytes);
///     Ok(())
/// })?;
/// assert_eq!(check(&copy)?, check(&image)?);
/// assert_eq!(copy[0x3000..0x3006], [0; 6]);
/// # Ok::<(), vdisk_format::Error>(())
/// ```
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
            put_name(&header, &mut put)?;
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

/// No byte is the header's for certain but those of the smallest cluster that there is: the cluster size may be wrong.
fn put_name(header: &Header<'_>, put: &mut impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
    let HeaderFields { features, backing_filename_offset: at, backing_filename_size: size, .. } =
        header.fields;
    let end = u64::from(at) + u64::from(size);
    if features & FEATURE_BACKING_FILE == 0 || end > u64::from(*CLUSTER_SIZES.start()) {
        return Ok(());
    }
    match clipped(header.image(), at.into(), size.into()) {
        [] => Ok(()), // the file ends before it
        name => put(at.into(), name),
    }
}

/// A copy of tables on its way.
struct Copy<'t, 'a, W> {
    tables: &'t Tables<'a>,
    put: W,
    /// Clusters of the L1 table, and of the L2 tables that L1 entries named so far.
    claimed: ClusterSet,
    /// Clusters that some L1 entry says are a table's, and that a table copied so far says are data.
    data: ClusterSet,
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
            claimed: ClusterSet::new(geometry.clusters()),
            data: ClusterSet::new(geometry.clusters()),
            blank: Blank::new(geometry),
            buffer: vec![0; PIECE as usize + ALIGNMENT],
            scrubbed: Scrubbed::default(),
        }
    }

    fn all(&mut self) -> Result<()> {
        let (tables, geometry) = (self.tables, self.tables.geometry());
        let (bits, clusters) = (geometry.cluster_bits(), geometry.table_clusters());
        let named = || {
            tables.l1_entries().filter_map(|(index, value)| Some((index, geometry.table_offset(value).ok()?)))
        };
        if let Some(l1) = tables.readable_l1_table() {
            self.claimed.insert(l1.0 >> bits, clusters, |_| {});
            self.range(l1.0..l1.0 + geometry.table_bytes())?;
        }
        named().for_each(|(_, table)| self.blank.watch(table.0 >> bits, clusters));
        // As a check does, which then has no need of it: what is something else's is not taken for a table.
        for (l1_index, table) in named() {
            let first = table.0 >> bits;
            let is_new = self.claimed.insert(first, clusters, |_| {}) == 0;
            if is_new && !self.data.intersects(first, clusters) {
                self.range(table.0..table.0 + geometry.table_bytes())?;
                self.scrubbed.tables += 1;
            }
            tables.was_visited(l1_index);
        }
        self.scrubbed.replaced = self.blank.replaced();
        Ok(())
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
        for cluster in self.blank.watched() {
            self.data.insert(cluster, 1, |_| {});
        }
        // What the file's end cuts short reads as if zeroes followed.
        let mut cut = [0; 8];
        cut.iter_mut().zip(&*rest).for_each(|(to, from)| *to = *from);
        let cut = self.blank.entry(u64::from_le_bytes(cut)).to_le_bytes();
        rest.iter_mut().zip(cut).for_each(|(to, from)| *to = from);
        put_not_zero(at, bytes, &mut self.put)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(image: &[u8]) -> Vec<u8> {
        let mut copy = vec![0; image.len()];
        scrub(image, |at, bytes| {
            copy[at as usize..][..bytes.len()].copy_from_slice(bytes);
            Ok(())
        })
        .unwrap();
        copy
    }

    #[test]
    fn nothing_is_written_behind_the_end_of_the_file() {
        let fields = HeaderFields {
            cluster_size: 4096,
            table_size: 2,
            features: FEATURE_BACKING_FILE,
            backing_filename_offset: 200,
            backing_filename_size: 5,
            ..HeaderFields::default()
        };
        let image = fields.to_bytes();
        assert_eq!(copy(&image), image);
    }

    #[test]
    fn a_table_that_is_cut_short_is_copied_to_the_end_of_the_file() {
        let fields = HeaderFields {
            cluster_size: 4096,
            table_size: 2,
            header_size: 1,
            l1_table_offset: 4096,
            ..HeaderFields::default()
        };
        let mut image = fields.to_bytes();
        image.resize(8192 + 1024, 0);
        image[8192 + 1016..].copy_from_slice(&0x10_0000u64.to_le_bytes());
        let check = |image: &[u8]| crate::qed::check::check(image).unwrap();
        assert_eq!(check(&image).corruptions, 1);
        assert_eq!(check(&copy(&image)), check(&image));
    }

    #[test]
    fn what_a_table_says_is_data_is_no_table() {
        let fields = HeaderFields {
            cluster_size: 4096,
            table_size: 1,
            header_size: 1,
            l1_table_offset: 4096,
            ..HeaderFields::default()
        };
        let mut image = fields.to_bytes();
        image.resize(5 * 4096, 0);
        // A table at 0x2000 names the cluster at 0x3000, which the next L1 entry takes for a table.
        for (at, entry) in [(0x1000, 0x2000u64), (0x1008, 0x3000), (0x2000, 0x3000), (0x3000, 0x4000)] {
            image[at..at + 8].copy_from_slice(&entry.to_le_bytes());
        }
        let copied = copy(&image);
        assert_eq!(copied[..0x3000], image[..0x3000]);
        assert!(copied[0x3000..].iter().all(|&byte| byte == 0));
        let check = |image: &[u8]| crate::qed::check::check(image).unwrap();
        assert_eq!(check(&copied), check(&image));
    }

    #[test]
    fn what_follows_into_another_fault_keeps_its_own() {
        let fields = HeaderFields {
            cluster_size: 4096,
            table_size: 1,
            header_size: 10,
            l1_table_offset: 4096,
            ..HeaderFields::default()
        };
        let mut image = fields.to_bytes();
        image.resize(4 * 4096, 0);
        for (at, entry) in [(4096, 0x9000u64), (4104, 0xa000)] {
            image[at..at + 8].copy_from_slice(&entry.to_le_bytes());
        }
        let check = |image: &[u8]| crate::qed::check::check(image).unwrap();
        assert!(check(&image).report.has("l1-entry-past-end"));
        assert_eq!(check(&copy(&image)), check(&image));
    }

    /// A cluster size that is too large by mistake makes a guest's clusters look like the header's.
    #[test]
    fn a_backing_name_is_no_way_to_a_guests_data() {
        for (at, copied) in [(64, true), (4096 - 5, true), (4096 - 4, false), (8192, false)] {
            let fields = HeaderFields {
                cluster_size: 65536,
                table_size: 1,
                header_size: 1,
                features: FEATURE_BACKING_FILE,
                backing_filename_offset: at,
                backing_filename_size: 5,
                ..HeaderFields::default()
            };
            let mut image = fields.to_bytes();
            image.resize(65536, 0);
            image[at as usize..][..5].copy_from_slice(b"guest");
            assert_eq!(copy(&image) == image, copied, "at {at}");
        }
    }
}
