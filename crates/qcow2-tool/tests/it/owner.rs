//! `owner`: who claims a byte of the file.

use crate::show::{document, rich, write};
use crate::support::bytes::Bytes;
use crate::support::program::qcow2;
use serde_json::json;
use test_support::scratch::scratch;
use vdisk_format::generate::Qcow2;

const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

#[test]
fn every_byte_of_a_sound_image_has_the_owners_that_its_refcount_says() {
    let folder = scratch();
    let image = rich(folder.path());
    let length = Bytes::read(&image).0.len();
    for at in (0..length).step_by(512 * 3 + 100) {
        let found = document(&image, &["owner", &at.to_string()]);
        assert_eq!(found["references"], found["refcount"], "{at:#x}: {found:#}");
        assert!(found["state"] == "used" || found["state"] == "free", "{at:#x}: {found:#}");
    }
}

#[test]
fn data_that_a_snapshot_shares_names_both() {
    let folder = scratch();
    let image = rich(folder.path());
    let bytes = Bytes::read(&image);
    let table = bytes.u64(usize::try_from(bytes.u64(40)).unwrap()) & OFFSET;
    let data = bytes.u64(usize::try_from(table).unwrap()) & OFFSET;
    let found = document(&image, &["owner", &(data + 5).to_string()]);
    assert_eq!(found["state"], "used", "{found:#}");
    assert_eq!(found["claims"][0]["guest"], json!({ "start": 0, "end": 512 }));
    let names: Vec<_> = found["snapshots"].as_array().unwrap().iter().map(|named| &named["name"]).collect();
    assert!(names.contains(&&json!("first")), "{found:#}");
    let text = qcow2(&image, &["owner", &data.to_string()]).expect(0).out();
    assert!(text.contains("as it should be") && text.contains("disk 0x0-0x200"), "{text}");
    assert!(text.contains("snapshot 0: ID 1, name 'first'"), "{text}");
}

#[test]
fn two_that_claim_one_cluster_are_both_named() {
    let folder = scratch();
    let image = write(folder.path(), "image", &Qcow2::new(1 << 20).cluster_bits(9).data(0, vec![1; 3000]));
    let bytes = Bytes::read(&image);
    let table = usize::try_from(bytes.u64(usize::try_from(bytes.u64(40)).unwrap()) & OFFSET).unwrap();
    let block = bytes.u64(usize::try_from(bytes.u64(48)).unwrap());
    let data = bytes.u64(table + 8) & OFFSET;
    bytes.with_u64(table + 8, block | 1 << 63).write(&image);
    let text = qcow2(&image, &["owner", &format!("{block:#x}")]).expect(0).out();
    assert!(text.contains("2 claims, refcount 1, 2 references: too low: a corruption"), "{text}");
    assert!(text.contains("  refcount block 0; ") && text.contains("entry 1), disk 0x200-0x400"), "{text}");
    // And the cluster that nobody has any more.
    let text = qcow2(&image, &["owner", &data.to_string()]).expect(0).out();
    assert!(text.contains("nobody, refcount 1, 0 references: a leak"), "{text}");
}

/// What a check counts, and what it does not.
#[test]
fn references_are_those_of_a_check() {
    let folder = scratch();
    // A refcount block behind the file reads as zeroes.
    let image = write(folder.path(), "image", &Qcow2::new(1 << 20).cluster_bits(9).data(0, vec![1; 3000]));
    let bytes = Bytes::read(&image);
    bytes.clone().with_u64(bytes.place(48), 1 << 40).write(&image);
    let l1 = bytes.u64(40).to_string();
    let text = qcow2(&image, &["owner", &l1]).expect(0).out();
    assert!(text.contains("refcount 0, 1 reference: too low: a corruption"), "{text}");
    assert!(
        qcow2(&image, &["explain", &l1])
            .expect(0)
            .out()
            .contains("wrong: bit 63 is set, and the refcount is 0")
    );
    // An entry of compressed data with subclusters leads nowhere.
    let packed = Qcow2::new(1 << 20).cluster_bits(14).extended_l2(true).compressed(0, vec![1; 1 << 14]);
    let image = write(folder.path(), "packed", &packed);
    let bytes = Bytes::read(&image);
    let table = usize::try_from(bytes.u64(bytes.place(40)) & OFFSET).unwrap();
    let data = (bytes.u64(table) & ((1 << 56) - 1)).to_string();
    assert_eq!(document(&image, &["owner", &data])["state"], "used");
    bytes.with_u64(table + 8, 1).write(&image);
    assert_eq!(document(&image, &["owner", &data])["state"], "leaked");
}

#[test]
fn places_that_are_nobodys() {
    let folder = scratch();
    let image = rich(folder.path());
    let bytes = Bytes::read(&image);
    let length = bytes.0.len();
    let past = qcow2(&image, &["owner", &(length + 512).to_string()]).expect(0).out();
    assert!(
        past.contains("past the end of the file") && past.contains(&format!("ends at {length:#x}")),
        "{past}"
    );
    let last = qcow2(&image, &["owner", "0xffffffffffffffff"]).expect(0).out();
    assert!(last.contains("past the end of the file"), "{last}");
    // The rest of a cluster that a table does not fill.
    let l1 = bytes.u64(40);
    let rest = qcow2(&image, &["owner", &(l1 + 511).to_string()]).expect(0).out();
    assert!(
        rest.contains("nobody, but others have parts of the cluster") && rest.contains("  L1 table; "),
        "{rest}"
    );
}

#[test]
fn offsets_may_have_a_suffix_and_must_be_offsets() {
    let folder = scratch();
    let image = rich(folder.path());
    for command in ["owner", "explain"] {
        let text = |offset: &str| qcow2(&image, &[command, offset]).expect(0).out();
        assert_eq!(text("1k"), text("0x400"), "{command}");
        for wrong in ["", "k", "1kk", "16E", "0x1k"] {
            let refused = qcow2(&image, &[command, wrong]).expect(64);
            assert!(refused.err().contains("expected bytes"), "{refused}");
        }
    }
}

#[test]
fn the_external_data_file() {
    let folder = scratch();
    let image = Qcow2::new(1 << 20).cluster_bits(12).data_file("image.data", true).data(0x3000, *b"data");
    let image = write(folder.path(), "image", &image);
    let text = qcow2(&image, &["owner", "0x3007"]).expect(0).out();
    assert!(text.contains("in the external data file 'image.data', at 0x3007 of which there is:"), "{text}");
    assert!(text.contains("entry 3), disk 0x3000-0x4000"), "{text}");
    assert_eq!(document(&image, &["owner", "0x3007"])["data_file"], "image.data");
    let none = qcow2(&image, &["owner", "0x9000"]).expect(0).out();
    assert!(none.contains("nothing of the disk"), "{none}");
}
