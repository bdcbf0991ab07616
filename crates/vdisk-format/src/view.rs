//! [`View`]: what a walk over an image's tables reads. The bytes, and where they are a mapped file, its holes and the
//! means to give pages back.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use crate::bytes::clipped;
use crate::image::Image;
use crate::preview::Preview;

/// Pages are given back whenever this many bytes were read.
const RESIDENT: u64 = 4 << 20;
/// A touch of a page maps those around it that are in the page cache, in blocks of this many bytes: Linux's
/// `fault_around_bytes`. Of a file without holes that is many times what a small table takes.
const AROUND: u64 = 64 << 10;
/// What was read this close to one another is given back in one call.
const NEAR: u64 = 2 << 20;

/// How far a walk has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Tables that have been visited.
    pub done: u64,
    /// Tables that there are.
    pub total: u64,
}

/// The bytes of an image, for reading its tables.
///
/// Made from a `&[u8]`, or from a mapped [`Image`] or a [`Preview`] of one: then the holes of the file are skipped, so
/// that a sparse file costs what it holds and not what it claims, and pages that were read are given back, so that the
/// memory stays bounded however large the tables are.
pub struct View<'a> {
    bytes: &'a [u8],
    /// The last bytes, which are no whole entries of a table, as if zeroes followed: so does QEMU read them.
    cut: [[u8; 8]; 2],
    /// Whose file has the holes, and the ranges that a preview wrote over them.
    holes: Option<(&'a Image, &'a [Range<u64>])>,
    /// Whose pages can be given back, and read in another way.
    mapped: Option<&'a Image>,
    preview: Option<&'a Preview<'a>>,
    observer: Option<&'a dyn Fn(Progress)>,
    known: RefCell<Known>,
    read: RefCell<Read>,
}

/// What a [`View`] is made of that threads can share.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    bytes: &'a [u8],
    holes: Option<(&'a Image, &'a [Range<u64>])>,
    mapped: Option<&'a Image>,
    preview: Option<&'a Preview<'a>>,
}

/// Pieces of data that were found: from the key on there is a hole, up to the piece's start.
type Known = BTreeMap<u64, (u64, u64)>;
/// A file that ends inside a sector reads as if it had all of it, and zeroes in its rest.
pub const SECTOR: u64 = 512;
/// As many are remembered: tables are near one another, or far apart in few holes.
const MOST_KNOWN: usize = 1024;

/// What was read since pages were given back.
#[derive(Default)]
struct Read {
    ranges: Vec<Range<u64>>,
    bytes: u64,
}

