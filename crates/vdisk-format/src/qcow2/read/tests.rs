use super::*;
use proptest::prelude::*;

/// Clusters of 512 bytes: header, L1 table at 0x200, L2 table at 0x400, data at 0x600. The disk has 4 KiB.
fn image(l2: &[u64]) -> Vec<u8> {
    image_of(9, l2)
}

/// Four clusters: header, L1 table, L2 table, data. The disk has eight.
fn image_of(cluster_bits: u8, l2: &[u64]) -> Vec<u8> {
    let cluster = 1usize << cluster_bits;
    let mut bytes = vec![0; 4 * cluster];
    bytes[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    (bytes[23], bytes[39], bytes[99], bytes[103]) = (cluster_bits, 1, 4, 104);
    put(&mut bytes, 24, 8 << cluster_bits);
    put(&mut bytes, 40, 1 << cluster_bits);
    put(&mut bytes, cluster, 1 << 63 | 2 << cluster_bits);
    for (index, entry) in l2.iter().enumerate() {
        put(&mut bytes, 2 * cluster + index * 8, *entry);
    }
    bytes[3 * cluster..].fill(7);
    bytes
}

fn put(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
}

fn read(image: &[u8], at: u64, length: usize) -> Result<Vec<u8>> {
    let mut buffer = vec![0xaa; length];
    Disk::new(Qcow2Layer::new(image)?).read_at(at, &mut buffer)?;
    Ok(buffer)
}

fn message(image: &[u8]) -> String {
    read(image, 0, 512).unwrap_err().to_string()
}

#[test]
fn reads_cross_clusters() {
    let bytes = image(&[0, 1 << 63 | 0x600, 1]);
    let found = read(&bytes, 500, 1024).unwrap();
    assert_eq!(found, [vec![0; 12], vec![7; 512], vec![0; 500]].concat());
    assert_eq!(read(&bytes, 4096, 0).unwrap(), []);
    for (at, length) in [(4096, 1), (4000, 97), (u64::MAX, 1)] {
        let error = read(&bytes, at, length).unwrap_err();
        assert_eq!(error.reason(), Some(Reason::PastDisk), "{at} {length}");
    }
}

#[test]
fn what_cannot_be_is_named() {
    let what = "L2 entry 0 of L1 entry 0, for guest offset 0x0 at offset 0x400: expected ";
    for (entry, rest) in [
        (1 << 62 | 0x800, "data below the end of the file, 0x800, found 0x4000000000000800"),
        (0x602, "reserved bits of 0, found 0x602"),
        (0x0100_0000_0000_0600, "reserved bits of 0, found 0x100000000000600"),
        (0x800, "an offset below the end of the file, 0x800, found 0x800"),
    ] {
        assert_eq!(message(&image(&[entry])), format!("{what}{rest}"));
    }
    let mut bytes = image(&[0x601]);
    bytes[7] = 2;
    assert_eq!(message(&bytes), format!("{what}reserved bits of 0, found 0x601"));
    for (entry, rest) in [
        (0x800, "an offset below the end of the file, 0x800, found 0x800"),
        (0x401, "reserved bits of 0, found 0x401"),
    ] {
        let mut bytes = image(&[]);
        put(&mut bytes, 0x200, entry);
        assert_eq!(message(&bytes), format!("L1 entry 0 at offset 0x200: expected {rest}"));
    }
}

#[test]
fn offsets_are_multiples_of_the_cluster_size() {
    let expected = "an offset that is a multiple of 0x1000, found";
    let data = message(&image_of(12, &[0x3200]));
    assert!(data.ends_with(&format!("at offset 0x2000: expected {expected} 0x3200")), "{data}");
    let preallocated = message(&image_of(12, &[0x3201]));
    assert!(preallocated.ends_with(&format!("expected {expected} 0x3201")), "{preallocated}");
    let mut bytes = image_of(12, &[]);
    put(&mut bytes, 0x1000, 0x2200);
    assert_eq!(message(&bytes), format!("L1 entry 0 at offset 0x1000: expected {expected} 0x2200"));
}

#[test]
fn tables_that_are_too_short_are_no_zeroes() {
    let mut bytes = image(&[]);
    bytes[39] = 0;
    let expected = "L1 entry 0 at offset 0x200: expected a table of 1 entries or more, found 0 entries";
    assert_eq!(message(&bytes), expected);
    let mut bytes = image(&[0x600]);
    bytes.truncate(0x200);
    assert_eq!(message(&bytes), "L1 table at offset 0x200: needs 8 bytes, the file has 0 there");
    let mut bytes = image_of(12, &[]);
    put(&mut bytes, 24, 1 << 20);
    bytes.truncate(0x2201);
    assert_eq!(read(&bytes, 127 << 12, 1).unwrap(), [0]); // in the last sector
    let error = read(&bytes, 128 << 12, 1).unwrap_err().to_string();
    assert_eq!(error, "L2 table at offset 0x2000: needs 4096 bytes, the file has 513 there");
    let mut whole = image(&[0x600]);
    whole.truncate(0x601);
    assert_eq!(read(&whole, 0, 512).unwrap(), [vec![7], vec![0; 511]].concat());
}

#[test]
fn what_this_cannot_read_is_refused() {
    for (at, value, reason) in [
        (0, 0, Reason::UnsoundHeader),
        (7, 4, Reason::UnsoundHeader),
        (23, 8, Reason::BadGeometry),
        (35, 1, Reason::Encrypted),
        (35, 2, Reason::Encrypted),
        (47, 1, Reason::BadGeometry),
        (79, 0x20, Reason::UnsoundHeader),
        (79, 0x10, Reason::BadGeometry), // extended L2 entries want larger clusters
    ] {
        let mut bytes = image(&[]);
        bytes[at] = value;
        assert_eq!(read(&bytes, 0, 1).unwrap_err().reason(), Some(reason), "{at} {value}");
    }
}

#[test]
fn what_is_in_files_that_were_not_given_is_no_zeroes() {
    let mut bytes = image(&[0, 0x600]);
    (bytes[15], bytes[19]) = (104, 4);
    bytes[104..108].copy_from_slice(b"base");
    assert!(message(&bytes).ends_with("it is in the backing file, which was not opened"));
    assert_eq!(read(&bytes, 512, 1).unwrap(), [7]);
    let base = [9; 513];
    let disk = Disk::new(Qcow2Layer::new(&bytes).unwrap()).backed_by(View::from(base.as_slice()));
    let mut buffer = [1; 2048];
    disk.read_at(0, &mut buffer).unwrap();
    assert_eq!(buffer.to_vec(), [vec![9; 512], vec![7; 512], vec![0; 1024]].concat());

    let mut bytes = image(&[1 << 63, 0, 1 << 63 | 0x400, 1 << 63 | 0x400, 1 << 62 | 0x600]);
    bytes[79] = 4;
    assert!(message(&bytes).ends_with("it is in the external data file, which was not opened"));
    let data = [5; 0x500];
    let layer = Qcow2Layer::new(&bytes).unwrap().with_data_file(data.as_slice());
    let disk = Disk::new(layer);
    disk.read_at(0, &mut buffer[..1536]).unwrap();
    // The data file ends in the third cluster.
    assert_eq!(buffer[..1536].to_vec(), [vec![5; 512], vec![0; 512], vec![5; 256], vec![0; 256]].concat());
    for (at, expected) in
        [(1536, "expected the guest offset, 0x600"), (2048, "expected no compressed cluster")]
    {
        let error = disk.read_at(at, &mut buffer[..1]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn subclusters_are_read_one_by_one() {
    // Clusters of 16 KiB, subclusters of 512 bytes.
    let mut bytes = vec![0; 4 << 14];
    bytes[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    (bytes[23], bytes[29], bytes[39], bytes[46], bytes[79], bytes[99], bytes[103]) =
        (14, 1, 1, 0x40, 16, 4, 104);
    put(&mut bytes, 1 << 14, 1 << 63 | 2 << 14);
    put(&mut bytes, 2 << 14, 1 << 63 | 3 << 14);
    put(&mut bytes, (2 << 14) + 8, 0b1110 | 0b1001 << 32);
    put(&mut bytes, (2 << 14) + 24, 1); // allocated, and nowhere
    bytes[3 << 14..].fill(7);
    let base = [9; 0x10000];
    let disk = Disk::new(Qcow2Layer::new(&bytes).unwrap()).backed_by(View::from(base.as_slice()));
    let mut buffer = vec![1; 0x4000];
    disk.read_at(0, &mut buffer[..1536]).unwrap();
    assert_eq!(buffer[..1536].to_vec(), [vec![0; 512], vec![7; 1024]].concat());
    disk.read_at(2048, &mut buffer[..1024]).unwrap();
    assert_eq!(buffer[..1024], [9; 1024]);
    let error = disk.read_at(0, &mut buffer).unwrap_err().to_string();
    assert!(
        error.contains(
            "expected subcluster 3 not both allocated and zero, found 0x800000000000c000 0x90000000e"
        ),
        "{error}"
    );
    let error = disk.read_at(0x4000, &mut buffer[..1]).unwrap_err().to_string();
    assert!(error.contains("expected an offset of the allocated subclusters, found 0x0 0x1"), "{error}");
}

#[test]
fn errors_say_which_backing_file() {
    let top = image(&[]);
    let wrong = image(&[0x602]);
    let mut cut = image(&[]);
    cut.truncate(0x200);
    let mut elsewhere = image(&[1 << 63]);
    elsewhere[79] = 4;
    let mut backed = image(&[]);
    (backed[15], backed[19]) = (104, 4);
    backed[104..108].copy_from_slice(b"base");
    for (bad, reason, expected) in [
        (
            wrong,
            Some(Reason::InvalidEntry),
            "L2 entry 0 of L1 entry 0, for guest offset 0x0 at offset 0x400: ",
        ),
        (cut, None, "L1 table at offset 0x200: needs 8 bytes"),
        (elsewhere, None, "reading guest offset 0x0: it is in the external data file"),
        (backed, None, "reading guest offset 0x0: it is in the backing file, which was not opened"),
    ] {
        let own = message(&bad);
        assert!(own.starts_with(expected), "{own}");
        let bad = Qcow2Layer::new(&bad).unwrap();
        let disk = Disk::new(Qcow2Layer::new(&top).unwrap()).backed_by(bad);
        let error = disk.read_at(0, &mut [0]).unwrap_err();
        assert_eq!((error.to_string(), error.reason()), (format!("backing file 1: {own}"), reason));
    }
}

#[cfg(feature = "decompress")]
#[test]
fn compressed_data_that_are_none_are_named() {
    let mut bytes = image(&[1 << 62 | 0x600]);
    let expected = "compressed cluster of the L2 entry at offset 0x400 at offset 0x600: expected 512 bytes that decode to 512";
    assert!(message(&bytes).starts_with(expected), "{}", message(&bytes));
    // One stored block: the header of five bytes, and 512 of data.
    put(&mut bytes, 0x400, 1 << 62 | 1 << 61 | 0x5f0);
    bytes[0x5f0..0x5f5].copy_from_slice(&[1, 0, 2, 0xff, 0xfd]);
    assert_eq!(read(&bytes, 1, 511).unwrap(), [vec![0; 10], vec![7; 501]].concat());
}

#[cfg(not(feature = "decompress"))]
#[test]
fn compressed_data_want_the_feature() {
    assert!(message(&image(&[1 << 62 | 0x600])).ends_with("this was built without the feature `decompress`"));
}

proptest! {
    /// Whatever an image says, reading it ends, and what is read twice is the same.
    #[test]
    fn any_image_is_read_or_refused(
        cluster_bits in prop_oneof![Just(9u8), Just(12), Just(14)],
        l2 in proptest::collection::vec(
            prop_oneof![
                any::<u64>(),
                (0..6u64, 0..4u64).prop_map(|(cluster, flags)| cluster << 12 | flags & 1 | (flags >> 1) << 62),
            ],
            0..16,
        ),
        changes in proptest::collection::vec((0..2000usize, any::<u8>()), 0..4),
        features in prop_oneof![Just(0u8), Just(4), Just(16)],
        at in 0..0x2_0000u64,
    ) {
        let mut bytes = image_of(cluster_bits, &l2);
        bytes[79] = features;
        for (at, value) in changes {
            bytes[at] = value;
        }
        let (base, data) = ([9; 3000], [8; 0x8000]);
        let Ok(layer) = Qcow2Layer::new(&bytes) else { return Ok(()) };
        let disk = Disk::new(layer.with_data_file(data.as_slice())).backed_by(View::from(base.as_slice()));
        let read = |at, length: usize| {
            let mut buffer = vec![0; length];
            disk.read_at(at, &mut buffer).map(|()| buffer).ok()
        };
        let whole = read(at, 3000);
        let parts = read(at, 1000).zip(read(at.saturating_add(1000), 2000));
        prop_assert_eq!(whole, parts.map(|(first, second)| [first, second].concat()));
    }
}

mod chains {
    use super::*;
    use crate::qcow2::extension::Magic;
    use std::fs;

    /// An image that names a backing file, and perhaps its format.
    fn overlay(backing: &str, format: &str) -> Vec<u8> {
        let mut bytes = image(&[]);
        if !format.is_empty() {
            bytes[104..108].copy_from_slice(&Magic::BACKING_FORMAT.0.to_be_bytes());
            bytes[111] = u8::try_from(format.len()).unwrap();
            bytes[112..112 + format.len()].copy_from_slice(format.as_bytes());
        }
        (bytes[15], bytes[19]) = (200, u8::try_from(backing.len()).unwrap());
        bytes[200..200 + backing.len()].copy_from_slice(backing.as_bytes());
        bytes
    }

    fn open(files: &[(&str, &[u8])]) -> Result<Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        let chain = open_chain(dir.path().join(files[0].0))?;
        let mut buffer = [0; 4];
        chain.disk()?.read_at(0, &mut buffer)?;
        Ok(buffer.to_vec())
    }

    #[test]
    fn names_are_relative_to_their_image() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("top"), overlay("sub/mid", "qcow2")).unwrap();
        fs::write(dir.path().join("sub/mid"), overlay("base", "raw")).unwrap();
        fs::write(dir.path().join("sub/base"), overlay("nothing", "")).unwrap();
        let chain = open_chain(dir.path().join("top")).unwrap();
        let formats: Vec<_> = chain.images().map(|image| image.format).collect();
        assert_eq!(formats, [Format::Qcow2, Format::Qcow2, Format::Raw]);
        let mut buffer = [0; 4];
        chain.disk().unwrap().read_at(0, &mut buffer).unwrap();
        assert_eq!(&buffer, b"QFI\xfb");
    }

    #[test]
    fn formats_are_guessed_where_nobody_says_them() {
        assert_eq!(open(&[("top", &overlay("base", "")), ("base", b"data")]).unwrap(), b"data");
        assert_eq!(open(&[("top", &overlay("base", "")), ("base", &image(&[0x600]))]).unwrap(), [7; 4]);
        let error = open(&[("top", &overlay("base", "vmdk")), ("base", b"data")]).unwrap_err().to_string();
        assert!(error.ends_with("its backing file's format is \"vmdk\""), "{error}");
    }

    #[test]
    fn a_name_ends_at_its_first_zero_and_no_name_is_no_backing_file() {
        let base = ("base", b"data".as_slice());
        let mut longer = overlay("base", "raw");
        longer[19] = 9;
        assert_eq!(open(&[("top", &longer), base]).unwrap(), b"data");
        // Of nothing, nobody asks what its format is.
        for (name, size) in [("base", 0), ("\0base", 5)] {
            for format in ["raw", "vmdk"] {
                let mut none = overlay(name, format);
                none[19] = size;
                assert_eq!(open(&[("top", &none), base]).unwrap(), [0; 4], "{name:?} {size}");
                let disk = Disk::new(Qcow2Layer::new(&none).unwrap());
                disk.read_at(0, &mut [1]).unwrap();
            }
        }
        // The name is behind the end of the file, where there are zeroes.
        let mut behind = overlay("base", "raw");
        behind[14] = 0xff;
        assert_eq!(open(&[("top", &behind), base]).unwrap(), [0; 4]);
        let mut long = overlay("base", "raw");
        long[18] = 4;
        let error = open(&[("top", &long), base]).unwrap_err().to_string();
        assert!(error.ends_with("the name of its backing file has 1028 bytes"), "{error}");
    }

    #[test]
    fn loops_and_protocols_are_refused() {
        for (top, base, why) in [
            (overlay("top", "qcow2"), Vec::new(), "it is in the chain already"),
            (overlay("base", "qcow2"), overlay("./top", "qcow2"), "it is in the chain already"),
            (overlay("json:{}", "raw"), Vec::new(), "it names \"json:{}\", which is not the name of a file"),
            (
                overlay("nbd://host/x", ""),
                Vec::new(),
                "it names \"nbd://host/x\", which is not the name of a file",
            ),
        ] {
            let error = open(&[("top", &top), ("base", &base)]).unwrap_err();
            assert!(
                matches!(error, Error::Unsupported { .. }) && error.to_string().ends_with(why),
                "{error}"
            );
        }
        assert!(matches!(open(&[("top", &overlay("nowhere", "raw"))]), Err(Error::Io { .. })));
        assert!(open(&[("top", &overlay(".", "raw"))]).is_err());
    }

    #[test]
    fn a_chain_has_an_end() {
        let dir = tempfile::tempdir().unwrap();
        for index in 0..=crate::limits::MAX_CHAIN {
            fs::write(dir.path().join(index.to_string()), overlay(&(index + 1).to_string(), "qcow2"))
                .unwrap();
        }
        let error = open_chain(dir.path().join("0")).unwrap_err().to_string();
        assert!(error.ends_with("there are 200 images before it"), "{error}");
        assert!(matches!(open_chain(dir.path().join("2")), Err(Error::Io { .. })));
        let (chain, error) = open_chain_partly(dir.path().join("2")).unwrap();
        assert_eq!(chain.images().count(), crate::limits::MAX_CHAIN - 1);
        assert!(matches!(error, Some(Error::Io { .. })));
    }
}
