//! A digest of the header and the tables, by which an undo record knows whether the image was used since.

use std::hash::Hasher;

use twox_hash::XxHash3_64;

use crate::image::Image;
use crate::limits::MAX_FINGERPRINT_ENTRIES;
use crate::qcow2::header::Header;

/// Bits 9 to 55 of an L1, L2 or refcount table entry: an offset.
const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;

/// Largest piece that is hashed before its pages are given back.
const PIECE: u64 = 1 << 20;

/// A digest of the first cluster, the snapshot table's first cluster, the L1 and refcount tables, and the L2 tables
/// and refcount blocks that these name. Whoever allocates or frees a cluster, takes a snapshot or changes a header
/// field changes it; a guest that writes to clusters it already had does not.
///
/// Any bytes have one. Each byte is hashed at most once, however often it is named.
#[must_use]
pub fn fingerprint(image: &Image) -> u64 {
    let mut hasher = XxHash3_64::with_seed(0);
    hasher.write_u64(image.bytes().len() as u64);
    for (start, end) in regions(image.bytes()) {
        let mut at = start;
        while at < end {
            let length = PIECE.min(end - at);
            hasher.write(crate::bytes::clipped(image.bytes(), at, length));
            image.release(at, length);
            at += length;
        }
    }
    hasher.finish()
}

/// The metadata's byte ranges inside the file, in order, without overlaps.
fn regions(image: &[u8]) -> Vec<(u64, u64)> {
    let length = image.len() as u64;
    let Ok(header) = Header::parse(image) else { return vec![(0, length.min(PIECE))] };
    let cluster = header.cluster_size().unwrap_or(PIECE).clamp(512, 2 << 20);
    let mut regions = vec![(0, cluster)];
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
        for entry in crate::bytes::clipped(image, at, size).as_chunks::<8>().0 {
            let offset = u64::from_be_bytes(*entry) & OFFSET_MASK;
            if offset != 0 {
                add(offset, cluster);
            }
        }
    }
    merge(regions, length)
}

fn merge(mut regions: Vec<(u64, u64)>, length: u64) -> Vec<(u64, u64)> {
    regions.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (start, end) in regions {
        let end = end.min(length);
        match merged.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_regions_are_hashed_once() {
        assert_eq!(merge(vec![(4, 9), (0, 5), (20, 30), (8, 12)], 25), [(0, 12), (20, 25)]);
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
