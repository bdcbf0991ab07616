//! Images of QED: arbitrary bytes, small ones laid out by hand, and damage to any of them.

use vdisk_format::qed::header::{HeaderFields, MAGIC, known_fields};

use crate::input::Input;

/// Most clusters of an image: enough for a few tables and for data to be contested, and a fuzzer wants thousands of
/// images a second.
const MOST_CLUSTERS: usize = 24;

/// What was laid out: what the damage is aimed at.
struct Layout {
    cluster_size: u64,
    table_size: u64,
    header_size: u64,
    clusters: u64,
}

/// An image that `input` chooses: as a rule one with tables, and some damage.
pub(crate) fn image(input: &mut Input<'_>) -> Vec<u8> {
    if input.below(16) == 1 {
        return input.take(4096).to_vec();
    }
    let (mut image, layout) = laid_out(input);
    if input.flag() {
        mutate(&mut image, &layout, input);
    }
    image
}

/// Header, L1 table, and L2 tables behind it, which name any cluster of the file, or none.
fn laid_out(input: &mut Input<'_>) -> (Vec<u8>, Layout) {
    let cluster_size = 1 << input.one_of(&[12, 12, 12, 13]).max(12);
    let table_size = input.one_of(&[1, 2, 1, 2, 4]).max(1);
    let header_size = 1 + u64::from(input.below(8) == 1);
    let tables = 1 + input.below(4) as u64;
    let clusters = header_size + table_size * (1 + tables) + input.below(MOST_CLUSTERS) as u64;
    let layout = Layout { cluster_size, table_size, header_size, clusters };
    let l1 = header_size * cluster_size;
    let entries = layout.entries();

    let mut image = header(&layout, input).to_bytes();
    image.resize(usize::try_from(clusters * cluster_size).unwrap_or(0), 0);
    let name = input.below(32);
    put(&mut image, HeaderFields::SIZE, input.take(name));
    for table in 0..tables {
        let index = if input.below(8) == 1 { input.below(entries as usize) as u64 } else { table };
        let at = l1 + (1 + table) * table_size * cluster_size;
        put(&mut image, l1 + index * 8, &at.to_le_bytes());
        fill(&mut image, at, &layout, input);
    }
    // Data that looks like a table, for an entry that claims it to be one.
    for _ in 0..input.below(3) {
        let at = input.below(clusters as usize) as u64 * cluster_size;
        if at > l1 {
            fill(&mut image, at, &layout, input);
        }
    }
    (image, layout)
}

fn header(layout: &Layout, input: &mut Input<'_>) -> HeaderFields {
    let entries = layout.entries();
    let disk = match input.below(4) {
        0 => input.below(64) as u64 * layout.cluster_size,
        1 => (1 + input.below(6) as u64) * entries * layout.cluster_size,
        2 => entries * entries * layout.cluster_size,
        _ => input.below(4096) as u64 * 512,
    };
    HeaderFields {
        magic: MAGIC,
        cluster_size: layout.cluster_size as u32,
        table_size: layout.table_size as u32,
        header_size: layout.header_size as u32,
        features: input.one_of(&[0, 0, 1, 2, 5, 7]),
        compat_features: 0,
        autoclear_features: 0,
        l1_table_offset: layout.header_size * layout.cluster_size,
        image_size: disk,
        backing_filename_offset: HeaderFields::SIZE as u32,
        backing_filename_size: input.below(32) as u32,
    }
}

/// Writes runs of entries into the table at `at`: in order, in steps, the same one again, zero clusters, anything.
fn fill(image: &mut [u8], at: u64, layout: &Layout, input: &mut Input<'_>) {
    let mut index = 0;
    for _ in 0..input.below(12) {
        if input.is_empty() {
            return;
        }
        index += if input.below(4) == 1 { input.below(layout.entries() as usize) as u64 } else { 0 };
        let count = [1, 1, 2, 5, 17, 40].get(input.below(6)).copied().unwrap_or(1);
        let first = layout.entry(input);
        let step = match input.below(8) {
            0 => 2 * layout.cluster_size,
            1 => 0,
            2 => layout.cluster_size.wrapping_neg(),
            _ => layout.cluster_size,
        };
        for i in 0..count {
            if index >= layout.entries() {
                return;
            }
            let value = if first < 2 { first } else { first.wrapping_add(step.wrapping_mul(i)) };
            put(image, at + index * 8, &value.to_le_bytes());
            index += 1;
        }
    }
}

/// Damages `image` in up to 8 ways.
fn mutate(image: &mut Vec<u8>, layout: &Layout, input: &mut Input<'_>) {
    let l1 = layout.header_size * layout.cluster_size;
    for _ in 0..input.below(9) {
        match input.below(9) {
            0 => {
                let index = input.below(known_fields().count());
                if let Some(field) = known_fields().nth(index) {
                    let value = input.value() & field.max();
                    put(image, field.offset, &field.encode(value).unwrap_or_default());
                }
            }
            1 => put(image, 16 + input.below(48) as u64, input.take(1)),
            2 | 3 => put(image, l1 + input.below(16) as u64 * 8, &layout.entry(input).to_le_bytes()),
            4 => {
                let length = image.len().saturating_sub(input.below(3 * 4096));
                image.truncate(length);
            }
            5 => {
                let name = (input.below(3 * 4096) as u32, input.below(2048) as u32);
                put(image, 56, &[name.0.to_le_bytes(), name.1.to_le_bytes()].concat());
            }
            6 => put(image, 40, &layout.entry(input).to_le_bytes()),
            _ => {
                let at = l1 + input.below(8192) as u64 * 8;
                put(image, at, &layout.entry(input).to_le_bytes());
            }
        }
    }
}

/// Damages an image of which nothing is known but its bytes.
pub(super) fn damage(image: &mut Vec<u8>, input: &mut Input<'_>) {
    let layout =
        Layout { cluster_size: 4096, table_size: 1, header_size: 1, clusters: image.len() as u64 / 4096 };
    mutate(image, &layout, input);
}

impl Layout {
    fn entries(&self) -> u64 {
        self.cluster_size * self.table_size / 8
    }

    /// An entry of a table: as a rule a cluster of the file.
    fn entry(&self, input: &mut Input<'_>) -> u64 {
        let cluster = input.below(self.clusters as usize) as u64 * self.cluster_size;
        match input.below(12) {
            0 => input.value(),
            1 => 0,
            2 => 1,
            3 => cluster + input.below(4096) as u64,
            4 => cluster + self.clusters * self.cluster_size,
            _ => cluster,
        }
    }
}

/// Overwrites the part of the range that the image has.
pub(super) fn put(image: &mut [u8], at: u64, bytes: &[u8]) {
    let tail = usize::try_from(at).ok().and_then(|at| image.get_mut(at..)).unwrap_or_default();
    tail.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
}
