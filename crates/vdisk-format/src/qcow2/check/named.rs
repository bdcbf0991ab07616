//! The snapshots and bitmaps that findings concern: their places, and their names.

use std::collections::BTreeSet;

use super::fault::Fault;
use crate::check::{Check, Named};
use crate::qcow2::bitmap::BitmapsExtension;
use crate::qcow2::claims::{L1Places, Owner};
use crate::qcow2::tables::Tables;
use crate::report::{Finding, Report};

/// Most that are named, and most characters of a name.
const MOST: usize = 256;
const MOST_CHARACTERS: usize = 128;

/// Notes in a finding whom an owner's claim concerns.
pub(super) fn owner(owner: &Owner, finding: &mut Finding) {
    match owner {
        Owner::L1Table { snapshot } => add(&mut finding.snapshots, *snapshot),
        Owner::L2Table { l1_entries }
        | Owner::Data { l1_entries, .. }
        | Owner::Compressed { l1_entries, .. } => places(l1_entries, finding),
        Owner::BitmapTable { bitmap } | Owner::BitmapData { bitmap, .. } => {
            add(&mut finding.bitmaps, Some(*bitmap));
        }
        _ => {}
    }
}

/// Notes in a finding whose L1 entries these are.
pub(super) fn places(l1_entries: &L1Places, finding: &mut Finding) {
    l1_entries.iter().for_each(|place| add(&mut finding.snapshots, place.snapshot));
}

/// Notes in a finding whom its fault concerns.
pub(super) fn fault(fault: &Fault, finding: &mut Finding) {
    match fault {
        Fault::RegionOutside(region) => owner(&region.owner, finding),
        Fault::SnapshotL1Unaligned { index, .. }
        | Fault::SnapshotL1Size { index, .. }
        | Fault::SnapshotExtraData { index, .. }
        | Fault::SnapshotId { index, .. }
        | Fault::SnapshotL1Short { index, .. } => add(&mut finding.snapshots, Some(*index)),
        Fault::BitmapTableEntry { bitmap, .. } => add(&mut finding.bitmaps, Some(*bitmap)),
        _ => {}
    }
}

fn add(numbers: &mut Vec<u32>, number: Option<u32>) {
    if let Some(number) = number
        && let Err(at) = numbers.binary_search(&number)
    {
        numbers.insert(at, number);
    }
}

/// Names those that the findings of `report` concern.
pub(super) fn names(tables: &Tables<'_>, report: &Report, check: &mut Check) {
    let concerned = |numbers: fn(&Finding) -> &[u32]| -> BTreeSet<u32> {
        report.findings().iter().flat_map(numbers).copied().collect()
    };
    let wanted = concerned(|finding| &finding.snapshots);
    if !wanted.is_empty() {
        let snapshots = tables.snapshots().map_while(Result::ok);
        let snapshots = snapshots.filter(|snapshot| wanted.contains(&snapshot.index)).take(MOST);
        let named = snapshots.map(|found| Named {
            index: found.index,
            id: Some(text(found.id)),
            name: text(found.name),
        });
        check.snapshots = named.collect();
    }
    let wanted = concerned(|finding| &finding.bitmaps);
    if !wanted.is_empty() {
        let extension = BitmapsExtension::of(tables.header());
        let directory = extension.map(|bitmaps| bitmaps.directory(tables.view().bytes()));
        let bitmaps = (0..).zip(directory.into_iter().flatten().map_while(Result::ok));
        let bitmaps = bitmaps.filter(|(index, _)| wanted.contains(index)).take(MOST);
        check.bitmaps =
            bitmaps.map(|(index, found)| Named { index, id: None, name: text(found.name) }).collect();
    }
}

fn text(bytes: &[u8]) -> String {
    // No character has more than four bytes.
    let bytes = bytes.get(..4 * MOST_CHARACTERS).unwrap_or(bytes);
    String::from_utf8_lossy(bytes).chars().take(MOST_CHARACTERS).collect()
}
