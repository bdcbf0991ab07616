//! Compressed clusters that cannot be decoded: what a reader would find out when it is too late.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::fault::L2Fault;
use super::problems::L2Place;
use super::walk::Walk;
use crate::qcow2::geometry::Geometry;
use crate::qcow2::l2::{L2Entry, L2Format};
use crate::qcow2::read::decompress;
use crate::units::HostOffset;
use crate::view::View;

/// So many entries are looked at together: enough for many threads, and 3 MiB where all of them are bad.
const BATCH: usize = 1 << 14;
/// So many descriptors are remembered that can be decoded: 5 MiB. Tables of snapshots share most of theirs.
const MOST_KNOWN: usize = 1 << 18;
/// A thread takes so many neighbours at a time: they lie in the same pages.
const PIECE: usize = 8;
/// More threads decode no faster, and each takes memory.
const MOST_THREADS: usize = 64;

/// Compressed entries, in their order, and what is known of their data.
#[derive(Default)]
struct Batch {
    entries: Vec<(L2Place, L2Entry)>,
    /// Descriptors of earlier batches that can be decoded: as many as are worth the memory.
    known: HashSet<u64>,
}

/// What threads need to decode.
#[derive(Clone, Copy)]
struct Decoder<'a> {
    geometry: &'a Geometry,
    format: L2Format,
    /// Descriptors, each once, in the order of the file.
    wanted: &'a [u64],
    /// How many of them are taken.
    taken: &'a AtomicUsize,
}

impl Walk<'_, '_> {
    /// Decodes the data of all compressed entries of the L2 tables, with `threads` threads. Data that several entries name
    /// are decoded once, as far as they are remembered.
    pub(super) fn decode(&mut self, threads: usize) {
        if self.check.compressed_clusters == 0 && self.compressed.is_none()
            || self.geometry.crypt_method() != 0
        {
            return;
        }
        let (tables, l2_tables) = (self.tables, std::mem::take(&mut self.l2_tables));
        let (mut batch, total) = (Batch::default(), l2_tables.len() as u64);
        for (done, (table, _)) in (0..).zip(l2_tables.iter()) {
            for (index, entry) in
                tables.l2_entries(HostOffset(table)).filter(|(_, entry)| entry.is_compressed())
            {
                batch.add(L2Place { table, index }, entry);
                if batch.entries.len() >= BATCH {
                    self.decode_batch(&mut batch, threads, &|| tables.view().report(done, total));
                }
            }
            tables.view().report(done, total);
        }
        self.decode_batch(&mut batch, threads, &|| tables.view().report(total, total));
        self.problems.end_of_table(self.findings);
        self.l2_tables = l2_tables;
    }

    /// Decodes what a batch names, and empties it.
    fn decode_batch(&mut self, batch: &mut Batch, threads: usize, told: &dyn Fn()) {
        let format = self.tables.l2_format();
        let wanted = batch.wanted(&format);
        let decoder =
            Decoder { geometry: &self.geometry, format, wanted: &wanted, taken: &AtomicUsize::new(0) };
        let bad = decoder.run(self.tables.view(), threads, told);
        for (place, entry) in batch.entries.drain(..) {
            if let Some(why) = bad.get(&descriptor(entry)) {
                self.check.extra_corruptions += 1;
                self.problems.l2(L2Fault::Undecodable(why.clone()), place, entry, self.findings);
            }
        }
        batch.remember(wanted.into_iter().filter(|descriptor| !bad.contains_key(descriptor)));
    }
}

impl Batch {
    fn add(&mut self, place: L2Place, entry: L2Entry) {
        if !self.known.contains(&descriptor(entry)) {
            self.entries.push((place, entry));
        }
    }

    /// What is to be decoded: each descriptor once, in the order of the file.
    fn wanted(&self, format: &L2Format) -> Vec<u64> {
        let mut wanted: Vec<u64> = self.entries.iter().map(|(_, entry)| descriptor(*entry)).collect();
        wanted.sort_unstable_by_key(|&raw| (L2Entry::new(raw).compressed(format).offset, raw));
        wanted.dedup();
        wanted
    }

    fn remember(&mut self, good: impl Iterator<Item = u64>) {
        if self.known.len() + BATCH > MOST_KNOWN {
            self.known.clear();
        }
        self.known.extend(good);
    }
}

impl<'a> Decoder<'a> {
    /// Why descriptors cannot be decoded, of those of which this is so. `told` is called from this thread now and then.
    fn run(self, view: &View<'_>, threads: usize, told: &dyn Fn()) -> BTreeMap<u64, String> {
        let more = threads.min(MOST_THREADS).min(self.wanted.len().div_ceil(PIECE)).saturating_sub(1);
        let source = view.source();
        thread::scope(|scope| {
            // Where the system has no more threads, those that there are do the work.
            let spawn =
                |_| thread::Builder::new().spawn_scoped(scope, move || self.work(&source.into(), &|| {}));
            let others: Vec<_> = (0..more).map_while(|number| spawn(number).ok()).collect();
            let mut bad: BTreeMap<_, _> = self.work(&source.into(), told).into_iter().collect();
            bad.extend(others.into_iter().filter_map(|other| other.join().ok()).flatten());
            bad
        })
    }

