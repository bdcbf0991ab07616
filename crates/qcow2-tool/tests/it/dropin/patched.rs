//! Images with bytes that qemu-img would not write.

use super::{compare, report};
use crate::support::bytes::{Bytes, at, extension, magic};
use crate::support::images::{self, made};
use crate::support::original::Original;
use std::path::Path;
use test_support::scratch::scratch;

/// An image of each version with clusters small enough to fill.
fn bases(folder: &Path) -> Vec<(&'static str, Bytes)> {
    [("v2", "compat=0.10,cluster_size=4096"), ("v3", "compat=1.1,cluster_size=512")]
        .map(|(name, options)| (name, Bytes::read(&made(folder, name, options).path)))
        .to_vec()
}

/// Compares the dumps of every variant of every base. At least one variant in four has to be
/// readable for the original, or the comparison would say little.
#[track_caller]
fn variants(make: impl Fn(&Bytes) -> Vec<(String, Bytes)>) {
    let folder = scratch();
    let mut original = Original::start();
    let (mut faults, mut count, mut readable) = (Vec::new(), 0, 0);
    for (base_name, base) in bases(folder.path()) {
        for (name, bytes) in make(&base) {
            let file = folder.path().join("patched.qcow2");
            bytes.write(&file);
            count += 1;
            readable += usize::from(original.dumps(&file)[0].stdout().is_some());
            faults.extend(compare(&mut original, &format!("{base_name} {name}"), &file));
        }
    }
    assert!(readable * 4 >= count, "the original reads only {readable} of {count}");
    report(&faults, count);
}

#[test]
fn unknown_extensions_with_data_of_every_kind() {
    let printable: Vec<u8> = (0x20..0x7f).collect();
    let data: [&[u8]; 20] = [
        b"plain",
        b"it's",
        b"\"quoted\"",
        b"'\"'",
        b"a\nb\n",
        b"\ta\t",
        b"back\\slash\\n",
        b"\x0b\x0c",
        b"\r\n",
        b" ",
        b"\0",
        b"text\0",
        b"\x7f",
        b"\x1b[31mred",
        b"\x80",
        b"\xc3\xa9",
        b"\xff\xfe",
        b"</script>&\xe2\x80\xa8",
        &printable,
        b"{\"json\": [1, 2]}",
    ];
    variants(|base| {
        let with = |data: &[u8]| base.clone().with_area(&extension(magic::UNKNOWN, data));
        data.iter().map(|data| (format!("{:?}", data.escape_ascii().to_string()), with(data))).collect()
    });
}

#[test]
fn lengths_and_padding() {
    variants(|base| {
        let mut all = Vec::new();
        for length in 0..=17 {
            let mut area = extension(magic::UNKNOWN, &b"abcdefghijklmnopq"[..length]);
            area.extend(extension(1, b"next"));
            all.push((format!("length {length}"), base.clone().with_area(&area)));
            // What is in the padding is not ours to judge.
            let padding = 8 + length;
            area[padding..].first_chunk_mut::<1>().unwrap()[0] = b'x';
            all.push((format!("length {length}, padding used"), base.clone().with_area(&area)));
        }
        all
    });
}

#[test]
fn every_known_magic_with_strange_data() {
    let known = [magic::BACKING_FORMAT, magic::FEATURE_NAMES, magic::ENCRYPTION, magic::DATA_FILE];
    variants(|base| {
        let mut all = Vec::new();
        for magic in known {
            for data in [&b""[..], b"raw", b"\xff", b"\0\0\0\0\0\x03\x10\0", &[0; 48], &[b'A'; 49]] {
                let area = [extension(magic, data), extension(magic, data)].concat();
                all.push((format!("{magic:#x} {data:?}, twice"), base.clone().with_area(&area)));
            }
        }
        all
    });
}

#[test]
fn no_end_marker() {
    variants(|base| {
        let room = base.cluster_size() - base.header_length();
        let mut all = Vec::new();
        for left in [0, 4, 7, 8, 9, 16, 24] {
            let area = extension(magic::UNKNOWN, &vec![b'x'; (room - 8).saturating_sub(left)]);
            if area.len() <= room {
                all.push((format!("{left} bytes left"), base.clone().with_area(&area)));
            }
        }
        let many: Vec<u8> =
            (0..room / 8).flat_map(|i| extension(1 + u32::try_from(i).unwrap(), b"")).collect();
        all.push(("empty extensions to the end".to_owned(), base.clone().with_area(&many)));
        all
    });
}

