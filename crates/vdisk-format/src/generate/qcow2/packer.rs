//! Puts compressed clusters one behind another, as `qemu-img` does.

use super::place::Items;

/// A compressed cluster: bytes in one host cluster, or in two in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stream {
    /// The item where it begins.
    pub(super) item: u64,
    /// Where in that it begins, in bytes.
    pub(super) within: u64,
    /// Its length in bytes: less than a cluster.
    pub(super) length: u64,
}

impl Stream {
    /// The items that it touches, of clusters of this size.
    pub(super) fn items(&self, cluster_size: u64) -> impl Iterator<Item = u64> {
        let spans = self.within + self.length > cluster_size;
        self.item..=self.item + u64::from(spans)
    }
}

/// Finds places for streams.
#[derive(Debug)]
pub(super) struct Packer {
    cluster_size: u64,
    /// How many streams a host cluster may have: as many as its reference count can say.
    max: u64,
    open: Option<Open>,
}

/// The host cluster that is not full yet.
#[derive(Debug, Clone, Copy)]
struct Open {
    item: u64,
    used: u64,
    streams: u64,
}

impl Packer {
    pub(super) fn new(cluster_size: u64, max: u64) -> Self {
        Packer { cluster_size, max, open: None }
    }

    /// A place for `length` bytes: in what is left of a host cluster, if need be also at the start
    /// of the next one, or in a new one.
    pub(super) fn place(&mut self, length: u64, items: &mut Items) -> Stream {
        let room = self.open.filter(|open| open.streams < self.max && open.used < self.cluster_size);
        if let Some(open) = room {
            let stream = Stream { item: open.item, within: open.used, length };
            let end = open.used + length;
            if end <= self.cluster_size {
                self.open = Some(Open { item: open.item, used: end, streams: open.streams + 1 });
                return stream;
            }
            if items.in_a_row() && items.next_data() == open.item + 1 {
                let item = items.data(1);
                self.open = Some(Open { item, used: end - self.cluster_size, streams: 1 });
                return stream;
            }
        }
        let item = items.data(1);
        self.open = Some(Open { item, used: length, streams: 1 });
        Stream { item, within: 0, length }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::Order;

    fn places(order: Order, max: u64, lengths: &[u64]) -> Vec<(u64, u64)> {
        let (mut items, mut packer) = (Items::new(order), Packer::new(512, max));
        let streams = lengths.iter().map(|&length| packer.place(length, &mut items));
        streams.map(|stream| (stream.item, stream.within)).collect()
    }

    #[test]
    fn streams_are_packed() {
        let lengths = [200, 200, 200, 424, 10];
        let packed = [(0, 0), (0, 200), (0, 400), (1, 88), (2, 0)];
        assert_eq!(places(Order::InOrder, 9, &lengths), packed);
        let apart = [(0, 0), (0, 200), (1, 0), (2, 0), (2, 424)];
        assert_eq!(places(Order::Random(1), 9, &lengths), apart);
        assert_eq!(places(Order::InOrder, 1, &[5; 3]), [(0, 0), (1, 0), (2, 0)]);
    }

    #[test]
    fn a_stream_does_not_go_over_other_clusters() {
        let (mut items, mut packer) = (Items::new(Order::InOrder), Packer::new(512, 9));
        packer.place(300, &mut items);
        items.table();
        assert_eq!(packer.place(300, &mut items), Stream { item: 2, within: 0, length: 300 });
    }
}
