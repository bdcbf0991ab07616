//! What a run of L2 entries says, as parts of the disk.

use super::{Extent, ExtentKind, Invalid};
use crate::qcow2::geometry::{Geometry, SUBCLUSTERS};
use crate::qcow2::l2::{L2Entry, L2Format, Mapping, Subcluster};
use crate::qcow2::runs::L2Run;
use crate::qcow2::tables::Tables;
use crate::units::HostOffset;

/// The parts of a run that are left.
pub(super) struct Parts {
    run: L2Run,
    format: L2Format,
    /// Where the disk's part that the run is for starts.
    guest: u64,
    /// The next entry.
    entry: u64,
    /// The next subcluster of it.
    subcluster: u32,
}

impl Parts {
    #[inline]
    pub(super) fn new(run: L2Run, guest: u64, tables: &Tables<'_>) -> Self {
        Self { run, format: tables.l2_format(), guest, entry: 0, subcluster: 0 }
    }

    #[inline]
    pub(super) fn next(&mut self, geometry: &Geometry) -> Option<Extent> {
        let left = self.run.count.checked_sub(self.entry).filter(|&left| left > 0)?;
        let bits = geometry.cluster_bits();
        let start = self.guest + (self.entry << bits);
        let entry = self.run.entry(self.entry);
        let kind = match kind(entry, &self.format, geometry, start) {
            Ok(kind) => kind,
            Err(host) => return Some(self.subclusters(geometry, entry, start, host)),
        };
        // Equal entries that name a cluster do not go on in one another.
        let is_alike =
            self.run.step != 0 || entry.is_compressed() || entry.host_cluster(&self.format).is_none();
        let mut count = if is_alike { left } else { 1 };
        if let ExtentKind::Data { offset } = kind
            && !geometry.data_file()
        {
            count = count.min((geometry.file_length() - offset.0).div_ceil(geometry.cluster_size()));
        }
        self.entry += count;
        Some(Extent::new(start, count << bits, kind))
    }

    /// The next subclusters of an entry that are all of one kind.
    fn subclusters(
        &mut self,
        geometry: &Geometry,
        entry: L2Entry,
        start: u64,
        host: Option<HostOffset>,
    ) -> Extent {
        let (size, first) = (geometry.subcluster_size(), self.subcluster);
        let state = entry.bitmap.state(first);
        let is_other = |index: &u32| entry.bitmap.state(*index) != state;
        let behind = (first..SUBCLUSTERS).find(is_other).unwrap_or(SUBCLUSTERS);
        self.subcluster = behind % SUBCLUSTERS;
        self.entry += u64::from(behind / SUBCLUSTERS);
        let from = u64::from(first) * size;
        let offset = host.map(|host| HostOffset(host.0 + from));
        let invalid = ExtentKind::Invalid { why: Invalid::Subclusters, offset: None };
        let kind = match (state, host) {
            (Subcluster::Unallocated, _) => ExtentKind::Unallocated { preallocated: offset },
            (Subcluster::Zero, _) => ExtentKind::Zero { preallocated: offset },
            (Subcluster::Data, Some(host)) => data(geometry, host).moved_by(from).unwrap_or(invalid),
            (Subcluster::Data, None) | (Subcluster::Invalid, _) => invalid,
        };
        Extent::new(start + from, u64::from(behind - first) * size, kind)
    }
}

/// What an entry says of the cluster at `guest`; an error where it says this of its subclusters, which are in the cluster
/// that is the error.
#[inline]
fn kind(
    entry: L2Entry,
    format: &L2Format,
    geometry: &Geometry,
    guest: u64,
) -> Result<ExtentKind, Option<HostOffset>> {
    let invalid = |why| Ok(ExtentKind::Invalid { why, offset: None });
    if !entry.is_compressed() {
        if !geometry.is_aligned(entry.offset().0) {
            return invalid(Invalid::Unaligned);
        }
        if geometry.version() < 3 && entry.zero_flag() {
            return invalid(Invalid::ZeroFlag);
        }
        if geometry.data_file() && entry.host_cluster(format).is_some_and(|host| host.0 != guest) {
            return invalid(Invalid::Misplaced);
        }
    }
    Ok(match entry.mapping(format) {
        Mapping::Unallocated { preallocated } => ExtentKind::Unallocated { preallocated },
        Mapping::Zero { preallocated } => ExtentKind::Zero { preallocated },
        Mapping::Data(host) => data(geometry, host),
        Mapping::Compressed(_) if geometry.data_file() => return invalid(Invalid::CompressedElsewhere),
        Mapping::Compressed(at) if at.offset.0 >= geometry.file_length() => {
            return invalid(Invalid::CompressedPastEnd);
        }
        Mapping::Compressed(_) => ExtentKind::Compressed,
        Mapping::Subclusters { host } => return Err(host),
    })
}

/// Data in the cluster at `host`, of which the file has at least the first byte.
#[inline]
fn data(geometry: &Geometry, host: HostOffset) -> ExtentKind {
    if geometry.data_file() || host.0 < geometry.file_length() {
        ExtentKind::Data { offset: host }
    } else {
        ExtentKind::Invalid { why: Invalid::PastEnd, offset: Some(host) }
    }
}