impl<'a> View<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let mut cut = [[0; 8]; 2];
        let tail = bytes.as_chunks::<16>().1;
        cut.as_flattened_mut().iter_mut().zip(tail).for_each(|(to, from)| *to = *from);
        Self {
            bytes,
            cut,
            holes: None,
            mapped: None,
            preview: None,
            observer: None,
            known: RefCell::default(),
            read: RefCell::default(),
        }
    }

    /// Has `observer` told how far a walk has come, after each table.
    #[must_use]
    pub fn observed_by(self, observer: &'a dyn Fn(Progress)) -> Self {
        Self { observer: Some(observer), ..self }
    }

    /// All of it.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The first piece of `range` that may hold something: what is before it, or all of the range where there is
    /// `None`, reads as zeroes or lies behind the end of the file.
    #[must_use]
    pub fn next_data(&self, range: Range<u64>) -> Option<Range<u64>> {
        let (start, end) = (range.start, range.end.min(self.length()));
        if start >= end {
            return None;
        }
        let Some((image, written)) = self.holes else { return Some(start..end) };
        let (data_start, data_end) = self.piece_at(image, start);
        let data = data_start.max(start)..data_end.min(end);
        let next = written.partition_point(|range| range.end <= start);
        let written = written.get(next).map(|range| range.start.max(start)..range.end.min(end));
        match written {
            Some(written)
                if written.start < written.end && (data.is_empty() || written.start < data.start) =>
            {
                Some(written)
            }
            _ => (!data.is_empty()).then_some(data),
        }
    }

    /// The piece of data of the file that is at `at`, or the next one behind it.
    fn piece_at(&self, image: &Image, at: u64) -> (u64, u64) {
        let mut known = self.known.borrow_mut();
        if let Some((_, &piece)) = known.range(..=at).next_back().filter(|(_, piece)| at < piece.1) {
            return piece;
        }
        let piece = image.next_data(at).map_or((self.length(), self.length()), |data| (data.start, data.end));
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        // The same piece may be known from further behind in the hole.
        let behind = known.range(at..).next().filter(|(_, other)| **other == piece).map(|(&from, _)| from);
        behind.map(|from| known.remove(&from));
        known.insert(at, piece);
        piece
    }

    /// The part of `at .. at + length` that the image has.
    #[must_use]
    pub fn clipped(&self, at: u64, length: u64) -> &'a [u8] {
        clipped(self.bytes, at, length)
    }

    /// Fills the head of `buffer` with the bytes at `at`, as far as the file has them, and returns that head. A mapped
    /// file is read instead: pages of which every byte is wanted once cost more to map than to copy.
    pub(crate) fn read<'b>(&self, at: u64, buffer: &'b mut [u8]) -> &'b mut [u8] {
        let bytes = self.clipped(at, buffer.len() as u64);
        let (head, _) = buffer.split_at_mut(bytes.len());
        if !self.mapped.is_some_and(|image| image.read_at(at, head)) {
            self.reads(at..at.saturating_add(bytes.len() as u64));
            head.copy_from_slice(bytes);
            self.was_read();
        }
        head
    }

    /// The entry of `words` numbers at `at`, one or two, that the end of the file cuts short, if it does.
    pub(crate) fn cut_entry(&self, at: u64, words: u64) -> &[[u8; 8]] {
        let size = words * 8;
        let is_cut = at.is_multiple_of(size) && at < self.length() && self.length() - at < size;
        let [_, second] = &self.cut;
        match words {
            2 if is_cut => &self.cut,
            1 if is_cut && !at.is_multiple_of(16) => std::slice::from_ref(second),
            1 if is_cut => self.cut.split_at(1).0,
            _ => &[],
        }
    }

    /// Notes that pages of a range are being read. What a touch maps around them is counted, and given back, as well.
    pub(crate) fn reads(&self, range: Range<u64>) {
        if self.mapped.is_none() && self.preview.is_none() {
            return;
        }
        let start = range.start / AROUND * AROUND;
        let end = range.end.next_multiple_of(AROUND);
        let mut read = self.read.borrow_mut();
        match read.ranges.last_mut() {
            Some(last) if last.start <= start && start < last.end + NEAR => {
                let more = end.saturating_sub(last.end.max(start));
                last.end = last.end.max(end);
                read.bytes += more;
            }
            _ => {
                read.bytes += end - start;
                read.ranges.push(start..end);
            }
        }
    }

    /// What was read is no longer needed: gives its pages back, if they are enough.
    pub(crate) fn was_read(&self) {
        let mut read = self.read.borrow_mut();
        if read.bytes >= RESIDENT || read.ranges.len() >= MOST_KNOWN {
            for range in read.ranges.drain(..) {
                self.mapped.inspect(|image| image.release(range.start, range.end - range.start));
                self.preview.inspect(|preview| preview.release(range));
            }
            read.bytes = 0;
        }
    }

    pub(crate) fn report(&self, done: u64, total: u64) {
        if let Some(observer) = self.observer {
            observer(Progress { done: done.min(total), total });
        }
    }
}

impl<'a> View<'a> {
    /// What a thread makes a view of its own from, which tells no observer.
    pub(crate) fn source(&self) -> Source<'a> {
        let &View { bytes, holes, mapped, preview, .. } = self;
        Source { bytes, holes, mapped, preview }
    }
}

