//! No finding on what QEMU makes: images of any shape, and what is done to them.

use crate::support::program::qcow2;
use crate::support::qemu;
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use test_support::counts::Counts;
use test_support::process::run;
use test_support::qemu::{program, try_img};
use test_support::random::{Random, seed, setting};
use test_support::scratch::{scratch, text};
use test_support::threads;
use vdisk_format::generate::{Bitmap, Qcow2};

/// What is done is told, for whoever wants to do it again.
struct History {
    lines: String,
    /// Of the disk, in bytes.
    size: u64,
}

impl History {
    fn img(&mut self, args: &[&str]) -> bool {
        let run = try_img(args);
        let status = run.status.success();
        writeln!(self.lines, "qemu-img {}{}", args.join(" "), if status { "" } else { " # refused" })
            .unwrap();
        status
    }

    fn io(&mut self, path: &Path, commands: &[String]) {
        let mut line = program("qemu-io");
        line.args(["-f", "qcow2"]);
        for command in commands {
            line.args(["-c", command]);
        }
        run(line.arg(path), b"");
        writeln!(self.lines, "qemu-io {} {}", text(path), commands.join("; ")).unwrap();
    }
}

/// Options of `qemu-img create`.
fn options(random: &mut Random, folder: &Path) -> (String, u64) {
    let bits = 9 + random.below(13) as u32;
    let mut options = format!("cluster_size={}", 1u64 << bits);
    let mut size = if bits < 12 { 3 << 20 } else { 24 << 20 } + random.number() % 5 * 512;
    if random.below(5) == 0 {
        options += ",compat=0.10";
    } else {
        write!(options, ",refcount_bits={}", 1 << random.below(7)).unwrap();
        if bits >= 14 && random.below(2) == 0 {
            options += ",extended_l2=on";
        }
        options += ["", "", ",lazy_refcounts=on"][random.below(3)];
        options += ["", ",compression_type=zstd"][random.below(2)];
        if random.below(8) == 0 {
            let raw = ["off", "on"][random.below(2)];
            write!(options, ",data_file={}/data.raw,data_file_raw={raw}", text(folder)).unwrap();
        }
    }
    if random.below(6) == 0 {
        options += [",preallocation=metadata", ",preallocation=falloc"][random.below(2)];
        size = size.min(8 << 20);
    }
    if random.below(40) == 0 {
        size = 0;
    }
    (options, size)
}

/// One step of an image's life. Some shapes refuse some of them.
fn step(history: &mut History, random: &mut Random, path: &Path, folder: &Path) {
    let name = ["one", "two", "three"][random.below(3)];
    let file = text(path);
    match random.below(16) {
        0..6 => {
            let commands: Vec<String> =
                (0..1 + random.below(4)).map(|_| guest_write(random, history.size)).collect();
            history.io(path, &commands);
        }
        6 | 7 => drop(history.img(&["snapshot", "-c", name, file])),
        8 => drop(history.img(&["snapshot", "-d", name, file])),
        9 => drop(history.img(&["snapshot", "-a", name, file])),
        10 => {
            let size = history.size + random.number() % (4 << 20) / 512 * 512;
            if history.img(&["resize", "-q", "-f", "qcow2", file, &size.to_string()]) {
                history.size = size;
            }
        }
        11 => {
            let size = history.size / 1024 * 512;
            if history.img(&["resize", "-q", "--shrink", "-f", "qcow2", file, &size.to_string()]) {
                history.size = size;
            }
        }
        12 => {
            let granularity = (512u32 << random.below(8)).to_string();
            history.img(&["bitmap", "--add", "-g", &granularity, "-f", "qcow2", file, name]);
        }
        13 => {
            let how = *random.pick(&["--remove", "--clear", "--disable", "--enable"]);
            history.img(&["bitmap", how, "-f", "qcow2", file, name]);
        }
        14 => {
            let change = *random.pick(&[
                "compat=0.10",
                "compat=1.1",
                "refcount_bits=16",
                "refcount_bits=64",
                "lazy_refcounts=off",
            ]);
            history.img(&["amend", "-q", "-f", "qcow2", "-o", change, file]);
        }
        _ => chain(history, random, path, folder),
    }
}

