//! Internal snapshots: the entries of the snapshot table.

use crate::generate::GenerateError;

/// The fields of the snapshot table's extra data that the specification defines, in bytes.
const EXTRA_DATA_SIZE: u32 = 24;
/// Version 3 needs the extra data up to the virtual disk size.
const EXTRA_DATA_SIZE_MIN_V3: u32 = 16;

/// An internal snapshot of the disk, without the state of a virtual machine.
///
/// ```
/// use vdisk_format::generate::{Qcow2, Snapshot};
///
/// let snapshot = Snapshot::new("1", "before the upgrade").date_sec(1_700_000_000);
/// let image = Qcow2::new(1 << 20).data(0, b"shared").snapshot(snapshot).build()?;
/// # Ok::<(), vdisk_format::generate::GenerateError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Snapshot {
    id: String,
    name: String,
    date_sec: u32,
    date_nsec: u32,
    vm_clock_nsec: u64,
    icount: u64,
    extra_data_size: u32,
}

impl Snapshot {
    /// A snapshot with a unique ID, which `qemu-img` makes of digits, and a name.
    pub fn new(id: impl Into<String>, name: impl Into<String>) -> Self {
        Snapshot {
            id: id.into(),
            name: name.into(),
            date_sec: 0,
            date_nsec: 0,
            vm_clock_nsec: 0,
            icount: u64::MAX,
            extra_data_size: EXTRA_DATA_SIZE,
        }
    }

    /// When it was taken, in seconds since the Epoch. The default is 0.
    pub fn date_sec(mut self, date_sec: u32) -> Self {
        self.date_sec = date_sec;
        self
    }

    /// When it was taken: the part of the second, in nanoseconds. The default is 0.
    pub fn date_nsec(mut self, date_nsec: u32) -> Self {
        self.date_nsec = date_nsec;
        self
    }

    /// How long the guest had been running, in nanoseconds. The default is 0.
    pub fn vm_clock_nsec(mut self, vm_clock_nsec: u64) -> Self {
        self.vm_clock_nsec = vm_clock_nsec;
        self
    }

    /// The instruction count of record and replay. The default is -1 (all ones): not in use.
    pub fn icount(mut self, icount: u64) -> Self {
        self.icount = icount;
        self
    }

    /// The size of the extra data in bytes, in version 3 at least 16. Fields behind it are left
    /// out; what is behind the known fields is zero. The default is 24.
    pub fn extra_data_size(mut self, extra_data_size: u32) -> Self {
        self.extra_data_size = extra_data_size;
        self
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Refuses what a snapshot table entry cannot say.
    pub(super) fn validate(&self, version: u32) -> Result<(), GenerateError> {
        let max = u64::from(u16::MAX);
        for (what, text) in [("a snapshot ID", &self.id), ("a snapshot name", &self.name)] {
            let length = text.len() as u64;
            if length > max {
                return Err(GenerateError::Length { what, length, min: 0, max });
            }
        }
        if version >= 3 && self.extra_data_size < EXTRA_DATA_SIZE_MIN_V3 {
            let value = u64::from(self.extra_data_size);
            let valid = "at least 16 in version 3";
            return Err(GenerateError::Field { field: "extra_data_size", value, valid });
        }
        Ok(())
    }

    /// The length of its snapshot table entry in bytes, with the padding.
    pub(super) fn entry_length(&self) -> u64 {
        let variable = self.id.len() as u64 + self.name.len() as u64;
        (40 + u64::from(self.extra_data_size) + variable).next_multiple_of(8)
    }

    /// Appends its snapshot table entry to `table`.
    pub(super) fn encode(&self, l1_table_offset: u64, l1_size: u32, size: u64, table: &mut Vec<u8>) {
        table.extend(l1_table_offset.to_be_bytes());
        table.extend(l1_size.to_be_bytes());
        table.extend((self.id.len() as u16).to_be_bytes());
        table.extend((self.name.len() as u16).to_be_bytes());
        table.extend(self.date_sec.to_be_bytes());
        table.extend(self.date_nsec.to_be_bytes());
        table.extend(self.vm_clock_nsec.to_be_bytes());
        table.extend(0_u32.to_be_bytes()); // size of the VM state
        table.extend(self.extra_data_size.to_be_bytes());

        let mut extra = Vec::new();
        extra.extend(0_u64.to_be_bytes()); // size of the VM state, 64 bits
        extra.extend(size.to_be_bytes());
        extra.extend(self.icount.to_be_bytes());
        extra.resize(self.extra_data_size as usize, 0);
        table.extend(extra);

        table.extend(self.id.as_bytes());
        table.extend(self.name.as_bytes());
        table.resize(table.len().next_multiple_of(8), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_the_length_that_was_said() {
        for (id, extra) in [("", 16), ("1", 24), ("12345678", 40), ("9", 17)] {
            let snapshot = Snapshot::new(id, "name").extra_data_size(extra);
            let mut table = vec![0; 8];
            snapshot.encode(0x10000, 1, 1 << 20, &mut table);
            assert_eq!(table.len() as u64 - 8, snapshot.entry_length());
        }
    }

    #[test]
    fn version_3_needs_the_disk_size() {
        let snapshot = Snapshot::new("1", "").extra_data_size(8);
        assert!(snapshot.validate(2).is_ok());
        assert!(matches!(snapshot.validate(3), Err(GenerateError::Field { value: 8, .. })));
        let long = Snapshot::new("1", "n".repeat(65536));
        assert!(matches!(long.validate(3), Err(GenerateError::Length { length: 65536, .. })));
    }
}
