//! Where `check` and `qemu-img check` differ: a test for each row of `CHECK.md`.

use crate::support::bytes::{Bytes, at, extension, magic};
use crate::support::program::{json, qcow2};
use crate::support::qemu::{self, Counts};
use crate::support::tables::{COPIED, Kind, OFFSET};
use serde_json::Value;
use std::path::{Path, PathBuf};
use test_support::process::{Run, run};
use test_support::qemu::try_img;
use test_support::scratch::{scratch, text};
use vdisk_format::generate::{Luks, Qcow2};

/// 4 KiB clusters: data at 0 to 300k, two snapshots, then 5k written again; a bitmap with data.
fn base(folder: &Path) -> PathBuf {
    base_with(folder, true)
}

fn base_with(folder: &Path, bitmap: bool) -> PathBuf {
    let path = folder.join("image");
    qemu::create(&path, "cluster_size=4k", "8M");
    if bitmap {
        qemu::img(&["bitmap", "--add", "-g", "64k", text(&path), "b0"]);
    }
    qemu::io(&path, &["write -P 1 0 300k", "write -P 1 4M 64k"]);
    for name in ["one", "two"] {
        qemu::img(&["snapshot", "-c", name, text(&path)]);
    }
    qemu::io(&path, &["write -P 5 0 5k"]);
    assert_eq!(qemu::counts(&path).status, Some(0));
    path
}

/// The base with a change, and what ours says of it.
fn patched(change: impl Fn(Bytes) -> Bytes) -> (tempfile::TempDir, PathBuf, Counts, Value) {
    let folder = scratch();
    let path = base(folder.path());
    change(Bytes::read(&path)).write(&path);
    let (status, document) = json(&path, &["check"]);
    (folder, path, Counts::of(status, &document), document)
}

fn has(document: &Value, code: &str) -> bool {
    let findings = document["findings"].as_array().unwrap();
    findings.iter().any(|finding| finding["code"] == code && finding["severity"] == "error")
}

fn cut(mut bytes: Bytes, length: usize) -> Bytes {
    bytes.0.truncate(length);
    bytes
}

/// The first table of a kind.
fn table(bytes: &Bytes, kind: Kind) -> usize {
    bytes.tables().into_iter().find(|table| table.kind == kind).unwrap().start
}

/// Maps guest cluster 20, a plain one of the active table only, onto the cluster at `offset`, which gets refcount 2.
fn onto(bytes: Bytes, offset: usize) -> Bytes {
    let (entry, old) = (bytes.l2_entry(20 * 4096), bytes.host(20 * 4096));
    bytes.released(old).with_u64(entry, offset as u64).with_refcount(offset, 2).flags_mended()
}

impl Bytes {
    /// The bytes with one reference less to the cluster at `offset`.
    fn released(self, offset: usize) -> Bytes {
        let before = self.u32(self.refcount(offset)) >> 16;
        self.with_refcount(offset, u16::try_from(before).unwrap() - 1)
    }

    /// The bytes with the flags of the disk as it is as the refcounts are.
    fn flags_mended(mut self) -> Bytes {
        let l1 = self.l1();
        for index in 0..self.u32(at::L1_SIZE) as usize {
            self = self.flagged(l1 + 8 * index);
            let table = self.l2(index);
            for entry in (table..table + 4096).step_by(8).filter(|_| table != 0) {
                self = self.flagged(entry);
            }
        }
        self
    }

    fn flagged(self, entry: usize) -> Bytes {
        let value = self.u64(entry);
        let offset = usize::try_from(value & OFFSET).unwrap();
        if offset == 0 {
            return self;
        }
        let is_one = self.u32(self.refcount(offset)) >> 16 == 1;
        self.with_u64(entry, value & !COPIED | if is_one { COPIED } else { 0 })
    }
}

