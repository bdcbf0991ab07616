//! How a check counts, told as plainly as can be: a map from cluster to references, and each table walked as often as it is
//! referred to.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::image::{COPIED, Image, MOST_SNAPSHOTS, OFFSET, Part};

/// Entries and clusters that are looked at: an image with more is not judged here.
const MOST_WORK: u64 = 1 << 17;
/// The largest L1 table and the largest refcount table that QEMU takes, in bytes.
const MOST_L1: u64 = 32 << 20;
const MOST_REFCOUNT_TABLE: u64 = 8 << 20;
const MOST_SNAPSHOT_TABLE: u64 = 64 << 20;

/// What a check comes to, but for the header's faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Found {
    pub(super) corruptions: u64,
    pub(super) leaks: u64,
    pub(super) check_errors: u64,
    pub(super) extra_corruptions: u64,
    pub(super) lost_mappings: u64,
    pub(super) total_clusters: u64,
    pub(super) allocated_clusters: u64,
    pub(super) fragmented_clusters: u64,
    pub(super) compressed_clusters: u64,
    pub(super) image_end_offset: Option<u64>,
    pub(super) last_in_data_file: Option<u64>,
}

/// The clusters of a table, and how many references to them are its own. In the order in which they are told of: of those
/// that begin in one place, L2 tables come last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Table {
    start: u64,
    is_l2: bool,
    length: u64,
    clusters: (u64, u64),
    times: u64,
}

pub(super) struct Model<'a> {
    pub(super) image: Image<'a>,
    work_left: u64,
    pub(super) found: Found,
    /// References to each cluster.
    references: HashMap<u64, u64>,
    /// Those from compressed clusters.
    compressed: HashMap<u64, u64>,
    /// Clusters with a reference that claims to be the only one.
    marked: HashSet<u64>,
    /// Clusters of the file, and the one behind its end where something refers to that.
    pub(super) clusters: u64,
    tables: Vec<Table>,
    /// L2 tables: how often each is referred to, and whether by the active L1 table.
    pub(super) l2_tables: BTreeMap<u64, (u64, bool)>,
    /// Where L1 entries are that name tables which the file does not have whole, and whether the disk's.
    pub(super) missing_tables: BTreeSet<(bool, u64)>,
}

/// The result of a walk that an image with too many entries ends.
type Walked = Option<()>;

impl<'a> Model<'a> {
    /// What there is to count in an image; `None` where that is too much.
    pub(super) fn of(image: Image<'a>) -> Option<Found> {
        let mut model = Model {
            image,
            work_left: MOST_WORK,
            found: Found::default(),
            references: HashMap::new(),
            compressed: HashMap::new(),
            marked: HashSet::new(),
            clusters: image.length().div_ceil(image.cluster_size()),
            tables: Vec::new(),
            l2_tables: BTreeMap::new(),
            missing_tables: BTreeSet::new(),
        };
        model.found.total_clusters = (image.size / 512 * 512).div_ceil(image.cluster_size());
        model.region((0, image.cluster_size()), false)?;
        model.l1_tables()?;
        model.others()?;
        model.refcount_blocks()?;
        model.compare()?;
        model.copied_flags();
        model.sizes();
        model.misplaced();
        model.overlaps();
        model.lost();
        Some(model.found)
    }

    fn work(&mut self, amount: u64) -> Walked {
        self.work_left = self.work_left.checked_sub(amount)?;
        Some(())
    }

    fn corrupt(&mut self, is_so: bool) {
        self.found.corruptions += u64::from(is_so);
    }

    fn extra(&mut self, is_so: bool) {
        self.found.extra_corruptions += u64::from(is_so);
    }

    /// The largest refcount that there can be.
    pub(super) fn most(&self) -> u64 {
        u64::MAX >> (64 - (1u64 << self.image.refcount_order.min(6)))
    }

    /// The first and the last cluster of a part of the file; `None` where there is none, or its end is a cluster behind that of the
    /// file's last sector, or more.
    pub(super) fn clusters(&self, (start, length): Part) -> Option<(u64, u64)> {
        let end = u128::from(start) + u128::from(length);
        let limit = u128::from(self.image.length().next_multiple_of(512) + self.image.cluster_size());
        let last = (length > 0 && end < limit).then(|| start + length)? - 1;
        Some((start >> self.image.cluster_bits, last >> self.image.cluster_bits))
    }

