//! Damage on purpose, to any image.

use vdisk_format::Result;
use vdisk_format::qed::check::check;
use vdisk_format::qed::corrupt::{Corruption, Level, Target, duplicate, invalidate};
use vdisk_format::qed::{Entry, Tables};

use super::model::Model;
use crate::input::Input;
use crate::promise;

/// Duplicates and invalidates entries of tables that the input chooses, of an image that it chooses.
///
/// # Panics
/// Where a plan breaks a promise, its undo among them; where it changes more than one entry, or to something else than
/// was asked for, or is another with the same seed; where it is refused although there is such an entry.
pub fn qed_corrupt(input: &[u8]) {
    let mut input = Input::new(input);
    let image = super::image(&mut input);
    let (Ok(tables), Some(model)) = (Tables::new(&image), Model::new(&image)) else { return };
    for _ in 0..4 {
        let target = target(&model, &mut input);
        let is_copy = input.flag();
        let corrupt: fn(&Tables<'_>, Target) -> Result<Corruption> =
            if is_copy { duplicate } else { invalidate };
        let corruption = corrupt(&tables, target);
        assert_eq!(corruption.is_ok(), is_possible(&model, target, is_copy), "{target:?}: {corruption:?}");
        let Ok(corruption) = corruption else { continue };
        let twin = corrupt(&tables, target);
        assert_eq!(twin.as_ref().map(ToString::to_string).ok(), Some(corruption.to_string()));
        assert!(twin.is_ok_and(|twin| twin.plan == corruption.plan), "another plan with the same seed");
        one(&model, target, is_copy, &corruption);

        let after = promise::kept(&corruption.plan, &image);
        promise::undoable(&corruption.plan, &image, input.below(2), input.below(9));
        if let (Ok(before), Ok(after)) = (check(&image), check(&after)) {
            assert!(before.is_corrupt() || after.is_corrupt(), "a corruption that a check does not find");
            assert!(before.is_corrupt() || after.corruptions > 0 && after.extra_corruptions == 0);
        }
    }
}

fn target(model: &Model<'_>, input: &mut Input<'_>) -> Target {
    let entry = |input: &mut Input<'_>| match input.below(4) {
        0 => input.value(),
        1 => input.below(usize::try_from(model.entries()).unwrap_or(1).min(65536)) as u64,
        _ => input.below(6) as u64,
    };
    let level = match input.below(3) {
        0 => Level::L1,
        1 => Level::L2(None),
        _ => Level::L2(Some(entry(input))),
    };
    Target { level, index: input.flag().then(|| entry(input)), seed: input.number() }
}

/// Whether there is an entry that can be corrupted, in a table that may be chosen.
fn is_possible(model: &Model<'_>, target: Target, is_copy: bool) -> bool {
    let in_table = |at: u64| {
        let values = model.table(at);
        let old = match target.index {
            Some(index) => match values.get(usize::try_from(index).unwrap_or(usize::MAX)) {
                Some(&old) => Some(old),
                None => return false,
            },
            None => None,
        };
        if !is_copy {
            return old.is_some() || values.iter().any(|&value| value != 0);
        }
        let differs = |value: u64| match old {
            Some(old) => value != old,
            None => values.iter().any(|&other| other != value),
        };
        values.iter().any(|&value| value > 1 && differs(value))
    };
    let is_l2 = |at: u64| at != 0 && model.wrong_table(at).is_none() && !model.is_contested(at);
    match target.level {
        Level::L1 => model.has_l1() && in_table(model.l1_at),
        Level::L2(Some(l1_index)) => {
            let at = model.l1().get(usize::try_from(l1_index).unwrap_or(usize::MAX)).copied();
            at.is_some_and(|at| is_l2(at) && in_table(at))
        }
        Level::L2(None) => model.l1().into_iter().any(|at| is_l2(at) && in_table(at)),
    }
}

/// One entry of the right table, and what becomes of it.
fn one(model: &Model<'_>, target: Target, is_copy: bool, corruption: &Corruption) {
    let Corruption { plan, table, l1_index, index, old, new, copied_from, .. } = corruption;
    let [write] = plan.writes() else {
        assert_eq!(plan.writes().len(), 1, "{corruption}");
        return;
    };
    assert_eq!(write.offset.0, table.0 + index * 8, "{corruption}");
    assert_eq!(
        (write.old.as_slice(), write.new.as_slice()),
        (&old.to_le_bytes()[..], &new.to_le_bytes()[..])
    );
    assert_eq!(plan.new_length(), plan.length());
    assert!(old != new && *new > 1, "{corruption}");
    assert!(target.index.is_none_or(|wanted| wanted == *index), "{corruption}");
    assert!(*index < model.entries());
    match (target.level, l1_index) {
        (Level::L1, None) => assert_eq!(table.0, model.l1_at),
        (Level::L2(wanted), Some(l1_index)) => {
            assert!(wanted.is_none_or(|wanted| wanted == *l1_index), "{corruption}");
            assert_eq!(model.entry(model.l1_at, *l1_index), Some(table.0));
            assert_eq!(model.wrong_table(table.0), None);
            assert!(!model.is_contested(table.0), "something else has clusters of it: {corruption}");
        }
        _ => assert!(copied_from.is_none() && l1_index.is_some(), "another level: {corruption}"),
    }
    assert_eq!(copied_from.is_some(), is_copy);
    match copied_from {
        Some(source) => {
            assert_ne!(source, index);
            assert_eq!(model.entry(table.0, *source), Some(*new));
        }
        None => {
            assert!(target.index.is_some() || *old != 0, "an entry that is 0 was chosen: {corruption}");
            assert!(new % model.cluster_size != 0 || *new >= model.file_end, "{corruption}");
            assert!(model.wrong(*new).is_some());
        }
    }
    let geometry = Tables::new(model.image).map(|tables| tables.geometry());
    assert!(is_copy || geometry.is_ok_and(|geometry| matches!(geometry.entry(*new), Entry::Invalid(_))));
}
