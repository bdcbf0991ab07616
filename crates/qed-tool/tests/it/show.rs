//! `show` and `dump-header`: text for people, JSON for programs.

use crate::support::bytes::{Bytes, at};
use crate::support::images::{for_each, shapes, small};
use crate::support::program::{json, qed};
use serde_json::Value;
use std::path::Path;
use test_support::scratch::scratch;

/// The header's fields, where they are, and how many bytes they take.
const FIELDS: [(&str, usize, usize); 11] = [
    ("magic", at::MAGIC, 4),
    ("cluster_size", at::CLUSTER_SIZE, 4),
    ("table_size", at::TABLE_SIZE, 4),
    ("header_size", at::HEADER_SIZE, 4),
    ("features", at::FEATURES, 8),
    ("compat_features", at::COMPAT_FEATURES, 8),
    ("autoclear_features", at::AUTOCLEAR_FEATURES, 8),
    ("l1_table_offset", at::L1_TABLE_OFFSET, 8),
    ("image_size", at::IMAGE_SIZE, 8),
    ("backing_filename_offset", at::BACKING_FILENAME_OFFSET, 4),
    ("backing_filename_size", at::BACKING_FILENAME_SIZE, 4),
];

#[track_caller]
fn header_is_shown(image: &Path) {
    let bytes = Bytes::read(image);
    for args in [&["show"][..], &["show", "header"], &["dump-header"]] {
        let run = qed(image, args).expect(0);
        let (_, document) = json(image, args);
        for (name, at, size) in FIELDS {
            let line = run.out();
            let line = line.lines().find(|line| line.starts_with(&format!("{name} ")));
            assert!(line.is_some(), "{name}: {run}");
            let value = if size == 4 { bytes.u32(at).into() } else { bytes.u64(at) };
            assert_eq!(document["header"][name], value, "{name}: {document:#}");
        }
        assert_eq!(document["table_entries"], bytes.table_bytes() / 8);
    }
}

/// The entries that a document's runs stand for: index and value.
fn entries(document: &Value, cluster_size: u64) -> Vec<(u64, u64)> {
    let runs = document["runs"].as_array().unwrap().iter();
    let entries = runs.flat_map(|run| {
        let [index, count, value] = ["index", "count", "value"].map(|key| run[key].as_u64().unwrap());
        (0..count).map(move |i| (index + i, if value == 1 { 1 } else { value + i * cluster_size }))
    });
    entries.collect()
}

#[track_caller]
fn table_is_shown(image: &Path, args: &[&str], table: usize) {
    let bytes = Bytes::read(image);
    let used = bytes.used_entries(table).into_iter().map(|(at, value)| ((at - table) as u64 / 8, value));
    let used: Vec<_> = used.collect();
    let (status, document) = json(image, args);
    assert_eq!(status, Some(0));
    assert_eq!(entries(&document, bytes.cluster_size() as u64), used, "{args:?}: {document:#}");
    assert_eq!(document["offset"], table, "{args:?}");
    assert_eq!(document["entries"], bytes.table_bytes() / 8);
    let run = qed(image, args).expect(0);
    let first = format!("table at {table:#x}");
    assert!(run.out().contains(&first), "{run}");
    assert!(
        run.out().contains(&format!(": {} of {} entries are not 0", used.len(), bytes.table_bytes() / 8)),
        "{run}"
    );
    for (_, value) in used.iter().take(1) {
        assert!(run.out().contains(&format!("{value:#x}")), "{run}");
    }
}

#[test]
fn every_shape() {
    for_each(&shapes(), |shape, image| {
        header_is_shown(image);
        let bytes = Bytes::read(image);
        table_is_shown(image, &["show", "l1"], bytes.l1());
        for (index, table) in bytes.l2_tables().into_iter().take(2).enumerate() {
            let guest = index as u64 * shape.span();
            for name in [
                table.to_string(),
                format!("{table:#x}"),
                format!("l1:{index}"),
                format!("guest:{}", guest + 5),
                index.to_string(),
            ] {
                // 0 is no offset of a table, but an index.
                table_is_shown(image, &["show", "l2", &name], table);
                let (_, document) = json(image, &["show", "l2", &name]);
                assert_eq!(
                    (&document["l1_index"], &document["guest_offset"]),
                    (&index.into(), &guest.into())
                );
            }
        }
    });
}

#[test]
fn kinds_are_named() {
    let folder = scratch();
    let image = small(folder.path(), "image");
    let mut bytes = Bytes::read(&image);
    let (entry, l1, end) = (bytes.l2_entry(0), bytes.l1(), bytes.0.len() as u64);
    bytes.put_u64(entry + 8, 0x3001);
    bytes.put_u64(entry + 16, end);
    bytes.put_u64(l1 + 80, end - 4096);
    bytes.write(&image);
    let text = qed(&image, &["show", "l2", "l1:0"]).expect(0).out();
    for word in ["data", "zero", "wrong: no multiple of the cluster size", "wrong: an offset past the end"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let text = qed(&image, &["show", "l1"]).expect(0).out();
    for word in ["L2 table", "wrong: a table that the end of the file cuts short"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let (_, document) = json(&image, &["show", "l2", "l1:0"]);
    let kinds: Vec<_> = document["runs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| (run["kind"].as_str(), run["why"].as_str()))
        .collect();
    for kind in
        [("data", None), ("zero", None), ("invalid", Some("unaligned")), ("invalid", Some("past-end"))]
    {
        assert!(kinds.contains(&(Some(kind.0), kind.1)), "{kind:?}: {document:#}");
    }
}

/// Any cluster can be looked at as if it were a table, also where the file cuts it short.
#[test]
fn tables_that_no_entry_names() {
    let folder = scratch();
    let image = small(folder.path(), "image");
    let last = Bytes::read(&image).0.len() as u64 - 4096;
    let run = qed(&image, &["show", "l2", &last.to_string()]).expect(0);
    assert!(run.out().contains("which no L1 entry names"), "{run}");
    assert!(run.err().contains("512 of the table's 1024 entries"), "{run}");
    let (_, document) = json(&image, &["show", "l2", &last.to_string()]);
    assert_eq!((&document["l1_index"], &document["entries_in_file"]), (&Value::Null, &512.into()));
}
