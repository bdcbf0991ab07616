//! `map`, byte for byte as `qemu-img map` prints it.

mod damaged;
pub(crate) mod made;

use crate::support::bytes::{Bytes, at};
use crate::support::program::{command, qcow2};
use crate::support::qemu;
use serde_json::Value;
use std::path::{Path, PathBuf};
use test_support::process::{Run, run};
use test_support::qemu::try_img;
use test_support::random::{Random, seed};
use test_support::scratch::{scratch, text};
use vdisk_format::generate::{Qcow2, Snapshot};

use made::{OPTIONS, generated, written};

fn theirs(image: &Path, output: &str) -> Run {
    try_img(&["map", "-f", "qcow2", &format!("--output={output}"), text(image)])
}

/// Ours with `args` is theirs of `other`.
#[track_caller]
fn same_as(image: &Path, args: &[&str], other: &Path) {
    let json = theirs(other, "json").expect(0);
    let ours = qcow2(image, &[&["map", "--output", "json"], args].concat()).expect(0);
    assert_eq!(ours.out(), json.out(), "{ours}");
    let ours = qcow2(image, &[&["map", "--output", "human"], args].concat()).expect(0).out();
    let human = theirs(other, "human");
    let same_name = human.out().replace(text(other), text(image));
    match human.status.success() {
        true => assert_eq!(ours, same_name),
        // Theirs ends at the first extent without an offset.
        false => assert!(ours.starts_with(&same_name) && ours.contains("compressed      "), "{ours}{human}"),
    }
}

#[track_caller]
fn same(image: &Path) {
    same_as(image, &[], image);
}

/// The document covers the disk.
#[track_caller]
fn covers(image: &Path, size: u64) {
    let document: Value = serde_json::from_slice(&qcow2(image, &["map", "--json"]).expect(0).stdout).unwrap();
    assert_eq!(document["schema"], 1);
    let mut end = 0;
    for extent in document["extents"].as_array().unwrap() {
        assert_eq!(extent["start"], end, "{document:#}");
        end += extent["length"].as_u64().unwrap();
    }
    assert_eq!(end, size);
}

#[test]
fn what_qemu_wrote() {
    let (seed, folder) = (seed(), scratch());
    for (number, options) in (0..).zip(OPTIONS) {
        let image = folder.path().join(format!("{number}"));
        qemu::create(&image, options, &made::SIZE.to_string());
        same(&image);
        let mut random = Random::new(seed ^ (number << 32));
        for _round in 0..3 {
            written(&image, options, &mut random);
            println!("{options}");
            same(&image);
        }
        covers(&image, made::SIZE);
    }
}

#[test]
fn what_is_generated() {
    let folder = scratch();
    for (name, wanted) in generated() {
        println!("{name}");
        let image = folder.path().join(name);
        wanted.write_to(&mut std::fs::File::create(&image).unwrap()).unwrap();
        same(&image);
    }
}

#[test]
fn disks_of_odd_sizes() {
    let folder = scratch();
    let image = folder.path().join("image");
    for size in [512, 65536, 66048, 512 << 20, (512 << 20) + 512] {
        qemu::create(&image, "", &size.to_string());
        same(&image);
        qemu::io(&image, &[&format!("write {} 512", size - 512)]);
        same(&image);
        covers(&image, size);
    }
    // One extent of no length.
    qemu::create(&image, "", "0");
    same(&image);
}

