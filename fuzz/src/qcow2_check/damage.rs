//! Damage to an image, aimed at what a check follows: the tables.

use super::image::{COPIED, Image, OFFSET};
use crate::input::Input;

/// As many L2 tables, refcount blocks and so on can be damaged.
const MOST_TABLES: usize = 64;

/// Overwrites entries of the tables, then perhaps makes the file shorter or longer.
pub(super) fn damage(bytes: &mut Vec<u8>, input: &mut Input<'_>) {
    let Some((tables, size)) = tables(bytes) else { return };
    for _ in 0..input.below(16) {
        let mut place = || {
            let table = tables.get(input.below(tables.len())).copied().unwrap_or(0);
            let reach = if input.flag() { 4 } else { 64 };
            table.saturating_add(8 * input.below(reach) as u64)
        };
        let (at, other) = (place(), place());
        let Some(image) = Image::new(bytes) else { return };
        let cluster = |input: &mut Input<'_>| {
            input.below(2 + (image.length() / size).min(65_000) as usize) as u64 * size
        };
        let value = match input.below(12) {
            0 => input.value(),
            1 => 0,
            2 => input.below(3) as u64,
            3 => cluster(input),
            4 => cluster(input) + input.below(1024) as u64,
            5 => (cluster(input) + input.below(1024) as u64) | 1 << 62 | input.value() << 52,
            6 => image.entry(other),
            7 => image.entry(at) ^ COPIED,
            8 => image.entry(at) ^ 1u64.wrapping_shl(input.byte().into()),
            9 => (image.entry(at) & OFFSET) | input.value() << 56,
            _ => cluster(input) | COPIED,
        };
        let tail = usize::try_from(at).ok().and_then(|at| bytes.get_mut(at..)).unwrap_or_default();
        // Many entries at once: what is behind them seems to be lost.
        let entries = if input.below(8) == 1 { 16 + input.below(64) } else { 1 };
        let words = std::iter::repeat_n(value.to_be_bytes(), entries).flatten();
        tail.iter_mut().zip(words).for_each(|(to, from)| *to = from);
    }
    match input.below(16) {
        // Also in the middle of a cluster.
        1 => bytes.truncate(bytes.len().saturating_sub(input.below(8 * 512))),
        2 => bytes.resize(bytes.len() + input.below(2048), 0),
        _ => {}
    }
}

/// Where the tables begin, and the size of a cluster. All of them count the same, or nobody would ever hit the only L1 table
/// among all L2 tables.
fn tables(bytes: &[u8]) -> Option<(Vec<u64>, u64)> {
    let image = Image::new(bytes).filter(|image| (9..=21).contains(&image.cluster_bits))?;
    let mut tables = vec![image.l1_table_offset, image.refcount_table_offset, image.snapshots_offset];
    let mut l1_tables = vec![(image.l1_table_offset, image.l1_size * 8)];
    l1_tables.extend(image.snapshots().iter().map(|(at, _)| (at.l1_table_offset, at.l1_size * 8)));
    let extensions = image.extensions();
    tables.extend(extensions.bitmap_directory.map(|(at, _)| at));
    tables.extend(extensions.bitmap_tables.iter().map(|(at, _)| at));
    tables.extend(l1_tables.iter().skip(1).map(|(at, _)| at));
    for named in l1_tables.into_iter().chain([image.refcount_table()]) {
        let used = image.entries(named).map(|(_, entry)| entry & OFFSET).filter(|&offset| offset != 0);
        tables.extend(used.take(MOST_TABLES));
    }
    tables.retain(|&at| at != 0 && at < image.length());
    (!tables.is_empty()).then(|| (tables, image.cluster_size()))
}
