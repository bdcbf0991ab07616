//! [`Owners`]: who claims the clusters that findings are about.

use std::collections::BTreeMap;
use std::ops::Range;

use super::named;
use crate::cluster_set::ClusterSet;
use crate::qcow2::claims::{Claim, Owner, claims};
use crate::qcow2::tables::Tables;
use crate::report::Finding;

/// Most owners that a finding names, and most that all findings name, if they have more than two each.
const MOST_OWNERS: usize = 8;
const MOST_TOGETHER: usize = 4096;
/// So many clusters of a range are looked at: as many owners as are named there will be among them.
const MOST_CLUSTERS: u64 = 64;

/// Ranges of clusters, and who claims something there.
pub(super) struct Owners {
    /// By their starts and ends.
    ranges: BTreeMap<(u64, u64), Vec<Claim>>,
    /// What was told last, and of which range: of a table many entries may be wrong.
    last: Option<((u64, u64), Vec<String>)>,
}

impl Owners {
    /// Looks for the owners of `ranges`, one for each finding. Where there are none, nothing is read.
    pub(super) fn new(tables: &Tables<'_>, ranges: impl Iterator<Item = Range<u64>>) -> Self {
        let mut findings = 0;
        let ranges = ranges.inspect(|_| findings += 1);
        let mut ranges: BTreeMap<_, Vec<Claim>> =
            ranges.map(|clusters| ((clusters.start, clusters.end), Vec::new())).collect();
        let Some((&(last, _), _)) = ranges.last_key_value() else { return Self { ranges, last: None } };
        let mut wanted = ClusterSet::new(last.saturating_add(MOST_CLUSTERS));
        for &(start, end) in ranges.keys() {
            wanted.insert(start, (end - start).min(MOST_CLUSTERS), |_| {});
        }
        let most = (MOST_TOGETHER / findings.max(1)).clamp(2, MOST_OWNERS);
        let geometry = tables.geometry();
        let mut told = BTreeMap::new();
        claims(tables, &|first, count| wanted.intersects(first, count), &mut |claim| {
            let clusters = geometry.clusters(claim.area);
            let first = clusters.start.saturating_sub(MOST_CLUSTERS);
            let mut full = Vec::new();
            for (&(start, end), claims) in ranges.range_mut((first, 0)..(clusters.end, 0)) {
                if clusters.start < end.min(start.saturating_add(MOST_CLUSTERS)) {
                    let bytes = start << geometry.cluster_bits()..end.saturating_mul(geometry.cluster_size());
                    claims.push(claim.within(&bytes, geometry.cluster_size()));
                }
                if claims.len() >= most {
                    full.push((start, end));
                }
            }
            // There may be thousands more: they are not looked at.
            told.extend(full.into_iter().filter_map(|range| ranges.remove_entry(&range)));
        });
        ranges.append(&mut told);
        Self { ranges, last: None }
    }

    /// Says in a finding about `clusters` whose they are, and the first part of the disk that is there.
    pub(super) fn name(&mut self, clusters: &Range<u64>, finding: &mut Finding) {
        let range = (clusters.start, clusters.end);
        let claims = self.ranges.get(&range).into_iter().flatten();
        let owners = match self.last.take() {
            Some((of, owners)) if of == range => owners,
            _ => claims.clone().map(told).collect(),
        };
        finding.owners.clone_from(&owners);
        self.last = Some((range, owners));
        claims.clone().for_each(|claim| named::owner(&claim.owner, finding));
        finding.guest = claims.clone().find_map(|claim| claim.guest.clone());
    }
}

/// A claim, with the part of the disk that is there, for L2 tables as well.
fn told(claim: &Claim) -> String {
    match &claim.guest {
        Some(guest) if matches!(claim.owner, Owner::L2Table { .. }) => {
            format!("{claim}, disk {:#x}-{:#x}", guest.start, guest.end)
        }
        _ => claim.to_string(),
    }
}
