//! A digest of byte ranges of an image, by which an undo record knows whether the image was used since. Which ranges
//! those are is a matter of each format.

use std::hash::Hasher;

use twox_hash::XxHash3_64;

use crate::image::Image;
use crate::limits::MAX_FINGERPRINT_BYTES;
use crate::view::View;

/// Bytes that are hashed between two times that their pages are given back.
pub(crate) const PIECE: u64 = 4 << 20;

/// Holes are of such blocks, as a rule.
const BLOCK: u64 = 4096;

/// The byte ranges of an image's metadata.
#[derive(Debug)]
pub(crate) struct Regions {
    length: u64,
    /// Start and end, inside the file, not empty.
    ranges: Vec<(u64, u64)>,
}

impl Regions {
    /// None of `image` yet.
    pub(crate) fn new(image: &[u8]) -> Self {
        Self { length: image.len() as u64, ranges: Vec::new() }
    }

    /// Adds `size` bytes from offset `at` on, as far as they are in the file.
    pub(crate) fn add(&mut self, at: u64, size: u64) {
        let (start, end) = (at.min(self.length), at.saturating_add(size).min(self.length));
        if start < end {
            self.ranges.push((start, end));
        }
    }

    /// The digest of the file's length and of the ranges' bytes, up to [`MAX_FINGERPRINT_BYTES`], each hashed once,
    /// however often it was added. Blocks of zeroes are left out, so that holes are not read, and a copy without holes
    /// has the same digest.
    pub(crate) fn digest(mut self, image: &Image) -> u64 {
        merge(&mut self.ranges);
        let view = View::from(image);
        let mut hasher = XxHash3_64::with_seed(0);
        hasher.write_u64(self.length);
        let mut left = MAX_FINGERPRINT_BYTES;
        for (mut at, end) in self.ranges {
            while let Some(data) = view.next_data(at..end).filter(|_| left > 0) {
                let start = (data.start / BLOCK * BLOCK).max(at);
                // Whole blocks of the file, wherever its pieces and the ranges begin.
                let behind = data.end.next_multiple_of(BLOCK).min((start + PIECE) / BLOCK * BLOCK).min(end);
                let hashed = hash_blocks(&mut hasher, start, view.clipped(start, behind - start));
                view.reads(start..behind);
                view.was_read();
                (at, left) = (behind, left.saturating_sub(hashed));
            }
        }
        hasher.finish()
    }
}

/// Hashes what is not zero of `bytes`, which are at offset `at`, block by block of the file. Returns how much that is.
fn hash_blocks(hasher: &mut XxHash3_64, mut at: u64, mut bytes: &[u8]) -> u64 {
    let mut hashed = 0;
    const ZEROES: [u8; BLOCK as usize] = [0; BLOCK as usize];
    while !bytes.is_empty() {
        let (block, rest) = bytes.split_at(((BLOCK - at % BLOCK) as usize).min(bytes.len()));
        if !ZEROES.starts_with(block) {
            hasher.write_u64(at);
            hasher.write(block);
            hashed += block.len() as u64;
        }
        at += block.len() as u64;
        bytes = rest;
    }
    hashed
}

/// Sorts the ranges, and makes one of those that overlap or touch.
pub(crate) fn merge(ranges: &mut Vec<(u64, u64)>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, last| {
        let touch = next.0 <= last.1;
        if touch {
            last.1 = last.1.max(next.1);
        }
        touch
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_and_zeroes_are_alike_and_anything_else_is_not() {
        let digest = |image: &Image| {
            let mut regions = Regions::new(image.bytes());
            regions.add(100, 11 << 20); // in several pieces
            regions.digest(image)
        };
        let mut bytes = vec![0; 12 << 20];
        bytes[1 << 20] = 7;
        bytes[(4 << 20) + 50] = 8;
        let sparse = tempfile::NamedTempFile::new().unwrap();
        sparse.as_file().set_len(12 << 20).unwrap();
        crate::image::write_all_at(sparse.as_file(), &[7], 1 << 20).unwrap();
        crate::image::write_all_at(sparse.as_file(), &[8], (4 << 20) + 50).unwrap();
        let before = digest(&Image::open(sparse.path()).unwrap());
        assert_eq!(before, digest(&Image::from_bytes(bytes.clone())));
        bytes.swap(1 << 20, (1 << 20) + 8192);
        assert_ne!(before, digest(&Image::from_bytes(bytes)));
    }

    #[test]
    fn overlapping_ranges_are_hashed_once() {
        let mut ranges = vec![(4, 9), (0, 5), (20, 25), (8, 12)];
        merge(&mut ranges);
        assert_eq!(ranges, [(0, 12), (20, 25)]);
    }

    #[test]
    fn what_is_not_in_the_file_is_left_out() {
        let mut regions = Regions::new(&[0; 10]);
        for (at, size) in [(8, 8), (10, 1), (u64::MAX, 1), (3, u64::MAX), (5, 0)] {
            regions.add(at, size);
        }
        assert_eq!(regions.ranges, [(8, 10), (3, 10)]);
    }
}
