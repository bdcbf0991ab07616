//! `duplicate` and `invalidate`: exactly one entry of the file changes, in the way that was asked for.

use crate::support::bytes::{Bytes, at};
use crate::support::images::{SMALL, SMALLEST, for_each, shapes, small};
use crate::support::program::{QED, qed};
use crate::support::qemu;
use std::path::Path;
use test_support::plan;
use test_support::process::Run;
use test_support::scratch::{Snapshot, scratch};

/// The entry that changed: where it is, its value before and after. Fails unless it is exactly one.
#[track_caller]
fn changed(before: &Bytes, after: &Bytes) -> (usize, u64, u64) {
    let differences = before.differences(after);
    let [at] = differences[..] else { panic!("exactly one entry changes: {differences:x?}") };
    (at, before.u64(at), after.u64(at))
}

/// The seed that standard error names.
#[track_caller]
fn seed(run: &Run) -> String {
    let err = run.err();
    let line = err.lines().find_map(|line| line.strip_prefix("seed: "));
    let seed = line.unwrap_or_else(|| panic!("a seed on standard error: {run}"));
    seed.parse::<u64>().unwrap();
    seed.to_owned()
}

/// The table in which the entry at `at` is.
#[track_caller]
fn table_of(image: &Bytes, level: &str, at: usize) -> usize {
    let tables = if level == "l1" { vec![image.l1()] } else { image.l2_tables() };
    let found = tables.into_iter().find(|&table| (table..table + image.table_bytes()).contains(&at));
    found.unwrap_or_else(|| panic!("{at:#x} is in a table of {level}"))
}

/// Runs an edit, and returns the image after it; checks that the seed it names does the same again.
fn corrupted(image: &Path, before: &Bytes, args: &[&str]) -> Bytes {
    let run = qed(image, &[args, &["--no-undo"]].concat()).expect(0);
    assert!(run.stdout.is_empty(), "{run}");
    let seed = seed(&run);
    let after = Bytes::read(image);
    assert!(qemu::check(image).corruptions > 0, "QEMU finds it: {run}");
    assert_eq!(qed(image, &["check"]).status.code(), Some(2), "{run}");
    before.write(image);
    let again = plan::of(QED, image, &[args, &["--seed", &seed]].concat());
    assert!(plan::applied(&before.0, &again) == after.0, "the same seed, the same bytes: {run}");
    after
}

fn is_duplicate(level: &str, before: &Bytes, after: &Bytes) {
    let (at, old, new) = changed(before, after);
    assert!(new > 1 && new != old, "{old:#x} became {new:#x}");
    let table = table_of(before, level, at);
    let others: Vec<_> = before.used_entries(table).into_iter().filter(|&(_, value)| value == new).collect();
    assert!(!others.is_empty(), "{new:#x} is the value of another entry of the table");
}

fn is_invalid(level: &str, before: &Bytes, after: &Bytes) {
    let (at, old, new) = changed(before, after);
    table_of(before, level, at);
    assert!(old > 1, "an entry that was in use: {old:#x}");
    let end = before.0.len() as u64;
    assert!(new > 1 && (new >= end || new % before.cluster_size() as u64 != 0), "{old:#x} became {new:#x}");
}

#[test]
fn every_shape() {
    for_each(&shapes(), |_, image| {
        let before = Bytes::read(image);
        for level in ["l1", "l2"] {
            is_duplicate(level, &before, &corrupted(image, &before, &["duplicate", level]));
            is_invalid(level, &before, &corrupted(image, &before, &["invalidate", level]));
        }
    });
}

#[test]
fn many_seeds() {
    let folder = scratch();
    let image = small(folder.path(), "image");
    let before = Bytes::read(&image);
    let (mut past_end, mut unaligned, mut places) = (0, 0, std::collections::BTreeSet::new());
    for seed in 0..40 {
        for level in ["l1", "l2"] {
            let seed = format!("{seed:#x}");
            let after = |command| {
                let writes = plan::of(QED, &image, &[command, level, "--seed", &seed]);
                Bytes(plan::applied(&before.0, &writes))
            };
            is_duplicate(level, &before, &after("duplicate"));
            let invalid = after("invalidate");
            is_invalid(level, &before, &invalid);
            let (at, _, new) = changed(&before, &invalid);
            if new % 4096 == 0 {
                past_end += 1;
            } else {
                unaligned += 1;
            }
            places.insert(at);
        }
    }
    assert!(past_end > 5 && unaligned > 5, "both kinds: {past_end} and {unaligned}");
    assert!(places.len() > 8, "chance picks many entries, in all tables: {places:x?}");
}

#[test]
fn an_entry_can_be_chosen() {
    for_each(&SMALL, |shape, image| {
        let before = Bytes::read(image);
        let l1 = before.l1();
        let second_table = usize::try_from(before.u64(l1 + 8)).unwrap();
        let last = shape.table_size * shape.cluster_size / 8 - 1;
        let (far, in_second) = (last.to_string(), format!("1:{last}"));
        for (level, index, at) in [
            ("l1", "1", l1 + 8),
            ("l1", &far, l1 + 8 * last as usize),
            ("l2", "1:0x2", second_table + 16),
            ("l2", &in_second, second_table + 8 * last as usize),
        ] {
            for (command, check) in
                [("duplicate", is_duplicate as fn(&str, &Bytes, &Bytes)), ("invalidate", |_, _, _| {})]
            {
                let after = corrupted(image, &before, &[command, level, "--at", index]);
                check(level, &before, &after);
                assert_eq!(changed(&before, &after).0, at, "{command} {level} --at {index}");
            }
        }
        // An index alone: of whichever table.
        for command in ["duplicate", "invalidate"] {
            let after = corrupted(image, &before, &[command, "l2", "--at", "3"]);
            let at = changed(&before, &after).0;
            assert_eq!(at, table_of(&before, "l2", at) + 24, "{command}");
        }
    });
}