/// Beside an image that QEMU has taken back to the snapshot.
#[test]
fn snapshots() {
    let (seed, folder) = (seed(), scratch());
    let (image, copy) = (folder.path().join("image"), folder.path().join("copy"));
    for (number, options) in (0..).zip(["", "extended_l2=on", "cluster_size=512"]) {
        let mut random = Random::new(seed ^ (number << 40));
        qemu::create(&image, options, &made::SIZE.to_string());
        for name in ["one", "two", "1"] {
            written(&image, options, &mut random);
            qemu::img(&["snapshot", "-c", name, text(&image)]);
        }
        written(&image, options, &mut random);
        // An ID comes before a name.
        for (asked, id) in [("one", "1"), ("2", "2"), ("two", "2"), ("1", "1"), ("3", "3")] {
            std::fs::copy(&image, &copy).unwrap();
            let before = kept(&image, &copy, id);
            same_as(&image, &["--snapshot", asked], &before);
        }
    }
    for command in [&["map"][..], &["fragcheck"], &["show", "l1"], &["show", "l2", "l1:0"]] {
        let run = qcow2(&image, &[command, &["--snapshot", "four"]].concat()).expect(1);
        let expected = "there is no snapshot with the ID or the name 'four'";
        assert_eq!(run.err(), format!("error: {}: {expected}\n", text(&image)));
    }
}

/// The copy, in the state of a snapshot, with holes where the image has them.
fn kept(image: &Path, copy: &Path, id: &str) -> PathBuf {
    let mut cp = test_support::process::installed("cp");
    run(cp.args(["--sparse=never", text(image), text(copy)]), b"").expect(0);
    qemu::img(&["snapshot", "-a", id, text(copy)]);
    copy.to_owned()
}

/// Without `--chain`, ours says what the image says.
#[test]
fn over_a_backing_file() {
    let folder = scratch();
    let (image, _) = made::chain(folder.path());
    let run = qcow2(&image, &["map", "--output", "json"]).expect(0);
    assert!(run.err().contains("the backing file is not looked into"), "{run}");
    let ours: Value = serde_json::from_slice(&run.stdout).unwrap();
    let theirs: Value = serde_json::from_slice(&theirs(&image, "json").expect(0).stdout).unwrap();
    let own = |map: &Value| -> Vec<_> {
        let extents = map.as_array().unwrap().iter();
        extents.filter(|extent| extent["present"] == true && extent["depth"] == 0).cloned().collect()
    };
    assert_eq!(own(&ours), own(&theirs));
    let rest = ours.as_array().unwrap().iter().filter(|extent| extent["present"] == false);
    assert!(rest.clone().count() > 1 && rest.clone().all(|extent| extent["zero"] == false), "{ours:#}");
}

#[test]
fn a_chain() {
    let folder = scratch();
    let (image, files) = made::chain(folder.path());
    same_as(&image, &["--chain"], &image);
    let human = qcow2(&image, &["map", "--chain"]).expect(0).out();
    for file in files {
        assert!(human.contains(text(&file)), "{human}");
    }
    let run = qcow2(&image, &["map", "--chain", "--json"]).expect(64);
    assert!(run.out().is_empty(), "{run}");
}

/// What is no name is no backing file: empty ones, and those that begin with a zero.
#[test]
fn a_chain_of_odd_names() {
    let folder = scratch();
    let (image, base) = (folder.path().join("image"), folder.path().join("base"));
    std::fs::write(&base, vec![7; 1 << 20]).unwrap();
    let wanted = Qcow2::new(1 << 20).backing_file("base", Some("raw")).build().unwrap();
    let bytes = Bytes(wanted);
    let name = usize::try_from(bytes.u64(at::BACKING_FILE_OFFSET)).unwrap();
    for (size, name_is, depth) in [(4, b"base", 1), (9, b"base", 1), (0, b"base", 0), (4, b"\0ase", 0)] {
        bytes.clone().with(name, name_is).with_u32(at::BACKING_FILE_SIZE, size).write(&image);
        same_as(&image, &["--chain"], &image);
        let json = qcow2(&image, &["map", "--chain", "--output=json"]).expect(0).out();
        assert!(json.contains(&format!("\"depth\": {depth}")), "{size}: {json}");
        let is_noted =
            qcow2(&image, &["map"]).expect(0).err().contains("the backing file is not looked into");
        assert_eq!(is_noted, depth > 0, "{size}");
    }
}

