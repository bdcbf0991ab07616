//! [`put_not_zero`]: files with holes where there is nothing.

use crate::bytes::clipped;
use crate::error::Result;

/// What is zero is left out in blocks of this many bytes, as file systems have them.
const BLOCK: usize = 4096;

/// Writes the blocks that are not zero, those that follow one another together.
pub(crate) fn put_not_zero(
    at: u64,
    bytes: &[u8],
    put: &mut impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    const ZEROES: [u8; BLOCK] = [0; BLOCK];
    let mut offset = at;
    let is_zero = |block: &[u8]| ZEROES.starts_with(block);
    let blocks: Vec<&[u8]> = bytes.chunks(BLOCK).collect();
    for same in blocks.chunk_by(|a, b| is_zero(a) == is_zero(b)) {
        let length: usize = same.iter().map(|block| block.len()).sum();
        if same.first().is_some_and(|block| !is_zero(block)) {
            put(offset, clipped(bytes, offset - at, length as u64))?;
        }
        offset += length as u64;
    }
    Ok(())
}
