//! [`owners`]: every claim on a byte, and whether the refcount of its cluster agrees.

use std::collections::BTreeMap;
use std::ops::Range;

use super::EntryProblem;
use super::shared::{SharedTable, shared};
use crate::qcow2::bitmap::AUTOCLEAR_BITMAPS;
use crate::qcow2::check::stored_refcount;
use crate::qcow2::claims::{Claim, L1Place, L1Places, Owner, claims};
use crate::qcow2::geometry::{Area, MAX_L1_BYTES};
use crate::qcow2::l2::L2Entry;
use crate::qcow2::tables::Tables;
use crate::units::HostOffset;

/// Most claims of a kind that are kept: more tell nobody anything, and a hostile image has millions.
pub const MOST_CLAIMS: usize = 64;

/// Who claims a byte of the image file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Owners {
    /// The byte.
    pub offset: HostOffset,
    /// Its cluster.
    pub cluster: u64,
    /// Whether the file has it.
    pub in_file: bool,
    /// What follows from the rest.
    pub state: State,
    /// The claims on the byte, up to [`MOST_CLAIMS`].
    pub claims: Vec<Claim>,
    /// Claims on other bytes of its cluster, up to [`MOST_CLAIMS`].
    pub neighbours: Vec<Claim>,
    /// Claims that are not kept.
    pub omitted: u64,
    /// The L2 tables of these claims that several L1 entries name.
    pub shared_tables: Vec<SharedTable>,
    /// How many refer to the cluster, as a check counts: each L1 entry that leads there, and each compressed cluster.
    pub references: u64,
    /// The cluster's refcount; `None` where it cannot be read.
    pub refcount: Option<u64>,
    /// Who claims the byte at that offset of the external data file, where the image has one: up to [`MOST_CLAIMS`].
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub external: Vec<Claim>,
}

/// How a cluster's refcount and the references to it are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum State {
    /// Nobody refers to it, and its refcount is 0.
    Free,
    /// Nobody refers to it, and its refcount is not 0.
    Leaked,
    /// The refcount is the number of references.
    Used,
    /// The refcount is larger than the number of references.
    RefcountTooHigh,
    /// The refcount is smaller than the number of references.
    RefcountTooLow,
    /// The file ends before the byte.
    PastEnd,
    /// The refcount cannot be read.
    Unknown,
}

/// Finds every claim on the byte at `offset`. Each table is read once.
///
/// ```
/// use vdisk_format::{generate::Qcow2, qcow2::{Tables, explain::{State, owners}}};
/// let image = Qcow2::new(1 << 20).data(0x30000, b"data").build()?;
/// let tables = Tables::new(&image)?;
/// let owners = owners(&tables, 5.into());
/// assert_eq!(owners.claims[0].to_string(), "header");
/// assert_eq!((owners.refcount, owners.state), (Some(1), State::Used));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn owners(tables: &Tables<'_>, offset: HostOffset) -> Owners {
    let geometry = tables.geometry();
    let cluster = offset.0 >> geometry.cluster_bits();
    let mut owners = Owners {
        offset,
        cluster,
        in_file: offset.0 < geometry.file_length(),
        state: State::Unknown,
        claims: Vec::new(),
        neighbours: Vec::new(),
        omitted: 0,
        shared_tables: Vec::new(),
        references: 0,
        refcount: stored_refcount(tables, cluster),
        external: Vec::new(),
    };
    let area = Area::new(cluster << geometry.cluster_bits(), geometry.cluster_size());
    each_claim(tables, cluster..cluster.saturating_add(1), &mut |claim, times| {
        owners.references = owners.references.saturating_add(times);
        let is_here = (claim.area.offset.0..claim.area.end()).contains(&offset.0);
        let byte = offset.0..offset.0.saturating_add(1);
        let (kept, bytes) = if is_here {
            (&mut owners.claims, byte)
        } else {
            (&mut owners.neighbours, area.offset.0..area.end())
        };
        if kept.len() < MOST_CLAIMS {
            kept.push(claim.within(&bytes, geometry.cluster_size()));
        } else {
            owners.omitted += 1;
        }
    });
    owners.shared_tables = shared(tables, owners.claims.iter().chain(&owners.neighbours));
    if geometry.data_file() {
        owners.external = external(tables, offset);
    }
    owners.state = owners.state();
    owners
}

impl Owners {
    fn state(&self) -> State {
        match (self.refcount, self.references) {
            _ if !self.in_file => State::PastEnd,
            (None, _) => State::Unknown,
            (Some(0), 0) => State::Free,
            (Some(_), 0) => State::Leaked,
            (Some(refcount), references) if refcount > references => State::RefcountTooHigh,
            (Some(refcount), references) if refcount < references => State::RefcountTooLow,
            _ => State::Used,
        }
    }

