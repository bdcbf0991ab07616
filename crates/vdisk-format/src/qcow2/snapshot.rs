//! The snapshot table: entries of any length, one behind the other. Specification: "Snapshots".

use crate::bytes::{clipped, exactly, round_up_8};
use crate::error::{Error, Result};
use crate::limits::MAX_SNAPSHOTS;
use crate::qcow2::geometry::Area;
use crate::qcow2::header::Header;
use crate::record::record;
use crate::units::HostOffset;

record! {
    /// The fixed part of a snapshot table entry. Specification: "Snapshot table entry".
    pub struct SnapshotHeader: big, at 0, called "snapshot table entry" {
        /// Offset of the snapshot's L1 table, a multiple of the cluster size.
        l1_table_offset: u64, Hex;
        /// Entries of that table.
        l1_size: u32, Dec;
        /// Length of the unique ID string in bytes.
        id_str_size: u16, Dec;
        /// Length of the name in bytes.
        name_size: u16, Dec;
        /// When the snapshot was taken: seconds since the Epoch.
        date_sec: u32, Dec;
        /// When the snapshot was taken: nanoseconds behind these seconds.
        date_nsec: u32, Dec;
        /// How long the guest had been running, in nanoseconds.
        vm_clock_nsec: u64, Dec;
        /// Size of the VM state in bytes, 0: none. Without meaning where the extra data have that size.
        vm_state_size: u32, Dec;
        /// Length of the extra data in bytes: at least 16 from version 3 on.
        extra_data_size: u32, Dec;
    }
}

record! {
    /// The extra data that this library knows, each field there only where `extra_data_size` reaches beyond it.
    /// Specification: "Snapshot table entry".
    pub struct SnapshotExtra: big, at 40, called "snapshot extra data" {
        /// Size of the VM state in bytes, 0: none. Where it is there, the fixed part's size has no meaning.
        vm_state_size_large: u64, Dec;
        /// Size of the virtual disk when the snapshot was taken, in bytes.
        disk_size: u64, Dec;
        /// The instruction counter of record/replay when the snapshot was taken; all ones: it was off.
        icount: u64, Hex;
    }
}

/// One entry of the snapshot table, as a view of the image.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Snapshot<'a> {
    /// Its place in the table, from 0.
    pub index: u32,
    /// Where its entry starts, a multiple of 8 behind the start of the table.
    pub offset: HostOffset,
    /// The fixed part.
    pub fixed: SnapshotHeader,
    /// The extra data, all of them: see [`extra`](Self::extra) for what is known of them.
    pub extra_data: &'a [u8],
    /// The unique ID.
    pub id: &'a [u8],
    /// The name.
    pub name: &'a [u8],
    /// Where the next entry starts.
    pub next: HostOffset,
}

impl<'a> Snapshot<'a> {
    /// The known extra data that the entry has, those that it does not have 0; with how many bytes of them it has.
    #[must_use]
    pub fn extra(&self) -> (SnapshotExtra, u64) {
        let mut bytes = [0; SnapshotExtra::SIZE as usize];
        bytes.iter_mut().zip(self.extra_data).for_each(|(to, from)| *to = *from);
        let known = self.extra_data.len() as u64 / 8 * 8;
        (SnapshotExtra::parse(&bytes, 0).unwrap_or_default(), known.min(SnapshotExtra::SIZE))
    }

    /// The extra data behind those that are known: fields of a later specification.
    #[must_use]
    pub fn unknown_extra(&self) -> &'a [u8] {
        clipped(self.extra_data, SnapshotExtra::SIZE, u64::MAX)
    }

    /// Bytes of VM state: 64 bits of the extra data where they are there, else 32 of the fixed part.
    #[must_use]
    pub fn vm_state_size(&self) -> u64 {
        match self.extra() {
            (extra, 8..) => extra.vm_state_size_large,
            _ => self.fixed.vm_state_size.into(),
        }
    }

    /// Size of the virtual disk then; `None` where the entry does not say so, which means the size of the active one.
    #[must_use]
    pub fn disk_size(&self) -> Option<u64> {
        let (extra, known) = self.extra();
        (known >= 16).then_some(extra.disk_size)
    }

    /// The instruction counter; `None` where the entry does not say so, or says that there was none.
    #[must_use]
    pub fn icount(&self) -> Option<u64> {
        let (extra, known) = self.extra();
        (known >= 24 && extra.icount != u64::MAX).then_some(extra.icount)
    }

    /// Where its L1 table is.
    #[must_use]
    pub fn l1_table(&self) -> Area {
        Area::new(self.fixed.l1_table_offset, u64::from(self.fixed.l1_size) * 8)
    }

    /// The entry itself, with its padding.
    #[must_use]
    pub fn area(&self) -> Area {
        Area::new(self.offset.0, self.next.0 - self.offset.0)
    }
}

