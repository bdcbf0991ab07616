//! `show`: text for people, JSON for programs.

use crate::support::bytes::{Bytes, at};
use crate::support::program::qcow2;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use test_support::scratch::{scratch, text};
use vdisk_format::generate::{Bitmap, Luks, Qcow2, Snapshot};

const DISK: u64 = 128 << 10;

/// An image with two snapshots, a bitmap, compressed data and zero clusters, in clusters of 512 bytes.
pub(crate) fn rich(folder: &Path) -> PathBuf {
    let image = Qcow2::new(DISK)
        .cluster_bits(9)
        .bitmap(Bitmap::new("b0").granularity_bits(9).dirty(0..DISK / 2))
        .bitmap(Bitmap::new("b1").granularity_bits(16).in_use(true).auto(false))
        .data(0, vec![1; 3000])
        .snapshot(Snapshot::new("1", "first").date_sec(1_700_000_000).extra_data_size(40))
        .snapshot(Snapshot::new("2", "1").icount(7))
        .data(0x4000, vec![2; 600])
        .compressed(0x9000, vec![3; 1024])
        .zero_preallocated(0xa000..0xa400);
    write(folder, "rich", &image)
}

pub(crate) fn write(folder: &Path, name: &str, image: &Qcow2) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, image.build().unwrap()).unwrap();
    path
}

#[track_caller]
pub(crate) fn document(file: &Path, args: &[&str]) -> Value {
    let run = qcow2(file, &[args, &["--json"]].concat()).expect(0);
    let document: Value =
        serde_json::from_slice(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run}"));
    assert_eq!(document["schema"], 1, "{run}");
    assert_eq!(document["image"], file.to_str().unwrap());
    document
}

/// What the runs of a document stand for: index and value.
fn entries(document: &Value) -> Vec<(u64, u64)> {
    let runs = document["runs"].as_array().unwrap().iter();
    let entries = runs.flat_map(|run| {
        let [index, count, value, step] =
            ["index", "count", "value", "step"].map(|key| run[key].as_u64().unwrap());
        (0..count).map(move |i| (index + i, value + i * step))
    });
    entries.collect()
}

/// The numbers of a table that are not 0, with their indices.
fn used(bytes: &Bytes, table: u64, count: u64) -> Vec<(u64, u64)> {
    let table = usize::try_from(table).unwrap();
    let all = (0..count).map(|index| (index, bytes.u64(table + 8 * usize::try_from(index).unwrap())));
    all.filter(|(_, value)| *value != 0).collect()
}

#[test]
fn tables_are_shown_as_they_are() {
    let folder = scratch();
    let image = rich(folder.path());
    let bytes = Bytes::read(&image);
    let l1 = used(&bytes, bytes.u64(40), bytes.u32(36).into());
    assert_eq!(entries(&document(&image, &["show", "l1"])), l1);
    let (_, refcount_table) = (bytes.u32(56), bytes.u64(48));
    let blocks = used(&bytes, refcount_table, u64::from(bytes.u32(56)) * 64);
    assert_eq!(entries(&document(&image, &["show", "refcount-table"])), blocks);
    for (index, entry) in l1 {
        let table = entry & 0x00ff_ffff_ffff_fe00;
        let guest = (index * 64 * 512 + 5).to_string();
        for name in [table.to_string(), format!("l1:{index}"), format!("guest:{guest}"), index.to_string()] {
            let document = document(&image, &["show", "l2", &name]);
            assert_eq!(entries(&document), used(&bytes, table, 64), "{name}");
            assert_eq!((&document["offset"], &document["l1_index"]), (&json!(table), &json!(index)));
        }
    }
    for (index, block) in blocks {
        for name in [index.to_string(), block.to_string(), format!("host:{}", index * 256 * 512 + 3)] {
            let document = document(&image, &["show", "refcount-block", &name]);
            let runs = document["runs"].as_array().unwrap();
            for run in runs {
                let [index, count, refcount] =
                    ["index", "count", "refcount"].map(|key| run[key].as_u64().unwrap());
                for index in index..index + count {
                    let at = usize::try_from(block + index * 2).unwrap();
                    assert_eq!(u64::from(bytes.u32(at) >> 16), refcount);
                }
            }
        }
    }
}