    /// Counts a reference to each cluster of a part of the file, or a corruption where the file does not have it.
    fn claim(&mut self, part: Part, marked: bool) -> Walked {
        let Some((first, last)) = self.clusters(part) else {
            self.corrupt(part.1 > 0);
            return Some(());
        };
        self.work(last - first + 1)?;
        let most = self.most();
        for cluster in first..=last {
            let references = self.references.entry(cluster).or_default();
            *references += 1;
            // One more than can be counted, each time.
            let is_over = *references > most && self.image.refcount_order <= 6;
            self.found.corruptions += u64::from(is_over);
            if marked {
                self.marked.insert(cluster);
            }
        }
        self.clusters = self.clusters.max(last + 1);
        Some(())
    }

    /// Claims what must be nobody else's.
    fn region(&mut self, part: Part, is_whole: bool) -> Walked {
        self.table(part, 1, false, is_whole);
        self.claim(part, false)
    }

    fn table(&mut self, part: Part, times: u64, is_l2: bool, is_whole: bool) {
        if let Some(clusters) = self.clusters(part) {
            self.tables.push(Table { start: part.0, is_l2, length: part.1, clusters, times });
            self.extra(is_whole && part.0 + part.1 > self.image.length());
        }
    }

    fn l1_tables(&mut self) -> Walked {
        let image = self.image;
        self.l1_table((image.l1_table_offset, image.l1_size * 8), true)?;
        self.corrupt(image.data_file() && image.nb_snapshots > 0);
        for (snapshot, _) in image.snapshots() {
            self.work(1)?;
            let length = snapshot.l1_size * 8;
            if !image.is_aligned(snapshot.l1_table_offset) || length > MOST_L1 {
                self.corrupt(true);
            } else {
                self.l1_table((snapshot.l1_table_offset, length), false)?;
            }
        }
        Some(())
    }

    fn l1_table(&mut self, part: Part, active: bool) -> Walked {
        self.region(part, true)?;
        for (at, entry) in self.image.entries(part) {
            self.work(1)?;
            if entry == 0 {
                continue;
            }
            let table = entry & OFFSET;
            if table.saturating_add(self.image.cluster_size()) > self.image.length() {
                self.missing_tables.insert((active, at));
            }
            self.corrupt(entry & !(OFFSET | COPIED) != 0);
            self.claim((table, self.image.cluster_size()), active && entry & COPIED != 0)?;
            self.corrupt(!self.image.is_aligned(table));
            let known = self.l2_tables.entry(table).or_default();
            let is_first = known.0 == 0;
            *known = (known.0 + 1, known.1 || active);
            self.l2_table(table, active, is_first)?;
        }
        Some(())
    }

    fn l2_table(&mut self, table: u64, active: bool, is_first: bool) -> Walked {
        self.work(self.image.l2_entries())?;
        let mut next = 0;
        for (entry, bitmap) in self.l2_entries(table) {
            if entry >> 62 & 1 != 0 {
                self.compressed_entry(entry, bitmap, active, is_first)?;
                continue;
            }
            let (offset, size) = (entry & OFFSET, self.image.cluster_size());
            let is_reserved = entry & 0x3f00_0000_0000_01fe != 0;
            self.corrupt(is_reserved);
            let has_no_zero_flag = self.image.version == 2 || self.image.extended_l2();
            self.extra(is_first && !is_reserved && has_no_zero_flag && entry & 1 != 0);
            let (allocated, zeroes) = (bitmap & 0xffff_ffff, bitmap >> 32);
            if !self.has_cluster(entry) {
                self.corrupt(allocated != 0);
                continue;
            }
            self.corrupt(allocated & zeroes != 0);
            self.corrupt(!self.image.is_aligned(offset));
            if active {
                self.found.allocated_clusters += 1;
                self.found.fragmented_clusters += u64::from(next != 0 && next != offset);
            }
            next = offset + size;
            if self.image.data_file() {
                self.found.last_in_data_file = self.found.last_in_data_file.max(Some(offset));
            } else {
                self.claim((offset, size), active && entry & COPIED != 0)?;
            }
        }
        Some(())
    }

    fn compressed_entry(&mut self, entry: u64, bitmap: u64, active: bool, is_first: bool) -> Walked {
        let split = 62 - (self.image.cluster_bits - 8);
        let offset = entry & ((1 << split) - 1);
        self.corrupt(entry & COPIED != 0);
        self.extra(is_first && offset >> 56 != 0);
        if self.image.data_file() || bitmap != 0 {
            self.corrupt(true);
            return Some(());
        }
        let sectors = (entry >> split & ((1 << (62 - split)) - 1)) + 1;
        let part = (offset, sectors * 512 - offset % 512);
        self.claim(part, false)?;
        if let Some((first, last)) = self.clusters(part) {
            (first..=last).for_each(|cluster| *self.compressed.entry(cluster).or_default() += 1);
        }
        if active {
            self.found.allocated_clusters += 1;
            self.found.compressed_clusters += 1;
            self.found.fragmented_clusters += 1;
        }
        Some(())
    }

