//! [`audit`]: every byte of a copy is accounted for.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Scrubbed, Structure};
use crate::units::HostOffset;
use crate::view::View;

/// Bytes that are looked at at once.
const PIECE: u64 = 1 << 20;
/// Bytes that are asked about at once.
const BLOCK: usize = 512;

/// What is in a copy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Audit {
    /// The bytes other than zero, by the structure that they belong to.
    pub structures: Vec<StructureBytes>,
    /// Bytes other than zero that belong to none: there must not be any.
    pub stray_bytes: u64,
    /// Where the first of them is.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub first_stray: Option<HostOffset>,
    /// Whether the copy is as long as the image.
    pub is_whole: bool,
}

/// How much of a copy is of one structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct StructureBytes {
    /// The structure.
    pub structure: Structure,
    /// Bytes other than zero.
    pub bytes: u64,
}

impl Audit {
    /// Whether every byte is accounted for, and none is missing.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.stray_bytes == 0 && self.is_whole
    }

    /// All bytes other than zero.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.structures.iter().map(|part| part.bytes).sum::<u64>() + self.stray_bytes
    }
}

/// Reads a copy that [`scrub`](super::scrub) made, all of it, and asks of every byte that is not zero which structure it was
/// copied for.
#[must_use]
pub fn audit<'a>(copy: impl Into<View<'a>>, scrubbed: &Scrubbed) -> Audit {
    let view = copy.into();
    let mut audit = Audit { is_whole: view.length() == scrubbed.length, ..Audit::default() };
    let mut totals: BTreeMap<Structure, u64> = BTreeMap::new();
    let mut at = 0;
    while let Some(data) = view.next_data(at..view.length()) {
        let data = data.start..data.end.min(data.start.saturating_add(PIECE));
        at = data.end;
        view.reads(data.clone());
        let bytes = view.clipped(data.start, data.end - data.start);
        // As a rule a whole block belongs to one structure, or is empty.
        for (start, block) in (data.start..).step_by(BLOCK).zip(bytes.chunks(BLOCK)) {
            let used = block.iter().filter(|&&byte| byte != 0).count() as u64;
            let range = start..start + block.len() as u64;
            if used == 0 {
                continue;
            }
            if let Some(structure) = owner_of_all(scrubbed, &range) {
                *totals.entry(structure).or_default() += used;
                continue;
            }
            for (at, _) in range.zip(block).filter(|(_, byte)| **byte != 0) {
                match owner(&scrubbed.fields_at, at).or_else(|| owner(&scrubbed.tables_at, at)) {
                    Some(structure) => *totals.entry(structure).or_default() += 1,
                    None => {
                        audit.stray_bytes += 1;
                        audit.first_stray = audit.first_stray.or(Some(HostOffset(at)));
                    }
                }
            }
        }
        view.was_read();
    }
    audit.structures =
        totals.into_iter().map(|(structure, bytes)| StructureBytes { structure, bytes }).collect();
    audit
}

/// The structure of a range that is part of one table, and of nothing else.
fn owner_of_all(scrubbed: &Scrubbed, range: &Range<u64>) -> Option<Structure> {
    let behind = scrubbed.fields_at.partition_point(|(field, _)| field.end <= range.start);
    if scrubbed.fields_at.get(behind).is_some_and(|(field, _)| field.start < range.end) {
        return None;
    }
    let behind = scrubbed.tables_at.partition_point(|(table, _)| table.start <= range.start);
    let (table, structure) = scrubbed.tables_at.get(behind.checked_sub(1)?)?;
    (range.end <= table.end).then_some(*structure)
}

fn owner(ranges: &[(Range<u64>, Structure)], at: u64) -> Option<Structure> {
    let behind = ranges.partition_point(|(range, _)| range.start <= at);
    let (range, structure) = ranges.get(behind.checked_sub(1)?)?;
    range.contains(&at).then_some(*structure)
}
