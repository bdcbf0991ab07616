//! `explain`: what a byte of the file is; and images of any bytes, for all commands that look at tables.

use crate::show::{document, rich, write};
use crate::support::bytes::Bytes;
use crate::support::program::qcow2;
use serde_json::json;
use test_support::binary::assert_orderly;
use test_support::random::Random;
use test_support::scratch::scratch;
use vdisk_format::generate::{Luks, Qcow2};

#[test]
fn a_field_of_the_header() {
    let folder = scratch();
    let image = rich(folder.path());
    assert_eq!(
        qcow2(&image, &["explain", "0x16"]).expect(0).out(),
        "0x16: header, field cluster_bits: 9\n  \
         The cluster size is `1 << cluster_bits` bytes: at least 9; QEMU takes up to 21.\n  \
         4 bytes at 0x14-0x18\n  valid\n\
         cluster 0: one owner, refcount 1, 1 reference: as it should be\n"
    );
    Bytes::read(&image).with_u32(20, 3).write(&image);
    let text = qcow2(&image, &["explain", "0x16"]).expect(0).out();
    assert!(text.contains("wrong: expected 9 to 21, found 3 [cluster-bits]"), "{text}");
    assert!(text.contains("nothing but the header can be read"), "{text}");
}

#[test]
fn entries_of_tables_and_what_they_lead_to() {
    let folder = scratch();
    let image = rich(folder.path());
    let bytes = Bytes::read(&image);
    let l1 = bytes.u64(40);
    let table = bytes.u64(usize::try_from(l1).unwrap()) & 0x00ff_ffff_ffff_fe00;
    let data = bytes.u64(usize::try_from(table).unwrap() + 8) & 0x00ff_ffff_ffff_fe00;
    let block = bytes.u64(usize::try_from(bytes.u64(48)).unwrap());
    let says = |offset: u64, words: &[&str]| {
        let text = qcow2(&image, &["explain", &offset.to_string()]).expect(0).out();
        for word in words {
            assert!(text.contains(word), "{offset:#x}: {word}: {text}");
        }
        assert!(!text.contains("wrong"), "{text}");
    };
    says(l1 + 3, &[": L1 entry 0: 0x", "; disk 0x0-0x8000", "valid"]);
    says(table + 8, &["entry 1 of the L2 table at", "disk 0x200-0x400", "valid"]);
    says(data + 17, &["data: byte 0x211 of the disk"]);
    says(bytes.u64(48), &["refcount table entry 0: ", "clusters 0-255"]);
    says(block + 1, &["refcount block 0, from entry 0 on", "cluster 0: refcount 1, references 1"]);
    says(bytes.u64(64) + 16, &["snapshot table entry, field date_sec: 1700000000"]);
    let directory = bytes.bitmap_directory() as u64;
    says(directory + 17, &["bitmap directory entry, field granularity_bits: 9"]);
    says(directory + 24, &["bitmap directory entry, name: 'b0'"]);
    says(bytes.u64(usize::try_from(directory).unwrap()), &["entry 0 of the table of bitmap 0"]);
    says(bytes.0.len() as u64 + 512, &["the file ends before it"]);
    let last = qcow2(&image, &["explain", "0xffffffffffffffff"]).expect(0).out();
    let said = "0xffffffffffffffff: nothing: the file ends before it\ncluster 36028797018963967: nobody";
    assert!(last.starts_with(said), "{last}");
    let refused = "error: offset: expected bytes, such as 65536, 0x10000 or 64k, found '-1'\n";
    assert_eq!(qcow2(&image, &["explain", "-1"]).expect(64).err(), refused);
}

