//! Changes to the header, and zero clusters: each as a [`Plan`].

use std::ops::Range;

use crate::edit;
use crate::error::{Error, Reason, Result};
use crate::feature::FeatureGroup;
use crate::fingerprint::merge;
use crate::plan::Plan;
use crate::qed::contested::Contested;
use crate::qed::geometry::Entry;
use crate::qed::header::{Header, feature_field};
use crate::qed::tables::Tables;
use crate::units::HostOffset;

/// Sets the header field called `name`: its bytes, and nothing else, whatever the image is then worth.
///
/// ```
/// use vdisk_format::qed::{HeaderFields, edit};
/// let mut image = HeaderFields::default().to_bytes();
/// let plan = edit::set_field(&image, "image_size", 1 << 30)?;
/// plan.apply_to(&mut image);
/// assert_eq!(HeaderFields::parse(&image, 0)?.image_size, 1 << 30);
/// assert!(edit::set_field(&image, "table_size", 1 << 32).is_err()); // has no room in the field
/// # Ok::<(), vdisk_format::Error>(())
/// ```
///
/// # Errors
/// A refusal: [`Reason::NoSuchField`], or [`Reason::OutOfRange`] where the value is too large for the field.
pub fn set_field(image: &[u8], name: &str, value: u64) -> Result<Plan> {
    let plan = edit::set_field(image, Header::parse(image)?.fields(), name, value)?;
    plan.ok_or_else(|| {
        let what = format!("header field {name}");
        Error::refused(Reason::NoSuchField, what, None, "a header field", "no such field")
    })
}

/// Sets (`on`) or clears one feature bit.
///
/// # Errors
/// [`Reason::OutOfRange`] for a bit number over 63.
pub fn set_feature_bit(image: &[u8], group: FeatureGroup, bit: u32, on: bool) -> Result<Plan> {
    let old = Header::parse(image)?.features(group);
    set_field(image, feature_field(group), edit::with_bit(group, old, bit, on)?)
}

/// Sets or clears the need-check bit. An image that has it is checked, and repaired, by whoever opens it for writing.
///
/// ```
/// use vdisk_format::qed::{Header, HeaderFields, edit};
/// let mut image = HeaderFields::default().to_bytes();
/// edit::need_check(&image, true)?.apply_to(&mut image);
/// assert!(Header::parse(&image)?.need_check());
/// # Ok::<(), vdisk_format::Error>(())
/// ```
///
/// # Errors
/// [`Error::Truncated`] where there is no header.
pub fn need_check(image: &[u8], on: bool) -> Result<Plan> {
    set_feature_bit(image, FeatureGroup::Incompatible, 1, on)
}

/// Zero clusters to be.
#[derive(Debug)]
#[non_exhaustive]
pub struct Zeroed {
    /// The change.
    pub plan: Plan,
    /// Entries that named data. What no other entry names is leaked then.
    pub leaked: u64,
}

/// Makes zero clusters of `count` clusters of the disk, from the one that guest offset `at` lies in. All of them, or none.
///
/// ```
/// use vdisk_format::{generate::Qed, qed};
/// let image = Qed::new(1 << 20).data(0, b"data").build()?;
/// let zeroed = qed::edit::zero_clusters(&qed::Tables::new(&image)?, 0, 2)?;
/// assert_eq!((zeroed.plan.writes().len(), zeroed.leaked), (1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// A refusal: [`Reason::PastDisk`] where a cluster is behind the end of the disk, [`Reason::NoTable`] where one has no
/// L2 table, or none that lies whole in the file, [`Reason::Contested`] where another entry names clusters of that table
/// for something else: what would be written to may be a guest's data.
pub fn zero_clusters(tables: &Tables<'_>, at: u64, count: u64) -> Result<Zeroed> {
    let geometry = tables.geometry();
    let first = at / geometry.cluster_size();
    let behind = first.checked_add(count).filter(|&behind| behind <= geometry.guest_clusters());
    let Some(behind) = behind else {
        let what = format!("{count} clusters from guest offset {at:#x}");
        let expected = format!("clusters of the disk, which has {}", geometry.guest_clusters());
        let found = format!("clusters {first} to {}", first.saturating_add(count) - 1);
        return Err(Error::refused(Reason::PastDisk, what, None, expected, found));
    };
    // Two L1 entries may name one table, so that two clusters of the disk have one entry: the right one for both.
    let contested = Contested::new(tables);
    let mut ranges = Vec::new();
    let mut next = first;
    while next < behind {
        let (l1_index, l2_index) = (next / geometry.entries(), next % geometry.entries());
        let table = l2_table(tables, l1_index)?;
        contested.refuse(l1_index, table)?;
        let here = (geometry.entries() - l2_index).min(behind - next);
        let start = table.0 + l2_index * 8;
        ranges.push((start, start + here * 8));
        next += here;
    }
    let mut zeroed = Zeroed { plan: Plan::new(tables.view().bytes()), leaked: 0 };
    merge(&mut ranges);
    for (start, end) in ranges {
        zeroed.add(tables, start..end)?;
    }
    Ok(zeroed)
}