/// The snapshot table, read as it is asked for: as many entries as the header claims, but no more than
/// [`MAX_SNAPSHOTS`], and none behind the first that the file does not have in full. What ends it before its time is its
/// last item.
///
/// ```
/// use vdisk_format::qcow2::{Header, Snapshots};
/// # let mut image = vec![0; 104 + 56];
/// # image[7] = 3; image[63] = 2; image[71] = 104;
/// # image[104 + 13] = 1; image[104 + 15] = 4; image[104 + 43 - 4] = 0;
/// # image[144..149].copy_from_slice(b"1base");
/// let header = Header::parse(&image)?; // two snapshots, and the file ends in the second
/// let mut snapshots = Snapshots::new(&header);
/// let first = snapshots.next().unwrap()?;
/// assert_eq!((first.id, first.name), (b"1".as_slice(), b"base".as_slice()));
/// let error = snapshots.next().unwrap().unwrap_err();
/// assert_eq!(error.to_string(), "snapshot table entry at offset 0x98: needs 40 bytes, the file has 8 there");
/// assert!(snapshots.next().is_none());
/// # Ok::<(), vdisk_format::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Snapshots<'a> {
    image: &'a [u8],
    start: u64,
    /// Where the next entry starts.
    at: u64,
    index: u32,
    count: u32,
    ended: bool,
}

impl<'a> Snapshots<'a> {
    /// The snapshot table that a header claims.
    #[must_use]
    pub fn new(header: &Header<'a>) -> Self {
        let start = header.v2.snapshots_offset;
        Self {
            image: header.image(),
            start,
            at: start,
            index: 0,
            count: header.v2.nb_snapshots,
            ended: false,
        }
    }

    /// From the start of the table to the end of the last entry that was read, with its padding: when there are no more
    /// entries, all of the table that can be read.
    #[must_use]
    pub fn area(&self) -> Area {
        Area::new(self.start, self.at - self.start)
    }

    fn read(&mut self) -> Result<Snapshot<'a>> {
        if self.index >= MAX_SNAPSHOTS {
            return Err(Error::Unsupported {
                what: format!("snapshot table entry {} at offset {:#x}", self.index, self.at),
                why: format!("QEMU takes {MAX_SNAPSHOTS} snapshots, the header claims {}", self.count),
            });
        }
        let fixed = SnapshotHeader::parse(self.image, self.at)?;
        let part =
            |at: u64, size: u64, what| exactly(self.image, at, size, what).map(|part| (part, at + size));
        let behind = self.at + SnapshotHeader::SIZE; // in the file: no overflow, here and below
        let (extra_data, behind) = part(behind, fixed.extra_data_size.into(), "snapshot extra data")?;
        let (id, behind) = part(behind, fixed.id_str_size.into(), "snapshot ID")?;
        let (name, behind) = part(behind, fixed.name_size.into(), "snapshot name")?;
        let offset = HostOffset(self.at);
        let next = self.at + round_up_8(behind - self.at);
        let index = self.index;
        (self.at, self.index) = (next, index + 1);
        Ok(Snapshot { index, offset, fixed, extra_data, id, name, next: HostOffset(next) })
    }
}

