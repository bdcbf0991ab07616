//! Images whose tables are wrong.

use super::{generated, made, qemu, theirs};
use crate::support::bytes::{Bytes, at};
use crate::support::program::qcow2;
use serde_json::Value;
use std::path::Path;
use test_support::random::{Random, seed, setting};
use test_support::scratch::{scratch, text};
use vdisk_format::generate::{Qcow2, Qed};

/// Offsets of the entries of the L1 table, and of the L2 tables, as 64 bits each.
fn entries(bytes: &Bytes) -> (Vec<usize>, Vec<usize>) {
    let (l1, size) = (bytes.u64(at::L1_TABLE_OFFSET) as usize, bytes.u32(at::L1_SIZE) as usize);
    let l1: Vec<usize> = (0..size).map(|index| l1 + index * 8).collect();
    let tables = l1.iter().map(|&at| (bytes.u64(at) & 0x00ff_ffff_ffff_fe00) as usize);
    let whole = tables.filter(|&table| table != 0 && table + bytes.cluster_size() <= bytes.0.len());
    let l2 = whole.flat_map(|table| (table..table + bytes.cluster_size()).step_by(8)).collect();
    (l1, l2)
}

/// Changes one entry.
fn damaged(bytes: Bytes, random: &mut Random) -> Bytes {
    let (l1, l2) = entries(&bytes);
    let near: Vec<usize> = l2.iter().copied().filter(|&at| bytes.u64(at) != 0).collect();
    let at = match random.below(8) {
        0 => *random.pick(&l1),
        1..6 if !near.is_empty() => *random.pick(&near),
        _ if !l2.is_empty() => *random.pick(&l2),
        _ => *random.pick(&l1),
    };
    let old = bytes.u64(at);
    let size = bytes.cluster_size() as u64;
    let clusters = bytes.0.len() as u64 / size;
    let value = match random.below(10) {
        0 => 0,
        1 => random.number(),
        2 | 3 => old ^ 1 << random.below(64),
        4 => bytes.u64(*random.pick(if l2.is_empty() { &l1 } else { &l2 })),
        5 => old.wrapping_add(size),
        6 => old ^ 1 << 62,
        7 => 1 << 63 | (random.number() % (clusters + 3) * size),
        8 => 1 << 63 | ((clusters + random.number() % 9) * size),
        _ => old ^ (random.number() % size),
    };
    bytes.with_u64(at, value)
}

/// Where QEMU maps an image, ours prints the same, and fails only for what lies behind the end of the file; where QEMU
/// does not, ours goes on to the end, and fails.
#[test]
fn beside_qemu() {
    let (seed, folder) = (seed(), scratch());
    let image = folder.path().join("image");
    let mut sources: Vec<Bytes> = generated()
        .iter()
        .filter(|(name, _)| *name != "large")
        .map(|(_, wanted)| Bytes(wanted.build().unwrap()))
        .collect();
    for options in ["", "extended_l2=on,cluster_size=16k", "compat=0.10", "cluster_size=512"] {
        qemu::create(&image, options, &made::SIZE.to_string());
        made::written(&image, options, &mut Random::new(seed));
        sources.push(Bytes::read(&image));
    }
    let (mut mapped, mut past_end) = (0, 0);
    for number in 0..setting("VDISK_QCOW2_MAPS", 300) {
        let because = format!("VDISK_SEED={seed}, image {number}");
        let mut random = Random::new(seed ^ (number << 20));
        let mut bytes = random.pick(&sources).clone();
        for _fault in 0..=random.below(3) {
            bytes = damaged(bytes, &mut random);
        }
        bytes.write(&image);
        let ours = qcow2(&image, &["map", "--output", "json"]);
        let theirs = theirs(&image, "json");
        let is_past_end = ours.err().contains("past the end of the file");
        if theirs.status.success() {
            mapped += 1;
            past_end += u64::from(is_past_end);
            assert_eq!(ours.out(), theirs.out(), "{because}: {ours}");
            assert_eq!(ours.status.code(), Some(i32::from(is_past_end)), "{because}: {ours}");
        } else {
            assert_eq!(ours.status.code(), Some(1), "{because}: QEMU: {theirs}, ours: {ours}");
        }
    }
    println!("{mapped} of them mapped, {past_end} with something past the end");
    assert!(mapped > 50 && past_end > 5, "{mapped}, {past_end}");
}

#[test]
fn what_is_wrong_is_told_and_the_rest_is_mapped() {
    let folder = scratch();
    let image = folder.path().join("image");
    let bytes = Bytes(Qcow2::new(1 << 20).data(0, vec![1; 4 << 16]).build().unwrap());
    let (_, l2) = entries(&bytes);
    bytes.clone().with_u64(l2[1], 0x8000_0000_0005_0200).write(&image);
    let wrong = invalid(&image);
    assert_eq!(
        (&wrong["start"], &wrong["length"], &wrong["why"]),
        (&0x10000.into(), &0x10000.into(), &"unaligned".into())
    );
    bytes.clone().with_u64(l2[1], 0x8000_0000_1000_0000).write(&image);
    let wrong = invalid(&image);
    assert_eq!((&wrong["why"], &wrong["offset"]), (&"past-end".into(), &0x1000_0000.into()));
    let (l1, _) = entries(&bytes);
    bytes.with_u64(l1[0], 0x8000_0000_0005_0200).write(&image);
    let wrong = invalid(&image);
    assert_eq!((&wrong["length"], &wrong["why"]), (&(1 << 20).into(), &"table-unaligned".into()));
}

