//! [`QedLayer`]: where the bytes of a QED image's disk are.

use crate::error::{Error, Reason, Result};
use crate::qcow2::read::{Source, invalid_entry};
use crate::qed::header::{KNOWN_FEATURES, MAGIC, known_fields};
use crate::qed::{Entry, Invalid, Tables};
use crate::units::HostOffset;
use crate::view::View;

/// A QED image whose disk can be read, without its backing files.
#[derive(Debug)]
pub struct QedLayer<'a> {
    tables: Tables<'a>,
}

impl<'a> QedLayer<'a> {
    /// Reads the header of an image.
    ///
    /// # Errors
    /// [`Truncated`](Error::Truncated) where there is no header; a refusal with [`Reason::BadGeometry`] where its sizes are
    /// none, with [`Reason::UnsoundHeader`] where it is that of another format, or has a feature that is not known here.
    pub fn new(image: impl Into<View<'a>>) -> Result<Self> {
        let tables = Tables::new(image)?;
        let fields = tables.header().fields;
        let refused = |name: &str, expected: String, found: String| {
            let at = known_fields().find(|field| field.name == name).map(|field| HostOffset(field.offset));
            Err(Error::refused(Reason::UnsoundHeader, name, at, expected, found))
        };
        if fields.magic != MAGIC {
            return refused("magic", format!("{MAGIC:#x}"), format!("{:#x}", fields.magic));
        }
        if fields.features & !KNOWN_FEATURES != 0 {
            let expected = format!("no bits but {KNOWN_FEATURES:#x}");
            return refused("features", expected, format!("{:#x}", fields.features));
        }
        Ok(Self { tables })
    }

    /// The image's tables.
    #[must_use]
    pub fn tables(&self) -> &Tables<'a> {
        &self.tables
    }

    /// Size of the disk in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.tables.geometry().image_size()
    }

    /// Where the bytes at `guest` are, and for how many from there on.
    pub(super) fn piece(&self, guest: u64) -> Result<(u64, Source<'_, 'a>)> {
        let geometry = self.tables.geometry();
        let (l1_index, l2_index) = geometry.indices(guest);
        let field = known_fields().find(|field| field.name == "l1_table_offset");
        let field = HostOffset(field.map_or(0, |field| field.offset));
        let l1 = self.tables.l1_table().map_err(|why| {
            invalid("l1_table_offset".to_owned(), field, why, self.tables.header().fields.l1_table_offset)
        })?;
        let what = || format!("L1 entry {l1_index}");
        let value = self.entry(l1, l1_index, "L1 table")?;
        if value == 0 {
            let span = u128::from(geometry.entries()) * u128::from(geometry.cluster_size());
            let left = span - u128::from(guest) % span;
            return Ok((u64::try_from(left).unwrap_or(u64::MAX), Source::Backing));
        }
        let l1_at = HostOffset(l1.0 + l1_index * 8);
        let table = geometry.table_offset(value).map_err(|why| invalid(what(), l1_at, why, value))?;
        let value = self.entry(table, l2_index, "L2 table")?;
        let from = guest % geometry.cluster_size();
        let source = match geometry.entry(value) {
            Entry::Unallocated => Source::Backing,
            Entry::Zero => Source::Zero,
            Entry::Data(host) => Source::Host(self.tables.view(), host.0 + from),
            Entry::Invalid(why) => {
                let what = format!("L2 entry {l2_index} of {}, for guest offset {:#x}", what(), guest - from);
                return Err(invalid(what, HostOffset(table.0 + l2_index * 8), why, value));
            }
        };
        Ok((geometry.cluster_size() - from, source))
    }

    fn entry(&self, table: HostOffset, index: u64, what: &'static str) -> Result<u64> {
        let geometry = self.tables.geometry();
        let entry = if index < geometry.entries() { self.tables.entry(table, index) } else { None };
        entry.ok_or_else(|| Error::Truncated {
            what,
            at: table,
            need: index.saturating_mul(8).saturating_add(8),
            have: geometry.table_bytes().min(self.tables.view().length().saturating_sub(table.0)),
        })
    }
}

fn invalid(what: String, at: HostOffset, why: Invalid, value: u64) -> Error {
    invalid_entry(what, at, "the offset of a cluster", format!("{value:#x}, {}", why.words()))
}
