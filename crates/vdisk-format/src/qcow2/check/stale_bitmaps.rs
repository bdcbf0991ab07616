//! Bitmaps that nobody names any more, among the leaks: their tables read as lost ones, and no mapping is lost with them.

use std::ops::Range;

use super::walk::Walk;
use crate::limits::MAX_BITMAPS;
use crate::qcow2::bitmap::{Bitmap, BitmapsExtension, KNOWN_FLAGS};

/// Type, granularity and length of a name that QEMU takes.
const DIRTY_TRACKING: u8 = 1;
const GRANULARITY_BITS: std::ops::RangeInclusive<u8> = 9..=31;
const NAME: std::ops::RangeInclusive<u16> = 1..=1023;

impl Walk<'_, '_> {
    /// The clusters of the tables that bitmap directories name, if those are leaked, too: so they are left behind where a
    /// program that does not know bitmaps has written to the image, or where the extension was removed.
    pub(super) fn stale_bitmap_tables(&self) -> Vec<Range<u64>> {
        let bits = self.geometry.cluster_bits();
        let view = self.tables.view();
        let mut tables = Vec::new();
        for run in &self.leaks {
            let end = run.end << bits;
            let mut at = run.start << bits;
            while let Some(data) = view.next_data(at..end) {
                let start = data.start >> bits << bits;
                at = start + self.geometry.cluster_size();
                for bitmap in self.directory(start).take_while(|bitmap| bitmap.next.0 <= end) {
                    tables.push(self.geometry.clusters(bitmap.fixed.table()));
                    at = at.max(bitmap.next.0.next_multiple_of(self.geometry.cluster_size()));
                }
                view.was_read();
                if tables.len() >= MAX_BITMAPS as usize {
                    return tables;
                }
            }
        }
        tables
    }

    /// What begins at `at`, as far as it is a bitmap directory.
    fn directory(&self, at: u64) -> impl Iterator<Item = Bitmap<'_>> {
        let extension = BitmapsExtension {
            nb_bitmaps: MAX_BITMAPS,
            bitmap_directory_offset: at,
            ..BitmapsExtension::default()
        };
        let bitmaps = extension.directory(self.tables.view().bytes()).map_while(Result::ok);
        bitmaps.take_while(|bitmap| {
            let fixed = &bitmap.fixed;
            let is_table = fixed.bitmap_table_offset > 0
                && self.geometry.is_aligned(fixed.bitmap_table_offset)
                && fixed.bitmap_table_size > 0;
            is_table
                && fixed.flags & !KNOWN_FLAGS == 0
                && fixed.type_ == DIRTY_TRACKING
                && GRANULARITY_BITS.contains(&fixed.granularity_bits)
                && NAME.contains(&fixed.name_size)
                && fixed.extra_data_size == 0
        })
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

    /// With tables of one entry and of several clusters, and a directory that takes several.
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
