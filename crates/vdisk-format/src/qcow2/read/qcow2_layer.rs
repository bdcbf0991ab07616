//! [`Qcow2Layer`]: where the bytes of a qcow2 image's disk, or of a snapshot of it, are.

use std::cell::RefCell;

use crate::error::{Error, Reason, Result};
use crate::feature::FeatureGroup;
use crate::qcow2::geometry::{Area, KNOWN_INCOMPATIBLE_FEATURES, MIN_EXTENDED_L2_CLUSTER_BITS, SUBCLUSTERS};
use crate::qcow2::header::{MAGIC, feature_field, known_fields};
use crate::qcow2::l1::L1Entry;
use crate::qcow2::l2::{Compressed, L2Entry, Mapping, Subcluster};
use crate::qcow2::read::{Source, decompress, invalid_entry};
use crate::qcow2::snapshot::Snapshot;
use crate::qcow2::tables::Tables;
use crate::units::HostOffset;
use crate::view::View;

/// A qcow2 image whose disk can be read, without its backing files.
#[derive(Debug)]
pub struct Qcow2Layer<'a> {
    tables: Tables<'a>,
    data_file: Option<View<'a>>,
    l1_table: Area,
    size: u64,
    /// The compressed cluster that was read last.
    last: RefCell<Option<(CompressedCluster, Vec<u8>)>>,
}

/// A compressed cluster, and where the entry stands that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CompressedCluster {
    data: Compressed,
    entry: HostOffset,
}

impl<'a> Qcow2Layer<'a> {
    /// Reads the header of an image.
    ///
    /// # Errors
    /// [`Truncated`](Error::Truncated) where there is no header; a refusal with [`Reason::BadGeometry`] where its sizes are
    /// none that a disk has, with [`Reason::UnsoundHeader`] where it is that of another format, or has a feature that is not
    /// known here, with [`Reason::Encrypted`] where the image is encrypted.
    pub fn new(image: impl Into<View<'a>>) -> Result<Self> {
        let tables = Tables::new(image)?;
        readable(&tables)?;
        let (l1_table, size) = (tables.geometry().l1_table(), tables.geometry().virtual_size());
        Ok(Self { tables, data_file: None, l1_table, size, last: RefCell::default() }).and_then(Self::checked)
    }

    /// Gives the layer its external data file. Without one, what is in it is an error.
    #[must_use]
    pub fn with_data_file(self, data_file: impl Into<View<'a>>) -> Self {
        Self { data_file: Some(data_file.into()), ..self }
    }

    /// The disk as it was when a snapshot was taken, with the size that it had then.
    ///
    /// # Errors
    /// A refusal with [`Reason::BadGeometry`] where the snapshot's L1 table is no multiple of the cluster size.
    pub fn at_snapshot(self, snapshot: &Snapshot<'_>) -> Result<Self> {
        let size = snapshot.disk_size().unwrap_or_else(|| self.tables.geometry().virtual_size());
        Self { l1_table: snapshot.l1_table(), size, ..self }.checked()
    }