/// What a check finds wrong with a field is said of the field.
#[test]
fn fields_that_a_check_finds_wrong() {
    let folder = scratch();
    let image = rich(folder.path());
    let bytes = Bytes::read(&image);
    let snapshot = bytes.place(64);
    let bitmap = bytes.bitmap_directory();
    let fields: [(usize, &[u8], &str); 11] = [
        (snapshot, &[0, 0, 1, 0, 0, 0, 0, 0], "past the end of the file"),
        (bitmap, &[0, 0, 1, 0, 0, 0, 0, 0], "past the end of the file"),
        (72, &[0, 0, 0, 0, 0, 0, 0, 1], "dirty"),
        (36, &[0, 0, 0, 0], "l1-size"),
        (56, &[0, 0, 0, 0], "refcount-table-size"),
        (60, &[0, 2, 0, 0], "nb-snapshots"),
        (snapshot + 8, &[0, 0, 0, 1], "snapshot-l1-size"),
        (snapshot + 36, &[0, 1, 0, 0], "snapshot-extra-data"),
        (bitmap, &[0; 8], "bitmap-directory-entry"),
        (bitmap + 17, &[1], "bitmap-directory-entry"),
        (bitmap + 20, &[0, 0, 0, 8], "bitmap-directory-entry"),
    ];
    for (at, value, code) in fields {
        let valid = |at: usize| qcow2(&image, &["explain", &at.to_string()]).expect(0).out();
        bytes.write(&image);
        assert!(valid(at).contains("\n  valid\n"), "{at}: {}", valid(at));
        bytes.clone().with(at, value).write(&image);
        assert!(valid(at).contains("  wrong: ") && valid(at).contains(code), "{at}: {}", valid(at));
    }
}

#[test]
fn secrets_are_named_and_not_shown() {
    let folder = scratch();
    let image = write(folder.path(), "luks", &Qcow2::new(1 << 20).cluster_bits(12).luks(Luks::new(3)));
    let found = document(&image, &["show", "crypto"]);
    let start = found["luks"]["area"]["offset"].as_u64().unwrap();
    let text = |at: u64| qcow2(&image, &["explain", &(start + at).to_string()]).expect(0).out();
    assert!(text(8).contains("LUKS header, cipher name: 'aes'"), "{}", text(8));
    assert!(text(217).contains("LUKS key slot, salt of key slot 0, which is not shown"), "{}", text(217));
    assert!(text(112).contains("master key digest, which is not shown"), "{}", text(112));
}

/// What the document of every kind of part is.
#[test]
fn documents() {
    let folder = scratch();
    let image = rich(folder.path());
    let length = Bytes::read(&image).0.len();
    let mut kinds = std::collections::BTreeSet::new();
    for at in (0..length).step_by(271).chain([0x15, length + 600]) {
        let found = document(&image, &["explain", &at.to_string()]);
        assert_eq!(found["offset"], at);
        for part in found["parts"].as_array().unwrap() {
            kinds.insert(part["subject"]["kind"].as_str().unwrap().to_owned());
            assert_eq!(part["problems"], json!([]), "{found:#}");
            assert!(part["place"]["length"].as_u64().unwrap() > 0);
        }
    }
    for kind in ["field", "l1-entry", "l2-entry", "refcounts", "data", "past-end", "unused", "bitmap-bits"] {
        assert!(kinds.contains(kind), "{kind} of {kinds:?}");
    }
}

/// Mutated tables and cut files: no command dies, or is slow, or goes on for ever.
#[test]
fn damaged_images() {
    const LINES: [&[&str]; 14] = [
        &["show", "l1", "--all"],
        &["show", "l1", "--snapshot", "1", "--json"],
        &["show", "l2", "l1:0"],
        &["show", "l2", "l1:1", "--json"],
        &["show", "refcount-table"],
        &["show", "refcount-block", "0", "--json"],
        &["show", "snapshots"],
        &["show", "bitmaps", "--json"],
        &["show", "crypto"],
        &["owner", "0x400"],
        &["owner", "0x1200", "--json"],
        &["explain", "0x70"],
        &["explain", "0x608"],
        &["explain", "0x1a10", "--json"],
    ];
    let folder = scratch();
    let source = Bytes::read(&rich(folder.path()));
    let path = folder.path().join("damaged");
    let mut random = Random::new(6);
    for _ in 0..40 {
        let mut bytes = source.clone();
        for _ in 0..=random.below(5) {
            // The magic stays, the version too.
            let at = 8 + 8 * random.below(bytes.0.len() / 8 - 2);
            let cluster = random.number() % 64 * 512;
            let value = *random.pick(&[cluster, cluster | 1 << 63, cluster | 1, u64::MAX, 0]);
            bytes = bytes.with_u64(at, value);
        }
        if random.below(4) == 0 {
            let length = random.below(bytes.0.len());
            bytes.0.truncate(length);
        }
        bytes.write(&path);
        for line in LINES {
            let run = qcow2(&path, line);
            assert_orderly(&run);
            assert!(matches!(run.status.code(), Some(0 | 1)), "{run}");
            assert!(run.stdout.len() < 64 * source.0.len(), "{} bytes: {}", run.stdout.len(), run.line);
        }
    }
}
