//! [`Preview`]: an image as it would be after a plan, for the same parse, check and dump that read the real one.

use std::ops::{Deref, Range};

use crate::error::{Error, Result};
use crate::image::Image;
use crate::plan::{Plan, State};

/// An image with a plan carried out on a private copy: only the pages that the plan touches are copied, so that a
/// preview of a 1 TiB image costs kilobytes. Dereferences to the bytes.
#[derive(Debug)]
pub struct Preview<'a> {
    data: Data,
    image: &'a Image,
    /// The ranges that the plan writes, in order.
    written: Vec<Range<u64>>,
}

#[derive(Debug)]
enum Data {
    #[cfg(unix)]
    Mapped(mapped::Private),
    Owned(Vec<u8>),
}

impl Preview<'_> {
    pub(crate) fn image(&self) -> &Image {
        self.image
    }

    pub(crate) fn written(&self) -> &[Range<u64>] {
        &self.written
    }

    /// Gives the pages of a range back to the system, but for those that the plan wrote to.
    pub(crate) fn release(&self, range: Range<u64>) {
        #[cfg(unix)]
        if let Data::Mapped(map) = &self.data {
            let mut at = range.start;
            let first = self.written.partition_point(|written| written.end <= at);
            for written in self.written.get(first..).unwrap_or_default() {
                if written.start >= range.end {
                    break;
                }
                map.release(at..written.start);
                at = written.end;
            }
            map.release(at..range.end);
        }
    }
}

impl Deref for Preview<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.data {
            #[cfg(unix)]
            Data::Mapped(map) => map.bytes(),
            Data::Owned(bytes) => bytes,
        }
    }
}

impl Image {
    /// The image as it would be after `plan`. The file is neither written nor changed in length.
    ///
    /// # Errors
    /// A refusal with [`Reason::Stale`](crate::error::Reason::Stale) where the image does not hold the plan's old bytes;
    /// [`Error::Io`] where the system has no address space left.
    pub fn preview(&self, plan: &Plan) -> Result<Preview<'_>> {
        let state = plan.state_of(self.bytes())?;
        if state != State::Before && !plan.is_empty() {
            let found = "a part of the plan is carried out already";
            let (reason, expected) = (crate::error::Reason::Stale, "the image before the plan");
            return Err(Error::refused(reason, "preview", None, expected, found));
        }
        let written = plan.ranges().collect();
        #[cfg(unix)]
        if let Some(source) = self.source().filter(|_| plan.new_length().max(plan.length()) > 0) {
            let mut map = mapped::Private::new(&source.file, self.bytes().len(), plan)?;
            for write in plan.writes() {
                map.write(write.offset.0, &write.new);
            }
            return Ok(Preview { data: Data::Mapped(map), image: self, written });
        }
        let mut bytes = self.bytes().to_vec();
        let more = usize::try_from(plan.new_length()).unwrap_or(usize::MAX).saturating_sub(bytes.len());
        bytes.try_reserve(more).map_err(|error| Error::Unsupported {
            what: format!("a preview of {} bytes", plan.new_length()),
            why: error.to_string(),
        })?;
        plan.apply_to(&mut bytes);
        Ok(Preview { data: Data::Owned(bytes), image: self, written })
    }
}

#[cfg(unix)]
#[expect(unsafe_code, reason = "a private map that is longer than its file takes two calls of mmap")]
mod mapped {
    use std::ffi::c_void;
    use std::fs::File;
    use std::num::NonZeroUsize;
    use std::ops::Range;
    use std::ptr::NonNull;

    use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

    use crate::error::{Error, Result};
    use crate::plan::Plan;

    /// Anonymous memory of the longer of both lengths, with the file mapped privately over its head.
    #[derive(Debug)]
    pub(super) struct Private {
        start: NonNull<c_void>,
        reserved: NonZeroUsize,
        length: usize,
    }

    // SAFETY: the memory is private to this value, which hands out shared references through &self and writes through
    // &mut self only.
    unsafe impl Send for Private {}
    // SAFETY: as above.
    unsafe impl Sync for Private {}

