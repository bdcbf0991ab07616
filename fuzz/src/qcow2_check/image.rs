//! An image as a plain reader of the specification sees it: numbers at offsets. What the file does not have is zeroes.

/// Bits 9 to 55 of an entry.
pub(super) const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Bit 63 of an entry.
pub(super) const COPIED: u64 = 1 << 63;
/// Most bitmaps and most snapshots that QEMU takes.
const MOST_BITMAPS: u64 = 65_535;
pub(super) const MOST_SNAPSHOTS: u64 = 65_536;

/// Types of header extensions.
const BITMAPS: u64 = 0x2385_2875;
const CRYPTO_HEADER: u64 = 0x0537_be77;

/// The bytes of an image, and the fields of its header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Image<'a> {
    bytes: &'a [u8],
    pub(super) version: u64,
    pub(super) cluster_bits: u64,
    pub(super) size: u64,
    pub(super) crypt_method: u64,
    pub(super) l1_size: u64,
    pub(super) l1_table_offset: u64,
    pub(super) refcount_table_offset: u64,
    pub(super) refcount_table_clusters: u64,
    pub(super) nb_snapshots: u64,
    pub(super) snapshots_offset: u64,
    pub(super) incompatible_features: u64,
    pub(super) autoclear_features: u64,
    pub(super) refcount_order: u64,
    header_length: u64,
}

/// A part of the file: where it starts, and its length.
pub(super) type Part = (u64, u64);

/// An entry of the snapshot table.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) l1_table_offset: u64,
    pub(super) l1_size: u64,
    pub(super) extra_data_size: u64,
    /// Size of its disk.
    pub(super) disk_size: u64,
    pub(super) id: Vec<u8>,
    /// Where its name ends.
    pub(super) end: u64,
}

/// What the header extensions lead to.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    /// The encryption headers that are named; `None`: the extension is too short to name one.
    pub(super) crypto_headers: Vec<Option<Part>>,
    pub(super) bitmap_directory: Option<Part>,
    pub(super) bitmap_tables: Vec<Part>,
}