impl<'a> Iterator for Snapshots<'a> {
    type Item = Result<Snapshot<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended || self.index >= self.count {
            return None;
        }
        let item = self.read();
        self.ended = item.is_err();
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An image that is a header and, from 104 on, a snapshot table.
    fn image(nb_snapshots: u32, entries: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 104];
        bytes[7] = 3;
        bytes[60..64].copy_from_slice(&nb_snapshots.to_be_bytes());
        bytes[71] = 104;
        bytes.extend(entries);
        bytes
    }

    fn entry(fixed: SnapshotHeader, extra: &[u8], id: &[u8], name: &[u8]) -> Vec<u8> {
        let fixed = SnapshotHeader {
            extra_data_size: u32::try_from(extra.len()).unwrap(),
            id_str_size: u16::try_from(id.len()).unwrap(),
            name_size: u16::try_from(name.len()).unwrap(),
            ..fixed
        };
        let mut bytes = [&fixed.to_bytes(), extra, id, name].concat();
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    #[test]
    fn offsets_are_the_specifications() {
        let at =
            |name| SnapshotHeader::FIELDS.iter().find(|field| field.name == name).map(|field| field.offset);
        for (name, offset) in
            [("l1_size", 8), ("name_size", 14), ("vm_clock_nsec", 24), ("extra_data_size", 36)]
        {
            assert_eq!(at(name), Some(offset), "{name}");
        }
        assert_eq!(SnapshotHeader::SIZE, 40);
        assert!(SnapshotExtra::FIELDS.iter().map(|field| field.offset).eq([40, 48, 56]));
    }

    #[test]
    fn extra_data_count_as_far_as_they_go() {
        let fixed = SnapshotHeader { vm_state_size: 7, ..SnapshotHeader::default() };
        let extra = [[1; 8], [2; 8], [3; 8], [4; 8]].concat();
        for (length, state, disk, icount, unknown) in [
            (0, 7, None, None, 0),
            (7, 7, None, None, 0),
            (8, 0x0101_0101_0101_0101, None, None, 0),
            (16, 0x0101_0101_0101_0101, Some(0x0202_0202_0202_0202), None, 0),
            (32, 0x0101_0101_0101_0101, Some(0x0202_0202_0202_0202), Some(0x0303_0303_0303_0303), 8),
        ] {
            let bytes = image(1, &entry(fixed, &extra[..length], b"1", b"name"));
            let snapshot = Snapshots::new(&Header::parse(&bytes).unwrap()).next().unwrap().unwrap();
            assert_eq!(
                (snapshot.vm_state_size(), snapshot.disk_size(), snapshot.icount()),
                (state, disk, icount)
            );
            assert_eq!(snapshot.unknown_extra().len(), unknown);
        }
        let bytes = image(1, &entry(fixed, &[0xff; 24], b"", b""));
        assert_eq!(Snapshots::new(&Header::parse(&bytes).unwrap()).next().unwrap().unwrap().icount(), None);
    }

    #[test]
    fn no_more_snapshots_than_qemu_takes_and_the_file_has() {
        let bytes = image(u32::MAX, &vec![0; 40 * (MAX_SNAPSHOTS as usize + 2)]);
        let mut snapshots = Snapshots::new(&Header::parse(&bytes).unwrap());
        assert_eq!(snapshots.by_ref().filter(Result::is_ok).count(), MAX_SNAPSHOTS as usize);
        assert_eq!(snapshots.area(), Area::new(104, u64::from(MAX_SNAPSHOTS) * 40));
        let bytes = image(u32::MAX, &[0; 79]);
        let found: Vec<_> =
            Snapshots::new(&Header::parse(&bytes).unwrap()).map(|item| item.is_ok()).collect();
        assert_eq!(found, [true, false]);
        let mut bytes = image(1, &[]);
        bytes[64..72].fill(0xff);
        assert!(Snapshots::new(&Header::parse(&bytes).unwrap()).next().unwrap().is_err());
    }

    #[test]
    fn what_the_file_cuts_is_named() {
        let whole = image(1, &entry(SnapshotHeader::default(), &[0; 16], b"id", b"name"));
        for (missing, what) in [
            (3, "snapshot name"),
            (8, "snapshot ID"),
            (10, "snapshot extra data"),
            (30, "snapshot table entry"),
        ] {
            let cut = &whole[..whole.len() - missing];
            let error = Snapshots::new(&Header::parse(cut).unwrap()).next().unwrap().unwrap_err().to_string();
            assert!(error.starts_with(what), "{error}");
        }
        // The padding need not be there.
        let cut = &whole[..whole.len() - 2];
        assert!(Snapshots::new(&Header::parse(cut).unwrap()).next().unwrap().is_ok());
    }

    proptest! {
        #[test]
        fn tables_round_trip(
            parts in proptest::collection::vec(
                (
                    any::<[u8; 40]>(),
                    proptest::collection::vec(any::<u8>(), 0..50),
                    proptest::collection::vec(any::<u8>(), 0..9),
                    proptest::collection::vec(any::<u8>(), 0..20),
                ),
                0..6,
            )
        ) {
            let mut entries = Vec::new();
            for (fixed, extra, id, name) in &parts {
                entries.extend(entry(SnapshotHeader::parse(fixed, 0).unwrap(), extra, id, name));
            }
            let bytes = image(u32::try_from(parts.len()).unwrap(), &entries);
            let header = Header::parse(&bytes).unwrap();
            let mut snapshots = Snapshots::new(&header);
            let mut back = Vec::new();
            for snapshot in snapshots.by_ref() {
                let snapshot = snapshot.unwrap();
                prop_assert_eq!(snapshot.area().length % 8, 0);
                back.extend(entry(snapshot.fixed, snapshot.extra_data, snapshot.id, snapshot.name));
            }
            prop_assert_eq!(&back, &entries);
            prop_assert_eq!(snapshots.area(), Area::new(104, entries.len() as u64));
        }

        #[test]
        fn any_bytes_are_a_table(nb_snapshots: u32, entries in proptest::collection::vec(prop_oneof![Just(0), any::<u8>()], 0..400)) {
            let bytes = image(nb_snapshots, &entries);
            for snapshot in Snapshots::new(&Header::parse(&bytes).unwrap()).filter_map(Result::ok) {
                let _ = (snapshot.vm_state_size(), snapshot.l1_table(), snapshot.area());
            }
        }
    }
}