#[test]
fn a_backing_file_with_the_protocol_file() {
    let folder = scratch();
    let (image, base) = (folder.path().join("image"), folder.path().join("base"));
    std::fs::write(&base, vec![7; 1 << 20]).unwrap();
    let name = format!("file:{}", text(&base));
    let wanted = Qcow2::new(1 << 20).backing_file(&name, Some("raw")).build().unwrap();
    std::fs::write(&image, wanted).unwrap();
    same_as(&image, &["--chain"], &image);
    qcow2(&image, &["check", "--chain"]).expect(0);
    // Of one that is not absolute, the folder is the current one.
    let wanted = Qcow2::new(1 << 20).backing_file("file:base", Some("raw")).build().unwrap();
    std::fs::write(&image, wanted).unwrap();
    let refused = qcow2(&image, &["map", "--chain"]).expect(1).err();
    assert!(refused.contains("cannot open base: "), "{refused}");
}

#[test]
fn an_external_data_file() {
    let folder = scratch();
    let image = folder.path().join("image");
    for options in ["", ",data_file_raw=on", ",extended_l2=on"] {
        let data = folder.path().join("data");
        std::fs::write(&data, b"").unwrap();
        qemu::create(&image, &format!("data_file={},preallocation=metadata{options}", text(&data)), "2M");
        same_as(&image, &["--chain"], &image);
        qemu::io(&image, &["write 0 512k", "write 700k 70k", "discard 1M 128k"]);
        same_as(&image, &["--chain"], &image);
        // Without it, what lies in its holes are data.
        std::fs::remove_file(&data).unwrap();
        let human = qcow2(&image, &["map"]).expect(0).out();
        assert!(human.contains(text(&data)), "{human}");
    }
}

/// QEMU gives no offset, and wants the key for that.
#[test]
fn an_encrypted_image() {
    let folder = scratch();
    let image = folder.path().join("image");
    let secret = "secret,id=s,data=open sesame";
    let options = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    qemu::img(&["create", "-q", "-f", "qcow2", "--object", secret, "-o", options, text(&image), "4M"]);
    let opts = format!("driver=qcow2,encrypt.key-secret=s,file.filename={}", text(&image));
    let mut io = qemu::program("qemu-io");
    let line = ["--object", secret, "-c", "write 64k 100k", "-c", "write 1M 64k", "--image-opts", &opts];
    run(io.args(line), b"").expect(0);
    let theirs = try_img(&["map", "--object", secret, "--output=json", "--image-opts", &opts]).expect(0);
    let ours = qcow2(&image, &["map", "--output", "json"]).expect(0);
    assert_eq!(ours.out(), theirs.out());
}

#[test]
fn the_text() {
    let folder = scratch();
    let image = folder.path().join("image");
    let wanted = Qcow2::new(4 << 20)
        .cluster_bits(12)
        .data(0, [1; 8192])
        .zero(8192..16384)
        .compressed(1 << 20, [2; 8192])
        .data(2 << 20, [3; 4096])
        .snapshot(Snapshot::new("1", "one"))
        .data(0, [4; 4096]);
    std::fs::write(&image, wanted.build().unwrap()).unwrap();
    let mut map = command();
    let text = |args: &[&str], map: &mut std::process::Command| {
        run(map.current_dir(folder.path()).args(["image", "map"]).args(args), b"").expect(0).out()
    };
    assert_eq!(
        text(&[], &mut map),
        "Offset          Length          Mapped to       File\n\
         0               0x1000          0xb000          image\n\
         0x1000          0x1000          0x6000          image\n\
         0x100000        0x2000          compressed      image\n\
         0x200000        0x1000          0x9000          image\n"
    );
    assert_eq!(
        text(&["--snapshot", "one"], &mut command()),
        "Offset          Length          Mapped to       File\n\
         0               0x2000          0x5000          image\n\
         0x100000        0x2000          compressed      image\n\
         0x200000        0x1000          0x9000          image\n"
    );
}