    impl Private {
        pub(super) fn new(file: &File, file_length: usize, plan: &Plan) -> Result<Self> {
            let what = format!("cannot map {} bytes for a preview", plan.length().max(plan.new_length()));
            let too_large =
                || Error::Unsupported { what: what.clone(), why: "larger than the address space".to_owned() };
            let length = usize::try_from(plan.new_length()).map_err(|_| too_large())?;
            let reserved = NonZeroUsize::new(length.max(file_length)).ok_or_else(too_large)?;
            let io = |errno: nix::Error| Error::Io { what: what.clone(), source: errno.into() };
            let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
            let private = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
            // SAFETY: a new anonymous map at an address of the kernel's choice touches nothing that exists.
            let start = unsafe { mmap_anonymous(None, reserved, protection, private) }.map_err(io)?;
            let map = Self { start, reserved, length };
            let Some(head) = NonZeroUsize::new(file_length) else { return Ok(map) };
            let address = NonZeroUsize::new(start.as_ptr() as usize);
            // SAFETY: MAP_FIXED replaces the head of the anonymous map above, which this function owns and nothing
            // refers to yet; `head` is at most `reserved`. The map is private: nothing reaches the file.
            match unsafe { mmap(address, head, protection, private | MapFlags::MAP_FIXED, file, 0) } {
                Ok(_) => Ok(map),
                Err(errno) => {
                    // The kernel may have taken the head away already, and given its place to another thread since.
                    std::mem::forget(map);
                    Err(io(errno))
                }
            }
        }

        pub(super) fn bytes(&self) -> &[u8] {
            // SAFETY: `length` is at most `reserved`, all of which is mapped readable until drop; the lifetime is
            // self's. Another process that writes to the file can change pages not yet copied: plain bytes, for which
            // any value is valid. Truncation raises SIGBUS, as `Image` says.
            unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast::<u8>(), self.length) }
        }

        pub(super) fn write(&mut self, at: u64, new: &[u8]) {
            // SAFETY: as in `bytes`; the memory is writable, and &mut self makes this the only reference.
            let bytes =
                unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast::<u8>(), self.length) };
            let start = usize::try_from(at).unwrap_or(usize::MAX);
            if let Some(range) = bytes.get_mut(start..).and_then(|tail| tail.get_mut(..new.len())) {
                range.copy_from_slice(new);
            }
        }
    }

    impl Private {
        /// Gives back the whole pages of a range that was never written to.
        pub(super) fn release(&self, range: Range<u64>) {
            const PAGE: u64 = 64 << 10; // or less: what is no multiple of it is kept
            let end = range.end.min(self.length as u64) / PAGE * PAGE;
            let start = range.start.next_multiple_of(PAGE);
            let Some(length) = end.checked_sub(start).filter(|&length| length > 0) else { return };
            // SAFETY: the range lies in the map. Its pages are clean copies of the file's, or zeroes behind the file's
            // end: the next touch reads the same bytes. A failure changes nothing.
            let _ = unsafe {
                madvise(self.start.byte_add(start as usize), length as usize, MmapAdvise::MADV_DONTNEED)
            };
        }
    }

    impl Drop for Private {
        fn drop(&mut self) {
            // SAFETY: both maps were made by `new` and lie in this range; no reference outlives self.
            let _ = unsafe { munmap(self.start, self.reserved.get()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_preview_of_a_sparse_tebibyte_that_grows() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 40).unwrap();
        let image = Image::open(file.path()).unwrap();
        let mut plan = Plan::new(image.bytes());
        plan.set(image.bytes(), 5, b"head", "head".to_owned()).unwrap();
        plan.set(image.bytes(), (1 << 40) - 2, b"tail", "tail".to_owned()).unwrap();
        plan.set(image.bytes(), (1 << 40) + (1 << 20), b"far", "far".to_owned()).unwrap();
        let preview = image.preview(&plan).unwrap();
        assert_eq!(preview.len(), (1 << 40) + (1 << 20) + 3);
        assert_eq!(&preview[4..10], b"\0head\0");
        assert_eq!(&preview[(1 << 40) - 2..(1 << 40) + 2], b"tail");
        assert_eq!(&preview[preview.len() - 4..], b"\0far");
        assert!(image.bytes()[..64].iter().all(|&byte| byte == 0), "the file is untouched");
        assert_eq!(file.as_file().metadata().unwrap().len(), 1 << 40);
    }

    #[test]
    fn what_is_given_back_is_read_again_and_what_was_written_is_kept() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![7; 1 << 20]).unwrap();
        let image = Image::open(file.path()).unwrap();
        let mut plan = Plan::new(image.bytes());
        for at in [0, 300_000, 1 << 19, (1 << 20) - 5] {
            plan.set(image.bytes(), at, b"plan", "write".to_owned()).unwrap();
        }
        let preview = image.preview(&plan).unwrap();
        let before = preview.to_vec();
        preview.release(0..u64::MAX);
        preview.release(1000..900_000);
        assert_eq!(*preview, *before);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_preview_is_the_image_with_the_plan_applied((bytes, plan) in crate::plan::any_plan()) {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &bytes).unwrap();
            let mut expected = bytes.clone();
            plan.apply_to(&mut expected);
            let image = Image::open(file.path()).unwrap();
            prop_assert_eq!(&*image.preview(&plan).unwrap(), &expected);
            let owned = Image::from_bytes(bytes);
            prop_assert_eq!(&*owned.preview(&plan).unwrap(), &expected);
        }
    }
}
