//! [`Owners`]: who claims the clusters that findings are about.

use std::collections::BTreeMap;
use std::ops::Range;

use super::named;
use crate::cluster_set::ClusterSet;
use crate::qcow2::claims::{Claim, Owner, claims};
use crate::qcow2::geometry::Geometry;
use crate::qcow2::l1_tables::L1Tables;
use crate::qcow2::tables::Tables;
use crate::report::{Finding, joined};

/// Most owners that a finding names, and most that all findings name, if they have more than two each.
const MOST_OWNERS: usize = 8;
const MOST_TOGETHER: usize = 4096;
/// So many clusters of a range are looked at.
const MOST_CLUSTERS: u64 = 64;

/// Ranges of clusters, and who claims something there.
pub(super) struct Owners {
    geometry: Geometry,
    /// By their starts and ends.
    ranges: BTreeMap<(u64, u64), Vec<Claim>>,
    /// Most that a finding names: of more than these, one claim more is kept.
    most: usize,
    /// What was told last, and of which range: of a table many entries may be wrong.
    last: Option<((u64, u64), Told)>,
}

/// What a finding says of the owners of its range.
#[derive(Clone)]
struct Told {
    owners: Vec<String>,
    guest: Vec<Range<u64>>,
}

impl Owners {
    /// Looks for the owners of `ranges`, one for each finding. Where there are none, nothing is read.
    pub(super) fn new(tables: &Tables<'_>, ranges: impl Iterator<Item = Range<u64>>) -> Self {
        let mut findings = 0;
        let ranges = ranges.inspect(|_| findings += 1);
        let mut ranges: BTreeMap<_, Vec<Claim>> =
            ranges.map(|clusters| ((clusters.start, clusters.end), Vec::new())).collect();
        let most = (MOST_TOGETHER / findings.max(1)).clamp(2, MOST_OWNERS);
        let geometry = tables.geometry();
        let Some((&(last, _), _)) = ranges.last_key_value() else {
            return Self { geometry, ranges, most, last: None };
        };
        let mut wanted = ClusterSet::new(last.saturating_add(MOST_CLUSTERS));
        for &(start, end) in ranges.keys() {
            wanted.insert(start, (end - start).min(MOST_CLUSTERS), |_| {});
        }
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
                if claims.len() > most {
                    full.push((start, end));
                }
            }
            // There may be thousands more: they are not looked at.
            told.extend(full.into_iter().filter_map(|range| ranges.remove_entry(&range)));
        });
        ranges.append(&mut told);
        Self { geometry, ranges, most, last: None }
    }

    /// Says in a finding about `clusters` whose they are, and which parts of the disk are there.
    pub(super) fn name(&mut self, clusters: &Range<u64>, l1_tables: &L1Tables, finding: &mut Finding) {
        let range = (clusters.start, clusters.end);
        let claims = self.ranges.get(&range).map_or(&[][..], Vec::as_slice);
        let (named, others) = claims.split_at(claims.len().min(self.most));
        named.iter().for_each(|claim| named::owner(&claim.owner, finding));
        let told = match self.last.take() {
            Some((of, told)) if of == range => told,
            _ => {
                let is_all = clusters.end - clusters.start <= MOST_CLUSTERS;
                let others = match others {
                    [_, ..] => Some("others"),
                    [] if !is_all && !named.is_empty() => Some("perhaps others"),
                    [] => None,
                };
                Told {
                    owners: named.iter().map(told).chain(others.map(str::to_owned)).collect(),
                    guest: joined(named.iter().flat_map(|claim| self.guest(claim, l1_tables))),
                }
            }
        };
        finding.owners.clone_from(&told.owners);
        finding.guest.clone_from(&told.guest);
        self.last = Some((range, told));
    }

    /// The parts of the disk that are in what is claimed, for each L1 entry that is known.
    fn guest(&self, claim: &Claim, l1_tables: &L1Tables) -> Vec<Range<u64>> {
        let (l1_entries, index, count) = match &claim.owner {
            Owner::L2Table { l1_entries } => (l1_entries, 0, self.geometry.l2_entries()),
            Owner::Data { index, count, l1_entries, .. } => (l1_entries, *index, *count),
            Owner::Compressed { index, l1_entries, .. } => (l1_entries, *index, 1),
            _ => return Vec::new(),
        };
        l1_tables.guest(&self.geometry, l1_entries, index, count).collect()
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