#[test]
fn a_backing_file_name_within_the_extensions() {
    let area = [extension(magic::UNKNOWN, b"one and a half"), extension(7, b"two")].concat();
    variants(|base| {
        let start = u64::try_from(base.header_length()).unwrap();
        let mut all = Vec::new();
        for delta in [0, 1, 7, 8, 9, 16, 23, 24, 25, 31, 32, 40, 48] {
            let bytes = base.clone().with_area(&area).with_u64(at::BACKING_FILE_OFFSET, start + delta);
            for size in [0, 5, 1023, 4096, u32::MAX] {
                let bytes = bytes.clone().with_u32(at::BACKING_FILE_SIZE, size);
                all.push((format!("name at +{delta}, {size} bytes"), bytes));
            }
        }
        for offset in [1, 8, 71, 100, 511, 512, 4096, 1 << 20, 1 << 40, (1 << 63) - 1, 1 << 63, u64::MAX] {
            let bytes = base.clone().with_area(&area).with_u64(at::BACKING_FILE_OFFSET, offset);
            all.push((format!("name at {offset:#x}"), bytes.with_u32(at::BACKING_FILE_SIZE, 9)));
        }
        all
    });
}

#[test]
fn header_lengths_and_versions() {
    let area = extension(magic::UNKNOWN, b"here");
    variants(|base| {
        let mut all = Vec::new();
        for version in [0, 1, 2, 3, 4, 7, 0x8000_0000, u32::MAX] {
            for length in [
                0,
                1,
                4,
                8,
                71,
                72,
                96,
                100,
                103,
                104,
                105,
                112,
                120,
                200,
                504,
                508,
                512,
                4088,
                4096,
                1 << 20,
                u32::MAX,
            ] {
                let bytes = base.clone().with_area(&area).with_u32(at::VERSION, version);
                all.push((
                    format!("version {version}, length {length}"),
                    bytes.with_u32(at::HEADER_LENGTH, length),
                ));
            }
        }
        all
    });
}

#[test]
fn cluster_bits() {
    variants(|base| {
        let bits = [0, 1, 3, 6, 7, 8, 9, 12, 21, 22, 30, 31, 32, 33, 62, 63, 64, 65, 100, 300, 20_000];
        let set = |bits| base.clone().with_u32(at::CLUSTER_BITS, bits);
        bits.iter().map(|&bits| (format!("cluster_bits {bits}"), set(bits))).collect()
    });
}

#[test]
fn magics_and_extreme_fields() {
    variants(|base| {
        let set = |at: usize, new: &[u8]| (format!("{new:?} at {at}"), base.clone().with(at, new));
        let mut all =
            vec![set(at::MAGIC, b"QED\0"), set(at::MAGIC, b"\0\0\0\0"), set(at::MAGIC, b"\xff\xff\xff\xff")];
        for field in [at::SIZE, 40, 48, 64, at::INCOMPATIBLE_FEATURES, 80, at::AUTOCLEAR_FEATURES] {
            for value in [1, 1 << 31, 1 << 32, 1 << 63, 0x0123_4567_89ab_cdef, u64::MAX] {
                all.push(set(field, &u64::to_be_bytes(value)));
            }
        }
        for field in [16, 32, 36, 56, 60, 96] {
            for value in [1, 63, 1 << 31, u32::MAX] {
                all.push(set(field, &u32::to_be_bytes(value)));
            }
        }
        all
    });
}

#[test]
fn extensions_past_the_end_of_the_file() {
    variants(|base| {
        let cluster = base.cluster_size();
        let mut all = Vec::new();
        for length in [1, 400, 1000, 4000, 5000, 1 << 16, 1 << 24, 0x7fff_ffff, u32::MAX - 7, u32::MAX] {
            let area = [magic::UNKNOWN.to_be_bytes(), u32::to_be_bytes(length)].concat();
            let bytes = base.clone().with_area(&area);
            all.push((format!("length {length}"), bytes.clone()));
            for end in [cluster, cluster - 1, base.header_length() + 8, base.header_length() + 20] {
                let mut short = bytes.clone();
                short.0.truncate(end);
                all.push((format!("length {length}, file of {end}"), short));
            }
        }
        all
    });
}

#[test]
fn files_cut_short() {
    variants(|base| {
        let area = extension(magic::UNKNOWN, b"twenty bytes of data");
        let mut all = vec![("whole".to_owned(), base.clone())];
        let start = base.header_length();
        for end in [
            0,
            1,
            4,
            71,
            72,
            103,
            104,
            105,
            start + 4,
            start + 8,
            start + 28,
            start + 32,
            start + 36,
            start + 40,
        ] {
            let mut short = base.clone().with_area(&area);
            short.0.truncate(end);
            all.push((format!("{end} bytes"), short));
            // With a name right behind it, the area ends before the file does.
            let mut named = base.clone().with_area(&area).with_u64(at::BACKING_FILE_OFFSET, 1);
            named.0.truncate(end);
            all.push((format!("{end} bytes, no area"), named));
        }
        all
    });
}

