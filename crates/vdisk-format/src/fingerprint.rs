//! A digest of byte ranges of an image, by which an undo record knows whether the image was used since. Which ranges
//! those are is a matter of each format.

use std::hash::Hasher;

use twox_hash::XxHash3_64;

use crate::bytes::clipped;
use crate::image::Image;
use crate::limits::MAX_FINGERPRINT_BYTES;

/// Bytes that are hashed between two times that their pages are given back.
pub(crate) const PIECE: u64 = 4 << 20;

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
    /// however often it was added.
    pub(crate) fn digest(mut self, image: &Image) -> u64 {
        merge(&mut self.ranges);
        let mut hasher = XxHash3_64::with_seed(0);
        hasher.write_u64(self.length);
        let (mut left, mut resident) = (MAX_FINGERPRINT_BYTES, 0);
        for (mut at, end) in self.ranges {
            while at < end && left > 0 {
                let length = PIECE.min(end - at).min(left);
                hasher.write(clipped(image.bytes(), at, length));
                (at, left, resident) = (at + length, left - length, resident + length);
                if resident >= PIECE {
                    image.release(0, u64::MAX);
                    resident = 0;
                }
            }
        }
        hasher.finish()
    }
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