    /// The image's tables.
    #[must_use]
    pub fn tables(&self) -> &Tables<'a> {
        &self.tables
    }

    /// Size of the disk in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    fn checked(self) -> Result<Self> {
        let geometry = self.tables.geometry();
        if geometry.is_aligned(self.l1_table.offset.0) {
            return Ok(self);
        }
        let expected = format!("a multiple of {:#x}", geometry.cluster_size());
        let found = self.l1_table.offset.to_string();
        Err(Error::refused(Reason::BadGeometry, "offset of the L1 table", None, expected, found))
    }

    /// Where the bytes at `guest` are, and for how many from there on.
    pub(super) fn piece(&self, guest: u64) -> Result<(u64, Source<'_, 'a>)> {
        let geometry = self.tables.geometry();
        let (l1_index, l2_index) = geometry.indices(guest);
        let l1_entry = self.l1_entry(l1_index)?;
        if !l1_entry.is_allocated() {
            return Ok((geometry.l2_span() - guest % geometry.l2_span(), Source::Backing));
        }
        let table = self.l2_table(l1_index, l1_entry)?;
        let at = HostOffset(table.0 + l2_index * geometry.l2_entry_size());
        let entry = self.tables.l2_entry(table, l2_index).ok_or_else(|| self.cut("L2 table", table))?;
        let from = guest & (geometry.cluster_size() - 1);
        let to_end = geometry.cluster_size() - from;
        let place = Place { guest: guest - from, l1_index, l2_index, at };
        match self.mapping(entry, &place)? {
            Mapping::Unallocated { .. } => Ok((to_end, Source::Backing)),
            Mapping::Zero { .. } => Ok((to_end, Source::Zero)),
            Mapping::Data(host) => Ok((to_end, self.host(host, from, &place)?)),
            Mapping::Compressed(data) => {
                let cluster = CompressedCluster { data, entry: at };
                Ok((to_end, Source::Compressed(self, cluster, from)))
            }
            Mapping::Subclusters { host } => self.subclusters(entry, host, from, &place),
        }
    }

    fn l1_entry(&self, index: u64) -> Result<L1Entry> {
        let entries = self.l1_table.length / 8;
        let at = HostOffset(self.l1_table.offset.0.saturating_add(index * 8));
        let what = || format!("L1 entry {index}");
        if index >= entries {
            let expected = format!("a table of {} entries or more", index + 1);
            return Err(invalid_entry(what(), at, expected, format!("{entries} entries")));
        }
        let entry = self.tables.l1_entry(self.l1_table, index);
        let entry = entry.ok_or_else(|| Error::Truncated {
            what: "L1 table",
            at: self.l1_table.offset,
            need: self.l1_table.length,
            have: self.l1_table.clipped(self.tables.geometry().file_length()).length,
        })?;
        if entry.reserved() != 0 {
            return Err(invalid_entry(what(), at, "reserved bits of 0", format!("{:#x}", entry.0)));
        }
        Ok(entry)
    }

    /// Where the L2 table of an L1 entry is.
    fn l2_table(&self, index: u64, entry: L1Entry) -> Result<HostOffset> {
        let (geometry, table) = (self.tables.geometry(), entry.l2_table());
        let at = HostOffset(self.l1_table.offset.0 + index * 8);
        let invalid =
            |expected| invalid_entry(format!("L1 entry {index}"), at, expected, format!("{:#x}", entry.0));
        if !geometry.is_aligned(table.0) {
            return Err(invalid(format!("an offset that is a multiple of {:#x}", geometry.cluster_size())));
        }
        if table.0 >= geometry.file_length() {
            return Err(invalid(format!(
                "an offset below the end of the file, {:#x}",
                geometry.file_length()
            )));
        }
        Ok(table)
    }

    /// What an L2 entry says, if the specification allows it.
    fn mapping(&self, entry: L2Entry, place: &Place) -> Result<Mapping> {
        let (geometry, format) = (self.tables.geometry(), self.tables.l2_format());
        let invalid = |expected: &str| Err(place.invalid(entry, expected.to_owned()));
        if entry.reserved(&format) != 0 {
            return invalid("reserved bits of 0");
        }
        if entry.is_compressed() {
            if geometry.data_file() {
                return invalid("no compressed cluster, as there is an external data file");
            }
            if entry.bitmap.0 != 0 {
                return invalid("a compressed cluster without subclusters");
            }
            if entry.compressed(&format).offset.0 >= geometry.file_length() {
                let expected = format!("data below the end of the file, {:#x}", geometry.file_length());
                return Err(place.invalid(entry, expected));
            }
        } else if !geometry.is_aligned(entry.offset().0) {
            return Err(place
                .invalid(entry, format!("an offset that is a multiple of {:#x}", geometry.cluster_size())));
        }
        Ok(entry.mapping(&format))
    }

    /// The bytes of the cluster at `host` from `from` on.
    fn host(&self, host: HostOffset, from: u64, place: &Place) -> Result<Source<'_, 'a>> {
        let geometry = self.tables.geometry();
        let invalid = |expected| Err(place.invalid(L2Entry::new(host.0), expected));
        let view = match &self.data_file {
            _ if !geometry.data_file() => self.tables.view(),
            _ if host.0 != place.guest => {
                return invalid(format!(
                    "the guest offset, {:#x}, as there is an external data file",
                    place.guest
                ));
            }
            Some(data_file) => data_file,
            None => {
                return Err(Error::Unsupported {
                    what: format!("reading guest offset {:#x}", place.guest),
                    why: "it is in the external data file, which was not opened".to_owned(),
                });
            }
        };
        // A cluster that nobody has written to the end may be longer than the file; one behind its end is nowhere.
        if host.0 >= view.length() {
            return invalid(format!("an offset below the end of the file, {:#x}", view.length()));
        }
        Ok(Source::Host(view, host.0 + from))
    }

    /// The subclusters of a kind that begin at byte `from` of their cluster.
    fn subclusters(
        &self,
        entry: L2Entry,
        host: Option<HostOffset>,
        from: u64,
        place: &Place,
    ) -> Result<(u64, Source<'_, 'a>)> {
        let size = self.tables.geometry().subcluster_size();
        let first = (from / size) as u32; // below 32
        let state = entry.bitmap.state(first);
        let same = (first..SUBCLUSTERS).take_while(|index| entry.bitmap.state(*index) == state).count();
        let length = (u64::from(first) + same as u64) * size - from;
        let source = match (state, host) {
            (Subcluster::Unallocated, _) => Source::Backing,
            (Subcluster::Zero, _) => Source::Zero,
            (Subcluster::Data, Some(host)) => self.host(host, from, place)?,
            (Subcluster::Data, None) => {
                return Err(place.invalid(entry, "an offset of the allocated subclusters".to_owned()));
            }
            (Subcluster::Invalid, _) => {
                let expected = format!("subcluster {first} not both allocated and zero");
                return Err(place.invalid(entry, expected));
            }
        };
        Ok((length, source))
    }

    /// Fills `buffer` with what a compressed cluster has from byte `from` on.
    pub(super) fn read_compressed(
        &self,
        cluster: CompressedCluster,
        from: u64,
        buffer: &mut [u8],
    ) -> Result<()> {
        let mut last = self.last.borrow_mut();
        if last.as_ref().is_none_or(|(known, _)| *known != cluster) {
            *last = None;
            *last = Some((cluster, self.decompress(cluster)?));
        }
        let decoded = last.as_ref().map(|(_, decoded)| decoded.as_slice()).unwrap_or_default();
        let decoded = decoded.iter().skip(usize::try_from(from).unwrap_or(usize::MAX));
        buffer.iter_mut().zip(decoded).for_each(|(to, from)| *to = *from);
        Ok(())
    }

    fn decompress(&self, CompressedCluster { data, entry }: CompressedCluster) -> Result<Vec<u8>> {
        let (geometry, view) = (self.tables.geometry(), self.tables.view());
        view.reads(
            data.offset.0..data.offset.0.saturating_add(data.length).min(view.length().max(data.offset.0)),
        );
        let bytes = view.clipped(data.offset.0, data.length);
        decompress::cluster(geometry.compression(), bytes, geometry.cluster_size()).map_err(|why| match why {
            decompress::Failure::Unsupported(why) => Error::Unsupported {
                what: format!("reading the compressed cluster at offset {}", data.offset),
                why: why.to_owned(),
            },
            decompress::Failure::Undecodable(why) => Error::refused(
                Reason::Undecodable,
                format!("compressed cluster of the L2 entry at offset {entry}"),
                Some(data.offset),
                format!("{} bytes that decode to {}", data.length, geometry.cluster_size()),
                why,
            ),
        })
    }

    fn cut(&self, what: &'static str, at: HostOffset) -> Error {
        let geometry = self.tables.geometry();
        let have = geometry.file_length().saturating_sub(at.0);
        Error::Truncated { what, at, need: geometry.cluster_size(), have }
    }
}

