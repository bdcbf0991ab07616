//! Where everything goes.

use super::Qed;
use crate::generate::guest::{Contents, Extent, Grain};
use crate::generate::permutation::Permutation;
use crate::generate::tables::{L2Table, allocated, l2_tables, split};
use crate::generate::{GenerateError, Order};

/// The plan of an image. Places are cluster numbers.
#[derive(Debug)]
pub(super) struct Layout<'a> {
    pub(super) cluster_size: u64,
    /// Clusters and entries of a table.
    pub(super) table_size: u64,
    pub(super) entries: u64,
    pub(super) contents: Contents<'a>,
    /// Split where an L2 table ends. What is not allocated is a zero cluster.
    pub(super) extents: Vec<Extent>,
    pub(super) tables: Vec<L2Table>,
    pub(super) l1: u64,
    clusters: u64,
    data: Data,
}

/// Where the data are, by their number: the first allocated cluster of the disk has number 0.
#[derive(Debug)]
enum Data {
    /// Each table's behind it: `start`, and the tables up to theirs.
    BehindTables { start: u64 },
    /// All behind all tables, which are at `tables`.
    BehindAll { tables: u64, start: u64 },
    /// Tables and data are items, of which each has a rank in a random order; `tables` are the tables' ranks, sorted.
    Random { start: u64, order: Permutation, tables: Vec<u64> },
}

impl<'a> Layout<'a> {
    pub(super) fn new(wanted: &'a Qed) -> Result<Self, GenerateError> {
        let (cluster_size, table_size) = (u64::from(wanted.cluster_size), u64::from(wanted.table_size));
        let entries = cluster_size * table_size / 8;
        let grain = Grain { disk_size: wanted.size, size: cluster_size, per_cluster: 1 };
        let contents = Contents::paint(&wanted.contents, grain)?;
        let extents = split(contents.extents(grain), entries);
        let mut tables = l2_tables(&extents, entries);
        let (header, count) = (u64::from(wanted.header_size), tables.len() as u64);
        let start = if wanted.l1_last { header } else { header + table_size };
        let clusters = header
            .checked_add(allocated(&extents))
            .and_then(|clusters| clusters.checked_add((count + 1).checked_mul(table_size)?))
            .unwrap_or(u64::MAX);
        if clusters > i64::MAX as u64 / cluster_size {
            return Err(GenerateError::FileTooLarge { clusters, bits: 63 });
        }
        let data = match wanted.order {
            Order::InOrder => Data::BehindTables { start },
            Order::TablesFirst => Data::BehindAll { tables: start, start: start + count * table_size },
            Order::Random(seed) => {
                let order = Permutation::new(count + allocated(&extents), seed);
                let mut ranks: Vec<u64> = (0..count).map(|table| order.of(table)).collect();
                ranks.sort_unstable();
                Data::Random { start, order, tables: ranks }
            }
        };
        let mut before = 0;
        for (index, table) in (0..).zip(&mut tables) {
            table.host = data.table(index, before, table_size);
            before += allocated(extents.get(table.extents.clone()).unwrap_or_default());
        }
        let l1 = if wanted.l1_last { clusters - table_size } else { header };
        Ok(Self { cluster_size, table_size, entries, contents, extents, tables, l1, clusters, data })
    }

    /// Length of the file in bytes.
    pub(super) fn length(&self) -> u64 {
        self.clusters * self.cluster_size
    }

    /// Where data cluster `number` is, which is one of table `table`.
    pub(super) fn host(&self, table: u64, number: u64) -> u64 {
        match &self.data {
            Data::BehindTables { start } => start + (table + 1) * self.table_size + number,
            Data::BehindAll { start, .. } => start + number,
            Data::Random { order, tables, .. } => {
                self.data.ranked(order.of(tables.len() as u64 + number), self.table_size)
            }
        }
    }
}

impl Data {
    /// Where table `index` is, before which there are `before` clusters of data in order.
    fn table(&self, index: u64, before: u64, table_size: u64) -> u64 {
        match self {
            Self::BehindTables { start } => start + index * table_size + before,
            Self::BehindAll { tables, .. } => tables + index * table_size,
            Self::Random { order, .. } => self.ranked(order.of(index), table_size),
        }
    }

    /// Where the item of a rank is: behind all items of lower rank, of which the tables are larger.
    fn ranked(&self, rank: u64, table_size: u64) -> u64 {
        let Self::Random { start, tables, .. } = self else { return 0 };
        let tables_before = tables.partition_point(|&table| table < rank) as u64;
        start + rank + tables_before * (table_size - 1)
    }
}