/// In a chain, what is wrong in any image is told, with the image's name, where it is what is read; as for QEMU, not where it
/// is hidden.
#[test]
fn what_is_wrong_in_a_backing_file_is_told() {
    let folder = scratch();
    let path = |name: &str| folder.path().join(name);
    let qed = Qed::new(1 << 20).data(0, vec![1; 1 << 16]).data(1 << 19, vec![2; 1 << 16]).build().unwrap();
    let l1 = u64::from_le_bytes(qed[40..48].try_into().unwrap()) as usize;
    let l2 = u64::from_le_bytes(qed[l1..l1 + 8].try_into().unwrap()) as usize;
    let bad = [qed[..l2].to_vec(), 0x1_2345_6789u64.to_le_bytes().to_vec(), qed[l2 + 8..].to_vec()].concat();
    let bytes = Bytes(Qcow2::new(1 << 20).data(0, vec![1; 4 << 16]).build().unwrap());
    let (_, entries) = entries(&bytes);
    let bad_qcow2 = bytes.with_u64(entries[0], 0x8000_0000_0005_0200).0;
    let hidden = Qcow2::new(1 << 20).data(0, vec![3; 1 << 16]);
    let shown = Qcow2::new(1 << 20).data(1 << 19, vec![3; 1 << 16]);
    for (format, base, why) in
        [("qed", &bad, "an entry is "), ("qcow2", &bad_qcow2, "an L2 entry's offset is no ")]
    {
        std::fs::write(path("base"), base).unwrap();
        for (overlay, is_shown) in [(&shown, true), (&hidden, false)] {
            let image = overlay.clone().backing_file("base", Some(format)).build().unwrap();
            std::fs::write(path("top"), image).unwrap();
            let theirs = theirs(&path("top"), "json");
            let ours = qcow2(&path("top"), &["map", "--chain", "--output", "json"]);
            assert_eq!(
                (theirs.status.success(), ours.status.code()),
                (!is_shown, Some(i32::from(is_shown))),
                "{ours}"
            );
            match is_shown {
                true => {
                    let expected = format!("error: {}: guest offset 0x0: {why}", text(&path("base")));
                    assert!(ours.err().starts_with(&expected), "{ours}");
                }
                false => assert_eq!(ours.out(), theirs.out()),
            }
        }
    }
}

/// A QED image that ends the chain reads zeroes where it has nothing.
#[test]
fn a_chain_that_ends_with_qed() {
    let folder = scratch();
    let image = folder.path().join("top");
    std::fs::write(folder.path().join("base"), Qed::new(1 << 20).data(0, [1; 512]).build().unwrap()).unwrap();
    std::fs::write(&image, Qcow2::new(1 << 20).backing_file("base", Some("qed")).build().unwrap()).unwrap();
    super::same_as(&image, &["--chain"], &image);
}

/// The one invalid extent, of which the error tells.
#[track_caller]
fn invalid(image: &Path) -> Value {
    let run = qcow2(image, &["map", "--json"]).expect(1);
    let document: Value = serde_json::from_slice(&run.stdout).unwrap();
    let extents = document["extents"].as_array().unwrap();
    let last = extents.last().unwrap();
    assert_eq!(last["start"].as_u64().unwrap() + last["length"].as_u64().unwrap(), 1 << 20);
    let mut wrong = extents.iter().filter(|extent| extent["kind"] == "invalid");
    let (first, more) = (wrong.next().unwrap().clone(), wrong.next());
    assert_eq!(more, None);
    let start = first["start"].as_u64().unwrap();
    assert!(run.err().contains(&format!("guest offset {start:#x}: ")), "{run}");
    first
}

/// A small file in which all entries name one table, and that table is full of what takes most room in the output.
#[test]
fn a_small_file_costs_little() {
    const LENGTH: usize = 256 << 10;
    let folder = scratch();
    let image = folder.path().join("image");
    for (extended, bits) in [(false, 9), (false, 16), (true, 14)] {
        let wanted = Qcow2::new(1 << 20).cluster_bits(bits).extended_l2(extended).data(0, [1; 512]);
        let mut bytes = Bytes(wanted.build().unwrap());
        let size = bytes.cluster_size();
        bytes.0.resize(LENGTH, 0);
        let (table, l1) = ((LENGTH / 2) - size, LENGTH / 2);
        for at in (table..table + size).step_by(8) {
            let number = (at - table) as u64 / 8;
            bytes = bytes.with_u64(
                at,
                if extended && number % 16 == 1 { 0x5555_5555 } else { number % 2 * size as u64 },
            );
        }
        for at in (l1..LENGTH).step_by(8) {
            bytes.0[at..at + 8].copy_from_slice(&(1 << 63 | table as u64).to_be_bytes());
        }
        let bytes = bytes.with_u64(at::L1_TABLE_OFFSET, l1 as u64).with_u32(at::L1_SIZE, u32::MAX / 8);
        bytes.with_u64(at::SIZE, u64::MAX).write(&image);
        for args in [&["map", "--output=json"][..], &["map"], &["map", "--json"]] {
            let run = qcow2(&image, args).expect(1);
            assert!(run.stdout.len() < 64 << 20, "{} bytes", run.stdout.len());
        }
        qcow2(&image, &["fragcheck"]).expect(0);
    }
}
