//! [`Model`]: what the specification says of an image's tables, written as plainly as can be: every entry is read for
//! itself, and claimed clusters are in a set of numbers.

use std::collections::BTreeSet;

use vdisk_format::bytes::clipped;
use vdisk_format::qed::Invalid;
use vdisk_format::qed::map::ExtentKind;
use vdisk_format::units::HostOffset;

/// An image whose sizes the specification allows.
pub(super) struct Model<'a> {
    pub(super) image: &'a [u8],
    pub(super) cluster_size: u64,
    pub(super) table_bytes: u64,
    pub(super) header_end: u64,
    pub(super) file_end: u64,
    pub(super) disk: u64,
    pub(super) l1_at: u64,
}

/// What is met on the way through the tables, in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Met {
    /// An L1 entry that names no table.
    NoTable(u64, Invalid),
    /// An L1 entry whose table takes so many clusters that something has, the first of which is the last number.
    Overlap(u64, u64, u64, u64),
    /// A table.
    Table(Table),
}

/// A table that is looked into.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) l1_index: u64,
    pub(super) at: u64,
    /// Index and value of each entry that is neither 0 nor 1, and what is wrong with it.
    pub(super) entries: Vec<(u64, u64, Option<Invalid>)>,
    /// Index and cluster of those whose cluster something has already.
    pub(super) again: Vec<(u64, u64)>,
}

impl<'a> Model<'a> {
    pub(super) fn new(image: &'a [u8]) -> Option<Self> {
        let number = |at, width| {
            let bytes = clipped(image, at, width);
            let number = bytes.iter().rev().fold(0u64, |number, &byte| number << 8 | u64::from(byte));
            (bytes.len() as u64 == width).then_some(number)
        };
        let (cluster_size, table_size, header_size) = (number(4, 4)?, number(8, 4)?, number(12, 4)?);
        let (l1_at, disk) = (number(40, 8)?, number(48, 8)?);
        number(60, 4)?;
        let allowed =
            (12..=26).any(|bits| cluster_size == 1 << bits) && [1, 2, 4, 8, 16].contains(&table_size);
        // A file's last sector is whole, its last cluster need not be there.
        let length = (image.len() as u64).div_ceil(512) * 512;
        allowed.then(|| Self {
            image,
            cluster_size,
            table_bytes: cluster_size * table_size,
            header_end: header_size * cluster_size,
            file_end: length / cluster_size * cluster_size,
            disk,
            l1_at,
        })
    }

    pub(super) fn entries(&self) -> u64 {
        self.table_bytes / 8
    }

    pub(super) fn guest_clusters(&self) -> u64 {
        self.disk.div_ceil(self.cluster_size)
    }

    /// What is wrong with the offset of a cluster.
    pub(super) fn wrong(&self, offset: u64) -> Option<Invalid> {
        if !offset.is_multiple_of(self.cluster_size) {
            Some(Invalid::Unaligned)
        } else if offset == 0 || offset < self.header_end {
            Some(Invalid::InHeader)
        } else {
            (offset >= self.file_end).then_some(Invalid::PastEnd)
        }
    }

    /// What is wrong with the offset of a table.
    pub(super) fn wrong_table(&self, offset: u64) -> Option<Invalid> {
        let cut_short = || (offset + self.table_bytes > self.file_end).then_some(Invalid::CutShort);
        self.wrong(offset).or_else(cut_short)
    }

    /// Entry `index` of the table at `at`, where the file has it: in its last sector, zeroes follow what it has.
    pub(super) fn entry(&self, at: u64, index: u64) -> Option<u64> {
        let at = at.checked_add(index.checked_mul(8)?)?;
        if at.checked_add(8)? > (self.image.len() as u64).div_ceil(512) * 512 {
            return None;
        }
        let mut entry = [0; 8];
        entry.iter_mut().zip(clipped(self.image, at, 8)).for_each(|(to, &from)| *to = from);
        Some(u64::from_le_bytes(entry))
    }

    /// The entries of the table at `at`, as far as the file has them.
    pub(super) fn table(&self, at: u64) -> Vec<u64> {
        (0..self.entries()).map_while(|index| self.entry(at, index)).collect()
    }

    /// Whether there is an L1 table, if perhaps a part of one, or one in a header of wrong size.
    pub(super) fn has_l1(&self) -> bool {
        let wrong = self.wrong_table(self.l1_at);
        self.l1_at != 0 && matches!(wrong, None | Some(Invalid::InHeader | Invalid::CutShort))
    }

    /// The entries of the L1 table, as far as the file has it.
    pub(super) fn l1(&self) -> Vec<u64> {
        if self.has_l1() { self.table(self.l1_at) } else { Vec::new() }
    }

    /// Goes through the tables as QEMU's check does. Returns what it met, and the clusters that are claimed.
    pub(super) fn walk(&self) -> (Vec<Met>, BTreeSet<u64>) {
        let mut claimed = BTreeSet::new();
        let clusters = |at: u64| at / self.cluster_size..(at + self.table_bytes) / self.cluster_size;
        if self.has_l1() {
            claimed.extend(clusters(self.l1_at));
        }
        let mut met = Vec::new();
        for (l1_index, at) in (0..).zip(self.l1()) {
            if at == 0 {
                continue;
            }
            if let Some(invalid) = self.wrong_table(at) {
                met.push(Met::NoTable(l1_index, invalid));
                continue;
            }
            let taken: Vec<u64> = clusters(at).filter(|cluster| !claimed.insert(*cluster)).collect();
            if let Some(&first) = taken.first() {
                met.push(Met::Overlap(l1_index, at, taken.len() as u64, first));
                continue;
            }
            met.push(Met::Table(self.one_table(l1_index, at, &mut claimed)));
        }
        (met, claimed)
    }

    /// Whether something else has a cluster of the table at `at`: the L1 table, another L2 table, or data of a table that
    /// is looked into.
    pub(super) fn is_contested(&self, at: u64) -> bool {
        let clusters = |at: u64| at / self.cluster_size..(at + self.table_bytes) / self.cluster_size;
        let touches = |other: u64| clusters(other).any(|cluster| clusters(at).contains(&cluster));
        let is_data = |met: &Met| match met {
            Met::Table(table) => table.entries.iter().any(|&(_, value, wrong)| {
                wrong.is_none() && clusters(at).contains(&(value / self.cluster_size))
            }),
            _ => false,
        };
        let mut others =
            self.l1().into_iter().filter(|&other| other != at && self.wrong_table(other).is_none());
        touches(self.l1_at) || others.any(touches) || self.walk().0.iter().any(is_data)
    }

    fn one_table(&self, l1_index: u64, at: u64, claimed: &mut BTreeSet<u64>) -> Table {
        let mut table = Table { l1_index, at, ..Table::default() };
        for (index, value) in (0..).zip(self.table(at)) {
            if value < 2 {
                continue;
            }
            let wrong = self.wrong(value);
            table.entries.push((index, value, wrong));
            if wrong.is_none() && !claimed.insert(value / self.cluster_size) {
                table.again.push((index, value / self.cluster_size));
            }
        }
        table
    }

    /// What a guest finds in one of its clusters: of the L2 table at `table`, entry `index`.
    pub(super) fn kind(&self, table: u64, index: u64) -> ExtentKind {
        let value = self.entry(table, index).unwrap_or(0);
        match self.wrong(value) {
            _ if value == 0 => ExtentKind::Unallocated,
            _ if value == 1 => ExtentKind::Zero,
            Some(why) => ExtentKind::Invalid { why },
            None => ExtentKind::Data { offset: HostOffset(value) },
        }
    }
}