#[test]
fn ranges_and_zeroes() {
    let folder = scratch();
    let image = rich(folder.path());
    let indices = |args: &[&str]| -> Vec<(u64, u64)> {
        let document = document(&image, &[&["show", "l2", "l1:0"], args].concat());
        let runs = document["runs"].as_array().unwrap().iter();
        runs.map(|run| (run["index"].as_u64().unwrap(), run["count"].as_u64().unwrap())).collect()
    };
    assert_eq!(indices(&["--range", "2-4"]), [(2, 3)]);
    assert_eq!(indices(&["--range", "0x4-40"])[0], (4, 2));
    assert_eq!(indices(&["--range", "10-20"]), []);
    assert_eq!(indices(&["--range", "10-20", "--all"]), [(10, 11)]);
    assert_eq!(indices(&["--all"]).iter().map(|(_, count)| count).sum::<u64>(), 64);
    // What is cut off a run begins where it should.
    let document = document(&image, &["show", "l2", "l1:0", "--range", "3"]);
    let whole = self::document(&image, &["show", "l2", "l1:0"]);
    let first = whole["runs"][0]["mapping"]["offset"].as_u64().unwrap();
    assert_eq!(document["runs"][0]["mapping"], json!({ "kind": "data", "offset": first + 3 * 512 }));
}

#[test]
fn the_text_of_a_small_image() {
    let folder = scratch();
    let image = Qcow2::new(DISK)
        .cluster_bits(9)
        .data(0, vec![1; 2000])
        .compressed(0x1000, vec![3; 512])
        .zero(0x1200..0x1600);
    let image = write(folder.path(), "small", &image);
    let text = |args: &[&str]| qcow2(&image, args).expect(0).out();
    let (l1, l2) = (text(&["show", "l1"]), text(&["show", "l2", "l1:0"]));
    let l1_lines: Vec<&str> = l1.lines().collect();
    let bytes = Bytes::read(&image);
    let (l1_at, table) = (bytes.u64(40), bytes.u64(usize::try_from(bytes.u64(40)).unwrap()) << 1 >> 1);
    assert_eq!(
        l1_lines,
        [
            format!("L1 table at {l1_at:#x}: 4 entries"),
            format!("              0  guest 0x0               L2 table {table:#x}  copied")
        ]
    );
    let data = bytes.u64(usize::try_from(table).unwrap()) << 1 >> 1;
    let packed = bytes.u64(usize::try_from(table).unwrap() + 64) & ((1 << 61) - 1);
    let length = 512 - packed % 512;
    assert_eq!(
        l2.lines().collect::<Vec<_>>(),
        [
            format!("L2 table at {table:#x}, of L1 entry 0, guest offset 0x0: 64 entries"),
            format!("            0-3  guest 0x0               data {data:#x}-{:#x}  copied", data + 4 * 512),
            format!(
                "              8  guest 0x1000            compressed {packed:#x}, up to {length} bytes in 1 sectors"
            ),
            "           9-10  guest 0x1200            zero".to_owned(),
        ]
    );
    let clusters = bytes.0.len() / 512;
    assert!(
        text(&["show", "refcount-block", "0"]).ends_with(&format!(
            "           0-{}  refcount 1         clusters 0-{} at 0x0-{:#x}\n",
            clusters - 1,
            clusters - 1,
            clusters * 512
        )),
        "{}",
        text(&["show", "refcount-block", "0"])
    );
}

#[test]
fn what_is_wrong_with_an_entry_is_said() {
    let folder = scratch();
    let image = rich(folder.path());
    let bytes = Bytes::read(&image);
    let l1 = usize::try_from(bytes.u64(40)).unwrap();
    let table = usize::try_from(bytes.u64(l1) & 0x00ff_ffff_ffff_fe00).unwrap();
    let bytes = bytes.with_u64(table, 0x8000_0000_0000_0202).with_u64(table + 8, 1 << 50);
    bytes.with_u64(l1 + 16, 0x4000_0000_0000_0001).with_u64(table + 16, 1 << 63 | 1 << 62).write(&image);
    let text = qcow2(&image, &["show", "l2", "l1:0", "--range", "0-2"]).expect(0).out();
    for word in
        ["bit-1", "wrong: the offset is past the end of the file", "wrong: bit 63 is set, and the cluster"]
    {
        assert!(text.contains(word), "{word}: {text}");
    }
    let text = qcow2(&image, &["show", "l1"]).expect(0).out();
    assert!(text.contains("no L2 table  wrong: reserved bits are set: bit-0, bit-62"), "{text}");
    let document = document(&image, &["show", "l2", "l1:0", "--range", "1"]);
    assert_eq!(document["runs"][0]["problems"], json!([{ "code": "past-end" }]));
}

