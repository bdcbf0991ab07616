//! QED images of the generator, as QEMU sees them: clean, and with the wanted contents.
#![cfg(feature = "generate")]
#![expect(clippy::panic, reason = "helpers of tests")]

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use vdisk_format::generate::{Order, Qed};

/// Runs one of QEMU's programs, which must succeed, and gives its output.
fn qemu(program: &str, args: &[&str]) -> String {
    let output = match Command::new(program).args(args).output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!("{program} is missing; run `cargo xtask deps`")
        }
        Err(error) => panic!("{program} could not be started: {error}"),
    };
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && !out.contains("failed"), "{program} {args:?}:\n{out}{err}");
    out.into_owned()
}

/// The shapes that QEMU opens.
fn shapes() -> impl Iterator<Item = (u32, u32)> {
    let all = (12..=22).flat_map(|bits| [2, 4, 8, 16].map(|table_size| (1 << bits, table_size)));
    all.filter(|&(cluster_size, table_size): &(u32, u32)| {
        let entries = u128::from(cluster_size) * u128::from(table_size) / 8;
        entries * entries * u128::from(cluster_size) < 1 << 64
    })
}

#[test]
fn every_shape_is_clean_and_holds_what_was_asked_for() {
    let shared_memory = Path::new("/dev/shm");
    let folder = if shared_memory.is_dir() {
        tempfile::tempdir_in(shared_memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    };
    let image = folder.path().join("disk.qed");
    let name = image.to_str().unwrap();
    for (index, (cluster_size, table_size)) in shapes().enumerate() {
        let cluster = u64::from(cluster_size);
        let order = [Order::InOrder, Order::TablesFirst, Order::Random(index as u64)];
        let mut wanted = Qed::new(64 * cluster)
            .cluster_size(cluster_size)
            .table_size(table_size)
            .header_size(2)
            .compat_features(1 << 40)
            .order(*order.get(index % 3).unwrap())
            .allocate(4 * cluster..40 * cluster)
            .data(5 * cluster, vec![0x5a; 3 * 4096])
            .zero(30 * cluster..34 * cluster);
        if index % 2 == 0 {
            wanted = wanted.l1_last();
        }
        wanted.write_to(&mut File::create(&image).unwrap()).unwrap();
        qemu("qemu-img", &["check", "-q", "-f", "qed", name]);
        let read = |pattern: u8, at: u64, length: u64| format!("read -P {pattern} {at} {length}");
        let data = read(0x5a, 5 * cluster, 12288);
        let (before, zero) = (read(0, 0, 5 * cluster), read(0, 30 * cluster, 4 * cluster));
        qemu("qemu-io", &["-r", "-f", "qed", "-c", &data, "-c", &before, "-c", &zero, name]);
    }
}