impl Zeroed {
    fn add(&mut self, tables: &Tables<'_>, range: Range<u64>) -> Result<()> {
        let image = tables.view().bytes();
        let entries = (range.end - range.start) / 8;
        let old = tables.view().clipped(range.start, entries * 8).as_chunks::<8>().0;
        let is_data =
            |&&entry: &&[u8; 8]| matches!(tables.geometry().entry(u64::from_le_bytes(entry)), Entry::Data(_));
        self.leaked += old.iter().filter(is_data).count() as u64;
        let plural = if entries == 1 { "y" } else { "ies" };
        let why = format!("{entries} L2 entr{plural}: zero cluster");
        let new = 1u64.to_le_bytes().repeat(usize::try_from(entries).unwrap_or(0));
        self.plan.set(image, range.start, &new, why)
    }
}

/// The L2 table of an L1 entry. Whether nothing else has its clusters is not asked.
///
/// # Errors
/// [`Reason::NoTable`] where there is none, or none that lies whole in the file.
pub(crate) fn l2_table(tables: &Tables<'_>, l1_index: u64) -> Result<HostOffset> {
    let geometry = tables.geometry();
    let l1 = tables.header().fields.l1_table_offset;
    let is_entry = l1_index < geometry.entries(); // of a disk that is too large for its tables, it need not be
    let entry = tables.readable_l1_table().filter(|_| is_entry).and_then(|l1| tables.entry(l1, l1_index));
    let entry = entry.unwrap_or(0);
    let found = match geometry.table_offset(entry) {
        Ok(table) => return Ok(table),
        Err(_) if !is_entry => format!("nothing: the L1 table has {} entries", geometry.entries()),
        Err(_) if entry == 0 => "0: no L2 table is allocated".to_owned(),
        Err(invalid) => format!("{entry:#x}, {}", invalid.words()),
    };
    let guest = geometry.guest_offset(l1_index, 0).unwrap_or(u64::MAX);
    let what = format!("L1 entry {l1_index} (guest offset {guest:#x})");
    let at = HostOffset(l1.saturating_add(l1_index.saturating_mul(8)));
    Err(Error::refused(Reason::NoTable, what, Some(at), "an L2 table", found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qed::header::HeaderFields;

    #[test]
    fn no_l1_entry_is_read_behind_the_table() {
        // Tables of 512 entries, and a disk that wants 513 L2 tables. Behind the L1 table lies an offset.
        let fields = HeaderFields {
            cluster_size: 4096,
            table_size: 1,
            header_size: 1,
            l1_table_offset: 4096,
            image_size: 513 << 21,
            ..HeaderFields::default()
        };
        let mut bytes = fields.to_bytes();
        bytes.resize(4 * 4096, 0);
        bytes[8192..8200].copy_from_slice(&12288u64.to_le_bytes());
        let error = zero_clusters(&Tables::new(&bytes).unwrap(), 512 << 21, 1).unwrap_err();
        assert_eq!(error.reason(), Some(Reason::NoTable));
        assert!(error.to_string().contains("the L1 table has 512 entries"), "{error}");
    }

    /// The first table says that the cluster is data, the third L1 entry that it is a table.
    #[test]
    fn a_guests_data_are_no_table_to_write_to() {
        let image =
            crate::generate::Qed::new(8 << 20).cluster_size(4096).table_size(1).data(0, [1; 4096]).build();
        let mut image = image.unwrap();
        let tables = Tables::new(&image).unwrap();
        let l1 = tables.l1_table().unwrap();
        let (_, table) = tables.l1_entries().next().unwrap();
        let data = tables.entry(HostOffset(table), 0).unwrap();
        let at = usize::try_from(l1.0).unwrap() + 8;
        image[at..at + 8].copy_from_slice(&data.to_le_bytes());
        let tables = Tables::new(&image).unwrap();
        for (at, count) in [(2 << 20, 1), ((2 << 20) - 4096, 2)] {
            let error = zero_clusters(&tables, at, count).unwrap_err();
            assert_eq!(error.reason(), Some(Reason::Contested));
            assert!(error.to_string().contains("(L1 entry 1)"), "{error}");
        }
        assert!(zero_clusters(&tables, 0, 1).is_ok());
    }
}