    /// Takes pieces until there are none.
    fn work(self, view: &View<'_>, told: &dyn Fn()) -> Vec<(u64, String)> {
        let (mut bad, mut buffer) = (Vec::new(), Vec::new());
        while let Some(piece) = self.take() {
            for &raw in piece {
                bad.extend(self.failure(view, raw, &mut buffer).map(|why| (raw, why)));
            }
            told();
        }
        bad
    }

    fn take(self) -> Option<&'a [u64]> {
        let start = self.taken.fetch_add(PIECE, Ordering::Relaxed);
        let rest = self.wanted.get(start..).filter(|rest| !rest.is_empty())?;
        Some(rest.split_at(PIECE.min(rest.len())).0)
    }

    fn failure(self, view: &View<'_>, raw: u64, buffer: &mut Vec<u8>) -> Option<String> {
        let data = L2Entry::new(raw).compressed(&self.format);
        // No more than 4 MiB.
        buffer.resize(usize::try_from(data.length).unwrap_or(0), 0);
        let bytes = view.read(data.offset.0, buffer);
        let decoded = decompress::cluster(self.geometry.compression(), bytes, self.geometry.cluster_size());
        decoded.err().map(|why| why.to_string())
    }
}

/// An entry without what is not of its data.
fn descriptor(entry: L2Entry) -> u64 {
    entry.raw & !L2Entry::COPIED
}

#[cfg(test)]
#[cfg(feature = "generate")]
mod tests {
    use super::*;
    use crate::check::Check;
    use crate::generate::Qcow2;
    use crate::qcow2::Tables;
    use crate::qcow2::check::{Options, check_with};

    /// 300 compressed clusters, of which every seventh begins with a block that deflate does not have.
    fn image() -> Vec<u8> {
        let image = Qcow2::new(4 << 20).cluster_bits(12);
        let cluster = |index: u64| (0..4096).map(|at| (at / (index + 64)) as u8).collect::<Vec<u8>>();
        let image = (0..300).fold(image, |image, index| image.compressed(index * 4096, cluster(index)));
        let mut image = image.build().unwrap();
        let bad: Vec<u64> = entries(&image).iter().step_by(7).map(|(_, raw)| offset(&image, *raw)).collect();
        for at in bad {
            image[usize::try_from(at).unwrap()] = 0xff;
        }
        image
    }

    /// The compressed entries, and where they are.
    fn entries(image: &[u8]) -> Vec<(u64, u64)> {
        let tables = Tables::new(image).unwrap();
        let l1 = tables.l1_entries(tables.geometry().l1_table()).map(|(_, entry)| entry.l2_table());
        let all =
            l1.flat_map(|table| tables.l2_entries(table).map(move |(index, entry)| (table, index, entry)));
        all.map(|(table, index, entry)| (table.0 + index * 8, entry.raw)).collect()
    }

    fn offset(image: &[u8], raw: u64) -> u64 {
        L2Entry::new(raw).compressed(&Tables::new(image).unwrap().l2_format()).offset.0
    }

    fn check(image: &[u8], threads: usize) -> Check {
        check_with(image, Options { decode: threads }).unwrap()
    }

    fn found(check: &Check) -> Vec<u64> {
        let findings = check.report.findings().iter();
        findings
            .filter(|finding| finding.code == "compressed-undecodable")
            .map(|finding| finding.offset.0)
            .collect()
    }

    #[test]
    fn findings_do_not_depend_on_threads() {
        let image = image();
        let expected: Vec<u64> = entries(&image).iter().step_by(7).map(|(at, _)| *at).collect();
        for threads in [1, 2, 5, usize::MAX] {
            let check = check(&image, threads);
            assert_eq!(found(&check), expected, "{threads} threads");
            assert_eq!(check.extra_corruptions, 43, "{threads} threads");
        }
        assert_eq!(found(&check(&image, 0)), []);
    }

    /// Every entry is counted, and the findings are no more than of any other code.
    #[test]
    fn entries_that_share_bad_data_are_all_counted() {
        let mut image = image();
        let entries = entries(&image);
        let (bad, good) = (entries[7].1, entries[8].1);
        for (number, (at, _)) in entries.iter().enumerate() {
            let raw = if number % 2 == 0 { bad } else { good };
            let at = usize::try_from(*at).unwrap();
            image[at..at + 8].copy_from_slice(&raw.to_be_bytes());
        }
        for threads in [1, 3] {
            assert_eq!(found(&check(&image, threads)).len(), 150);
        }
    }

    /// A batch that is full is decoded before the next one, and what it found good is not looked at again.
    #[test]
    fn what_is_known_is_not_decoded_again() {
        let mut batch = Batch::default();
        let entry = |number: u64| L2Entry::new(L2Entry::COMPRESSED | number);
        let place = L2Place { table: 0, index: 0 };
        let format = Tables::new(&image()).unwrap().l2_format();
        for number in [9, 5, 9, 7] {
            batch.add(place, entry(number));
        }
        let wanted = [5, 7, 9].map(|number| entry(number).raw);
        assert_eq!(batch.wanted(&format), wanted);
        batch.entries.clear();
        batch.remember(wanted.into_iter());
        batch.add(place, entry(7));
        assert_eq!(batch.entries, []);
        for number in 0..2 * MOST_KNOWN as u64 {
            batch.remember(std::iter::once(number));
            assert!(batch.known.len() <= MOST_KNOWN);
        }
    }
}