/// Which L2 entry an error is about.
struct Place {
    guest: u64,
    l1_index: u64,
    l2_index: u64,
    at: HostOffset,
}

impl Place {
    fn invalid(&self, entry: L2Entry, expected: String) -> Error {
        let Self { guest, l1_index, l2_index, at } = self;
        let what = format!("L2 entry {l2_index} of L1 entry {l1_index}, for guest offset {guest:#x}");
        let found = match entry.bitmap.0 {
            0 => format!("{:#x}", entry.raw),
            bitmap => format!("{:#x} {bitmap:#x}", entry.raw),
        };
        invalid_entry(what, *at, expected, found)
    }
}

/// Whether the header is that of an image whose disk this library reads.
fn readable(tables: &Tables<'_>) -> Result<()> {
    let (header, geometry) = (tables.header(), tables.geometry());
    let refused = |reason, name: &str, expected: String, found: String| {
        let at = known_fields().find(|field| field.name == name).map(|field| HostOffset(field.offset));
        Err(Error::refused(reason, name, at, expected, found))
    };
    let (v2, unknown) = (&header.v2, header.v3.incompatible_features & !KNOWN_INCOMPATIBLE_FEATURES);
    if v2.magic != MAGIC {
        return refused(Reason::UnsoundHeader, "magic", format!("{MAGIC:#x}"), format!("{:#x}", v2.magic));
    }
    if !(2..=3).contains(&v2.version) {
        return refused(Reason::UnsoundHeader, "version", "2 or 3".to_owned(), v2.version.to_string());
    }
    if unknown != 0 {
        let expected = format!("no bits but {KNOWN_INCOMPATIBLE_FEATURES:#x}");
        let found = format!("{:#x}", header.v3.incompatible_features);
        return refused(Reason::UnsoundHeader, feature_field(FeatureGroup::Incompatible), expected, found);
    }
    if v2.crypt_method != 0 {
        let expected = "0, an image that is not encrypted".to_owned();
        return refused(Reason::Encrypted, "crypt_method", expected, v2.crypt_method.to_string());
    }
    if geometry.extended_l2() && geometry.cluster_bits() < MIN_EXTENDED_L2_CLUSTER_BITS {
        let expected = format!("{MIN_EXTENDED_L2_CLUSTER_BITS} or more, as L2 entries are extended");
        return refused(Reason::BadGeometry, "cluster_bits", expected, v2.cluster_bits.to_string());
    }
    Ok(())
}
