//! Goes through the plan, and writes what is not zero.

use std::io::{self, Seek, Write};

use super::Qed;
use super::layout::Layout;
use crate::generate::GenerateError;
use crate::generate::guest::Extent;
use crate::generate::sink::Sink;
use crate::qed::header::{
    FEATURE_BACKING_FILE, FEATURE_BACKING_FORMAT_NO_PROBE, FEATURE_NEED_CHECK, HeaderFields, MAGIC,
};

/// An L2 entry: the cluster reads as zeroes.
const ZERO: u64 = 1;

/// Writes the image. Returns its length in bytes.
pub(super) fn image<W: Write + Seek>(
    wanted: &Qed,
    layout: &Layout<'_>,
    out: &mut W,
) -> Result<u64, GenerateError> {
    let mut sink = Sink::new(out);
    sink.put(0, &header(wanted, layout).to_bytes())?;
    if let Some(name) = &wanted.backing_file {
        sink.put(name.offset.into(), &name.name)?;
    }
    for table in &layout.tables {
        let entry = (table.host * layout.cluster_size).to_le_bytes();
        sink.put(layout.l1 * layout.cluster_size + table.l1_index * 8, &entry)?;
    }
    let mut number = 0;
    let mut entries = Vec::new();
    for (index, table) in (0..).zip(&layout.tables) {
        let mut next = 0;
        entries.clear();
        for extent in layout.extents.get(table.extents.clone()).unwrap_or_default() {
            let first = extent.first % layout.entries;
            entries.resize((first * 8) as usize, 0);
            next = first + extent.count;
            for i in 0..extent.count {
                let host = || layout.host(index, number + i) * layout.cluster_size;
                let entry = if extent.allocated { host() } else { ZERO };
                entries.extend(entry.to_le_bytes());
            }
            if extent.allocated {
                data(layout, index, extent, number, &mut sink)?;
                number += extent.count;
            }
        }
        debug_assert_eq!(entries.len() as u64, next * 8);
        sink.put(table.host * layout.cluster_size, &entries)?;
    }
    Ok(sink.finish(layout.length())?)
}

/// Writes the data of an extent whose first cluster has this number.
fn data<W: Write + Seek>(
    layout: &Layout<'_>,
    table: u64,
    extent: &Extent,
    number: u64,
    sink: &mut Sink<'_, W>,
) -> io::Result<()> {
    let size = layout.cluster_size;
    let start = extent.first * size;
    for (mut at, mut bytes) in layout.contents.data(start..start + extent.count * size) {
        while !bytes.is_empty() {
            let (cluster, within) = (at / size, at % size);
            let (here, rest) = bytes.split_at(((size - within) as usize).min(bytes.len()));
            sink.put(layout.host(table, number + cluster - extent.first) * size + within, here)?;
            at += here.len() as u64;
            bytes = rest;
        }
    }
    Ok(())
}

fn header(wanted: &Qed, layout: &Layout<'_>) -> HeaderFields {
    let name = wanted.backing_file.as_ref();
    let flag = |on: bool, bit: u64| if on { bit } else { 0 };
    HeaderFields {
        magic: MAGIC,
        cluster_size: wanted.cluster_size,
        table_size: wanted.table_size,
        header_size: wanted.header_size,
        features: flag(name.is_some(), FEATURE_BACKING_FILE)
            | flag(wanted.need_check, FEATURE_NEED_CHECK)
            | flag(name.is_some_and(|name| name.no_probe), FEATURE_BACKING_FORMAT_NO_PROBE),
        compat_features: wanted.compat_features,
        autoclear_features: wanted.autoclear_features,
        l1_table_offset: layout.l1 * layout.cluster_size,
        image_size: wanted.size,
        backing_filename_offset: name.map_or(0, |name| name.offset),
        backing_filename_size: name.map_or(0, |name| name.name.len() as u32),
    }
}
