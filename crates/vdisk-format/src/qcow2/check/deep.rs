//! Compressed clusters that cannot be decoded: what a reader would find out when it is too late.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::problems::{Fault, L2Place};
use super::walk::Walk;
use crate::limits::MAX_FINDINGS;
use crate::qcow2::l2::L2Entry;
use crate::qcow2::read::decompress;
use crate::qcow2::tables::Tables;
use crate::units::HostOffset;

/// What a thread has found.
#[derive(Default)]
struct Found {
    /// The first ones, with why they cannot be decoded.
    entries: Vec<(L2Place, L2Entry, String)>,
    count: u64,
}

impl Walk<'_, '_> {
    /// Decodes all compressed clusters of the L2 tables, with `threads` threads.
    pub(super) fn decode(&mut self, threads: usize) {
        if self.check.compressed_clusters == 0 && self.compressed.is_none()
            || self.geometry.crypt_method() != 0
        {
            return;
        }
        let tables: Vec<u64> = self.l2_tables.keys().copied().collect();
        let (next, view) = (AtomicUsize::new(0), self.tables.view());
        let bytes = view.bytes();
        let work = |told: &dyn Fn(usize)| {
            let mut found = Found::default();
            // Each has a view of its own.
            let Ok(image) = Tables::new(bytes) else { return found };
            while let Some(&table) = tables.get(next.fetch_add(1, Ordering::Relaxed)) {
                look(&image, table, &mut found);
                told(next.load(Ordering::Relaxed));
            }
            found
        };
        let work = &work;
        let mut found = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(|| work(&|_| {}))).collect();
            let total = tables.len() as u64;
            let mut all = work(&|done| view.report(done as u64, total));
            for other in others.into_iter().filter_map(|thread| thread.join().ok()) {
                all.entries.extend(other.entries);
                all.count += other.count;
            }
            all
        });
        // In an order that does not depend on who was first.
        found.entries.sort_by_key(|(place, ..)| (place.table, place.index));
        self.check.extra_corruptions += found.count;
        for (place, entry, why) in found.entries {
            self.problems.l2(Fault::Undecodable(why), place, entry, self.findings);
            self.problems.end_of_table(self.findings);
        }
    }
}

/// Decodes the compressed clusters of a table.
fn look(image: &Tables<'_>, table: u64, found: &mut Found) {
    let (geometry, format) = (image.geometry(), image.l2_format());
    for (index, entry) in image.l2_entries(HostOffset(table)).filter(|(_, entry)| entry.is_compressed()) {
        let data = entry.compressed(&format);
        let bytes = image.view().clipped(data.offset.0, data.length);
        let Err(why) = decompress::cluster(geometry.compression(), bytes, geometry.cluster_size()) else {
            continue;
        };
        found.count += 1;
        if found.entries.len() < MAX_FINDINGS {
            found.entries.push((L2Place { table, index }, entry, why.to_string()));
        }
    }
}
