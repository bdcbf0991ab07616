//! Reading disks and structures of images that QEMU made: every byte is compared with what `qemu-img convert` reads.
#![cfg(feature = "decompress")]

#[cfg(test)]
mod qcow2_read {
    use std::fs;
    use std::io::ErrorKind;
    use std::path::PathBuf;
    use std::process::Command;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use tempfile::TempDir;
    use vdisk_format::error::Reason;
    use vdisk_format::qcow2::bitmap::BitmapsExtension;
    use vdisk_format::qcow2::crypto::Encryption;
    use vdisk_format::qcow2::read::{Disk, Format, Qcow2Layer, open_chain};
    use vdisk_format::qcow2::{Mapping, Tables};
    use vdisk_format::{Image, View};

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;

    /// A folder in memory where there is one, and numbers that are the same in every run.
    struct Bench {
        dir: TempDir,
        state: u64,
        _alone: MutexGuard<'static, ()>,
    }

    /// A child that another test starts has our files, and their locks, until it becomes another program: QEMU would find
    /// its image locked by us.
    static ALONE: Mutex<()> = Mutex::new(());

    impl Bench {
        fn new(seed: u64) -> Self {
            let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
            let shm = PathBuf::from("/dev/shm");
            let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
            Self { dir: dir.unwrap(), state: seed, _alone: alone }
        }