    /// What is wrong with the refcount, as a sentence.
    pub(super) fn problem(&self) -> Option<String> {
        let &Self { cluster, references, refcount, state, .. } = self;
        let is_wrong = matches!(state, State::Leaked | State::RefcountTooHigh | State::RefcountTooLow);
        let refcount = refcount.filter(|_| is_wrong)?;
        Some(EntryProblem::Refcount { cluster, refcount, references }.to_string())
    }
}

/// How many refer to each of some clusters.
pub(super) fn references(tables: &Tables<'_>, clusters: impl IntoIterator<Item = u64>) -> BTreeMap<u64, u64> {
    let mut counts: BTreeMap<u64, u64> = clusters.into_iter().map(|cluster| (cluster, 0)).collect();
    let (first, last) = (counts.first_key_value(), counts.last_key_value());
    let Some(((&first, _), (&last, _))) = first.zip(last) else { return counts };
    each_claim(tables, first..last.saturating_add(1), &mut |claim, times| {
        for (_, count) in counts.range_mut(tables.geometry().clusters(claim.area)) {
            *count = count.saturating_add(times);
        }
    });
    counts
}

/// Tells of each claim on some clusters, and how many references it is.
fn each_claim(tables: &Tables<'_>, wanted: Range<u64>, visit: &mut dyn FnMut(&Claim, u64)) {
    let geometry = tables.geometry();
    let is_counted = |table, index| {
        // A check says that such an entry is wrong, and does not look where it leads.
        let entry = tables.l2_entry(table, index).unwrap_or_default();
        !geometry.data_file() && entry.bitmap.0 == 0
    };
    let has_bitmaps = tables.header().v3.autoclear_features & AUTOCLEAR_BITMAPS != 0;
    claims(tables, &|_, _| true, &mut |claim| {
        let clusters = geometry.clusters(claim.area);
        if clusters.start >= wanted.end || wanted.start >= clusters.end {
            return;
        }
        let times = match claim.owner {
            Owner::Compressed { table, index, .. } if !is_counted(table, index) => 0,
            Owner::L2Table { l1_entries }
            | Owner::Data { l1_entries, .. }
            | Owner::Compressed { l1_entries, .. } => l1_entries.count,
            Owner::L1Table { snapshot: Some(_) } => {
                let is_counted =
                    geometry.is_aligned(claim.area.offset.0) && claim.area.length <= MAX_L1_BYTES;
                u64::from(is_counted)
            }
            Owner::BitmapData { tables, .. } if has_bitmaps => tables,
            Owner::BitmapDirectory | Owner::BitmapTable { .. } | Owner::BitmapData { .. } => {
                u64::from(has_bitmaps)
            }
            _ => 1,
        };
        // What leads far outside is no reference.
        let is_counted = matches!(claim.owner, Owner::Data { .. }) || claim.area.end() < geometry.reach();
        visit(&claim, if is_counted { times } else { 0 });
    });
}

/// The entries of the active tables that name the byte at `offset` of the external data file.
fn external(tables: &Tables<'_>, offset: HostOffset) -> Vec<Claim> {
    let (geometry, format) = (tables.geometry(), tables.l2_format());
    let size = geometry.cluster_size();
    let mut found = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for (l1_index, l1_entry) in
        tables.l1_entries(geometry.l1_table()).filter(|(_, entry)| entry.is_allocated())
    {
        let table = l1_entry.l2_table();
        if !geometry.is_aligned(table.0) || !seen.insert(table.0) {
            continue;
        }
        for run in tables.l2_runs(table).filter(|run| !run.first.is_compressed()) {
            let Some(host) = run.first.host_cluster(&format) else { continue };
            let step = if run.step == 0 { 1 } else { run.count };
            let area = Area::new(host.0, step << geometry.cluster_bits());
            if !(area.offset.0..area.end()).contains(&offset.0) {
                continue;
            }
            let skipped = (offset.0 - host.0) / size;
            let times = if run.step == 0 { run.count } else { 1 };
            for index in (run.index + skipped..).take(usize::try_from(times).unwrap_or(usize::MAX)) {
                if found.len() >= MOST_CLAIMS {
                    return found;
                }
                let entry: L2Entry = run.entry(skipped);
                let start = geometry.guest_offset(l1_index, index);
                found.push(Claim {
                    owner: Owner::Data {
                        table,
                        index,
                        count: 1,
                        l1_entries: L1Places::new(L1Place { snapshot: None, index: l1_index }),
                    },
                    area: Area { offset: entry.offset(), length: size },
                    guest: start.map(|start| start..start.saturating_add(size)),
                });
            }
        }
    }
    found
}
