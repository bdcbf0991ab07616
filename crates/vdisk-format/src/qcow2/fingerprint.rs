//! A digest of the header and the tables, by which an undo record knows whether the image was used since.

use crate::bytes::clipped;
use crate::fingerprint::{PIECE, Regions};
use crate::image::Image;
use crate::limits::{CLUSTER_BITS, MAX_FINGERPRINT_ENTRIES};
use crate::qcow2::header::Header;

/// Bits 9 to 55 of an L1, L2 or refcount table entry: an offset.
const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;

/// A digest of the first cluster, the snapshot table's first cluster, the L1 and refcount tables, and the L2 tables
/// and refcount blocks that these name, up to [`MAX_FINGERPRINT_BYTES`](crate::limits::MAX_FINGERPRINT_BYTES). Who
/// allocates or frees a cluster, takes a snapshot or changes a header field changes it; a guest that writes to clusters
/// it already had does not.
///
/// Any bytes have one. Each byte is hashed at most once, however often it is named.
#[must_use]
pub fn fingerprint(image: &Image) -> u64 {
    regions(image.bytes()).digest(image)
}

/// The metadata's byte ranges.
fn regions(image: &[u8]) -> Regions {
    let mut regions = Regions::new(image);
    let Ok(header) = Header::parse(image) else {
        regions.add(0, PIECE);
        return regions;
    };
    let cluster = header.cluster_size().unwrap_or(PIECE).clamp(512, 1 << *CLUSTER_BITS.end());
    regions.add(0, cluster);
    if header.v2.nb_snapshots != 0 {
        regions.add(header.v2.snapshots_offset, cluster);
    }
    let refcount_entries = u64::from(header.v2.refcount_table_clusters).saturating_mul(cluster / 8);
    for (at, entries) in [
        (header.v2.l1_table_offset, u64::from(header.v2.l1_size)),
        (header.v2.refcount_table_offset, refcount_entries),
    ] {
        let size = entries.min(MAX_FINGERPRINT_ENTRIES) * 8;
        regions.add(at, size);
        for entry in clipped(image, at, size).as_chunks::<8>().0 {
            let offset = u64::from_be_bytes(*entry) & OFFSET_MASK;
            if offset != 0 {
                regions.add(offset, cluster);
            }
        }
    }
    regions
}

#[cfg(test)]
mod tests {
    use super::*;

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