#[test]
fn what_qemu_opens_and_calls_clean() {
    type Row = (&'static str, fn(Bytes) -> Bytes);
    let rows: &[Row] = &[
        ("dirty", |bytes| bytes.with_u64(at::INCOMPATIBLE_FEATURES, 1)),
        ("corrupt", |bytes| bytes.with_u64(at::INCOMPATIBLE_FEATURES, 2)),
        ("header-length", |bytes| {
            let start = bytes.header_length();
            let area = bytes.0[start..500].to_vec();
            bytes.with(start + 4, &area).with_u32(at::HEADER_LENGTH, u32::try_from(start).unwrap() + 4)
        }),
        ("repeated-extension", |bytes| {
            let bitmaps = bytes.0[bytes.extension(magic::BITMAPS).unwrap()].to_vec();
            let unknown = extension(magic::UNKNOWN, b"twice");
            let area = [unknown.clone(), unknown, extension(magic::BITMAPS, &bitmaps)].concat();
            bytes.with_area(&area)
        }),
        ("snapshot-id", |bytes| {
            let first = table(&bytes, Kind::SnapshotTable);
            let id = first + 40 + bytes.u32(first + 36) as usize;
            bytes.with(id, b"2")
        }),
        ("overlap", |bytes| {
            let l1 = bytes.l1();
            onto(bytes, l1)
        }),
        ("overlap", |bytes| {
            let table = bytes.refcount_table();
            onto(bytes, table)
        }),
        ("overlap", |bytes| {
            let table = bytes.l2(0);
            onto(bytes, table)
        }),
        ("snapshot-l1-size", |bytes| {
            // The last L2 table of the first snapshot is lost, and nobody refers to it any more.
            let first = table(&bytes, Kind::SnapshotTable);
            let lost = usize::try_from(bytes.u64(bytes.place(first) + 16) & OFFSET).unwrap();
            let mut bytes = bytes.released(lost);
            for entry in (lost..lost + 4096).step_by(8) {
                let data = usize::try_from(bytes.u64(entry) & OFFSET).unwrap();
                bytes = if data == 0 { bytes } else { bytes.released(data) };
            }
            bytes.with_u32(first + 8, 1).flags_mended()
        }),
    ];
    for (number, (code, change)) in rows.iter().enumerate() {
        let (_folder, path, ours, document) = patched(change);
        let theirs = qemu::counts(&path);
        assert_eq!((theirs.status, theirs.corruptions, theirs.leaks), (Some(0), 0, 0), "{number}, {code}");
        assert_eq!(ours, Counts { status: Some(2), ..theirs }, "{number}, {code}: {document:#}");
        assert!(document["extra-corruptions"].as_u64() > Some(0), "{number}, {code}: {document:#}");
        assert!(has(&document, code), "{number}, {code}: {document:#}");
    }
}

/// A plain cluster of the guest is the one with another's compressed data.
#[test]
fn plain_data_over_compressed_data() {
    let folder = scratch();
    let path = folder.path().join("image");
    qemu::create(&path, "cluster_size=4k", "8M");
    qemu::io(&path, &["write -c -P 1 0 4k", "write -P 2 8k 4k"]);
    let bytes = Bytes::read(&path);
    let compressed = usize::try_from(bytes.u64(bytes.l2_entry(0)) & ((1 << 58) - 1)).unwrap() & !4095;
    let (entry, old) = (bytes.l2_entry(8192), bytes.host(8192));
    bytes.released(old).with_u64(entry, compressed as u64).with_refcount(compressed, 2).write(&path);
    let theirs = qemu::counts(&path);
    let (status, document) = json(&path, &["check"]);
    assert_eq!((theirs.status, theirs.corruptions, theirs.leaks), (Some(0), 0, 0));
    assert_eq!(Counts::of(status, &document), Counts { status: Some(2), ..theirs }, "{document:#}");
    assert!(has(&document, "overlap"), "{document:#}");
}

/// Version 2 has no zero flag.
#[test]
fn a_zero_flag_in_version_2() {
    let folder = scratch();
    let path = folder.path().join("image");
    qemu::create(&path, "compat=0.10", "8M");
    qemu::io(&path, &["write -P 1 0 300k"]);
    let bytes = Bytes::read(&path);
    let entry = bytes.l2_entry(64 << 10);
    let value = bytes.u64(entry) | 1;
    bytes.with_u64(entry, value).write(&path);
    let (status, document) = json(&path, &["check"]);
    assert_eq!(qemu::counts(&path).status, Some(0));
    assert_eq!((status, has(&document, "l2-entry-zero-flag")), (Some(2), true), "{document:#}");
}

/// What is behind the end reads as zeroes: for QEMU, the disk is empty there.
#[test]
fn a_file_cut_inside_a_table() {
    for kind in [Kind::L1, Kind::L2] {
        let folder = scratch();
        let path = folder.path().join("image");
        // What is behind the cut has no refcounts either, as after a repair.
        let image = Qcow2::new(8 << 20).cluster_bits(12).data(4096, vec![1; 8192]).build().unwrap();
        let bytes = Bytes(image);
        let place = if kind == Kind::L1 { bytes.l1() } else { bytes.l2(0) };
        let clusters = bytes.0.len() / 4096;
        let mut bytes =
            (place / 4096 + 1..clusters).fold(bytes, |bytes, cluster| bytes.with_refcount(cluster * 4096, 0));
        if kind == Kind::L1 {
            // Of the L1 table nothing is left that names the L2 table.
            bytes = bytes.with_u64(place, 0);
        }
        cut(bytes, place + 8).write(&path);
        let (status, document) = json(&path, &["check"]);
        let theirs = qemu::counts(&path);
        println!("{kind:?}: QEMU {theirs:?}");
        assert_eq!(
            (theirs.corruptions, status, has(&document, "table-cut")),
            (0, Some(2), true),
            "{document:#}"
        );
    }
}

#[test]
fn what_qemu_does_not_open() {
    type Row = (&'static str, i32, fn(Bytes) -> Bytes);
    let rows: &[Row] = &[
        ("", 1, |bytes| cut(bytes, 0)),
        ("", 1, |bytes| cut(bytes, 71)),
        ("", 1, |bytes| bytes.with(at::MAGIC, b"QFI\xfa")),
        ("version", 2, |bytes| bytes.with_u32(at::VERSION, 4)),
        ("unknown-feature", 63, |bytes| bytes.with_u64(at::INCOMPATIBLE_FEATURES, 32)),
        ("unknown-feature", 63, |bytes| {
            let l1 = bytes.l1();
            bytes.with_u64(at::INCOMPATIBLE_FEATURES, 1 << 63).with_u64(l1, 3)
        }),
        ("cluster-bits", 2, |bytes| bytes.with_u32(at::CLUSTER_BITS, 8)),
        ("cluster-bits", 2, |bytes| bytes.with_u32(at::CLUSTER_BITS, 22)),
        ("crypt-method", 2, |bytes| bytes.with_u32(at::CRYPT_METHOD, 3)),
        ("crypto-header-missing", 2, |bytes| bytes.with_u32(at::CRYPT_METHOD, 2)),
        ("crypto-header-unexpected", 2, |bytes| bytes.with_area(&extension(magic::ENCRYPTION, &[0; 16]))),
        ("refcount-order", 2, |bytes| bytes.with_u32(at::REFCOUNT_ORDER, 7)),
        ("header-length", 2, |bytes| bytes.with_u32(at::HEADER_LENGTH, 96)),
        ("header-length", 2, |bytes| bytes.with_u32(at::HEADER_LENGTH, 4104)),
        ("l1-size", 2, |bytes| bytes.with_u32(at::L1_SIZE, 3)),
        ("l1-size", 2, |bytes| bytes.with_u32(at::L1_SIZE, (4 << 20) + 1)),
        ("unaligned", 2, |bytes| {
            let offset = bytes.l1() as u64 + 8;
            bytes.with_u64(at::L1_TABLE_OFFSET, offset)
        }),
        ("unaligned", 2, |bytes| bytes.with_u64(at::REFCOUNT_TABLE_OFFSET, 0x1008)),
        ("refcount-table-size", 2, |bytes| bytes.with_u32(at::REFCOUNT_TABLE_CLUSTERS, 2049)),
        ("unaligned", 2, |bytes| {
            let offset = bytes.u64(at::SNAPSHOTS_OFFSET) + 8;
            bytes.with_u64(at::SNAPSHOTS_OFFSET, offset)
        }),
        ("nb-snapshots", 2, |bytes| bytes.with_u32(at::NB_SNAPSHOTS, 65537)),
        ("snapshot-extra-data", 2, |bytes| {
            let entry = table(&bytes, Kind::SnapshotTable);
            bytes.with_u32(entry + 36, 1032)
        }),
        ("compression-type", 2, |bytes| bytes.with_u64(at::INCOMPATIBLE_FEATURES, 8)),
        ("compression-type", 2, |bytes| bytes.with(104, &[1])),
        ("compression-type", 2, |bytes| bytes.with_u64(at::INCOMPATIBLE_FEATURES, 8).with(104, &[2])),
        ("raw-external-bit", 2, |bytes| bytes.with_u64(at::AUTOCLEAR_FEATURES, 3)),
        ("snapshots-with-data-file", 2, |bytes| bytes.with_u64(at::INCOMPATIBLE_FEATURES, 4)),
        ("extended-l2-cluster", 2, |bytes| bytes.with_u64(at::INCOMPATIBLE_FEATURES, 16)),
        ("backing-file-size", 2, |bytes| {
            bytes.with_u64(at::BACKING_FILE_OFFSET, 600).with_u32(at::BACKING_FILE_SIZE, 1024)
        }),
        ("backing-file-place", 2, |bytes| {
            bytes.with_u64(at::BACKING_FILE_OFFSET, 5000).with_u32(at::BACKING_FILE_SIZE, 5)
        }),
        ("extension-overrun", 2, |bytes| bytes.with_area(&[0x12, 0x34, 0x56, 0x78, 0, 1, 0, 0])),
        ("extension-overrun", 2, |bytes| bytes.with_area(&[0, 0, 0, 0, 0, 1, 0, 0])),
        ("snapshots-offset", 2, |bytes| {
            bytes.with_u32(at::NB_SNAPSHOTS, 0).with_u64(at::SNAPSHOTS_OFFSET, (1 << 63) + 0x1_0000)
        }),
        ("bitmap-directory-entry", 2, |bytes| {
            let at = bytes.bitmap_directory() + 8;
            let entries = bytes.u32(at) + 1;
            bytes.with_u32(at, entries)
        }),
        ("bitmap-directory-entry", 2, |bytes| bytes.with_u64(at::SIZE, 0)),
        ("bitmap-directory-entry", 2, |bytes| {
            // In use, so that its size has no meaning; but QEMU does not take one of more than 512 MiB.
            let (entry, end) = (bytes.bitmap_directory(), bytes.0.len());
            let bytes = bytes.with(end, &vec![0; 2 << 20]);
            bytes.with_u32(entry + 8, (512 << 20) / 4096 + 1).with_u32(entry + 12, 1)
        }),
    ];
    for (number, (code, status, change)) in rows.iter().enumerate() {
        let folder = scratch();
        let path = base(folder.path());
        change(Bytes::read(&path)).write(&path);
        assert!(qemu::try_check(&path).is_err(), "{number}, {code}: QEMU does not open it");
        let run = qcow2(&path, &["check", "--json"]).expect(*status);
        if *status == 1 {
            assert!(!run.stderr.is_empty(), "{run}");
            continue;
        }
        assert!(run.out().contains(&format!("\"{code}\"")), "{number}, {code}: {run}");
    }
}

/// Snapshots with the longest IDs and names, all the same: 511 of them are in 64 MiB, 512 are not.
#[test]
fn a_snapshot_table_of_64_mib() {
    const ENTRY: usize = 131_112;
    for (snapshots, is_opened) in [(511, true), (512, false)] {
        let folder = scratch();
        let path = base(folder.path());
        let mut table = vec![0; snapshots * ENTRY];
        for entry in table.chunks_mut(ENTRY) {
            entry[12..16].fill(0xff);
        }
        let bytes = Bytes::read(&path);
        let place = bytes.0.len().next_multiple_of(4096);
        let bytes = bytes.with(place, &table).with_u64(at::SNAPSHOTS_OFFSET, place as u64);
        bytes.with_u32(at::NB_SNAPSHOTS, u32::try_from(snapshots).unwrap()).write(&path);
        assert_eq!(qemu::try_check(&path).is_ok(), is_opened);
        let run = qcow2(&path, &["check", "--json"]).expect(2);
        let document: Value = serde_json::from_str(&run.out()).unwrap();
        assert_eq!(has(&document, "snapshot-table-size"), !is_opened);
        assert!(has(&document, "snapshot-id"));
        assert!(run.out().len() < 1 << 20, "the IDs are not shown in full: {} bytes", run.out().len());
    }
}

/// QEMU's check of an image that is encrypted with LUKS, given the passphrase.
fn check_luks(path: &Path) -> Run {
    let secret = format!("secret,id=s,data={}", Luks::PASSPHRASE);
    let options = format!("driver=qcow2,encrypt.key-secret=s,file.filename={}", text(path));
    try_img(&["check", "--output=json", "--object", &secret, "--image-opts", &options])
}

/// Whether it opens one; what it says where not.
fn opens_luks(path: &Path) -> Result<(), String> {
    let run = check_luks(path);
    if run.status.success() { Ok(()) } else { Err(run.err()) }
}

#[test]
fn a_luks_header_that_qemu_refuses() {
    const SLOT_3: usize = 208 + 3 * 48;
    // The code, the field, where in it, what is written there, and what QEMU says.
    let rows: &[(&str, usize, usize, &[u8], &str)] = &[
        ("luks-magic", 0, 0, b"XXXX", "not in LUKS format"),
        ("luks-magic", 0, 5, &[0], "not in LUKS format"),
        ("luks-version", 6, 1, &[2], "version 2 is not supported"),
        ("luks-cipher-name", 8, 0, &[b'a'; 32], "not NUL terminated"),
        ("luks-cipher-name", 8, 0, b"aex", "'aex'"),
        ("luks-cipher-mode", 40, 0, &[b'a'; 32], "not NUL terminated"),
        ("luks-cipher-mode", 40, 0, b"ebc", "'ebc' not supported"),
        ("luks-hash", 72, 0, &[b'a'; 32], "not NUL terminated"),
        ("luks-hash", 72, 0, b"sha257", "'sha257' not supported"),
        ("luks-payload-offset", 104, 0, &[0, 0, 0, 7], "payload is overlapping with the header"),
        ("luks-payload-offset", 104, 0, &2055u32.to_be_bytes(), "overlapping with the encrypted payload"),
        ("luks-key-bytes", 108, 3, &[31], "key size 31"),
        ("luks-digest-iterations", 164, 0, &[0; 4], "iteration count is zero"),
        ("luks-slot-iterations", 212, 0, &[0; 4], "iteration count is zero"),
        ("luks-slot-state", SLOT_3, 0, &0x1234_5678u32.to_be_bytes(), "state (active/disable) is corrupted"),
        ("luks-slot-place", SLOT_3 + 40, 0, &[0, 0, 0, 7], "overlapping"),
        ("luks-slot-place", SLOT_3 + 40, 2, &[0xff; 2], "overlapping with the encrypted payload"),
        ("luks-slot-overlap", SLOT_3 + 40, 0, &[0, 0, 0, 8], "are overlapping in the header"),
        ("luks-slot-stripes", SLOT_3 + 44, 0, &[0xff; 4], "stripes -1 != 4000"),
    ];
    let folder = scratch();
    let path = folder.path().join("image");
    let image = Bytes(Qcow2::new(1 << 20).cluster_bits(12).luks(Luks::new(1)).build().unwrap());
    let pointer = image.extension(magic::ENCRYPTION).unwrap().start;
    let start = usize::try_from(image.u64(pointer)).unwrap();
    image.write(&path);
    assert_eq!(opens_luks(&path), Ok(()));
    qcow2(&path, &["check"]).expect(0);
    for &(code, field, at, new, words) in rows {
        let at = field + at;
        image.clone().with(start + at, new).write(&path);
        let theirs = opens_luks(&path).expect_err(words);
        assert!(theirs.contains(words), "{code}, {at}: {theirs}");
        let (status, document) = json(&path, &["check"]);
        assert_eq!(
            (status, &document["extra-corruptions"]),
            (Some(2), &1.into()),
            "{code}, {at}: {document:#}"
        );
        let findings = document["findings"].as_array().unwrap();
        let finding = findings.iter().find(|finding| finding["code"] == code);
        let offset = finding.and_then(|finding| finding["offset"].as_u64());
        assert_eq!(offset, Some((start + field) as u64), "{code}, {at}: {document:#}");
    }
    // An unused slot so far behind the end that QEMU's sum of offset and length is a small number: it opens the image.
    image.clone().with(start + SLOT_3 + 40, &[0xff; 4]).write(&path);
    assert_eq!(opens_luks(&path), Ok(()));
    let (status, document) = json(&path, &["check"]);
    assert_eq!((status, has(&document, "luks-slot-place")), (Some(2), true), "{document:#}");
    image.clone().with_u64(pointer, start as u64 + 512).write(&path);
    let theirs = opens_luks(&path).unwrap_err();
    assert!(theirs.contains("not a multiple of cluster size"), "{theirs}");
    let (status, document) = json(&path, &["check"]);
    assert_eq!((status, has(&document, "crypto-header-unaligned")), (Some(2), true), "{document:#}");
}

/// QEMU notices when the guest reads.
#[test]
fn a_cluster_of_the_data_file_that_is_elsewhere() {
    for raw in ["on", "off"] {
        let folder = scratch();
        let path = folder.path().join("image");
        let options = format!("data_file={}/data,data_file_raw={raw}", text(folder.path()));
        qemu::create(&path, &options, "1M");
        qemu::io(&path, &["write -P 1 0 128k"]);
        let bytes = Bytes::read(&path);
        let table = bytes.l2(0);
        let (status, _) = json(&path, &["check"]);
        assert_eq!(status, Some(0));
        bytes.with_u64(table, COPIED | 0x5_0000).write(&path);
        assert_eq!(qemu::counts(&path).status, Some(0));
        let mut io = qemu::program("qemu-io");
        let theirs = run(io.args(["-r", "-f", "qcow2", "-c", "read 0 64k", text(&path)]), b"").err();
        assert!(theirs.contains("does not match guest cluster offset"), "{theirs}");
        let (status, document) = json(&path, &["check"]);
        assert_eq!((status, &document["extra-corruptions"]), (Some(2), &1.into()), "{document:#}");
        assert!(has(&document, "data-misplaced"), "{document:#}");
    }
}

#[test]
fn a_wrong_magic_is_checked_by_force() {
    let folder = scratch();
    let path = base(folder.path());
    Bytes::read(&path).with(at::MAGIC, b"QFI\xfa").write(&path);
    qcow2(&path, &["check"]).expect(1);
    qcow2(&path, &["check", "--force"]).expect(2);
}

/// Files that are not there, and keys that nobody gave, are no fault of the image.
#[test]
fn what_qemu_does_not_open_and_is_sound() {
    let folder = scratch();
    let path = folder.path().join("image");
    qemu::img(&[
        "create",
        "-q",
        "-u",
        "-f",
        "qcow2",
        "-b",
        "/nonexistent/base",
        "-F",
        "raw",
        text(&path),
        "1M",
    ]);
    assert!(qemu::try_check(&path).unwrap_err().err().contains("Could not open backing file"));
    qcow2(&path, &["check"]).expect(0);

    let image = Qcow2::new(1 << 20).data_file("/nonexistent/data", false).data(0, b"data").build().unwrap();
    Bytes(image).write(&path);
    assert!(qemu::try_check(&path).unwrap_err().err().contains("Could not open '/nonexistent/data'"));
    qcow2(&path, &["check"]).expect(0);

    qemu::create(&path, "", "1M");
    Bytes::read(&path).with_u32(at::CRYPT_METHOD, 1).write(&path);
    assert!(qemu::try_check(&path).unwrap_err().err().contains("'encrypt.key-secret' is required"));
    qcow2(&path, &["check"]).expect(0);
}

/// Where it cannot read refcounts, QEMU says that its check failed; all counts are the same.
#[test]
fn refcounts_that_cannot_be_read() {
    let (_folder, path, ours, document) = patched(|bytes| {
        let table = bytes.refcount_table();
        let block = bytes.u64(table) | COPIED;
        bytes.with_u64(table, block)
    });
    let theirs = qemu::counts(&path);
    assert!(theirs.check_errors > 0 && theirs.status == Some(1), "{theirs:?}");
    assert_eq!(ours, Counts { status: Some(2), ..theirs }, "{document:#}");
}

/// More than the address space of a process: it cannot be mapped. Few file systems can have such a file.
#[test]
fn a_file_of_256_tib() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = folder.path().join("image");
    qemu::create(&path, "cluster_size=2M,refcount_bits=1", "1M");
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(1 << 48).expect("/dev/shm is a tmpfs");
    assert_eq!(qemu::counts(&path).status, Some(0));
    let run = qcow2(&path, &["check"]).expect(1);
    assert!(run.err().contains("cannot map the 281474976710656 bytes"), "{run}");
}

/// An empty L2 table before leaked clusters, one with empty entries in its midst, and one that nobody refers to any more.
#[test]
fn leaks_that_are_lost_mappings() {
    for code in ["empty-table", "lost-entries", "lost-table"] {
        let folder = scratch();
        let path = folder.path().join("image");
        qemu::create(&path, "", "1G");
        qemu::io(&path, &["write -P 1 0 10M"]);
        let bytes = Bytes::read(&path);
        let bytes = match code {
            "empty-table" => {
                let table = bytes.l2(0);
                bytes.with(table, &vec![0; 65536])
            }
            "lost-entries" => {
                let table = bytes.l2(0);
                bytes.with(table + 64 * 8, &[0; 64 * 8])
            }
            _ => {
                let entry = bytes.l1();
                bytes.with_u64(entry, 0)
            }
        };
        bytes.write(&path);
        let (status, document) = json(&path, &["check"]);
        let theirs = qemu::counts(&path);
        assert_eq!(theirs.status, Some(3));
        assert_eq!(Counts::of(status, &document), Counts { status: Some(2), ..theirs });
        assert!(document["lost-mappings"].as_u64() > Some(0), "{document:#}");
        assert!(has(&document, code), "{document:#}");
        assert!(qcow2(&path, &["check"]).out().contains("do not free the leaks"));
    }
}

/// A copy of an image that was interrupted at its last table.
#[test]
fn leaks_whose_table_was_cut_off() {
    for kept in [0, 4096] {
        let folder = scratch();
        let path = folder.path().join("image");
        qemu::create(&path, "", "4G");
        qemu::io(&path, &["write -P 1 0 4k", "write -P 1 600M 10M"]);
        let bytes = Bytes::read(&path);
        let (table, end) = (bytes.l2(1), bytes.0.len());
        let entries = bytes.0[table..][..kept].to_vec();
        // The table is the last cluster now, and its old place is free.
        let refcount = bytes.place(bytes.refcount_table());
        let bytes = bytes.clone().with_u64(bytes.l1() + 8, end as u64 | COPIED);
        let mut bytes =
            bytes.with(refcount + table / 65536 * 2, &[0; 2]).with(refcount + end / 65536 * 2, &[0, 1]);
        bytes.0.extend(entries);
        bytes.write(&path);
        let (status, document) = json(&path, &["check"]);
        let theirs = qemu::counts(&path);
        assert_eq!(Counts::of(status, &document), Counts { status: Some(2), ..theirs });
        assert_eq!((theirs.leaks, &document["lost-mappings"]), (160, &1.into()), "{document:#}");
        let missing = document["findings"].as_array().unwrap().iter();
        let missing: Vec<_> = missing.filter(|finding| finding["code"] == "missing-table").collect();
        assert!(missing.len() == 1 && missing[0]["guest"][0]["start"] == 512 << 20, "{document:#}");
        assert!(qcow2(&path, &["check"]).out().contains("do not free the leaks"));
    }
}

/// The same of fewer entries may be what a crash left.
#[test]
fn leaks_that_may_be_lost_mappings() {
    let folder = scratch();
    let path = folder.path().join("image");
    qemu::create(&path, "", "1G");
    qemu::io(&path, &["write -P 1 0 10M"]);
    let bytes = Bytes::read(&path);
    let table = bytes.l2(0);
    bytes.with(table + 64 * 8, &[0; 32 * 8]).write(&path);
    let (status, document) = json(&path, &["check"]);
    assert_eq!(Counts::of(status, &document), qemu::counts(&path));
    assert!(document["findings"][1]["code"] == "unlinked-clusters", "{document:#}");
    assert!(qcow2(&path, &["check"]).out().contains("may be what lost entries named"));
}

/// A directory that is not named any more has tables, which are those of no disk.
#[test]
fn bitmaps_that_were_dropped_are_leaks() {
    for way in [["del-header-ext", "0x23852875"].as_slice(), &["set-header", "autoclear_features", "0"]] {
        let folder = scratch();
        let path = folder.path().join("image");
        qemu::create(&path, "cluster_size=4k", "4M");
        qemu::img(&["bitmap", "--add", text(&path), "b0"]);
        qemu::io(&path, &["write -P 1 0 1M"]);
        qcow2(&path, way).expect(0);
        let (status, document) = json(&path, &["check"]);
        assert_eq!(Counts::of(status, &document), qemu::counts(&path));
        assert!(status == Some(3) && document["lost-mappings"] == 0, "{document:#}");
    }
}

/// A format's name that QEMU takes, and one that it does not.
#[test]
fn a_backing_format_that_is_too_long() {
    for (length, status) in [(15, 0), (16, 2)] {
        let folder = scratch();
        let path = folder.path().join("image");
        qemu::create(&path, "", "1M");
        qcow2(&path, &["add-header-ext", "0xE2792ACA", &"a".repeat(length)]).expect(0);
        let (found, document) = json(&path, &["check"]);
        assert_eq!((found, has(&document, "backing-format-size")), (Some(status), status == 2), "{length}");
        assert_eq!(try_img(&["check", "-f", "qcow2", text(&path)]).status.success(), status == 0);
    }
}

/// QEMU loads bitmaps by their names.
#[test]
fn two_bitmaps_of_one_name() {
    let folder = scratch();
    let path = folder.path().join("image");
    qemu::create(&path, "cluster_size=4k", "4M");
    for name in ["aa", "bb"] {
        qemu::img(&["bitmap", "--add", text(&path), name]);
    }
    let bytes = Bytes::read(&path);
    let second = bytes.bitmap_directory() + 32 + 24;
    assert_eq!(&bytes.0[second..][..2], b"bb");
    bytes.clone().with(second, b"ab").write(&path);
    assert_eq!(json(&path, &["check"]).0, Some(0));
    let bytes = bytes.with(second, b"aa");
    bytes.write(&path);
    let (status, document) = json(&path, &["check"]);
    assert_eq!((status, has(&document, "bitmap-name")), (Some(2), true), "{document:#}");
    assert!(try_img(&["check", "-f", "qcow2", text(&path)]).err().contains("already exists"));
    let explained = qcow2(&path, &["explain", &second.to_string()]).expect(0).out();
    assert!(explained.contains("name: 'aa'") && explained.contains("[bitmap-name]"), "{explained}");
    // For QEMU, names end before a zero.
    bytes.clone().with(second - 32, b"a\0").with(second, b"a\x01").write(&path);
    assert_eq!(json(&path, &["check"]).0, Some(0));
    bytes.clone().with(second - 32, b"a\0").with(second - 6, &[0, 1]).write(&path);
    assert!(has(&json(&path, &["check"]).1, "bitmap-name"));
    assert!(try_img(&["check", "-f", "qcow2", text(&path)]).err().contains("already exists"));
    // Bitmaps that are not as the disk is are not loaded.
    bytes.with_u64(at::AUTOCLEAR_FEATURES, 0).write(&path);
    let (status, document) = json(&path, &["check"]);
    assert_eq!((status, document["extra-corruptions"].as_u64()), (Some(3), Some(0)), "{document:#}");
    assert_eq!(qemu::counts(&path).status, Some(3));
}

/// The length of a LUKS header is signed for QEMU, which counts nothing of one below 0.
#[test]
fn a_luks_header_of_8_eib() {
    let folder = scratch();
    let path = folder.path().join("image");
    let image = Bytes(Qcow2::new(1 << 20).cluster_bits(12).luks(Luks::new(1)).build().unwrap());
    let length = image.extension(magic::ENCRYPTION).unwrap().start + 8;
    for high in [0x7f, 0x80] {
        image.clone().with(length, &[high]).write(&path);
        let (status, document) = json(&path, &["check"]);
        let run = check_luks(&path);
        let theirs: Value =
            serde_json::from_slice(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run}"));
        let count = |document: &Value, key: &str| document[key].as_u64().unwrap_or(0);
        for key in ["corruptions", "leaks"] {
            assert_eq!(count(&document, key), count(&theirs, key), "{high:#x}: {document:#}, {theirs:#}");
        }
        assert!(status == Some(2) && has(&document, "crypto-header-outside"), "{document:#}");
    }
}

/// Refcount blocks behind what QEMU reads are errors of the check; before that, they lie outside the file.
#[test]
fn refcount_blocks_where_nobody_reads() {
    for block in [0x7fff_ffff_bfff_0000, 0x7fff_ffff_c000_0000u64] {
        let folder = scratch();
        let path = folder.path().join("image");
        qemu::create(&path, "", "1M");
        let bytes = Bytes::read(&path);
        let table = bytes.u64(at::REFCOUNT_TABLE_OFFSET) as usize;
        bytes.with_u64(table, block).write(&path);
        let (_, document) = json(&path, &["check"]);
        let (ours, theirs) = (Counts::of(None, &document), qemu::counts(&path));
        assert_eq!(ours, Counts { status: None, ..theirs }, "{block:#x}");
    }
}

/// The advice is for what was found, and is true: what `qemu-img check -r all` is said to repair, it repairs.
#[test]
fn what_to_do_next() {
    type Row = (&'static str, bool, fn(Bytes) -> Bytes);
    let rows: &[Row] = &[
        ("qemu-img may not open it", false, |bytes| bytes.with_u32(at::VERSION, 4)),
        ("qemu-img may not open it", false, |bytes| bytes.with_u32(at::L1_SIZE, 3).with_refcount(0, 0)),
        ("repairs refcounts", true, |bytes| bytes.with_refcount(0, 0)),
        ("repairs refcounts", true, |bytes| bytes.with_u64(at::INCOMPATIBLE_FEATURES, 1)),
        ("repairs refcounts", true, |bytes| bytes.with_u64(at::INCOMPATIBLE_FEATURES, 2)),
        ("does not mend this", false, |bytes| {
            let table = bytes.l2(0);
            onto(bytes, table)
        }),
        ("leaves clusters with two owners", false, |bytes| {
            let table = bytes.l2(0);
            onto(bytes, table).with_refcount(table, 1)
        }),
        ("does not mend this", false, |bytes| {
            let first = table(&bytes, Kind::SnapshotTable);
            let id = first + 40 + bytes.u32(first + 36) as usize;
            bytes.with(id, b"2")
        }),
    ];
    for (number, (advice, repairs, change)) in rows.iter().enumerate() {
        let folder = scratch();
        let path = base_with(folder.path(), false);
        change(Bytes::read(&path)).write(&path);
        let found = qcow2(&path, &["check"]).expect(2).out();
        assert!(found.lines().nth(1).unwrap().contains(advice), "{number}: {found}");
        assert_eq!(is_repaired(&path), *repairs, "{number}: {found}");
    }
}

/// Whether `qemu-img check -r all` makes an image clean, and leaves its two snapshots.
fn is_repaired(path: &Path) -> bool {
    let repaired = try_img(&["check", "-q", "-f", "qcow2", "-r", "all", text(path)]);
    let is_clean = repaired.status.success() && qcow2(path, &["check"]).status.success();
    is_clean && Bytes::read(path).u32(at::NB_SNAPSHOTS) == 2
}

/// Of an image with bitmaps, QEMU's repair loses the snapshots; without the bitmaps, it keeps them.
#[test]
fn a_repair_that_loses_the_snapshots() {
    let folder = scratch();
    let path = base(folder.path());
    let bytes = Bytes::read(&path);
    let data = bytes.host(20 * 4096);
    let damaged = bytes.with_refcount(data, 0);
    damaged.write(&path);
    let found = qcow2(&path, &["check"]).expect(2).out();
    assert!(found.lines().nth(1).unwrap().contains("loses all snapshots"), "{found}");
    assert!(!is_repaired(&path), "QEMU keeps the snapshots: the advice has served");
    damaged.write(&path);
    qemu::img(&["bitmap", "--remove", text(&path), "b0"]);
    let found = qcow2(&path, &["check"]).expect(2).out();
    assert!(found.lines().nth(1).unwrap().contains("may lose data where"), "{found}");
    assert!(is_repaired(&path), "{found}");
}

/// What looks odd, and is the same in both.
#[test]
fn what_is_the_same_in_both() {
    type Row = (i32, fn(Bytes) -> Bytes);
    let rows: &[Row] = &[
        // No refcount table: all clusters have refcount 0.
        (2, |bytes| bytes.with_u64(at::REFCOUNT_TABLE_OFFSET, 0)),
        (2, |bytes| bytes.with_u32(at::REFCOUNT_TABLE_CLUSTERS, 0)),
        // Bitmaps that the extension does not name any more.
        (3, |bytes| bytes.with_area(&[])),
        // Bitmaps that are not as the disk is.
        (3, |bytes| bytes.with_u64(at::AUTOCLEAR_FEATURES, 0)),
        // The last snapshot's entry is longer than the file: it goes on with zeroes.
        (2, |bytes| {
            let entry = table(&bytes, Kind::SnapshotTable);
            bytes.with(entry + 14, &[0xff, 0xff])
        }),
        // Behind the last cluster, a part of another.
        (0, |bytes| {
            let end = bytes.0.len();
            bytes.with(end + 99, &[1])
        }),
        (0, |bytes| {
            let end = bytes.0.len();
            cut(bytes, end - 1)
        }),
        (0, |bytes| bytes.with_u64(80, 1 << 63)),
        // A disk that ends one byte behind a cluster.
        (0, |bytes| bytes.with_u64(at::SIZE, (8 << 20) - 4095)),
    ];
    for (number, (status, change)) in rows.iter().enumerate() {
        let (_folder, path, ours, document) = patched(change);
        let theirs = qemu::counts(&path);
        assert_eq!(theirs.status, Some(*status), "{number}: {theirs:?}");
        let extra =
            document["extra-corruptions"].as_u64() > Some(0) || document["lost-mappings"].as_u64() > Some(0);
        let status = if extra { ours.status } else { theirs.status };
        assert_eq!(ours, Counts { status, ..theirs }, "{number}: {document:#}");
    }
}
