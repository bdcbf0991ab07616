//! `map`, byte for byte as `qemu-img map` prints it.

use crate::support::bytes::{Bytes, at};
use crate::support::images::{SMALLEST, Shape, backed, for_each, shapes, small};
use crate::support::mutate::{Kind, damaged, sources};
use crate::support::program::{json, qed};
use crate::support::qemu;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use test_support::process::Run;
use test_support::random::{Random, seed, setting};
use test_support::scratch::{scratch, text};
use test_support::threads;

fn theirs(image: &Path, output: &str) -> Run {
    qemu::try_img(&["map", "-f", "qed", &format!("--output={output}"), text(image)])
}

#[track_caller]
fn same(image: &Path) {
    for output in ["json", "human"] {
        let theirs = theirs(image, output).expect(0);
        let ours = qed(image, &["map", "--output", output]).expect(0);
        assert_eq!(ours.out(), theirs.out(), "{output}: {ours}");
    }
}

#[test]
fn every_shape() {
    for_each(&shapes(), |shape, image| {
        // QEMU counts bytes of neighbouring clusters in 32 bits, and aborts where these come to 0.
        if shape.span() < 1 << 32 || theirs(image, "json").status.code().is_some() {
            same(image);
        }
        // The document: the disk from its start to its end.
        let (_, document) = json(image, &["map"]);
        let mut end = 0;
        for extent in document["extents"].as_array().unwrap() {
            assert_eq!(extent["start"], end, "{document:#}");
            end += extent["length"].as_u64().unwrap();
        }
        assert_eq!(end, shape.size());
    });
}

#[test]
fn disks_of_odd_sizes() {
    let folder = scratch();
    let image = folder.path().join("image");
    for size in [512, 4096, 4608, SMALLEST.span(), SMALLEST.span() + 512] {
        SMALLEST.create(&image, "", size);
        same(&image);
        qemu::io(&image, &[&format!("write {} 512", size - 512)]);
        same(&image);
    }
    // One extent of no length.
    SMALLEST.create(&image, "", 0);
    same(&image);
}

/// Of a backing file, ours says what the image says: it is not looked into.
#[test]
fn over_a_backing_file() {
    let folder = scratch();
    let image = backed(folder.path(), "image");
    let run = qed(&image, &["map", "--output", "json"]).expect(0);
    assert!(run.err().contains("the backing file is not looked into"), "{run}");
    let ours: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    let theirs: serde_json::Value = serde_json::from_slice(&theirs(&image, "json").expect(0).stdout).unwrap();
    let own = |map: &serde_json::Value| -> Vec<_> {
        let extents = map.as_array().unwrap().iter();
        extents.filter(|extent| extent["present"] == true && extent["depth"] == 0).cloned().collect()
    };
    assert_eq!(own(&ours), own(&theirs));
    let rest = ours.as_array().unwrap().iter().filter(|extent| extent["present"] == false);
    assert!(rest.clone().count() > 1 && rest.clone().all(|extent| extent["zero"] == false), "{ours:#}");
}

/// Where an entry is wrong, QEMU maps what is before it, and ours goes on to the end; both fail.
#[test]
fn damaged_images() {
    let seed = seed();
    let sources = sources();
    let folder = scratch();
    let mapped = AtomicU64::new(0);
    threads::each(setting("VDISK_QED_MAPS", 150), |number| {
        let because = format!("VDISK_SEED={seed}, image {number}");
        let image = folder.path().join(format!("image-{number}"));
        damaged(&sources, &mut Random::new(seed ^ (number << 20)), Kind::Tables).write(&image);
        let ours = qed(&image, &["map", "--output", "json"]);
        let theirs = theirs(&image, "json");
        if theirs.status.success() {
            mapped.fetch_add(1, Ordering::Relaxed);
            assert_eq!((ours.status.code(), ours.out()), (Some(0), theirs.out()), "{because}: {ours}");
        } else {
            assert_eq!(ours.status.code(), Some(1), "{because}: QEMU: {theirs}, ours: {ours}");
        }
        std::fs::remove_file(&image).unwrap();
    });
    let mapped = mapped.into_inner();
    println!("{mapped} of them mapped");
    assert!(mapped > 20, "{mapped}");
}

#[test]
fn what_is_wrong_is_told_and_the_rest_is_mapped() {
    let folder = scratch();
    let image = small(folder.path(), "image");
    let mut bytes = Bytes::read(&image);
    let entry = bytes.l2_entry(0);
    bytes.put_u64(entry + 8, 0x3001);
    bytes.write(&image);
    let run = qed(&image, &["map", "--json"]).expect(1);
    let document: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    let extents = document["extents"].as_array().unwrap();
    let wrong = &extents[1];
    assert_eq!(
        (&wrong["start"], &wrong["length"], &wrong["kind"], &wrong["why"]),
        (&4096.into(), &4096.into(), &"invalid".into(), &"unaligned".into())
    );
    let end =
        extents.last().map(|extent| extent["start"].as_u64().unwrap() + extent["length"].as_u64().unwrap());
    assert_eq!(end, Some(SMALLEST.size()));
    assert!(run.err().contains("guest offset 0x1000"), "{run}");
}

/// QEMU does not open tables of one cluster.
#[test]
fn a_shape_that_qemu_does_not_open() {
    let folder = scratch();
    let image = folder.path().join("image");
    let shape = Shape::new(4096, 1);
    let mut bytes = crate::support::images::by_hand(shape, 2 * shape.span(), 3);
    let entry = bytes.l2_entry(0x3000);
    bytes.put_u64(entry, 1);
    bytes.write(&image);
    let (_, document) = json(&image, &["map"]);
    let extents: Vec<_> = document["extents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|extent| (extent["kind"].as_str().unwrap(), extent["length"].as_u64().unwrap()))
        .collect();
    assert_eq!(extents, [("data", 0x3000), ("zero", 0x1000), ("unallocated", 2 * shape.span() - 0x4000)]);
    assert_eq!(bytes.u64(at::IMAGE_SIZE), 2 * shape.span());
}
