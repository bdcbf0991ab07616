//! [`Tables`]: the way from a header to the entries of its tables.

use crate::error::Result;
use crate::qed::geometry::{Geometry, Invalid};
use crate::qed::header::Header;
use crate::table::{Pieces, Run, Runs};
use crate::units::HostOffset;
use crate::view::{SECTOR, View};

/// An image whose tables can be read: whatever they say, but for a header whose sizes make no table.
///
/// ```
/// use vdisk_format::qed::{self, Tables};
/// # let mut image = qed::HeaderFields { magic: qed::header::MAGIC, cluster_size: 4096, table_size: 1, header_size: 1,
/// #     l1_table_offset: 4096, image_size: 8192, ..Default::default() }.to_bytes();
/// # image.resize(4 * 4096, 0);
/// # image[4096..4104].copy_from_slice(&8192u64.to_le_bytes());
/// # image[8192..8200].copy_from_slice(&12288u64.to_le_bytes());
/// let tables = Tables::new(&image)?;
/// for (l1_index, value) in tables.l1_entries() {
///     if let Ok(l2) = tables.geometry().table_offset(value) {
///         assert_eq!((l1_index, tables.entry(l2, 0)), (0, Some(0x3000)));
///     }
/// }
/// # Ok::<(), vdisk_format::Error>(())
/// ```
#[derive(Debug)]
pub struct Tables<'a> {
    view: View<'a>,
    header: Header<'a>,
    geometry: Geometry,
}

impl<'a> Tables<'a> {
    /// Reads the header of an image, and nothing else.
    ///
    /// # Errors
    /// [`Truncated`](crate::Error::Truncated) where there is no header; a refusal with
    /// [`Reason::BadGeometry`](crate::error::Reason::BadGeometry) where its sizes are none that tables have.
    pub fn new(image: impl Into<View<'a>>) -> Result<Self> {
        let view = image.into();
        let header = Header::parse(view.bytes())?;
        let geometry = Geometry::new(&header)?;
        Ok(Self { view, header, geometry })
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header<'a> {
        &self.header
    }

    /// What its sizes make.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The image.
    #[must_use]
    pub fn view(&self) -> &View<'a> {
        &self.view
    }

    /// Where the L1 table is, if the header says so rightly.
    ///
    /// # Errors
    /// What is wrong with `l1_table_offset`.
    pub fn l1_table(&self) -> Result<HostOffset, Invalid> {
        self.geometry.table_offset(self.header.fields.l1_table_offset)
    }

    /// Where the L1 table is read: also where the end of the file cuts it short, or the header's size is so wrong that
    /// it takes the table in. `None` where there cannot be one.
    #[must_use]
    pub fn readable_l1_table(&self) -> Option<HostOffset> {
        let offset = self.header.fields.l1_table_offset;
        match self.l1_table() {
            Ok(_) | Err(Invalid::CutShort) => Some(HostOffset(offset)),
            Err(Invalid::InHeader) if offset != 0 => Some(HostOffset(offset)),
            Err(_) => None,
        }
    }

    /// The runs of the L1 table. Empty where there is none to read.
    pub fn l1_runs(&self) -> Runs<'_, 'a> {
        let entries = if self.readable_l1_table().is_some() { self.geometry.entries() } else { 0 };
        self.runs(HostOffset(self.header.fields.l1_table_offset), entries)
    }

    /// The entries of the L1 table that are not 0, with their indices.
    pub fn l1_entries(&self) -> impl Iterator<Item = (u64, u64)> {
        let bits = self.geometry.cluster_bits();
        let used = self.l1_runs().filter(|run| run.value != 0);
        used.flat_map(move |run| (0..run.count).map(move |i| (run.index + i, run.entry(i, bits))))
    }

    /// The runs of the L2 table at `offset`, as far as the file has it; whether it is one is not asked.
    #[must_use]
    pub fn l2_runs(&self, offset: HostOffset) -> Runs<'_, 'a> {
        self.runs(offset, self.geometry.entries())
    }

    /// Entry `index` of the table at `offset`; `None` where the file ends before it.
    #[must_use]
    pub fn entry(&self, offset: HostOffset, index: u64) -> Option<u64> {
        let at = offset.0.checked_add(index.checked_mul(8)?)?;
        let end = self.view.length().next_multiple_of(SECTOR);
        let whole = at.checked_add(8).is_some_and(|behind| behind <= end);
        // A hole is not touched: some file systems would fill it.
        let Some(data) = self.view.next_data(at..at.saturating_add(8)) else { return whole.then_some(0) };
        self.view.reads(data);
        let entry = self.view.clipped(at, 8).first_chunk().or_else(|| self.view.cut_entry(at, 1).first())?;
        Some(u64::from_le_bytes(*entry))
    }

    /// The entries of the L2 table at `offset`, as far as the file has them and they are no hole.
    pub(crate) fn l2_pieces(&self, offset: HostOffset) -> Pieces<'_, 'a> {
        Pieces::new(&self.view, offset.0, self.geometry.entries(), 1)
    }

    /// Tells the view that a table is done with: its pages can go, and whoever watches learns how far a walk has come.
    pub(crate) fn was_visited(&self, l1_index: u64) {
        let geometry = self.geometry;
        self.view.was_read();
        self.view.report(l1_index + 1, geometry.guest_clusters().div_ceil(geometry.entries()));
    }

    /// The runs of the first `entries` entries of the table at `offset`.
    pub(crate) fn runs(&self, offset: HostOffset, entries: u64) -> Runs<'_, 'a> {
        Runs::new(Pieces::new(&self.view, offset.0, entries, 1), self.geometry.cluster_bits())
    }
}

impl Run {
    /// Value of entry `i` of the run.
    pub(crate) fn entry(self, i: u64, cluster_bits: u32) -> u64 {
        if self.value < 2 { self.value } else { self.value.wrapping_add(i << cluster_bits) }
    }
}
