//! Compresses clusters: runs of equal bytes become short, all else stays as it is.
//!
//! That is little, but it is all valid deflate and zstd, and it needs no library.

/// Runs of at least this many bytes become a zstd block of their own.
const ZSTD_RUN: usize = 8;
/// A zstd block stands for at most this many bytes.
const ZSTD_BLOCK: usize = 128 << 10;
/// The longest match of deflate, whose code has no extra bits.
const LONGEST_MATCH: usize = 258;
/// The longest match whose code is its length + 254, without extra bits.
const LONG_MATCH: usize = 10;
/// The shortest match.
const SHORT_MATCH: usize = 3;

/// The compressed form of `bytes`, of the `compression_type`: 0 for deflate, 1 for zstd.
pub(super) fn compress(compression_type: u8, bytes: &[u8]) -> Vec<u8> {
    if compression_type == 0 { deflate(bytes) } else { zstd(bytes) }
}

/// Runs of equal bytes: their byte and their length.
fn runs(bytes: &[u8]) -> impl Iterator<Item = (u8, usize)> {
    let runs = bytes.chunk_by(|a, b| a == b);
    runs.filter_map(|run| Some((*run.first()?, run.len())))
}

/// A raw deflate stream: one block with the fixed codes. A run is a byte, and matches with it.
fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut out = Bits::default();
    out.put(0b011, 3); // the last block; fixed codes
    for (byte, length) in runs(bytes) {
        out.symbol(byte.into());
        let mut left = length - 1;
        while left >= SHORT_MATCH {
            let (symbol, length) = if left >= LONGEST_MATCH {
                (285, LONGEST_MATCH)
            } else {
                (left.min(LONG_MATCH) + 254, left.min(LONG_MATCH))
            };
            out.symbol(symbol as u32);
            out.put(0, 5); // the distance 1
            left -= length;
        }
        (0..left).for_each(|_| out.symbol(byte.into()));
    }
    out.symbol(256); // the end of the block
    out.finish()
}

/// Bits, from the least significant one of a byte on.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    pending: u32,
    count: u32,
}

impl Bits {
    fn put(&mut self, bits: u32, count: u32) {
        self.pending |= bits << self.count;
        self.count += count;
        while self.count >= 8 {
            self.bytes.push(self.pending as u8);
            self.pending >>= 8;
            self.count -= 8;
        }
    }

    /// The fixed code of a literal or length: its most significant bit comes first.
    fn symbol(&mut self, symbol: u32) {
        let (code, count) = match symbol {
            0..=143 => (0x30 + symbol, 8),
            144..=255 => (0x190 + symbol - 144, 9),
            256..=279 => (symbol - 256, 7),
            _ => (0xc0 + symbol - 280, 8),
        };
        self.put(code.reverse_bits() >> (32 - count), count);
    }

    fn finish(mut self) -> Vec<u8> {
        self.put(0, 7);
        self.bytes
    }
}

/// A zstd frame with its content size: each long run is a block, and so is what is between them.
fn zstd(bytes: &[u8]) -> Vec<u8> {
    const RAW: u32 = 0;
    const RUN: u32 = 1;
    let mut out = vec![0x28, 0xb5, 0x2f, 0xfd];
    out.push(0xa0); // a single segment; a content size of 4 bytes
    out.extend((bytes.len() as u32).to_le_bytes());
    let mut block = |block_type: u32, length: usize, content: &[u8]| {
        let header = (block_type << 1 | (length as u32) << 3).to_le_bytes();
        out.extend(header.iter().take(3));
        out.extend(content);
    };
    // What is not written yet begins with `raw` bytes that are in no long run.
    let (mut rest, mut raw) = (bytes, 0);
    for (byte, length) in runs(bytes).chain([(0, 0)]) {
        if length != 0 && length < ZSTD_RUN {
            raw += length;
            continue;
        }
        let (before, behind) = rest.split_at(raw);
        before.chunks(ZSTD_BLOCK).for_each(|content| block(RAW, content.len(), content));
        for from in (0..length).step_by(ZSTD_BLOCK) {
            block(RUN, ZSTD_BLOCK.min(length - from), &[byte]);
        }
        (rest, raw) = (behind.get(length..).unwrap_or_default(), 0);
    }
    out.extend([1, 0, 0]); // the last block, which is empty
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    // Whether other decoders read all of it, tests/generate.rs finds out with qemu-img.

    #[test]
    fn known_streams() {
        // The first is what zlib makes of it with fixed codes only.
        assert_eq!(deflate(b"abc"), [0x4b, 0x4c, 0x4a, 0x06, 0x00]);
        assert_eq!(deflate(&[b'a'; 11]), [0x4b, 0x44, 0x00, 0x00]);
        let frame = zstd(&[&[7; 9], b"xy".as_slice()].concat());
        let head = [0x28, 0xb5, 0x2f, 0xfd, 0xa0, 11, 0, 0, 0];
        assert_eq!(frame, [&head[..], &[9 << 3 | 2, 0, 0, 7], &[2 << 3, 0, 0], b"xy", &[1, 0, 0]].concat());
    }

    #[test]
    fn runs_become_short() {
        let cluster = vec![0x55; 2 << 20];
        assert!(deflate(&cluster).len() < 16 << 10);
        assert!(zstd(&cluster).len() < 100);
    }
}
