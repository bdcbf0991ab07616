//! Entries of L1 and L2 tables, data, entries of the refcount table, refcounts.

use std::collections::BTreeMap;
use std::ops::Range;

use super::owners::references;
use super::{EntryProblem, Part, Refcount, Subject};
use crate::qcow2::check::stored_refcount;
use crate::qcow2::claims::{Claim, L1Place, Owner};
use crate::qcow2::geometry::Area;
use crate::qcow2::l1::L1Entry;
use crate::qcow2::l2::{L2Entry, Mapping, Subcluster};
use crate::qcow2::tables::Tables;

const ENTRY: u64 = 8;

pub(super) fn l1_entry(tables: &Tables<'_>, table: Area, snapshot: Option<u32>, offset: u64) -> Part {
    let geometry = tables.geometry();
    let index = (offset - table.offset.0) / ENTRY;
    let place = Area::new(table.offset.0 + index * ENTRY, ENTRY);
    let Some(entry) = tables.l1_entry(table, index) else { return cut(place, "entry of an L1 table") };
    let start = geometry.guest_offset(index, 0);
    let guest = start.map(|start| start..start.saturating_add(geometry.l2_span()));
    let copied = copied(tables, snapshot, entry.is_allocated(), entry.l2_table().0, entry.copied());
    let subject = Subject::L1Entry {
        entry: L1Place { snapshot, index },
        value: entry.0,
        l2_table: entry.l2_table(),
        copied: entry.0 & L1Entry::COPIED != 0,
        guest,
    };
    Part::new(place, subject).with(EntryProblem::of_l1(entry, &geometry)).with(copied)
}

pub(super) fn l2_entry(tables: &Tables<'_>, table: Area, l1_entry: L1Place, offset: u64) -> Part {
    let (geometry, format) = (tables.geometry(), tables.l2_format());
    let size = geometry.l2_entry_size();
    let index = (offset - table.offset.0) / size;
    let place = Area::new(table.offset.0 + index * size, size);
    let Some(entry) = tables.l2_entry(table.offset, index) else { return cut(place, "entry of an L2 table") };
    let start = geometry.guest_offset(l1_entry.index, index);
    let host = entry.host_cluster(&format).filter(|_| !entry.is_compressed() && !geometry.data_file());
    let copied = host.and_then(|host| copied(tables, l1_entry.snapshot, true, host.0, entry.copied()));
    let subject = Subject::L2Entry {
        table: table.offset,
        index,
        l1_entry,
        value: entry.raw,
        bitmap: format.extended().then_some(entry.bitmap.0),
        mapping: entry.mapping(&format),
        copied: entry.copied(),
        guest: start.map(|start| start..start.saturating_add(geometry.cluster_size())),
    };
    Part::new(place, subject).with(EntryProblem::of_l2(entry, &geometry)).with(copied)
}

/// Bit 63 of an entry beside the refcount: it is accurate in what the active L1 table leads to, and nowhere else.
fn copied(
    tables: &Tables<'_>,
    snapshot: Option<u32>,
    is_allocated: bool,
    host: u64,
    copied: bool,
) -> Option<EntryProblem> {
    let refcount = stored_refcount(tables, host >> tables.geometry().cluster_bits())?;
    let is_wrong = snapshot.is_none() && is_allocated && copied != (refcount == 1);
    is_wrong.then_some(EntryProblem::Copied { refcount })
}

/// What an L2 entry says of the byte at `offset`.
pub(super) fn data(tables: &Tables<'_>, claim: &Claim, offset: u64) -> Part {
    let guest = claim.guest.clone();
    match claim.owner {
        Owner::Compressed { table, index, l1_entries } => {
            let l1_entry = l1_entries.first;
            Part::new(claim.area, Subject::Compressed { guest, table, index, l1_entry })
        }
        Owner::Data { table, index, l1_entries, .. } => {
            let l1_entry = l1_entries.first;
            let within = offset - claim.area.offset.0;
            let guest = guest.and_then(|guest| guest.start.checked_add(within));
            let entry = tables.l2_entry(table, index).unwrap_or_default();
            let is_read = is_read(tables, entry, within);
            Part::new(claim.area, Subject::Data { guest, table, index, l1_entry, is_read })
        }
        _ => Part::new(claim.area, Subject::Nothing),
    }
}

