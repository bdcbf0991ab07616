//! The gate: `qcow2 check` may not take more instructions for a cluster than it did. Unlike a time, the number is the same on
//! a busy machine.

use std::error::Error;
use std::path::Path;

use vdisk_format::generate::{Order, Qcow2};

use crate::images::Wanted;
use crate::instructions::Counter;
use crate::programs::Programs;
use crate::row::Row;

/// An image, and the most instructions that each of its clusters may take: a third more than they took.
struct Shape {
    image: Wanted,
    clusters: u64,
    most: f64,
}

fn shapes() -> [Shape; 3] {
    const GIB: u64 = 1 << 30;
    let shape = |name, size: u64, bits, order, most| {
        let image = Qcow2::new(size).cluster_bits(bits).allocate(0..size).order(order);
        Shape { image: Wanted::qcow2(name, image), clusters: size >> bits, most }
    };
    [
        shape("4 GiB, in order", 4 * GIB, 16, Order::InOrder, 14.0),
        shape("4 GiB, in random order", 4 * GIB, 16, Order::Random(1), 90.0),
        shape("128 MiB, 512 B clusters", GIB / 8, 9, Order::TablesFirst, 66.0),
    ]
}

/// Counts and prints; `false` where a check takes too many.
pub(crate) fn gate(bin_dir: &Path, dir: &Path) -> Result<bool, Box<dyn Error>> {
    let counter = Counter::detect(&Programs::ours(bin_dir, "empty-process")?);
    if counter == Counter::Nothing {
        return Err(
            "neither perf nor Valgrind counts instructions here: `cargo xtask deps` installs Valgrind".into(),
        );
    }
    println!("{counter}");
    let program = Programs::ours(bin_dir, "qcow2")?;
    let count = |wanted: &Wanted| -> Result<u64, Box<dyn Error>> {
        let image = wanted.write(dir)?;
        let words = [program.clone().into(), image.path.clone().into(), "check".into()];
        let count = counter.count(&Row { is_ours: true, ..Row::new("qcow2 check", words) })?;
        Ok(count.ok_or("qcow2 check failed")?)
    };
    // What starting takes is no cluster's.
    let start = count(&Wanted::qcow2("1 MiB", Qcow2::new(1 << 20)))?;
    println!("qcow2 check, 1 MiB: {start} instructions");
    let mut kept = true;
    for Shape { image, clusters, most } in shapes() {
        let each = per_cluster(count(&image)?, start, clusters);
        let verdict = if each <= most { "ok" } else { "TOO MANY" };
        println!("qcow2 check, {}: {each:.2} instructions a cluster, at most {most}: {verdict}", image.name);
        kept &= each <= most;
    }
    Ok(kept)
}

fn per_cluster(count: u64, start: u64, clusters: u64) -> f64 {
    (count as f64 - start as f64) / clusters as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_not_the_clusters() {
        assert_eq!(per_cluster(1000, 400, 100), 6.0);
        assert_eq!(per_cluster(300, 400, 100), -1.0);
    }
}