impl<'a> From<Source<'a>> for View<'a> {
    fn from(source: Source<'a>) -> Self {
        let Source { bytes, holes, mapped, preview } = source;
        Self { holes, mapped, preview, ..Self::new(bytes) }
    }
}

impl fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("length", &self.length()).finish_non_exhaustive()
    }
}

impl<'a> From<&'a [u8]> for View<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::new(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for View<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self::new(bytes)
    }
}

impl<'a> From<&'a Image> for View<'a> {
    fn from(image: &'a Image) -> Self {
        Self { holes: Some((image, &[])), mapped: Some(image), ..Self::new(image.bytes()) }
    }
}

impl<'a> From<&'a Preview<'_>> for View<'a> {
    fn from(preview: &'a Preview<'_>) -> Self {
        let holes = Some((preview.image(), preview.written()));
        Self { holes, preview: Some(preview), ..Self::new(preview) }
    }
}

impl<'a> From<&'a View<'_>> for View<'a> {
    fn from(view: &'a View<'_>) -> Self {
        Self { observer: view.observer, ..Self::from(view.source()) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};

    use super::*;
    use crate::plan::Plan;

    /// 16 MiB of holes, but for a byte at 1 MiB and one at 8 MiB.
    fn sparse() -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(16 << 20).unwrap();
        for at in [1 << 20, 8 << 20] {
            file.seek(SeekFrom::Start(at)).unwrap();
            file.write_all(b"x").unwrap();
        }
        file
    }

    fn pieces(view: &View<'_>) -> Vec<Range<u64>> {
        let mut pieces = Vec::new();
        let mut at = 0;
        while let Some(piece) = view.next_data(at..u64::MAX) {
            at = piece.end;
            pieces.push(piece);
        }
        pieces
    }

    #[test]
    fn holes_are_skipped_and_nothing_else_is() {
        let file = sparse();
        let image = Image::open(file.path()).unwrap();
        let view = View::from(&image);
        let found = pieces(&view);
        for at in [1 << 20, 8 << 20] {
            assert!(found.iter().any(|piece| piece.contains(&at)), "{at} in {found:?}");
        }
        if found.len() > 1 {
            assert!(found.iter().map(|piece| piece.end - piece.start).sum::<u64>() < 1 << 20, "{found:?}");
        }
        assert_eq!(View::from(image.bytes()).next_data(5..u64::MAX), Some(5..16 << 20));
    }

    #[test]
    fn a_preview_has_data_where_its_plan_writes() {
        let file = sparse();
        let image = Image::open(file.path()).unwrap();
        let mut plan = Plan::new(image.bytes());
        plan.set(image.bytes(), 4 << 20, &[7; 8], "into a hole".to_owned()).unwrap();
        let preview = image.preview(&plan).unwrap();
        let found = pieces(&View::from(&preview));
        for at in [1 << 20, 4 << 20, 8 << 20] {
            assert!(found.iter().any(|piece| piece.contains(&at)), "{at} in {found:?}");
        }
        assert_eq!(preview.get(4 << 20), Some(&7));
    }

    /// How many bytes of the file's pages this process has mapped.
    #[cfg(target_os = "linux")]
    fn resident(path: &std::path::Path) -> u64 {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = maps.lines().skip_while(|line| !line.ends_with(path.to_str().unwrap()));
        let line = lines.find_map(|line| line.strip_prefix("Rss:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// Small tables far apart, in a file that is in the page cache.
    #[test]
    #[cfg(target_os = "linux")]
    fn what_a_touch_maps_around_is_given_back() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let places = || (0..500).map(|table| table * 2 * NEAR);
        for at in places() {
            file.seek(SeekFrom::Start(at)).unwrap();
            file.write_all(&[7; AROUND as usize]).unwrap();
        }
        let image = Image::open(file.path()).unwrap();
        let view = View::from(&image);
        for at in places() {
            view.reads(at..at + 4096);
            assert!(view.clipped(at, 4096).iter().all(|&byte| byte == 7));
            view.was_read();
            assert!(resident(file.path()) <= 2 * RESIDENT, "after {at:#x}");
        }
    }
}
