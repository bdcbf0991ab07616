//! A digest of the header and the tables, by which an undo record knows whether the image was used since.

use std::hash::Hasher;

use twox_hash::XxHash3_64;

use crate::bytes::clipped;
use crate::image::Image;
use crate::limits::{CLUSTER_BITS, MAX_FINGERPRINT_BYTES, MAX_FINGERPRINT_ENTRIES};
use crate::qcow2::header::Header;

/// Bits 9 to 55 of an L1, L2 or refcount table entry: an offset.
const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;

/// Bytes that are hashed between two times that their pages are given back.
const PIECE: u64 = 4 << 20;

/// A digest of the first cluster, the snapshot table's first cluster, the L1 and refcount tables, and the L2 tables
/// and refcount blocks that these name, up to [`MAX_FINGERPRINT_BYTES`]. Who allocates or frees a cluster, takes a
/// snapshot or changes a header field changes it; a guest that writes to clusters it already had does not.
///
/// Any bytes have one. Each byte is hashed at most once, however often it is named.
#[must_use]
pub fn fingerprint(image: &Image) -> u64 {
    let mut hasher = XxHash3_64::with_seed(0);
    hasher.write_u64(image.bytes().len() as u64);
    let (mut left, mut resident) = (MAX_FINGERPRINT_BYTES, 0);
    for (mut at, end) in regions(image.bytes()) {
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

/// The metadata's byte ranges inside the file, in order, without overlaps.
fn regions(image: &[u8]) -> Vec<(u64, u64)> {
    let length = image.len() as u64;
    let Ok(header) = Header::parse(image) else { return vec![(0, length.min(PIECE))] };
    let cluster = header.cluster_size().unwrap_or(PIECE).clamp(512, 1 << *CLUSTER_BITS.end());
    let mut regions = vec![(0, cluster.min(length))];
    let mut add = |at: u64, size: u64| {
        let (start, end) = (at.min(length), at.saturating_add(size).min(length));
        if start < end {
            regions.push((start, end));
        }
    };
    if header.v2.nb_snapshots != 0 {
        add(header.v2.snapshots_offset, cluster);
    }
    let refcount_entries = u64::from(header.v2.refcount_table_clusters).saturating_mul(cluster / 8);
    for (at, entries) in [
        (header.v2.l1_table_offset, u64::from(header.v2.l1_size)),
        (header.v2.refcount_table_offset, refcount_entries),
    ] {
        let size = entries.min(MAX_FINGERPRINT_ENTRIES) * 8;
        add(at, size);
        for entry in clipped(image, at, size).as_chunks::<8>().0 {
            let offset = u64::from_be_bytes(*entry) & OFFSET_MASK;
            if offset != 0 {
                add(offset, cluster);
            }
        }
    }
    merge(&mut regions);
    regions
}

fn merge(regions: &mut Vec<(u64, u64)>) {
    regions.sort_unstable();
    regions.dedup_by(|next, last| {
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
    fn overlapping_regions_are_hashed_once() {
        let mut regions = vec![(4, 9), (0, 5), (20, 25), (8, 12)];
        merge(&mut regions);
        assert_eq!(regions, [(0, 12), (20, 25)]);
    }

    #[test]
    fn every_l2_byte_counts_and_data_bytes_do_not() {
        // Header, L1 at cluster 1, one L2 at cluster 2, data at cluster 3; clusters of 512 bytes.
        let mut bytes = vec![0u8; 4 * 512];
        bytes[4..8].copy_from_slice(&3u32.to_be_bytes());
        bytes[20..24].copy_from_slice(&9u32.to_be_bytes());
        bytes[36..40].copy_from_slice(&1u32.to_be_bytes());
        bytes[40..48].copy_from_slice(&512u64.to_be_bytes());
        bytes[512..520].copy_from_slice(&(1024u64 | 1 << 63).to_be_bytes());
        let of = |bytes: &[u8]| fingerprint(&Image::from_bytes(bytes.to_vec()));
        let before = of(&bytes);
        for (at, changes) in
            [(0, true), (519, true), (1024, true), (1535, true), (1536, false), (2047, false)]
        {
            let mut after = bytes.clone();
            after[at] ^= 2;
            assert_eq!(of(&after) != before, changes, "byte {at}");
        }
    }
}