/// Whether the guest reads the byte `within` the cluster of an entry.
fn is_read(tables: &Tables<'_>, entry: L2Entry, within: u64) -> bool {
    match entry.mapping(&tables.l2_format()) {
        Mapping::Data(_) => true,
        Mapping::Subclusters { .. } => {
            let subcluster = within / tables.geometry().subcluster_size();
            let state = u32::try_from(subcluster).map(|index| entry.bitmap.state(index));
            state == Ok(Subcluster::Data)
        }
        _ => false,
    }
}

pub(super) fn refcount_table_entry(tables: &Tables<'_>, offset: u64) -> Part {
    let geometry = tables.geometry();
    let table = geometry.refcount_table();
    let index = (offset - table.offset.0) / ENTRY;
    let place = Area::new(table.offset.0 + index * ENTRY, ENTRY);
    let Some(entry) = tables.refcount_table_entry(index) else {
        return cut(place, "entry of the refcount table");
    };
    let clusters = geometry.refcounted_cluster(index, 0).zip(geometry.refcounted_cluster(index + 1, 0));
    let subject = Subject::RefcountTableEntry {
        index,
        value: entry.0,
        block: entry.block(),
        clusters: clusters.map(|(start, end)| start..end),
    };
    Part::new(place, subject).with(EntryProblem::of_refcount_table(entry, &geometry))
}

/// Where the refcounts in the byte at `offset` of a block are: the first of them, and what each takes in bytes; and the
/// clusters that they are about. `None` where nobody knows.
fn refcounted(
    tables: &Tables<'_>,
    block: Area,
    block_index: u64,
    offset: u64,
) -> Option<(u64, u64, Range<u64>)> {
    let geometry = tables.geometry();
    let (order, within) = (geometry.refcount_order()?, offset - block.offset.0);
    // Those below 8 bits share a byte.
    let (index, count) =
        if order < 3 { (within << (3 - order), 8 >> order) } else { (within >> (order - 3), 1) };
    let width = if order < 3 { 1 } else { 1u64 << (order - 3) };
    let first = geometry.refcounted_cluster(block_index, index)?;
    Some((index, width, first..first.saturating_add(count)))
}

/// How many refer to the clusters whose refcounts are at `offset`, in all of these claims: the tables are read once, also where
/// one block is that of thousands of entries of the refcount table.
pub(super) fn references_at(tables: &Tables<'_>, claims: &[Claim], offset: u64) -> BTreeMap<u64, u64> {
    let clusters = claims.iter().filter_map(|claim| match claim.owner {
        Owner::RefcountBlock { index } => Some(refcounted(tables, claim.area, index, offset)?.2),
        _ => None,
    });
    references(tables, clusters.flatten())
}

pub(super) fn refcounts(
    tables: &Tables<'_>,
    block: Area,
    block_index: u64,
    offset: u64,
    references: &BTreeMap<u64, u64>,
) -> Part {
    let read = tables.geometry().refcount_order().and_then(|_| tables.refcount_block(block.offset));
    let Some(refcounts) = read else {
        return Part::unused(
            offset,
            offset + 1,
            "refcount block of an unknown width: refcount_order is above 6",
        );
    };
    let Some((index, width, clusters)) = refcounted(tables, block, block_index, offset) else {
        return Part::unused(offset, offset + 1, "refcount of a cluster that no file has");
    };
    let place = Area::new(offset - (offset - block.offset.0) % width, width);
    let found: Vec<Refcount> = (index..)
        .zip(clusters)
        .filter_map(|(index, cluster)| {
            let references = references.get(&cluster).copied().unwrap_or(0);
            Some(Refcount { cluster, refcount: refcounts.count_at(index)?, references })
        })
        .collect();
    if found.is_empty() {
        return cut(place, "refcount");
    }
    let problems: Vec<EntryProblem> = found
        .iter()
        .filter(|found| found.refcount != found.references)
        .map(|&Refcount { cluster, refcount, references }| EntryProblem::Refcount {
            cluster,
            refcount,
            references,
        })
        .collect();
    Part::new(place, Subject::Refcounts { block: block_index, index, refcounts: found }).with(problems)
}

/// An entry that the file does not have in full.
pub(super) fn cut(place: Area, what: &str) -> Part {
    let mut part = Part::unused(place.offset.0, place.end(), format!("{what}, cut short"));
    part.problems.push("the file ends inside it".to_owned());
    part
}
