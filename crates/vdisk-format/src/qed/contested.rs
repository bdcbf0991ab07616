//! [`Contested`]: the L2 tables whose clusters something else has, too. A write to such a table may be one to a guest's
//! data.

use crate::cluster_set::ClusterSet;
use crate::error::{Error, Reason, Result};
use crate::qed::geometry::Geometry;
use crate::qed::tables::Tables;
use crate::qed::walk::{Event, walk};
use crate::units::HostOffset;

/// Clusters that two claim, one of which says that there is a table.
///
/// Several L1 entries with exactly the same table are at one: who writes to it writes to the table of each.
pub(crate) struct Contested {
    clusters: ClusterSet,
    geometry: Geometry,
}

impl Contested {
    /// Walks over the tables.
    pub(crate) fn new(tables: &Tables<'_>) -> Self {
        let geometry = tables.geometry();
        let (bits, count) = (geometry.cluster_bits(), geometry.table_clusters());
        let mut clusters = ClusterSet::new(geometry.clusters());
        // The first cluster of each table that nothing before it has, in any of its clusters.
        let mut visited = ClusterSet::new(geometry.clusters());
        walk(tables, |event| match event {
            Event::Table { table, .. } => {
                visited.insert(table.0 >> bits, 1, |_| {});
            }
            Event::Overlap { table, .. } if !visited.intersects(table.0 >> bits, 1) => {
                clusters.insert(table.0 >> bits, count, |_| {});
            }
            // What comes after a table and claims it as data: which of the two is right, nobody can tell.
            Event::Again { clusters: again, .. } => {
                clusters.insert(again.start, again.end - again.start, |_| {});
            }
            Event::Overlap { .. } | Event::NoTable { .. } | Event::Run(..) | Event::Scattered(_) => {}
        });
        Self { clusters, geometry }
    }

    /// Whether something else claims a cluster of the table.
    pub(crate) fn has(&self, table: HostOffset) -> bool {
        self.clusters.intersects(table.0 >> self.geometry.cluster_bits(), self.geometry.table_clusters())
    }

    /// Refuses the table of an L1 entry if something else claims a cluster of it.
    ///
    /// # Errors
    /// [`Reason::Contested`].
    pub(crate) fn refuse(&self, l1_index: u64, table: HostOffset) -> Result<()> {
        if !self.has(table) {
            return Ok(());
        }
        let first = table.0 >> self.geometry.cluster_bits();
        let mut clusters = first..first + self.geometry.table_clusters();
        let cluster = clusters.find(|&cluster| self.clusters.intersects(cluster, 1)).unwrap_or(first);
        let at = HostOffset(cluster << self.geometry.cluster_bits());
        let what = format!("L2 table at {table} (L1 entry {l1_index})");
        let found = format!("the cluster at {at}, which another entry names as well");
        Err(Error::refused(Reason::Contested, what, Some(table), "clusters that nothing else has", found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qed::header::{HeaderFields, MAGIC};

    /// Clusters of 4 KiB, tables of two: header, L1 at 1, L2 tables at 3 and 5, data at 7, 8 and 9. `entries`: index in
    /// the table at that cluster, and the cluster that the entry names.
    fn contested(entries: &[(usize, usize, u64)]) -> Vec<u64> {
        let fields = HeaderFields {
            magic: MAGIC,
            cluster_size: 4096,
            table_size: 2,
            header_size: 1,
            l1_table_offset: 4096,
            image_size: 1 << 24,
            ..HeaderFields::default()
        };
        let mut bytes = fields.to_bytes();
        bytes.resize(10 * 4096, 0);
        for &(table, index, cluster) in &[&[(1, 0, 3), (1, 1, 5), (3, 0, 7), (5, 0, 8)], entries].concat() {
            bytes[table * 4096 + index * 8..][..8].copy_from_slice(&(cluster * 4096).to_le_bytes());
        }
        let tables = Tables::new(&bytes).unwrap();
        let contested = Contested::new(&tables);
        let is_contested = |table: &u64| {
            let table = HostOffset(table * 4096);
            let refused = contested.refuse(0, table).err().and_then(|error| error.reason());
            assert_eq!(refused, contested.has(table).then_some(Reason::Contested));
            refused.is_some()
        };
        (1..9).filter(is_contested).collect()
    }

    #[test]
    fn a_sound_image_has_none() {
        assert_eq!(contested(&[]), []);
        assert_eq!(contested(&[(1, 2, 3), (1, 3, 5), (1, 4, 3)]), [], "several entries, one table");
        assert_eq!(contested(&[(3, 1, 7), (1, 5, 9)]), [6, 7], "data twice, a table cut short");
    }

    #[test]
    fn guests_data_taken_for_a_table() {
        assert_eq!(contested(&[(1, 2, 7)]), [6, 7, 8]);
        assert_eq!(contested(&[(1, 2, 8), (1, 3, 8)]), [7, 8], "twice the same");
        // Whoever comes first.
        assert_eq!(contested(&[(1, 0, 7), (1, 2, 3)]), [6, 7, 8]);
    }

    #[test]
    fn a_table_taken_for_data_or_for_half_of_another() {
        assert_eq!(contested(&[(3, 1, 6)]), [4, 5, 6], "before the table is met");
        assert_eq!(contested(&[(5, 1, 4)]), [3, 4], "and after it");
        assert_eq!(contested(&[(1, 2, 4)]), [3, 4, 5]);
    }

    #[test]
    fn the_l1_table_is_no_l2_table() {
        assert_eq!(contested(&[(1, 2, 2)]), [1, 2, 3]);
    }
}