#[test]
fn snapshots_and_their_tables() {
    let folder = scratch();
    let image = rich(folder.path());
    let found = document(&image, &["show", "snapshots"]);
    let first = &found["snapshots"][0];
    assert_eq!((&first["id"], &first["name"]), (&json!("1"), &json!("first")));
    assert_eq!(first["date"], "2023-11-14T22:13:20Z");
    assert_eq!((&first["disk_size"], &first["icount"]), (&json!(DISK), &Value::Null));
    assert_eq!(first["unknown_extra_data"], "0".repeat(32));
    assert_eq!(found["snapshots"][1]["icount"], 7);
    assert_eq!(found["snapshots"].as_array().unwrap().len(), 2);
    // An ID comes before a name that is the same.
    for (name, index) in [("1", 0), ("first", 0), ("2", 1)] {
        let l1 = document(&image, &["show", "l1", "--snapshot", name]);
        assert_eq!(l1["snapshot"]["index"], index, "{name}");
        assert_eq!(l1["offset"], found["snapshots"][index]["l1_table"]["offset"]);
    }
    let now = document(&image, &["show", "l2", "guest:0x4000"]);
    let then = document(&image, &["show", "l2", "guest:0x4000", "--snapshot", "first"]);
    assert_ne!(now["offset"], then["offset"]);
    // A table that only a snapshot has, by its offset.
    let table = then["offset"].as_u64().unwrap();
    let found = document(&image, &["show", "l2", &table.to_string()]);
    assert_eq!((&found["snapshot"], &found["l1_index"]), (&then["snapshot"], &then["l1_index"]), "{found:#}");
    let text = qcow2(&image, &["show", "l2", &table.to_string()]).expect(0).out();
    assert!(text.contains(" of snapshot 0 (ID 1, name 'first'): 64 entries"), "{text}");
    let text = qcow2(&image, &["show", "l1", "--snapshot", "2"]).expect(0).out();
    assert!(text.contains(" of snapshot 1 (ID 2, name '1'): "), "{text}");
    let text = qcow2(&image, &["show", "snapshots"]).expect(0).out();
    assert!(text.contains("snapshot 0, entry at ") && text.contains("ID 1, name 'first'"), "{text}");
    // A table that is cut short is shown up to there.
    let bytes = Bytes::read(&image);
    bytes.with_u32(60, 3).write(&image);
    let run = qcow2(&image, &["show", "snapshots"]).expect(0);
    assert!(run.out().contains("3 snapshots"), "{run}");
}

#[test]
fn bitmaps_and_their_tables() {
    let folder = scratch();
    let image = rich(folder.path());
    let found = document(&image, &["show", "bitmaps"]);
    assert_eq!((&found["nb_bitmaps"], &found["consistent"]), (&json!(2), &json!(true)));
    let [first, second] = [&found["bitmaps"][0], &found["bitmaps"][1]];
    assert_eq!((&first["name"], &first["granularity"]), (&json!("b0"), &json!(512)));
    assert_eq!(first["flag_names"], json!(["auto"]));
    assert_eq!(second["flag_names"], json!(["in_use"]));
    let kinds = first["table_entries"].as_object().unwrap().values().map(|count| count.as_u64().unwrap());
    assert_eq!(kinds.sum::<u64>(), first["bitmap_table"]["length"].as_u64().unwrap() / 8);
    let text = qcow2(&image, &["show", "bitmaps"]).expect(0).out();
    assert!(text.contains("bitmap 1, ") && text.contains("flags in_use, granularity 65536 bytes"), "{text}");
}

#[test]
fn encryption_without_its_secrets() {
    let folder = scratch();
    let luks =
        write(folder.path(), "luks", &Qcow2::new(DISK).cluster_bits(12).luks(Luks::new(1).key_slots(2)));
    let found = document(&luks, &["show", "crypto"]);
    assert_eq!((&found["method"], &found["luks"]["valid"]), (&json!("luks"), &json!(true)));
    let slots = found["key_slots"].as_array().unwrap();
    let active: Vec<bool> = slots.iter().map(|slot| slot["active"].as_bool().unwrap()).collect();
    assert_eq!(active, [true, true, false, false, false, false, false, false]);
    let text = qcow2(&luks, &["show", "crypto"]).expect(0).out();
    assert!(text.contains("key slot 1 at ") && text.contains(": active, "), "{text}");
    for key in ["salt", "mk_digest"] {
        assert!(!text.contains(key) && !found.to_string().contains(&format!("\"{key}\":")), "{key}");
    }
    let all = document(&luks, &["show", "crypto", "--all"]);
    assert_eq!(all["key_slots"][0]["salt"].as_str().unwrap().len(), 64);
    assert_eq!(all["luks"]["mk_digest"].as_str().unwrap().len(), 40);
    let plain = rich(folder.path());
    assert_eq!(qcow2(&plain, &["show", "crypto"]).expect(0).out(), "The image is not encrypted\n");
}

