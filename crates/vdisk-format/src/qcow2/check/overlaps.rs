//! Two owners of one cluster, where one of them is a table: wrong whatever the refcounts say.

use std::ops::Range;

use super::problems::Fault;
use super::walk::Walk;
use crate::qcow2::claims::Owner;
use crate::qcow2::geometry::Area;

/// The clusters of a table, and how many references to them are known to be its own.
struct Table {
    clusters: Range<u64>,
    times: u64,
    area: Area,
    /// Whether it is of no use without its end.
    is_whole: bool,
}

/// Whether a table is of no use without its end. The snapshot table's end may be padding that nobody wrote; whether its
/// entries are there has been looked at.
fn is_whole(owner: Owner) -> bool {
    !matches!(owner, Owner::Header | Owner::BitmapData { .. } | Owner::CryptoHeader | Owner::SnapshotTable)
}

impl Walk<'_, '_> {
    /// Looks for clusters of tables that something else claims, too; and for tables that the file's end cuts short.
    pub(super) fn overlaps(&mut self) {
        let mut told = 0;
        for table in self.all_tables() {
            if table.is_whole && table.area.end() > self.geometry.file_length() {
                self.extra(Fault::TableCut { area: table.area });
            }
            let mut shared: Option<Range<u64>> = None;
            // Of two tables in one place, the first one has told of it.
            self.counts.runs(table.clusters.start.max(told)..table.clusters.end.max(told), |run| {
                if run.count > table.times {
                    shared.get_or_insert(run.clusters.start..0).end = run.clusters.end;
                }
            });
            if let Some(clusters) = shared {
                told = clusters.end;
                self.extra(Fault::Overlap { clusters });
            }
        }
        self.compressed_overlaps();
    }

    /// Clusters with compressed data that are other data's as well.
    fn compressed_overlaps(&mut self) {
        let Some(compressed) = self.compressed.take() else { return };
        let mut shared = Vec::new();
        compressed.runs(0..compressed.end(), |run| {
            if run.count > 0 {
                self.counts.runs(run.clusters, |all| {
                    if all.count > run.count {
                        shared.push(all.clusters);
                    }
                });
            }
        });
        for clusters in shared {
            self.extra(Fault::Overlap { clusters });
        }
    }

    /// The tables that the file has, in its order.
    fn all_tables(&mut self) -> Vec<Table> {
        let geometry = self.geometry;
        let size = geometry.cluster_size();
        let limit = geometry.file_length().saturating_add(size);
        let mut tables: Vec<Table> = self
            .l2_tables
            .iter()
            .map(|(&table, by)| (Area::new(table, size), by.all()))
            .filter(|(area, _)| area.end() < limit)
            .map(|(area, times)| Table { clusters: geometry.clusters(area), times, area, is_whole: true })
            .collect();
        tables.extend(self.regions.iter().map(|region| Table {
            clusters: geometry.clusters(region.area),
            times: 1,
            area: region.area,
            is_whole: is_whole(region.owner),
        }));
        tables.sort_by_key(|table| (table.clusters.start, table.clusters.end));
        tables
    }

    /// Something that QEMU's check does not look for.
    pub(super) fn extra(&mut self, fault: Fault) {
        self.check.extra_corruptions += 1;
        self.problems.add(fault, self.findings);
    }
}
