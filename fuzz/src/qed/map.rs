//! The map of the virtual disk, beside what its entries say one by one.

use std::collections::BTreeSet;

use vdisk_format::qed::map::{Extent, ExtentKind, map};
use vdisk_format::qed::{Invalid, Tables};
use vdisk_format::units::HostOffset;

use super::model::Model;
use crate::input::Input;

/// Maps an image that the input chooses, and the input itself.
///
/// # Panics
/// Where the extents do not cover the disk once and in order, two of them could be one, or one says something else than
/// the entries it is of.
pub fn qed_map(input: &[u8]) {
    one(input);
    one(&super::image(&mut Input::new(input)));
}

fn one(image: &[u8]) {
    let (Ok(tables), Some(model)) = (Tables::new(image), Model::new(image)) else { return };
    let entries = Entries { l1: model.l1(), repeated: repeated(&model), model: &model };
    let mut end = 0;
    let mut last: Option<Extent> = None;
    for extent in map(&tables) {
        assert_eq!(extent.start.0, end, "a gap, or an overlap");
        assert!(extent.length > 0);
        assert!(extent.start.0 % model.cluster_size == 0);
        end += extent.length;
        assert!(!last.is_some_and(|last| goes_on(&last, &extent)), "{last:?} goes on in {extent:?}");
        entries.agree(&extent);
        last = Some(extent);
    }
    assert_eq!(end, model.disk, "the map ends before the disk, or behind it");
}

fn goes_on(last: &Extent, next: &Extent) -> bool {
    match last.kind {
        ExtentKind::Data { offset } => {
            next.kind == ExtentKind::Data { offset: HostOffset(offset.0 + last.length) }
        }
        kind => next.kind == kind,
    }
}

/// The L1 entries whose tables, or parts of them, those before name as well.
fn repeated(model: &Model<'_>) -> BTreeSet<u64> {
    let (mut seen, mut repeated) = (BTreeSet::new(), BTreeSet::new());
    for (l1_index, at) in (0..).zip(model.l1()) {
        if at != 0 && model.wrong_table(at).is_none() {
            let clusters = (at..at + model.table_bytes).step_by(model.cluster_size as usize);
            if clusters.filter(|&cluster| !seen.insert(cluster)).count() > 0 {
                repeated.insert(l1_index);
            }
        }
    }
    repeated
}

struct Entries<'m> {
    model: &'m Model<'m>,
    l1: Vec<u64>,
    repeated: BTreeSet<u64>,
}

impl Entries<'_> {
    /// Every entry that the extent is of says the same.
    fn agree(&self, extent: &Extent) {
        let model = self.model;
        let first = extent.start.0 / model.cluster_size;
        let last = (extent.start.0 + (extent.length - 1)) / model.cluster_size;
        let (from, to) = (first / model.entries(), last / model.entries());
        for l1_index in from..=to.min(self.l1.len() as u64) {
            let l2_first = if l1_index == from { first % model.entries() } else { 0 };
            let l2_last = if l1_index == to { last % model.entries() } else { model.entries() - 1 };
            let at = self.l1.get(l1_index as usize).copied();
            let whole = match at {
                None => Some(model.wrong_table(model.l1_at).map_or(ExtentKind::Unallocated, invalid)),
                Some(0) => Some(ExtentKind::Unallocated),
                Some(at) => model.wrong_table(at).map(invalid),
            };
            if extent.kind == invalid(Invalid::TooOften) {
                assert!(self.repeated.contains(&l1_index), "{extent:?}, of a table that is no other's");
                continue;
            }
            let Some(at) = at.filter(|_| whole.is_none()) else {
                assert_eq!(Some(extent.kind), whole, "L1 entry {l1_index}, {extent:?}");
                continue;
            };
            for l2_index in l2_first..=l2_last {
                let clusters = l1_index * model.entries() + l2_index - first;
                let expected = match extent.kind {
                    ExtentKind::Data { offset } => {
                        ExtentKind::Data { offset: HostOffset(offset.0 + clusters * model.cluster_size) }
                    }
                    kind => kind,
                };
                assert_eq!(model.kind(at, l2_index), expected, "entry {l2_index} of L1 entry {l1_index}");
            }
        }
    }
}

fn invalid(why: Invalid) -> ExtentKind {
    ExtentKind::Invalid { why }
}
