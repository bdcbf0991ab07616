//! A digest of the header and the tables, by which an undo record knows whether the image was used since.

use crate::fingerprint::{PIECE, Regions};
use crate::image::Image;
use crate::limits::MAX_FINGERPRINT_ENTRIES;
use crate::qed::tables::Tables;

/// A digest of the first cluster, the L1 table, and the L2 tables that it names, up to
/// [`MAX_FINGERPRINT_BYTES`](crate::limits::MAX_FINGERPRINT_BYTES). Who allocates a cluster or changes a header field
/// changes it; a guest that writes to clusters it already had does not.
///
/// Any bytes have one.
#[must_use]
pub fn fingerprint(image: &Image) -> u64 {
    let mut regions = Regions::new(image.bytes());
    match Tables::new(image) {
        Ok(tables) => {
            let geometry = tables.geometry();
            regions.add(0, geometry.cluster_size());
            if let Some(l1) = tables.readable_l1_table() {
                regions.add(l1.0, geometry.table_bytes());
            }
            for (_, table) in
                tables.l1_entries().take(usize::try_from(MAX_FINGERPRINT_ENTRIES).unwrap_or(usize::MAX))
            {
                regions.add(table, geometry.table_bytes());
            }
        }
        Err(_) => regions.add(0, PIECE),
    }
    regions.digest(image)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qed::header::HeaderFields;

    #[test]
    fn every_table_byte_counts_and_data_bytes_do_not() {
        let fields = HeaderFields {
            cluster_size: 4096,
            table_size: 1,
            header_size: 1,
            l1_table_offset: 4096,
            ..HeaderFields::default()
        };
        let mut bytes = fields.to_bytes();
        bytes.resize(4 * 4096, 0);
        bytes[4096..4104].copy_from_slice(&8192u64.to_le_bytes());
        let of = |bytes: &[u8]| fingerprint(&Image::from_bytes(bytes.to_vec()));
        let before = of(&bytes);
        for (at, changes) in [(16, true), (4096 + 4095, true), (8192, true), (12287, true), (12288, false)] {
            let mut after = bytes.clone();
            after[at] ^= 2;
            assert_eq!(of(&after) != before, changes, "byte {at}");
        }
    }
}