    /// The entries of an L2 table: each, and its subclusters.
    pub(super) fn l2_entries(&self, table: u64) -> impl Iterator<Item = (u64, u64)> + use<'a> {
        let (image, extended) = (self.image, self.image.extended_l2());
        (0..image.l2_entries()).map(move |index| {
            let at = table + index * if extended { 16 } else { 8 };
            (image.entry(at), if extended { image.entry(at + 8) } else { 0 })
        })
    }

    /// Whether an entry that is not compressed names a cluster, preallocated or not.
    pub(super) fn has_cluster(&self, entry: u64) -> bool {
        let is_zero = entry & 1 != 0 && !self.image.extended_l2();
        entry & OFFSET != 0 || (self.image.data_file() && entry & COPIED != 0 && !is_zero)
    }

    /// Snapshot table, refcount table, encryption headers and bitmaps.
    fn others(&mut self) -> Walked {
        let image = self.image;
        let snapshots = image.snapshots();
        for (snapshot, _) in &snapshots {
            let size = snapshot.extra_data_size;
            self.corrupt(image.version >= 3 && size < 16);
            self.extra(size > 1024);
        }
        if let Some((last, _)) = snapshots.last() {
            self.region((image.snapshots_offset, last.end - image.snapshots_offset), false)?;
        }
        self.region(image.refcount_table(), true)?;
        let extensions = image.extensions();
        if image.crypt_method == 2 {
            let header = extensions.crypto_headers.iter().rev().find_map(|&header| header);
            // The length is signed for QEMU.
            let is_counted = header.is_some_and(|(_, length)| length >> 63 == 0);
            self.extra(header.is_some() && !is_counted);
            if let Some(header) = header.filter(|_| is_counted) {
                self.region(header, false)?;
            }
            let has_luks = header.and_then(|(start, _)| start.checked_add(592));
            self.extra(has_luks.is_none_or(|end| end > image.length()));
        }
        if image.autoclear_features & 1 != 0
            && let Some(directory) = extensions.bitmap_directory
        {
            self.region(directory, true)?;
            self.bitmap_tables(&extensions.bitmap_tables)?;
        }
        Some(())
    }

    fn bitmap_tables(&mut self, tables: &[Part]) -> Walked {
        let mut seen = HashSet::new();
        for &table in tables {
            self.work(1)?;
            self.region(table, true)?;
            if self.clusters(table).is_none() || !table.0.is_multiple_of(8) {
                continue;
            }
            for (at, entry) in self.image.entries(table) {
                self.work(1)?;
                let cluster = entry & OFFSET;
                let is_valid = entry & !(OFFSET | 1) == 0
                    && (cluster == 0 || entry & 1 == 0)
                    && self.image.is_aligned(cluster);
                self.corrupt(!is_valid);
                if is_valid && cluster != 0 {
                    let data = (cluster, self.image.cluster_size());
                    self.claim(data, false)?;
                    if seen.insert(at) {
                        self.table(data, 1, false, false);
                    }
                }
            }
        }
        Some(())
    }

    fn refcount_blocks(&mut self) -> Walked {
        for (_, entry) in self.image.entries(self.image.refcount_table()) {
            self.work(1)?;
            let block = entry & !0x1ff;
            let cluster = block >> self.image.cluster_bits;
            let is_wrong = entry != block || !self.image.is_aligned(block) || cluster >= self.clusters;
            self.corrupt(is_wrong);
            if !is_wrong && block != 0 {
                self.region((block, self.image.cluster_size()), true)?;
                self.corrupt(self.referred(cluster).min(self.most()) != 1);
            }
        }
        Some(())
    }

    pub(super) fn referred(&self, cluster: u64) -> u64 {
        self.references.get(&cluster).copied().unwrap_or(0)
    }

    /// Compares the references with the refcounts.
    fn compare(&mut self) -> Walked {
        if self.image.refcount_order > 6 {
            return Some(());
        }
        self.work(self.clusters)?;
        let mut last = 0;
        for cluster in 0..self.clusters {
            let references = self.referred(cluster).min(self.most());
            let Some(refcount) = self.image.refcount(cluster) else {
                self.found.check_errors += 1;
                continue;
            };
            if refcount > 0 || references > 0 {
                last = cluster;
            }
            self.corrupt(refcount < references);
            self.found.leaks += u64::from(refcount > references);
        }
        self.found.image_end_offset = Some((last + 1) << self.image.cluster_bits);
        Some(())
    }

    fn copied_flags(&mut self) {
        let (image, bits) = (self.image, self.image.cluster_bits);
        for (_, entry) in image.entries((image.l1_table_offset, image.l1_size * 8)) {
            let table = entry & OFFSET;
            let Some(refcount) = image.refcount(table >> bits).filter(|_| table != 0) else { continue };
            self.corrupt((refcount == 1) != (entry & COPIED != 0));
            for (entry, _) in self.l2_entries(table).filter(|(entry, _)| entry >> 62 & 1 == 0) {
                let cluster = (entry & OFFSET) >> bits;
                let refcount = if image.data_file() { Some(1) } else { image.refcount(cluster) };
                let is_wrong = refcount.is_some_and(|refcount| (refcount == 1) != (entry & COPIED != 0));
                self.corrupt(self.has_cluster(entry) && is_wrong);
            }
        }
    }

    /// Sizes of the header and the snapshots that do not go together.
    fn sizes(&mut self) {
        let image = self.image;
        let span = image.l2_entries() << image.cluster_bits;
        self.extra(image.l1_size < image.size.div_ceil(span) || image.l1_size * 8 > MOST_L1);
        let (start, length) = image.refcount_table();
        self.extra(length == 0 || length > MOST_REFCOUNT_TABLE);
        self.extra(start == 0);
        self.extra(image.nb_snapshots > MOST_SNAPSHOTS);
        let snapshots = image.snapshots();
        let end = snapshots.last().map_or(0, |(last, _)| last.end.saturating_add(7) & !7);
        self.extra(end.saturating_sub(image.snapshots_offset) > MOST_SNAPSHOT_TABLE);
        let all_there = snapshots.iter().all(|(_, is_whole)| *is_whole);
        self.extra(!all_there || image.nb_snapshots > MOST_SNAPSHOTS);
        let mut ids = BTreeSet::new();
        for (snapshot, _) in snapshots.into_iter().take_while(|(_, is_whole)| *is_whole) {
            self.extra(snapshot.l1_size < snapshot.disk_size.div_ceil(span));
            self.extra(!ids.insert(snapshot.id));
        }
    }

    /// Clusters of the data file that are not where the disk has them. A table of two places has none in both.
    fn misplaced(&mut self) {
        let image = self.image;
        if !image.data_file() {
            return;
        }
        let mut named: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (at, entry) in image.entries((image.l1_table_offset, image.l1_size * 8)) {
            named.entry(entry & OFFSET).or_default().push((at - image.l1_table_offset) / 8);
        }
        for (table, indices) in named.into_iter().filter(|(table, _)| *table != 0 && image.is_aligned(*table))
        {
            for (at, (entry, _)) in (0..).zip(self.l2_entries(table)) {
                let offset = entry & OFFSET;
                let has_place = entry >> 62 & 1 == 0 && self.has_cluster(entry) && image.is_aligned(offset);
                let is_there = |index: &u64| {
                    let cluster = u128::from(*index) * u128::from(image.l2_entries()) + at;
                    cluster << image.cluster_bits == u128::from(offset)
                };
                self.extra(has_place && (indices.len() > 1 || !indices.iter().all(is_there)));
            }
        }
    }

    /// Clusters of a table that are somebody else's, too: what the tables before it have told of is not told again. Then the
    /// same of compressed data.
    fn overlaps(&mut self) {
        for (table, (times, _)) in self.l2_tables.clone() {
            self.table((table, self.image.cluster_size()), times, true, true);
        }
        let mut tables = std::mem::take(&mut self.tables);
        tables.sort_unstable();
        let mut told = None;
        for Table { clusters: (first, last), times, .. } in tables {
            let is_new = |&cluster: &u64| told.is_none_or(|told| cluster > told);
            let shared = (first..=last).filter(is_new).rfind(|&cluster| self.referred(cluster) > times);
            told = shared.or(told);
            self.extra(shared.is_some());
        }
        let compressed: BTreeMap<u64, u64> = self.compressed.iter().map(|(&k, &v)| (k, v)).collect();
        let mut before = None;
        for (cluster, count) in compressed {
            let references = self.referred(cluster);
            let alike = (count, references, self.marked.contains(&cluster));
            self.extra(references > count && before != Some((cluster, alike)));
            before = Some((cluster + 1, alike));
        }
    }
}