#[test]
fn subclusters_are_runs() {
    let folder = scratch();
    let image = Qcow2::new(DISK).cluster_bits(14).extended_l2(true).data(1024, vec![1; 512]).zero(2048..4096);
    let image = write(folder.path(), "extended", &image);
    let text = qcow2(&image, &["show", "l2", "l1:0"]).expect(0).out();
    assert!(
        text.contains("subclusters: 0-1 unallocated, 2 data, 3 unallocated, 4-7 zero, 8-31 unallocated"),
        "{text}"
    );
    let found = document(&image, &["show", "l2", "l1:0"]);
    assert_eq!(found["runs"][0]["subclusters"][1], json!({ "first": 2, "count": 1, "state": "data" }));
}

#[test]
fn the_header_is_that_of_dump_header() {
    let folder = scratch();
    let image = rich(folder.path());
    for options in [&[][..], &["-j"], &["--json"]] {
        let dump = qcow2(&image, &[&["dump-header"], options].concat()).expect(0);
        for show in [&["show"][..], &["show", "header"]] {
            assert_eq!(qcow2(&image, &[show, options].concat()).expect(0).stdout, dump.stdout);
        }
    }
}

/// Any cluster can be looked at as if it were a table, also where the file ends in it.
#[test]
fn tables_that_no_entry_names() {
    let folder = scratch();
    let image = rich(folder.path());
    let mut bytes = Bytes::read(&image);
    let last = bytes.0.len().next_multiple_of(512) - 512;
    bytes.0.truncate(last + 104);
    bytes.write(&image);
    let found = document(&image, &["show", "l2", &last.to_string()]);
    assert_eq!((&found["l1_index"], &found["entries_in_file"]), (&Value::Null, &json!(13)));
    let text = qcow2(&image, &["show", "l2", &last.to_string()]).expect(0).out();
    assert!(text.contains("which no L1 entry names: 64 entries, 13 of them in the file"), "{text}");
    // Without a cluster size there are no tables.
    bytes.with_u32(at::CLUSTER_BITS, 3).write(&image);
    let run = qcow2(&image, &["show", "l1"]).expect(1);
    assert!(run.err().contains("cluster_bits at offset 0x14: expected 9 to 21, found 3"), "{run}");
}

/// All commands that read tables refuse what does not begin as an image, and go on when they are told to.
#[test]
fn what_is_no_qcow2_image_is_looked_at_when_forced() {
    let folder = scratch();
    let image = rich(folder.path());
    Bytes::read(&image).with_u32(at::MAGIC, 0).write(&image);
    for line in [
        &["map"][..],
        &["fragcheck"],
        &["owner", "0x400"],
        &["explain", "0x400"],
        &["show", "l1"],
        &["show", "l2", "l1:0"],
        &["show", "snapshots"],
        &["show", "crypto"],
    ] {
        let run = qcow2(&image, line).expect(1);
        let expected =
            "magic at offset 0x0: expected 0x514649fb, found 0x0: no qcow2 image; to go on, use --force\n";
        assert_eq!((run.out(), run.err()), (String::new(), format!("error: {}: {expected}", text(&image))));
        qcow2(&image, &[line, &["--force"]].concat()).expect(0);
    }
    qcow2(&image, &["map", "--chain"]).expect(1);
    qcow2(&image, &["show", "header"]).expect(0);
    // A raw file that has no header of any kind.
    fs::write(&image, [b'c'; 4096]).unwrap();
    for line in [&["owner", "1"][..], &["explain", "1"], &["show", "l1"], &["check"]] {
        assert!(qcow2(&image, line).expect(1).err().contains("no qcow2 image"), "{line:?}");
    }
    // Without a header, no option helps.
    fs::write(&image, [b'c'; 71]).unwrap();
    for line in [&["owner", "1"][..], &["explain", "1"], &["show", "l1"], &["check"], &["map"]] {
        let refused = qcow2(&image, line).expect(1).err();
        assert!(refused.contains("header at offset 0x0: needs 72 bytes, the file has 71 there"), "{refused}");
        assert!(!refused.contains("--force"), "{refused}");
        assert_eq!(qcow2(&image, &[line, &["--force"]].concat()).expect(1).err(), refused);
    }
}

/// Snapshots may have names that look like options.
#[test]
fn snapshots_named_like_options() {
    let folder = scratch();
    let image = Qcow2::new(1 << 20).snapshot(Snapshot::new("1", "-x")).data(0, *b"data");
    let image = write(folder.path(), "image", &image);
    for line in [&["map"][..], &["fragcheck"], &["show", "l1"]] {
        qcow2(&image, &[line, &["--snapshot", "-x"]].concat()).expect(0);
    }
}
