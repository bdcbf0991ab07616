//! [`Shared`]: the micro guest's memory, as the host sees it.

#![expect(unsafe_code, reason = "memory that another process writes to at any time")]

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use memmap2::{MmapOptions, MmapRaw};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::layout::RAM_BYTES;
use crate::error::{Error, Result};

/// The guest's memory. It has no name in a file system, so that nothing is left behind, and it outlives QEMU.
///
/// Offsets are guest physical addresses. What lies outside reads as 0 and is not written.
#[derive(Debug)]
pub(super) struct Shared {
    file: OwnedFd,
    map: MmapRaw,
}

impl Shared {
    pub(super) fn new() -> Result<Self> {
        let what = "cannot make the guest's memory";
        let system = |errno: nix::Error| Error::io(what)(errno.into());
        let file = memfd_create(c"iofuzz-ram", MFdFlags::MFD_CLOEXEC).map_err(system)?;
        let copy = File::from(file.try_clone().map_err(Error::io(what))?);
        copy.set_len(RAM_BYTES).map_err(Error::io(what))?;
        let map = MmapOptions::new().map_raw(&copy).map_err(Error::io(what))?;
        Ok(Self { file, map })
    }

    /// Another handle on the memory, for QEMU.
    pub(super) fn file(&self) -> io::Result<OwnedFd> {
        self.file.try_clone()
    }

    /// What is at `address`. What was written before it is seen by whoever reads after this.
    pub(super) fn load(&self, address: u32) -> u32 {
        self.word(address).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Writes `value` at `address`, after all that was written before.
    pub(super) fn store(&self, address: u32, value: u32) {
        if let Some(word) = self.word(address) {
            word.store(value, Ordering::Release);
        }
    }

    fn word(&self, address: u32) -> Option<&AtomicU32> {
        let at = address as usize;
        let fits = at.is_multiple_of(4) && at < self.map.len().saturating_sub(3);
        // SAFETY: the word lies inside the map, which lives as long as `self`, and is aligned, as the map begins at a page.
        // The memory is shared with another process; through this type it is only touched atomically or by volatile copies.
        fits.then(|| unsafe { AtomicU32::from_ptr(self.map.as_mut_ptr().add(at).cast()) })
    }

    /// Writes `bytes` at `address`: all of them or, if they do not fit, none.
    pub(super) fn write(&self, address: u32, bytes: &[u8]) {
        let at = address as usize;
        if at.checked_add(bytes.len()).is_some_and(|end| end <= self.map.len()) {
            // SAFETY: the range lies inside the map, and `bytes` is none of it: nobody has a reference into the map.
            unsafe { self.map.as_mut_ptr().add(at).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
            // The guest may see the bytes before the counter that announces them, not after.
            fence(Ordering::Release);
        }
    }

    /// What is at `address`, as far as the memory goes.
    pub(super) fn read(&self, address: u32, count: usize) -> Vec<u8> {
        let at = (address as usize).min(self.map.len());
        let count = count.min(self.map.len() - at);
        fence(Ordering::Acquire);
        let mut bytes = vec![0; count];
        // SAFETY: the range lies inside the map, and `bytes` is new.
        unsafe { self.map.as_ptr().add(at).copy_to_nonoverlapping(bytes.as_mut_ptr(), count) };
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_bytes_and_nothing_outside() {
        let shared = Shared::new().unwrap();
        shared.write(0x1000, &[1, 2, 3, 4]);
        assert_eq!(shared.load(0x1000), 0x0403_0201);
        shared.store(0x1004, 5);
        assert_eq!(shared.read(0x1002, 4), [3, 4, 5, 0]);
        let end = RAM_BYTES as u32;
        shared.write(end - 2, &[9, 9, 9]);
        shared.store(end, 9);
        shared.store(end - 2, 9);
        assert_eq!((shared.load(end), shared.load(1), shared.load(u32::MAX)), (0, 0, 0));
        assert_eq!(shared.read(end - 2, 4), [0, 0]);
        assert!(shared.read(u32::MAX, 4).is_empty());
    }
}