fn guest_write(random: &mut Random, size: u64) -> String {
    let at = random.number() % size.max(1) / 512 * 512;
    let length = (512 + random.number() % (600 << 10) / 512 * 512).min(size.saturating_sub(at)).max(512);
    let command =
        *random.pick(&["write -P 3", "write -P 4", "write -z", "write -z -u", "discard", "write -c -P 7"]);
    if command == "write -c -P 7" && random.below(2) == 0 {
        return format!("{command} {} 64k", at >> 16 << 16);
    }
    format!("{command} {at} {length}")
}

/// Another image over this one, or out of it, in its place.
fn chain(history: &mut History, random: &mut Random, path: &Path, folder: &Path) {
    let (file, other) = (text(path), folder.join("other"));
    let other = text(&other);
    match random.below(4) {
        0 => {
            let cluster = (512u64 << random.below(9)).to_string();
            let options = format!("cluster_size={cluster}");
            history.img(&["create", "-q", "-f", "qcow2", "-b", file, "-F", "qcow2", "-o", &options, other]);
            history
                .io(other.as_ref(), &[guest_write(random, history.size), guest_write(random, history.size)]);
            assert_healthy(other.as_ref(), &history.lines);
            if random.below(2) == 0 {
                history.img(&["commit", "-q", "-f", "qcow2", other]);
            } else {
                history.img(&["rebase", "-q", "-f", "qcow2", "-b", "", other]);
                assert_healthy(other.as_ref(), &history.lines);
            }
        }
        1 => {
            let kind = *random.pick(&["compression_type=zlib", "compression_type=zstd,cluster_size=4k"]);
            if history.img(&["convert", "-q", "-c", "-f", "qcow2", "-O", "qcow2", "-o", kind, file, other]) {
                fs::rename(other, path).unwrap();
            }
        }
        2 => {
            let order = *random.pick(&["-W", "-q"]);
            if history.img(&["convert", order, "-m", "3", "-f", "qcow2", "-O", "qcow2", file, other]) {
                assert_healthy(other.as_ref(), &history.lines);
            }
        }
        _ => drop(history.img(&["check", "-q", "-r", "all", "-f", "qcow2", file])),
    }
}

/// Fails unless ours says what QEMU says, and nothing else.
#[track_caller]
fn assert_healthy(path: &Path, history: &str) -> u64 {
    let Ok(theirs) = qemu::try_check(path) else { return 0 };
    let (ours, document) = Counts::ours(&qcow2(path, &["check", "--json"]));
    let message = || format!("{history}\n{document:#}");
    assert_eq!(ours, theirs, "{}", message());
    // A snapshot that the refcounts have no room for is taken back, and not wholly so by QEMU 7.2.
    if theirs.corruptions > 0
        && history.lines().any(|line| line.contains("snapshot -c") && line.ends_with("# refused"))
    {
        return 0;
    }
    assert_eq!(ours.corruptions + ours.check_errors, 0, "{}", message());
    for key in ["extra-corruptions", "lost-mappings"] {
        assert_eq!(document[key], 0, "{}", message());
    }
    if ours.leaks == 0 {
        let findings = document["findings"].as_array().unwrap();
        let wrong = findings.iter().filter(|finding| finding["severity"] != "note").collect::<Vec<&Value>>();
        assert!(wrong.is_empty(), "{}", message());
    }
    1
}