impl<'a> Image<'a> {
    /// `None` where there is no header, whatever it says.
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        let of = |at, width| number(bytes, at, width);
        let is_old = of(4, 4) == 2;
        let newer = |at, width, before| if is_old { before } else { of(at, width) };
        (bytes.len() >= if is_old { 72 } else { 104 }).then(|| Self {
            bytes,
            version: of(4, 4),
            cluster_bits: of(20, 4),
            size: of(24, 8),
            crypt_method: of(32, 4),
            l1_size: of(36, 4),
            l1_table_offset: of(40, 8),
            refcount_table_offset: of(48, 8),
            refcount_table_clusters: of(56, 4),
            nb_snapshots: of(60, 4),
            snapshots_offset: of(64, 8),
            incompatible_features: newer(72, 8, 0),
            autoclear_features: newer(88, 8, 0),
            refcount_order: newer(96, 4, 4),
            header_length: newer(100, 4, 72),
        })
    }

    pub(super) fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub(super) fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    pub(super) fn is_aligned(&self, offset: u64) -> bool {
        offset.is_multiple_of(self.cluster_size())
    }

    pub(super) fn data_file(&self) -> bool {
        self.incompatible_features >> 2 & 1 != 0
    }

    pub(super) fn extended_l2(&self) -> bool {
        self.incompatible_features >> 4 & 1 != 0
    }

    pub(super) fn l2_entries(&self) -> u64 {
        self.cluster_size() / if self.extended_l2() { 16 } else { 8 }
    }

    /// A number of 64 bits.
    pub(super) fn entry(&self, at: u64) -> u64 {
        number(self.bytes, at, 8)
    }

    /// The entries of a table that the file has, with their offsets. Its last sector is whole, but for tables that begin at no
    /// multiple of 8, with which QEMU opens no image.
    pub(super) fn entries(self, (start, length): Part) -> impl Iterator<Item = (u64, u64)> {
        let end = if start.is_multiple_of(8) { self.length().next_multiple_of(512) } else { self.length() };
        let there = end.saturating_sub(start) / 8;
        (0..there.min(length / 8)).map(move |index| (start + index * 8, self.entry(start + index * 8)))
    }

    pub(super) fn refcount_table(&self) -> Part {
        (self.refcount_table_offset, self.refcount_table_clusters << self.cluster_bits)
    }

    /// The refcount of a cluster; `None` where its block cannot be read, or nobody knows how wide refcounts are.
    pub(super) fn refcount(&self, cluster: u64) -> Option<u64> {
        let width = 1u64 << (self.refcount_order <= 6).then_some(self.refcount_order)?;
        let per_block = self.cluster_size() * 8 / width;
        let (start, length) = self.refcount_table();
        let at = cluster / per_block * 8;
        if at >= length {
            return Some(0);
        }
        let block = start.checked_add(at).map_or(0, |at| self.entry(at)) & !0x1ff;
        if block == 0 {
            return Some(0);
        }
        // Behind that, QEMU reads nothing.
        if !self.is_aligned(block) || block.saturating_add(self.cluster_size()) > (1 << 63) - (1 << 30) {
            return None;
        }
        let bit = cluster % per_block * width;
        let at = block + bit / 8;
        let bytes = number(self.bytes, at, width.div_ceil(8) as usize);
        Some(if width < 8 { bytes >> (bit % 8) & ((1 << width) - 1) } else { bytes })
    }

    /// The snapshot table, entry by entry, and whether the file has each in full.
    pub(super) fn snapshots(&self) -> Vec<(Snapshot, bool)> {
        let mut found = Vec::new();
        let mut at = self.snapshots_offset;
        for _ in 0..self.nb_snapshots.min(MOST_SNAPSHOTS) {
            let of =
                |offset: u64, width| at.checked_add(offset).map_or(0, |at| number(self.bytes, at, width));
            let (id_size, name_size, extra) = (of(12, 2), of(14, 2), of(36, 4));
            let id_at = at.saturating_add(40 + extra);
            let end = id_at.saturating_add(id_size + name_size);
            let id =
                usize::try_from(id_at).ok().and_then(|from| self.bytes.get(from..)?.get(..id_size as usize));
            let disk_size = if extra >= 16 { of(48, 8) } else { self.size };
            let snapshot = Snapshot {
                l1_table_offset: of(0, 8),
                l1_size: of(8, 4),
                extra_data_size: extra,
                disk_size,
                id: id.unwrap_or_default().to_vec(),
                end,
            };
            found.push((snapshot, end <= self.length()));
            at = at.saturating_add((end - at).next_multiple_of(8));
        }
        found
    }

    pub(super) fn extensions(&self) -> Extensions {
        let mut found = Extensions::default();
        let backing_file_offset = self.entry(8);
        let end = match backing_file_offset {
            0 => self.cluster_size(),
            name => name.min(self.cluster_size()),
        };
        let mut at = self.header_length;
        while at < end && at + 8 <= self.length() {
            let (kind, length, data) = (number(self.bytes, at, 4), number(self.bytes, at + 4, 4), at + 8);
            let has = |bytes| data + bytes <= self.length();
            match kind {
                0 => break,
                // Of fixed length, whatever it says.
                BITMAPS if !has(24) => break,
                BITMAPS => self.bitmaps(data, &mut found),
                CRYPTO_HEADER => {
                    let pointer = (self.entry(data), self.entry(data + 8));
                    found.crypto_headers.push((has(16) && length >= 16).then_some(pointer));
                }
                _ => {}
            }
            at = data + if kind == BITMAPS { 24 } else { length.next_multiple_of(8) };
        }
        found
    }

    /// What a leaked bitmap directory says at `at`, if it is one: a table, its length, and where the next entry is.
    pub(super) fn bitmap_entry(&self, at: u64) -> Option<(u64, u64, u64)> {
        if at.checked_add(24)? > self.length() {
            return None;
        }
        let field = |offset: u64, width| number(self.bytes, at + offset, width);
        let (table, entries, flags) = (field(0, 8), field(8, 4), field(12, 4));
        let (kind, granularity, name, extra) = (field(16, 1), field(17, 1), field(18, 2), field(20, 4));
        let has_size = entries > 0 && entries * self.cluster_size() <= 512 << 20;
        let is_one = table != 0 && self.is_aligned(table) && has_size && flags <= 7 && kind == 1;
        let is_named = (9..=31).contains(&granularity) && (1..=1023).contains(&name) && extra == 0;
        (is_one && is_named).then(|| (table, entries * 8, at + (24 + name).next_multiple_of(8)))
    }

    /// The bitmaps of the last extension that has any: as far as their directory is in the file.
    fn bitmaps(&self, data: u64, found: &mut Extensions) {
        found.bitmap_tables.clear();
        let mut at = self.entry(data + 16);
        found.bitmap_directory = Some((at, self.entry(data + 8)));
        for _ in 0..number(self.bytes, data, 4).min(MOST_BITMAPS) {
            if at.checked_add(24).is_none_or(|end| end > self.length()) {
                break;
            }
            found.bitmap_tables.push((self.entry(at), number(self.bytes, at + 8, 4) * 8));
            let (name, extra) = (number(self.bytes, at + 18, 2), number(self.bytes, at + 20, 4));
            at += (24 + name + extra).next_multiple_of(8);
        }
    }
}

/// The big-endian number of `width` bytes at `at`.
fn number(bytes: &[u8], at: u64, width: usize) -> u64 {
    let tail = usize::try_from(at).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
    (0..width).fold(0, |number, index| number << 8 | u64::from(tail.get(index).copied().unwrap_or(0)))
}
