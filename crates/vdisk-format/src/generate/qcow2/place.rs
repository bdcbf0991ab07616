//! Where L2 tables and data go in the file.
//!
//! Each is an *item* of one host cluster, and has a number: that is all that is known of it until
//! everything has been counted.

use crate::generate::Order;
use crate::generate::permutation::Permutation;

/// With tables first, the numbers of data begin here, for how many tables there are is not known yet.
const DATA: u64 = 1 << 62;

/// Hands out the numbers of items.
#[derive(Debug, Clone, Copy)]
pub(super) struct Items {
    order: Order,
    tables: u64,
    data: u64,
}

impl Items {
    /// No item yet.
    pub(super) fn new(order: Order) -> Self {
        Items { order, tables: 0, data: 0 }
    }

    /// How many items there are.
    pub(super) fn count(&self) -> u64 {
        self.tables + self.data
    }

    /// The number of a new L2 table.
    pub(super) fn table(&mut self) -> u64 {
        let item = if self.order == Order::TablesFirst { self.tables } else { self.count() };
        self.tables += 1;
        item
    }

    /// The first number of `count` new data clusters, which are numbered in a row.
    pub(super) fn data(&mut self, count: u64) -> u64 {
        let item = self.next_data();
        self.data += count;
        item
    }

    /// What [`data`](Self::data) would give.
    pub(super) fn next_data(&self) -> u64 {
        if self.order == Order::TablesFirst { DATA + self.data } else { self.count() }
    }

    /// Whether items with numbers in a row are host clusters in a row.
    pub(super) fn in_a_row(&self) -> bool {
        !matches!(self.order, Order::Random(_))
    }
}

/// Which host cluster has which item.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    /// The first host cluster that has an item.
    start: u64,
    items: Items,
    /// With a random order.
    shuffled: Option<Permutation>,
}

impl Places {
    /// Places all items in the host clusters from `start` on.
    pub(super) fn new(items: Items, start: u64) -> Self {
        let shuffled = match items.order {
            Order::Random(seed) => Some(Permutation::new(items.count(), seed)),
            Order::InOrder | Order::TablesFirst => None,
        };
        Places { start, items, shuffled }
    }

    /// The host cluster of an item.
    pub(super) fn host(&self, item: u64) -> u64 {
        let place = match &self.shuffled {
            Some(permutation) => permutation.of(item),
            None if item >= DATA => self.items.tables + (item - DATA),
            None => item,
        };
        self.start + place
    }

    /// The item of a host cluster.
    pub(super) fn item(&self, host: u64) -> Option<u64> {
        let place = host.checked_sub(self.start).filter(|&place| place < self.items.count())?;
        Some(match &self.shuffled {
            Some(permutation) => permutation.undo(place),
            None if self.items.order == Order::TablesFirst && place >= self.items.tables => {
                place - self.items.tables + DATA
            }
            None => place,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_has_a_place_of_its_own() {
        for order in [Order::InOrder, Order::TablesFirst, Order::Random(3)] {
            let mut items = Items::new(order);
            let mut numbers = Vec::new();
            for count in [5, 1, 40] {
                numbers.push(items.table());
                let first = items.data(count);
                numbers.extend(first..first + count);
            }
            let places = Places::new(items, 7);
            let mut hosts: Vec<u64> = numbers.iter().map(|&item| places.host(item)).collect();
            for (item, host) in numbers.iter().zip(&hosts) {
                assert_eq!(places.item(*host), Some(*item), "{order:?}");
            }
            match order {
                Order::InOrder => assert!(hosts.is_sorted()),
                Order::TablesFirst => assert_eq!([hosts[0], hosts[6], hosts[8]], [7, 8, 9]),
                Order::Random(_) => assert!(!hosts.is_sorted()),
            }
            hosts.sort_unstable();
            assert_eq!(hosts, (7..7 + 49).collect::<Vec<_>>());
            assert_eq!((places.item(6), places.item(56)), (None, None));
        }
    }
}