        /// A number below `limit` (splitmix64).
        fn below(&mut self, limit: u64) -> u64 {
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.state ^ self.state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed ^ mixed >> 31) % limit
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn run(&self, program: &str, args: &[&str]) -> String {
            let output = match Command::new(program).current_dir(self.dir.path()).args(args).output() {
                Ok(output) => output,
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    panic!("{program} is missing; run `cargo xtask deps`")
                }
                Err(error) => panic!("{program} could not be started: {error}"),
            };
            let out = String::from_utf8_lossy(&output.stdout).into_owned();
            let err = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && !out.contains("failed"), "{program} {args:?}:\n{out}{err}");
            out
        }

        /// `options` are those of `qemu-img create -o`, and more arguments behind a space.
        fn create(&self, name: &str, format: &str, options: &str, size: u64) {
            let size = size.to_string();
            let mut args = vec!["create", "-q", "-f", format];
            let mut options = options.split_whitespace();
            if let Some(first) = options.next() {
                args.extend(["-o", first]);
            }
            args.extend(options);
            args.extend([name, &size]);
            self.run("qemu-img", &args);
        }

        /// Writes patterns and zeroes, and discards, here and there: more than a cluster, or a part of one.
        fn scribble(&mut self, name: &str, format: &str, size: u64, times: u64) {
            let mut args = vec!["-f".to_owned(), format.to_owned()];
            for _ in 0..times {
                let length = match self.below(3) {
                    0 => 1 + self.below(700),
                    1 => 512 * (1 + self.below(20)),
                    _ => 1 + self.below(size / 12),
                };
                let at = self.below(size - length);
                let pattern = 1 + self.below(255);
                args.push("-c".to_owned());
                args.push(match self.below(8) {
                    0 => format!("write -z {at} {length}"),
                    1 => format!("write -z -u {at} {length}"),
                    2 => format!("discard {at} {length}"),
                    _ => format!("write -P {pattern} {at} {length}"),
                });
            }
            args.push(name.to_owned());
            self.run("qemu-io", &args.iter().map(String::as_str).collect::<Vec<_>>());
        }

        /// What qemu-img reads from an image.
        fn expected(&self, args: &[&str]) -> Vec<u8> {
            self.run("qemu-img", &[&["convert"], args, &["-O", "raw", "expected"]].concat());
            fs::read(self.path("expected")).unwrap()
        }

        /// Compares a disk with its bytes: all at once, and in pieces of any size.
        fn compare(&mut self, disk: &Disk<'_>, expected: &[u8], what: &str) {
            let size = usize::try_from(disk.size()).unwrap();
            let mut found = vec![0xaa; size];
            disk.read_at(0, &mut found).unwrap_or_else(|error| panic!("{what}: {error}"));
            if found != expected {
                let differs = found.iter().zip(expected).position(|(found, expected)| found != expected);
                panic!("{what}: byte {differs:?} differs, or the length");
            }
            for _ in 0..50 {
                let at = self.below(disk.size());
                let length = self.below((disk.size() - at).min(100 * KIB));
                let (start, length) = (usize::try_from(at).unwrap(), usize::try_from(length).unwrap());
                let buffer = found.get_mut(..length).unwrap();
                disk.read_at(at, buffer).unwrap();
                assert!(buffer == &expected[start..start + length], "{what}: {length} bytes at {at}");
            }
            assert_eq!(disk.read_at(disk.size(), &mut [0]).unwrap_err().reason(), Some(Reason::PastDisk));
        }

        /// Compares an image and all it is backed by.
        fn compare_chain(&mut self, name: &str, format: &str) {
            let expected = self.expected(&["-f", format, name]);
            let chain = open_chain(self.path(name)).unwrap();
            self.compare(&chain.disk().unwrap(), &expected, name);
        }
    }

    #[test]
    fn standard_clusters() {
        let mut bench = Bench::new(1);
        for (index, (options, size)) in [
            ("cluster_size=512", MIB),
            ("cluster_size=512,refcount_bits=1", MIB + 512),
            ("cluster_size=4k", 5 * MIB + 1536),
            ("cluster_size=64k", 40 * MIB),
            ("cluster_size=2M", 37 * MIB + 512),
            ("refcount_bits=64,lazy_refcounts=on", 8 * MIB),
            ("compat=0.10", 8 * MIB),
            ("compat=0.10,cluster_size=1k", MIB),
            ("preallocation=metadata,cluster_size=8k", 3 * MIB),
            ("extended_l2=on,cluster_size=16k", 4 * MIB),
            ("extended_l2=on,cluster_size=128k", 20 * MIB),
            ("extended_l2=on,cluster_size=2M", 40 * MIB),
            ("extended_l2=on,preallocation=metadata", 3 * MIB + 512),
        ]
        .into_iter()
        .enumerate()
        {
            let name = format!("{index}.qcow2");
            bench.create(&name, "qcow2", options, size);
            bench.scribble(&name, "qcow2", size, 60);
            bench.compare_chain(&name, "qcow2");
        }
    }

    #[test]
    fn compressed_clusters() {
        let mut bench = Bench::new(2);
        // Something to compress: text, and noise that does not become smaller.
        let noise: Vec<u8> = (0..MIB / 4).map(|_| u8::try_from(bench.below(256)).unwrap()).collect();
        let text: Vec<u8> = (0..60_000u32).flat_map(|i| format!("line {i}\n").into_bytes()).collect();
        let size = (noise.len() + text.len()).next_multiple_of(512) as u64;
        let mut source = [text, noise].concat();
        source.resize(usize::try_from(size).unwrap(), 0);
        fs::write(bench.path("source"), &source).unwrap();
        for options in [
            "cluster_size=512",
            "cluster_size=4k",
            "cluster_size=64k",
            "cluster_size=2M",
            "cluster_size=4k,compression_type=zstd",
            "cluster_size=64k,compression_type=zstd",
            "cluster_size=2M,compression_type=zstd",
            "extended_l2=on,compression_type=zstd",
            "extended_l2=on,cluster_size=16k",
            "compat=0.10",
        ] {
            let args = ["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, "source", "c.qcow2"];
            bench.run("qemu-img", &args);
            {
                let image = Image::open(bench.path("c.qcow2")).unwrap();
                let tables = Tables::new(&image).unwrap();
                let is_compressed = |entry: vdisk_format::qcow2::L2Entry| {
                    matches!(entry.mapping(&tables.l2_format()), Mapping::Compressed(_))
                };
                let l1 = tables.l1_entries(tables.geometry().l1_table());
                let entries = l1.flat_map(|(_, entry)| tables.l2_entries(entry.l2_table()));
                assert!(entries.filter(|(_, entry)| is_compressed(*entry)).count() > 0, "{options}");
                let disk = Disk::new(Qcow2Layer::new(&image).unwrap());
                bench.compare(&disk, &source, options);
            }
            bench.scribble("c.qcow2", "qcow2", size, 20);
            bench.compare_chain("c.qcow2", "qcow2");
        }
    }

    #[test]
    fn chains_of_different_sizes() {
        let mut bench = Bench::new(3);
        for (index, (base, middle, top)) in [
            (
                ("qcow2", "cluster_size=4k", 3 * MIB),
                ("qcow2", "cluster_size=64k", 5 * MIB),
                ("cluster_size=512", 4 * MIB),
            ),
            (("raw", "", 3 * MIB + 512), ("qcow2", "cluster_size=2M", 2 * MIB), ("extended_l2=on", 6 * MIB)),
            (
                ("qed", "", 6 * MIB),
                ("qed", "cluster_size=4k,table_size=2", 4 * MIB),
                ("compat=0.10", 7 * MIB + 512),
            ),
            (
                ("qcow2", "extended_l2=on,cluster_size=32k", 5 * MIB),
                ("qcow2", "compat=0.10", MIB),
                ("", 5 * MIB),
            ),
        ]
        .into_iter()
        .enumerate()
        {
            let name = |layer: &str| format!("{layer}{index}");
            bench.create(&name("base"), base.0, base.1, base.2);
            bench.scribble(&name("base"), base.0, base.2, 40);
            let on = |options: &str, layer: &str, format: &str| {
                let comma = if options.is_empty() { "" } else { "," };
                format!("{options}{comma}backing_file={},backing_fmt={format}", name(layer))
            };
            bench.create(&name("middle"), middle.0, &on(middle.1, "base", base.0), middle.2);
            bench.scribble(&name("middle"), middle.0, middle.2, 20);
            bench.create(&name("top"), "qcow2", &on(top.0, "middle", middle.0), top.1);
            bench.scribble(&name("top"), "qcow2", top.1, 20);
            bench.compare_chain(&name("top"), "qcow2");
            bench.compare_chain(&name("middle"), middle.0);
            let chain = open_chain(bench.path(&name("top"))).unwrap();
            let formats: Vec<_> = chain.images().map(|image| image.format.name()).collect();
            assert_eq!(formats, ["qcow2", middle.0, base.0]);
        }
    }

    #[test]
    fn external_data_files() {
        let mut bench = Bench::new(4);
        for (name, options) in [
            ("raw", "data_file=raw.data,data_file_raw=on"),
            ("own", "data_file=own.data,cluster_size=4k"),
            ("extended", "data_file=extended.data,extended_l2=on"),
            ("full", "data_file=full.data,data_file_raw=on,preallocation=metadata"),
        ] {
            bench.create(name, "qcow2", options, 4 * MIB);
            bench.scribble(name, "qcow2", 4 * MIB, 40);
            bench.compare_chain(name, "qcow2");
        }
        // A raw one is what the disk is.
        let expected = bench.expected(&["-f", "qcow2", "raw"]);
        let data = fs::read(bench.path("raw.data")).unwrap();
        bench.compare(&Disk::new(View::from(&data)), &expected, "raw.data");
    }

    #[test]
    fn snapshots() {
        let mut bench = Bench::new(5);
        bench.create("base", "raw", "", 2 * MIB);
        bench.scribble("base", "raw", 2 * MIB, 20);
        for (name, options) in [
            ("small", "cluster_size=1k"),
            ("extended", "extended_l2=on,cluster_size=16k"),
            ("old", "compat=0.10"),
            ("overlay", "backing_file=base,backing_fmt=raw,refcount_bits=8"),
        ] {
            bench.create(name, "qcow2", options, 3 * MIB);
            let taken = ["first", "", "a third with a longer name"];
            for (index, snapshot) in taken.iter().enumerate() {
                bench.scribble(name, "qcow2", 3 * MIB, 15);
                bench.run("qemu-img", &["snapshot", "-c", snapshot, name]);
                if index == 1 && name != "old" {
                    bench.run("qemu-img", &["resize", "-q", "-f", "qcow2", name, "4M"]);
                }
            }
            bench.scribble(name, "qcow2", 3 * MIB, 15);
            bench.compare_chain(name, "qcow2");
            let image = Image::open(bench.path(name)).unwrap();
            let base = Image::open(bench.path("base")).unwrap();
            let tables = Tables::new(&image).unwrap();
            let found: Vec<_> = tables.snapshots().map(Result::unwrap).collect();
            let names: Vec<_> = found.iter().map(|snapshot| snapshot.name).collect();
            assert_eq!(names, taken.map(str::as_bytes));
            let resized = if name == "old" { 3 * MIB } else { 4 * MIB };
            for (snapshot, size) in found.iter().zip([3 * MIB, 3 * MIB, resized]) {
                assert_eq!((snapshot.disk_size(), snapshot.vm_state_size()), (Some(size), 0));
                let id = format!("snapshot.id={}", String::from_utf8_lossy(snapshot.id));
                let expected = bench.expected(&["-f", "qcow2", "-l", &id, name]);
                let layer = Qcow2Layer::new(&image).unwrap().at_snapshot(snapshot).unwrap();
                let disk = Disk::new(layer);
                let disk = if name == "overlay" { disk.backed_by(View::from(&base)) } else { disk };
                // qemu-img reads as much as the active disk has.
                let expected = expected.get(..usize::try_from(size).unwrap()).unwrap();
                bench.compare(&disk, expected, &format!("{name} {id}"));
            }
        }
    }

    /// The refcounts that QEMU wrote are those of the references that are found.
    #[test]
    fn refcounts_of_every_width() {
        let mut bench = Bench::new(6);
        for order in 0..=6 {
            let name = format!("{order}.qcow2");
            let options = format!("cluster_size=1k,refcount_bits={}", 1 << order);
            bench.create(&name, "qcow2", &options, MIB);
            bench.scribble(&name, "qcow2", MIB, 30);
            if order > 0 {
                bench.run("qemu-img", &["snapshot", "-c", "1", &name]);
                bench.scribble(&name, "qcow2", MIB, 10);
            }
            let image = Image::open(bench.path(&name)).unwrap();
            let tables = Tables::new(&image).unwrap();
            let geometry = tables.geometry();
            let mut references = vec![0; usize::try_from(geometry.file_clusters()).unwrap()];
            let mut refer = |offset: u64, length: u64| {
                for cluster in geometry.clusters(vdisk_format::qcow2::Area::new(offset, length)) {
                    references[usize::try_from(cluster).unwrap()] += 1u64;
                }
            };
            refer(0, 1);
            let mut snapshots = tables.snapshots();
            let l1_tables: Vec<_> = snapshots.by_ref().map(|snapshot| snapshot.unwrap().l1_table()).collect();
            for area in [snapshots.area(), geometry.refcount_table()] {
                refer(area.offset.0, area.length);
            }
            for (_, entry) in tables.refcount_table_entries() {
                refer(entry.block().0, 1);
            }
            for l1_table in [geometry.l1_table()].into_iter().chain(l1_tables) {
                refer(l1_table.offset.0, l1_table.length);
                for (_, l1_entry) in tables.l1_entries(l1_table) {
                    refer(l1_entry.l2_table().0, 1);
                    for (_, l2_entry) in tables.l2_entries(l1_entry.l2_table()) {
                        if let Some(host) = l2_entry.host_cluster(&tables.l2_format()) {
                            refer(host.0, 1);
                        }
                    }
                }
            }
            for (cluster, count) in references.iter().enumerate() {
                assert_eq!(tables.refcount(cluster as u64), Some(*count), "{name}: cluster {cluster}");
            }
            let blocks = tables.refcount_table_entries();
            let counted = blocks.flat_map(|(_, entry)| tables.refcount_block(entry.block()).unwrap().runs());
            let total: u64 = counted.map(|run| run.count * run.refcount).sum();
            assert_eq!(total, references.iter().sum::<u64>(), "{name}");
        }
    }

    #[test]
    fn bits_of_bitmaps() {
        let bench = Bench::new(7);
        bench.create("disk", "qcow2", "cluster_size=4k", 2048 * MIB);
        bench.run("qemu-img", &["bitmap", "--add", "-g", "512", "disk", "fine"]);
        bench.run("qemu-img", &["bitmap", "--add", "-g", "64k", "disk", "coarse"]);
        let written = [0, 5 * MIB + 512, 1500 * MIB];
        for at in written {
            bench.run("qemu-io", &["-f", "qcow2", "-c", &format!("write {at} 512"), "disk"]);
        }
        let image = Image::open(bench.path("disk")).unwrap();
        let tables = Tables::new(&image).unwrap();
        let extension = BitmapsExtension::of(tables.header());
        let bitmaps: Vec<_> = extension.unwrap().directory(image.bytes()).map(Result::unwrap).collect();
        assert_eq!(
            bitmaps.iter().map(|bitmap| bitmap.name).collect::<Vec<_>>(),
            [b"fine".as_slice(), b"coarse"]
        );
        for bitmap in bitmaps {
            let granularity = bitmap.fixed.granularity().unwrap();
            let entries = bitmap.fixed.table_entries_needed(2048 * MIB, 4096);
            assert_eq!(entries, Some(bitmap.fixed.bitmap_table_size.into()));
            for at in written {
                let bits = [at, at + granularity].map(|at| bitmap.bit(at, 4096));
                assert_eq!(bits, [Some(true), Some(false)], "{granularity} {at}");
            }
            let used = tables.bitmap_table_entries(bitmap.fixed.table()).count();
            assert!((1..=3).contains(&used), "{used}");
        }
    }

    #[test]
    fn encrypted_images_are_described_and_not_read() {
        let bench = Bench::new(8);
        let secret = "--object secret,id=s,data=passphrase";
        let luks = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,encrypt.hash-alg=sha512";
        bench.create("luks", "qcow2", &format!("{luks} {secret}"), MIB);
        let image = Image::open(bench.path("luks")).unwrap();
        assert_eq!(Qcow2Layer::new(&image).unwrap_err().reason(), Some(Reason::Encrypted));
        let tables = Tables::new(&image).unwrap();
        let Encryption::Luks(Ok(luks)) = Encryption::of(tables.header()) else { panic!("no LUKS header") };
        assert!(luks.is_luks_1());
        assert_eq!((luks.cipher_name(), luks.cipher_mode()), (b"aes".as_slice(), b"xts-plain64".as_slice()));
        assert_eq!((luks.hash_spec(), luks.uuid().len()), (b"sha512".as_slice(), 36));
        let active: Vec<_> = luks.key_slots().map(|slot| slot.is_active()).collect();
        assert_eq!(active, [[Some(true)].as_slice(), &[Some(false); 7]].concat());
        for slot in luks.key_slots() {
            assert!(
                slot.key_material.offset >= luks.area.offset && slot.key_material.end() <= luks.area.end()
            );
        }
        let aes = "encrypt.format=aes,encrypt.key-secret=s";
        bench.create("aes", "qcow2", &format!("{aes} {secret}"), MIB);
        let image = Image::open(bench.path("aes")).unwrap();
        let tables = Tables::new(&image).unwrap();
        assert!(matches!(Encryption::of(tables.header()), Encryption::Aes));
        assert_eq!(
            open_chain(bench.path("aes")).unwrap().disk().unwrap_err().reason(),
            Some(Reason::Encrypted)
        );
        assert_eq!(Format::probe(image.bytes()), Format::Qcow2);
    }
}