/// Refused, with a reason, and nothing is touched.
#[track_caller]
fn refused(image: &Path, args: &[&str], words: &[&str]) {
    let before = Snapshot::of(image);
    let run = qed(image, args).expect(1);
    for word in words {
        assert!(run.err().contains(word), "it says why, '{word}': {run}");
    }
    assert!(run.stdout.is_empty(), "{run}");
    before.unchanged(image, &run);
}

#[test]
fn an_empty_image_has_nothing_to_corrupt() {
    for shape in SMALL {
        let folder = scratch();
        let image = folder.path().join("image");
        shape.create(&image, "", 1 << 20);
        for command in ["duplicate", "invalidate"] {
            refused(&image, &[command, "l1"], &[command, "l1", "expected"]);
            refused(&image, &[command, "l2"], &[command, "l2", "L1 entry that names an L2 table"]);
            refused(&image, &[command, "l2", "--at", "0:0"], &["no L2 table"]);
        }
    }
}

#[test]
fn what_cannot_be_duplicated_is_refused() {
    let folder = scratch();
    let image = folder.path().join("image");
    SMALLEST.create(&image, "", 2 * SMALLEST.span());
    qemu::io(&image, &["write 12k 4k"]);
    let before = Bytes::read(&image);
    // The only entry has no other to be a copy of.
    refused(&image, &["duplicate", "l1", "--at", "0"], &["duplicate l1", "another entry"]);
    refused(&image, &["duplicate", "l2", "--at", "0:3"], &["duplicate l2", "another entry"]);
    refused(&image, &["duplicate", "l2", "--at", "3"], &["duplicate l2", "another entry"]);
    // To any other it can be copied.
    is_duplicate("l1", &before, &corrupted(&image, &before, &["duplicate", "l1"]));
    is_duplicate("l2", &before, &corrupted(&image, &before, &["duplicate", "l2"]));

    // Zero clusters are not in two places.
    qed(&image, &["zerocluster", "0x3000"]).expect(0);
    refused(&image, &["duplicate", "l2"], &["duplicate l2"]);

    // A table in which all entries are the same already.
    let mut bytes = before;
    let table = bytes.l2_tables()[0];
    for at in (table..table + bytes.table_bytes()).step_by(8) {
        bytes.put_u64(at, 0x5000);
    }
    bytes.write(&image);
    refused(&image, &["duplicate", "l2"], &["duplicate l2"]);
}

/// The seed picks any L2 table; ours picks one that can be corrupted.
#[test]
fn an_l2_table_that_can_be_corrupted_is_picked() {
    let folder = scratch();
    let image = folder.path().join("image");
    SMALLEST.create(&image, "", 20 * SMALLEST.span());
    // 19 tables with nothing but a zero cluster, and one with data.
    let writes: Vec<String> = (0..20)
        .map(|index| {
            let start = index * SMALLEST.span();
            if index == 7 { format!("write -P 5 {start} 8k") } else { format!("write -z {start} 4k") }
        })
        .collect();
    qemu::io(&image, &writes.iter().map(String::as_str).collect::<Vec<_>>());
    let before = Bytes::read(&image);
    for seed in 0..10 {
        for command in ["duplicate", "invalidate"] {
            let writes = plan::of(QED, &image, &[command, "l2", "--seed", &seed.to_string()]);
            let (at, _, new) = changed(&before, &Bytes(plan::applied(&before.0, &writes)));
            assert!(new > 1);
            if command == "duplicate" {
                assert_eq!(table_of(&before, "l2", at), before.l2_tables()[7]);
            }
        }
    }
}

/// An L1 entry that names no table is passed over.
#[test]
fn damaged_images_can_be_corrupted_further() {
    let folder = scratch();
    let image = small(folder.path(), "image");
    let mut bytes = Bytes::read(&image);
    let l1 = bytes.l1();
    for (index, value) in [(0, 0x3001), (1, 1 << 40)] {
        bytes.put_u64(l1 + index * 8, value);
    }
    bytes.write(&image);
    for seed in 0..10 {
        let seed = seed.to_string();
        for (command, check) in
            [("duplicate", is_duplicate as fn(&str, &Bytes, &Bytes)), ("invalidate", is_invalid)]
        {
            let writes = plan::of(QED, &image, &[command, "l1", "--seed", &seed]);
            check("l1", &bytes, &Bytes(plan::applied(&bytes.0, &writes)));
        }
    }
    bytes.put_u64(at::L1_TABLE_OFFSET, 1 << 40);
    bytes.write(&image);
    for command in ["duplicate", "invalidate"] {
        for level in ["l1", "l2"] {
            refused(&image, &[command, level], &[command]);
        }
    }
}