/// Variants of an image with four bitmaps, the first of which has data.
#[track_caller]
fn bitmap_variants(make: impl Fn(&Bytes) -> Vec<(String, Bytes)>) {
    let folder = scratch();
    let base = images::with_bitmaps(folder.path())
        .into_iter()
        .find(|image| image.name == "bitmaps-4k-zstd")
        .map(|image| Bytes::read(&image.path))
        .unwrap();
    let mut original = Original::start();
    let mut faults = Vec::new();
    let all = make(&base);
    for (name, bytes) in &all {
        let file = folder.path().join("patched.qcow2");
        bytes.write(&file);
        faults.extend(compare(&mut original, name, &file));
    }
    report(&faults, all.len());
}

#[test]
fn bitmap_extensions_of_other_lengths_and_places() {
    bitmap_variants(|base| {
        let data = base.extension(magic::BITMAPS).unwrap().start;
        let set = |name: &str, at: usize, new: &[u8]| (format!("{name} {new:?}"), base.clone().with(at, new));
        let mut all = vec![set("unchanged", 0, b"Q")];
        for length in [0u32, 1, 8, 16, 20, 23, 25, 32, 48, 4096, u32::MAX] {
            all.push(set("length", data - 4, &length.to_be_bytes()));
        }
        for count in [0u32, 1, 3, 5, 65535, u32::MAX] {
            all.push(set("nb_bitmaps", data, &count.to_be_bytes()));
        }
        all.push(set("reserved", data + 4, &[1, 2, 3, 4]));
        for number in [0u64, 1, 1 << 20, 1 << 40, 1 << 63, u64::MAX] {
            all.push(set("directory size", data + 8, &number.to_be_bytes()));
            all.push(set("directory offset", data + 16, &number.to_be_bytes()));
        }
        all
    });
}

#[test]
fn bitmap_directory_entries() {
    bitmap_variants(|base| {
        let entry = base.bitmap_directory();
        let set = |name: &str, at: usize, new: &[u8]| {
            (format!("{name} {new:?}"), base.clone().with(entry + at, new))
        };
        let mut all = Vec::new();
        for flags in [0u32, 1, 2, 3, 4, 0xf0, 1 << 31, u32::MAX] {
            all.push(set("flags", 12, &flags.to_be_bytes()));
        }
        for (table, size) in
            [(0u64, 0u32), (0, 3), (1, 1), (1 << 20, 1), (1 << 62, 0), (1 << 63, 0), (u64::MAX, 1)]
        {
            all.push(set("table", 0, &[&table.to_be_bytes()[..], &size.to_be_bytes()].concat()));
        }
        for size in [2, 1000, 100_000, u32::MAX] {
            all.push(set("table size", 8, &u32::to_be_bytes(size)));
        }
        for byte in [0, 9, 63, 64, 255] {
            all.push(set("type", 16, &[byte]));
            all.push(set("granularity", 17, &[byte]));
        }
        for size in [0u16, 1, 4, 6, 1000, u16::MAX] {
            all.push(set("name size", 18, &size.to_be_bytes()));
        }
        for size in [1u32, 4, 8, 1 << 16, u32::MAX] {
            all.push(set("extra data", 20, &size.to_be_bytes()));
        }
        for name in
            [b"\x7f\x00\x01'\"", b"\n\t\r\x0b\x0c", b"\x1b[2J\x07", b"\xc3\xa9abc", b"\\u12\\", b"<&>%s"]
        {
            all.push(set("name", 24, name));
        }
        all
    });
}

#[test]
fn bitmap_table_entries_of_every_type() {
    bitmap_variants(|base| {
        let table = usize::try_from(base.u64(base.bitmap_directory())).unwrap();
        let mut all = Vec::new();
        for value in [
            0,
            1,
            0x200,
            0x1000,
            0x1001,
            0x1000 | (1 << 63),
            0xff00_0000_0000_01fe,
            0xff00_0000_0000_01ff,
            0x00ff_ffff_ffff_fe00,
            u64::MAX,
            1 << 56,
            0x1fe,
            2,
        ] {
            all.push((format!("{value:#x}"), base.clone().with_u64(table, value)));
            // Sizes are printed as cluster_size, which has no limit in Python but one of digits.
            for bits in [9, 31, 63, 64, 100, 1000, 14_000, 15_000] {
                let huge = base.clone().with_u32(at::CLUSTER_BITS, bits).with_u64(table, value);
                all.push((format!("{value:#x}, cluster_bits {bits}"), huge));
            }
        }
        all
    });
}