#[test]
fn nothing_is_found() {
    let seed = seed();
    let checked = Mutex::new(0);
    let count = setting("VDISK_QCOW2_SHAPES", 40);
    threads::each(count, |number| {
        let mut random = Random::new(seed ^ (number << 20));
        let folder = scratch();
        let path = folder.path().join("image");
        let (options, size) = options(&mut random, folder.path());
        let mut history = History { lines: format!("VDISK_SEED={seed}, image {number}\n"), size };
        if !history.img(&["create", "-q", "-f", "qcow2", "-o", &options, text(&path), &size.to_string()]) {
            return;
        }
        for _step in 0..1 + random.below(6) {
            step(&mut history, &mut random, &path, folder.path());
            *checked.lock().unwrap() += assert_healthy(&path, &history.lines);
        }
    });
    let checked = checked.into_inner().unwrap();
    println!("{checked} states of {count} images");
    assert!(checked > count * 2, "{checked} states of {count} images");
}

#[test]
fn many_bitmaps_with_large_tables() {
    let folder = scratch();
    let path = folder.path().join("image");
    let bitmaps = (0..66).map(|number| Bitmap::new(format!("b{number}")).granularity_bits(9));
    let image = bitmaps.fold(Qcow2::new(128 << 30).cluster_bits(9), Qcow2::bitmap);
    fs::write(&path, image.build().unwrap()).unwrap();
    // More than four million entries: no file that the tables claim has room for twice as many.
    assert_eq!(assert_healthy(&path, "66 bitmaps of 65,536 clusters"), 1);
}

/// Every cipher that QEMU has, with all modes, generators of initialization vectors and hashes; then a key slot more, and
/// the first one erased.
#[test]
fn nothing_is_found_in_encrypted_images() {
    const CIPHERS: [&str; 11] = [
        "aes-128",
        "aes-192",
        "aes-256",
        "cast5-128",
        "serpent-128",
        "serpent-192",
        "serpent-256",
        "twofish-128",
        "twofish-192",
        "twofish-256",
        "sm4",
    ];
    const HASHES: [&str; 8] = ["sha1", "sha224", "sha256", "sha384", "sha512", "ripemd160", "md5", "sm3"];
    const MODES: [&str; 4] = ["xts", "cbc", "ctr", "ecb"];
    const VECTORS: [&str; 3] = ["plain64", "essiv,encrypt.ivgen-hash-alg=sha256", "plain"];
    let made = Mutex::new(0);
    threads::each(CIPHERS.len() as u64, |number| {
        let number = usize::try_from(number).unwrap();
        let folder = scratch();
        let path = folder.path().join("image");
        let [hash, mode, vector] = [HASHES[number % 8], MODES[number % 4], VECTORS[number % 3]];
        let options = format!(
            "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=1,encrypt.cipher-alg={},encrypt.cipher-mode={mode},\
             encrypt.ivgen-alg={vector},encrypt.hash-alg={hash}",
            CIPHERS[number]
        );
        let [old, new] = ["secret,id=s,data=one", "secret,id=n,data=two"];
        let create = ["create", "-q", "-f", "qcow2", "--object", old, "-o", &options, text(&path), "1M"];
        if !try_img(&create).status.success() {
            return; // not all ciphers go with all modes, nor are they part of every QEMU
        }
        *made.lock().unwrap() += 1;
        qcow2(&path, &["check"]).expect(0);
        let image = format!("driver=qcow2,encrypt.key-secret=s,file.filename={}", text(&path));
        for change in [
            "encrypt.state=active,encrypt.new-secret=n,encrypt.iter-time=1",
            "encrypt.state=inactive,encrypt.old-secret=n",
        ] {
            let amend =
                ["amend", "-q", "--object", old, "--object", new, "-o", change, "--image-opts", &image];
            try_img(&amend).expect(0);
            let (ours, document) = Counts::ours(&qcow2(&path, &["check", "--json"]));
            assert_eq!((ours.status, &document["findings"]), (Some(0), &serde_json::json!([])), "{options}");
        }
    });
    assert!(made.into_inner().unwrap() > 5);
}
