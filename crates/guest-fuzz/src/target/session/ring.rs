//! [`Ring`]: memory that the program in the guest shares with us, through a PCI device that we add to the machine.
//!
//! It is a file of ours, and survives the machine: what was in flight at its death is known exactly. It is read and
//! written with system calls, and nothing in it is trusted.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::layout::{DONE, HEARTBEAT, LENGTH, MAGIC, QUIT, SLOTS, SLOTS_AT, STARTED, STATE, SUBMITTED};
use super::slot::Slot;
use crate::error::{Error, Result};

/// The memory, and how far we know that the guest has come.
#[derive(Debug)]
pub(super) struct Ring {
    file: File,
    submitted: u64,
    done: u64,
}

impl Ring {
    /// Fresh memory.
    pub(super) fn new() -> Result<Self> {
        let made = memfd_create("iofuzz-ring", MFdFlags::MFD_CLOEXEC);
        let file = File::from(made.map_err(|error| Error::io("cannot make memory to share")(error.into()))?);
        file.set_len(LENGTH).map_err(Error::io("cannot make memory to share"))?;
        let ring = Self { file, submitted: 0, done: 0 };
        ring.write(0, &MAGIC.to_le_bytes())?;
        Ok(ring)
    }

    /// The arguments that add the device to a machine, and the file that QEMU inherits for it.
    pub(super) fn device(&self) -> Result<(Vec<OsString>, OwnedFd)> {
        let file = OwnedFd::from(self.file.try_clone().map_err(Error::io("cannot share memory"))?);
        let object = format!(
            "memory-backend-file,id=iofuzz-ring,size={LENGTH},mem-path=/proc/self/fd/{},share=on",
            file.as_raw_fd()
        );
        let words = ["-object", &object, "-device", "ivshmem-plain,memdev=iofuzz-ring"];
        Ok((words.map(OsString::from).to_vec(), file))
    }

    /// The same memory, for whoever uses it next.
    pub(super) fn share(&self) -> Result<Self> {
        let file = self.file.try_clone().map_err(Error::io("cannot share memory"))?;
        Ok(Self { file, ..*self })
    }

    /// For a program that starts anew: nothing submitted, nothing done.
    pub(super) fn clear(&mut self) -> Result<()> {
        (self.submitted, self.done) = (0, 0);
        self.write(STATE, &[0; 0x200])
    }

    /// Hands over as many of `slots` as there is room for: how many.
    pub(super) fn submit(&mut self, slots: impl Iterator<Item = Slot>) -> Result<usize> {
        let room = SLOTS - (self.submitted - self.done);
        let bytes: Vec<u8> = slots.take(room as usize).flat_map(Slot::to_bytes).collect();
        let count = bytes.len() as u64 / 8;
        if count == 0 {
            return Ok(0);
        }
        let at = self.submitted % SLOTS;
        let (head, tail) = bytes.split_at(bytes.len().min(((SLOTS - at) * 8) as usize));
        self.write(SLOTS_AT + at * 8, head)?;
        self.write(SLOTS_AT, tail)?;
        self.submitted += count;
        self.write(SUBMITTED, &self.submitted.to_le_bytes())?;
        Ok(count as usize)
    }

    /// The values in the slots that were done since the last call, in order; a slot that reads nothing has any value.
    pub(super) fn fetch(&mut self) -> Result<Vec<u32>> {
        // A guest gone wild may write anything here.
        let done = self.number(DONE)?.clamp(self.done, self.submitted);
        let mut bytes = vec![0; (done - self.done) as usize * 8];
        let at = self.done % SLOTS;
        let (head, tail) = bytes.split_at_mut(((SLOTS - at) * 8).min((done - self.done) * 8) as usize);
        self.read(SLOTS_AT + at * 8, head)?;
        self.read(SLOTS_AT, tail)?;
        self.done = done;
        let value = |slot: &[u8]| slot.last_chunk().copied().map_or(0, u32::from_le_bytes);
        Ok(bytes.chunks_exact(8).map(value).collect())
    }

    /// How many slots are begun and not done, after those that [`fetch`](Self::fetch) has seen.
    pub(super) fn begun(&self) -> u64 {
        self.number(STARTED).map_or(0, |started| started.clamp(self.done, self.submitted) - self.done)
    }

    /// A number that changes while the program in the guest waits for work.
    pub(super) fn heartbeat(&self) -> u64 {
        self.number(HEARTBEAT).unwrap_or(0)
    }

    /// Tells the program in the guest to end.
    pub(super) fn quit(&self) {
        // Where this cannot be written there is nobody to read it.
        let _ = self.write(QUIT, &[1, 0, 0, 0]);
    }

    /// The guest's number at `at`. Two reads that agree are one that the guest was not just writing.
    fn number(&self, at: u64) -> Result<u64> {
        let mut last = None;
        for _ in 0..100 {
            let mut bytes = [0; 8];
            self.read(at, &mut bytes)?;
            let number = u64::from_le_bytes(bytes);
            if last == Some(number) {
                break;
            }
            last = Some(number);
        }
        Ok(last.unwrap_or(0))
    }

    fn read(&self, at: u64, bytes: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(bytes, at).map_err(Error::io("cannot read shared memory"))
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, at).map_err(Error::io("cannot write shared memory"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::slot::Kind;
    use super::*;

    fn slots(count: u64) -> impl Iterator<Item = Slot> {
        let slot = |n| Slot { port: n as u16, kind: Kind::InByte, value: n as u32, first: true, last: true };
        (0..count).map(slot)
    }

    #[test]
    fn slots_go_round() {
        let mut ring = Ring::new().unwrap();
        assert_eq!(ring.submit(slots(SLOTS - 2)).unwrap() as u64, SLOTS - 2);
        ring.write(DONE, &(SLOTS - 3).to_le_bytes()).unwrap();
        ring.write(STARTED, &(SLOTS - 2).to_le_bytes()).unwrap();
        assert_eq!(ring.fetch().unwrap(), (0..(SLOTS - 3) as u32).collect::<Vec<_>>());
        assert_eq!(ring.begun(), 1);
        assert_eq!(ring.submit(slots(SLOTS + 5)).unwrap() as u64, SLOTS - 1, "one is still there");
        ring.write(DONE, &(SLOTS + 2).to_le_bytes()).unwrap();
        assert_eq!(ring.fetch().unwrap(), [(SLOTS - 3) as u32, 0, 1, 2, 3]);
    }

    #[test]
    fn what_the_guest_writes_is_not_trusted() {
        let mut ring = Ring::new().unwrap();
        ring.submit(slots(5)).unwrap();
        ring.write(DONE, &u64::MAX.to_le_bytes()).unwrap();
        ring.write(STARTED, &u64::MAX.to_le_bytes()).unwrap();
        assert_eq!(ring.fetch().unwrap().len(), 5);
        ring.write(DONE, &0_u64.to_le_bytes()).unwrap();
        assert_eq!((ring.fetch().unwrap().len(), ring.begun()), (0, 0));
    }
}
