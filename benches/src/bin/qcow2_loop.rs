//! The limit for whoever checks a qcow2 image: a loop over the same bytes of L1 tables, L2 tables and refcount blocks that
//! counts how often each cluster is named, and does nothing else. It trusts the image: give it none that you did not
//! make.

#![expect(clippy::indexing_slicing, reason = "a bound to measure against, on images of our own")]

use std::error::Error;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use vdisk_format::qcow2::geometry::OFFSET_MASK;
use vdisk_format::qcow2::{Area, Tables};
use vdisk_format::{Image, View};

/// Tables that lie together are read together. In bytes.
const WINDOW: usize = 64 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: qcow2-loop IMAGE.qcow2")?;
    let image = Image::open(&path)?;
    let tables = Tables::new(View::from(&image))?;
    let geometry = tables.geometry();
    let mut window = Window { file: File::open(&path)?, bytes: Vec::new(), start: 0, last: 0 };
    let size = geometry.cluster_size();
    let words = usize::from(geometry.extended_l2()) + 1;
    let bits = geometry.cluster_bits();

    let mut l1_tables = vec![geometry.l1_table()];
    for snapshot in tables.snapshots() {
        l1_tables.push(snapshot?.l1_table());
    }
    let mut named = Vec::new();
    for table in l1_tables {
        named.extend(offsets(window.read(table)?, 1).filter(|&l2| l2 != 0));
    }
    named.sort_unstable();
    let mut counts = vec![0u8; (image.bytes().len() >> bits) + 1];
    let mut allocated = 0u64;
    for same in named.chunk_by(|a, b| a == b) {
        let times = u8::try_from(same.len()).unwrap_or(u8::MAX);
        for cluster in offsets(window.read(Area::new(same[0], size))?, words) {
            if cluster != 0 {
                let count = &mut counts[(cluster >> bits) as usize];
                *count = count.saturating_add(times);
                allocated += 1;
            }
        }
    }

    let table = window.read(geometry.refcount_table())?.to_vec();
    let width = (1usize << geometry.refcount_order().ok_or("no refcount order")?).div_ceil(8);
    let mut refcounts = 0;
    for block in offsets(&table, 1).filter(|&block| block != 0) {
        let bytes = window.read(Area::new(block, size))?;
        refcounts += match (geometry.refcount_order(), width) {
            (Some(0), _) => bytes.iter().map(|byte| u64::from(byte.count_ones() as u8)).sum(),
            (_, 2) => bytes.as_chunks::<2>().0.iter().map(|count| u64::from(*count != [0; 2])).sum::<u64>(),
            (_, 8) => bytes.as_chunks::<8>().0.iter().map(|count| u64::from(*count != [0; 8])).sum(),
            _ => bytes.chunks_exact(width).map(|count| u64::from(count.iter().any(|&byte| byte != 0))).sum(),
        };
    }
    let twice = counts.iter().filter(|&&count| count > 1).count();
    println!("{allocated} allocated, {twice} named twice, {refcounts} refcounts");
    Ok(())
}

/// The offsets in every `words`th number of a table.
fn offsets(table: &[u8], words: usize) -> impl Iterator<Item = u64> {
    table.as_chunks::<8>().0.iter().step_by(words).map(|entry| u64::from_be_bytes(*entry) & OFFSET_MASK)
}

/// A piece of the file: reading small tables is faster than mapping them.
struct Window {
    file: File,
    bytes: Vec<u8>,
    start: u64,
    /// Where the table before ended.
    last: u64,
}

impl Window {
    fn read(&mut self, area: Area) -> std::io::Result<&[u8]> {
        let length = area.length as usize;
        let is_near = area.offset.0.checked_sub(self.last).is_some_and(|gap| gap < WINDOW as u64);
        self.last = area.offset.0 + area.length;
        let from = area.offset.0.checked_sub(self.start).map_or(usize::MAX, |from| from as usize);
        if from.saturating_add(length) <= self.bytes.len() {
            return Ok(&self.bytes[from..from + length]);
        }
        self.file.seek(SeekFrom::Start(area.offset.0))?;
        self.bytes.resize(if is_near { length.max(WINDOW) } else { length }, 0);
        let mut filled = 0;
        while filled < self.bytes.len() {
            match self.file.read(&mut self.bytes[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        self.bytes.truncate(filled);
        self.start = area.offset.0;
        Ok(&self.bytes[..length])
    }
}
