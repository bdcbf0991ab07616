//! Bitmaps that nobody names any more, among the leaks: their tables read as lost ones, and no mapping is lost with them.

use super::walk::Walk;
use crate::cluster_set::ClusterSet;
use crate::limits::{BITMAP_GRANULARITY_BITS, MAX_BITMAP_BYTES, MAX_BITMAP_NAME, MAX_BITMAPS};
use crate::qcow2::bitmap::{BitmapEntryHeader, BitmapsExtension, KNOWN_FLAGS};

/// The only type of bitmaps.
const DIRTY_TRACKING: u8 = 1;
/// So many leaked clusters are looked at.
const MOST_CLUSTERS: usize = 1 << 19;

impl Walk<'_, '_> {
    /// The clusters of the tables that bitmap directories name, if those are leaked, too: so they are left behind where a
    /// program that does not know bitmaps has written to the image, or where the extension was removed.
    pub(super) fn stale_bitmap_tables(&self) -> ClusterSet {
        let (geometry, view) = (self.geometry, self.tables.view());
        let (bits, size) = (geometry.cluster_bits(), geometry.cluster_size());
        let mut tables = ClusterSet::new(geometry.file_clusters());
        let (mut clusters_left, mut bitmaps_left) = (MOST_CLUSTERS, MAX_BITMAPS);
        for run in &self.leaks {
            let end = run.end << bits;
            let mut at = run.start << bits;
            while let Some(data) = view.next_data(at..end).filter(|_| clusters_left > 0) {
                let start = data.start >> bits << bits;
                at = start + size;
                clusters_left -= 1;
                let mut first = [0; BitmapEntryHeader::SIZE as usize];
                let there = view.read(start, &mut first);
                if !BitmapEntryHeader::parse(there, 0).is_ok_and(|fixed| self.is_bitmap(&fixed)) {
                    continue;
                }
                let directory = BitmapsExtension {
                    nb_bitmaps: bitmaps_left,
                    bitmap_directory_offset: start,
                    ..BitmapsExtension::default()
                };
                let bitmaps = directory.directory(view.bytes()).map_while(Result::ok);
                for bitmap in bitmaps.take_while(|it| self.is_bitmap(&it.fixed) && it.next.0 <= end) {
                    let table = geometry.clusters(bitmap.fixed.table());
                    tables.insert(table.start, table.end - table.start, |_| {});
                    at = at.max(bitmap.next.0.next_multiple_of(size));
                    bitmaps_left -= 1;
                }
            }
        }
        tables
    }

    /// Whether this may be what a bitmap directory has of a bitmap.
    fn is_bitmap(&self, fixed: &BitmapEntryHeader) -> bool {
        let bytes = u64::from(fixed.bitmap_table_size) * self.geometry.cluster_size();
        fixed.bitmap_table_offset > 0
            && self.geometry.is_aligned(fixed.bitmap_table_offset)
            && (1..=MAX_BITMAP_BYTES).contains(&bytes)
            && fixed.flags & !KNOWN_FLAGS == 0
            && fixed.type_ == DIRTY_TRACKING
            && BITMAP_GRANULARITY_BITS.contains(&fixed.granularity_bits)
            && (1..=MAX_BITMAP_NAME).contains(&fixed.name_size)
            && fixed.extra_data_size == 0
    }
}

#[cfg(test)]
#[cfg(feature = "generate")]
mod tests {
    use crate::check::Verdict;
    use crate::generate::{Bitmap, Qcow2};
    use crate::qcow2::bitmap::BitmapsExtension;
    use crate::qcow2::check::check;
    use crate::qcow2::{Header, Tables};

    /// In clusters of 512 bytes, the directory has several.
    #[test]
    fn tables_of_stale_bitmaps_are_no_lost_tables() {
        for cluster_bits in [9, 12] {
            let disk = Qcow2::new(1 << 20).cluster_bits(cluster_bits).data(0, b"data");
            let bitmaps =
                (0..30).map(|n| Bitmap::new(format!("bitmap {n}")).granularity_bits(9).dirty(0..1 << 20));
            let mut image = bitmaps.fold(disk, Qcow2::bitmap).build().unwrap();
            image[95] = 0; // autoclear_features: they are not consistent
            let found = check(&image).unwrap();
            assert_eq!((found.verdict(), found.lost_mappings), (Verdict::Leaks, 0), "{:#?}", found.report);
            // One that the directory does not name might have been anything.
            let directory =
                BitmapsExtension::of(&Header::parse(&image).unwrap()).unwrap().bitmap_directory_offset;
            image[directory as usize..directory as usize + 8].fill(0xff);
            assert!(check(&image).unwrap().report.has("lost-table"));
        }
    }

    #[test]
    fn a_lost_table_beside_stale_bitmaps() {
        let disk = Qcow2::new(1 << 20).cluster_bits(12).data(0, vec![1; 1 << 18]);
        let mut image = disk.bitmap(Bitmap::new("b").dirty(0..1 << 20)).build().unwrap();
        image[95] = 0;
        let l1 = Tables::new(&image).unwrap().geometry().l1_table().offset.0 as usize;
        image[l1..l1 + 8].fill(0);
        let found = check(&image).unwrap();
        assert_eq!(found.lost_mappings, 1, "{:#?}", found.report);
    }
}
