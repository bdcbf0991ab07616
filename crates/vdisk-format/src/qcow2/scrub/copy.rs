//! [`Copy`]: the tables of an image on their way.

use std::ops::Range;

use super::areas::{Areas, Numbers, Role};
use super::facts::{Facts, Judge};
use super::fixed::{Decided, FILLERS, Fixed};
use super::records::Records;
use super::refcounts::{RefcountWord, StandIns};
use super::{Options, Redacted, Scrubbed, Structure};
use crate::error::Result;
use crate::qcow2::check::Entries;
use crate::qcow2::geometry::Area;
use crate::qcow2::l2::L2Entry;
use crate::qcow2::tables::Tables;
use crate::sparse::put_not_zero;
use crate::units::HostOffset;

/// Bytes of tables that are copied at once.
const PIECE: u64 = 128 << 10;
/// Most words of tables that begin at no multiple of 8, which only a damaged image has.
const MOST_ODD: usize = 1 << 20;
/// Words of tables that are looked at for each byte of the file, and at least.
const VISITS: u64 = 8;
const MIN_VISITS: u64 = 1 << 22;
/// Most tables that a word is part of when that is used up: what a check finds in the others may differ.
const MOST_ACTIVE: usize = 16;
/// So often, more words are tried where tables lie over one another.
const MOST_SEARCHES: usize = 1 << 15;
/// An entry that no table has.
const NO_ENTRY: u64 = 1 << 61;

/// Tables on their way.
pub(super) struct Copy<'t, 'a, W> {
    tables: &'t Tables<'a>,
    fixed: &'t mut Fixed,
    options: Options,
    put: W,
    areas: Areas<'t, 'a>,
    judge: Judge<'t, 'a>,
    stand_ins: StandIns,
    /// The tables that the next word is part of.
    active: Vec<Active>,
    /// How many words of tables may still be looked at before only a few tables of each word are.
    visits: u64,
    /// How often more than the usual words were tried.
    searches: usize,
    redacted: Redacted,
}

/// A table that is being copied.
#[derive(Debug)]
struct Active {
    numbers: Numbers,
    /// Behind the cluster of the last entry of an L2 table, as it was and as it is; 0 before the first.
    follows: (u64, u64),
    /// The first half of the extended entry whose second half comes next.
    first_half: u64,
    /// Where the last piece ended: behind a hole, the first half is 0.
    next_at: u64,
    /// Whether all of its entries are what they should be.
    sound: bool,
    /// What the words of a leaked cluster look like so far, as entries of one and of two words; `None`: like no table.
    entries: [Option<Entries>; 2],
    /// Where there is room in it for a word that makes it none.
    room: Option<u64>,
}

impl<'t, 'a, W: FnMut(u64, &[u8]) -> Result<()>> Copy<'t, 'a, W> {
    pub(super) fn new(tables: &'t Tables<'a>, fixed: &'t mut Fixed, options: Options, put: W) -> Self {
        let areas = Areas::new(tables);
        let counts = &areas.survey.counts;
        let judge = Judge::new(tables, counts.end());
        let stand_ins = StandIns::new(counts, tables.geometry().refcount_order().unwrap_or(6));
        let visits = tables.view().length().saturating_mul(VISITS).max(MIN_VISITS);
        let redacted = Redacted::default();
        Self {
            tables,
            fixed,
            options,
            put,
            areas,
            judge,
            stand_ins,
            active: Vec::new(),
            visits,
            searches: 0,
            redacted,
        }
    }

    pub(super) fn all(mut self, scrubbed: &mut Scrubbed) -> Result<()> {
        let counts = &self.areas.survey.counts;
        let exclusive = |area: Area| {
            let mut is_exclusive = true;
            let clusters = self.judge.geometry().clusters(area);
            counts.runs(clusters, |run| is_exclusive &= run.count <= 1);
            is_exclusive
        };
        let mut records = Records { fixed: self.fixed, options: self.options, redacted: scrubbed.redacted };
        records.others(self.tables, &exclusive);
        self.redacted = records.redacted;
        if self.options.keep_bitmap_data {
            self.areas.add_bitmap_data();
        }
        self.areas.add_leaked(self.fixed.words());
        let numbers = std::mem::take(&mut self.areas.numbers);
        let (even, odd): (Vec<_>, Vec<_>) =
            numbers.into_iter().partition(|numbers| numbers.start.is_multiple_of(8));
        odd.into_iter().for_each(|numbers| self.odd(numbers));
        scrubbed.tables =
            even.iter().filter(|numbers| matches!(numbers.role, Role::L2 { .. })).count() as u64;
        self.sweep(even, &mut scrubbed.tables_at)?;
        scrubbed.redacted = self.redacted;
        Ok(())
    }

    /// A table that begins at no multiple of 8: its words are decided before all others.
    fn odd(&mut self, numbers: Numbers) {
        let area = Area::new(numbers.start, numbers.end - numbers.start);
        let structure = numbers.role.structure();
        self.active = vec![self.begin(numbers)];
        for (index, entry) in self.tables.l1_entries(area).take(MOST_ODD) {
            let at = numbers.start + index * 8;
            let new = self.choose(at, entry.0, self.fixed.decided(at));
            self.fixed.put(at, &new.to_be_bytes(), structure);
        }
        self.active.clear();
    }

    fn begin(&self, numbers: Numbers) -> Active {
        let mut active = Active {
            numbers,
            follows: (0, 0),
            first_half: 0,
            next_at: 0,
            sound: false,
            entries: [(numbers.role == Role::Leaked).then(Entries::default); 2],
            room: None,
        };
        if let Role::L2 { exclusive: true, .. } = numbers.role
            && self.judge.geometry().extended_l2()
        {
            let mut entries = self.tables.l2_entries(HostOffset(numbers.start));
            active.sound =
                entries.all(|(_, entry)| self.judge.l2_is_public(entry.raw) && entry.bitmap.invalid() == 0);
        }
        active
    }

    /// Copies all tables in the order of the file, where several lie over one another at once.
    fn sweep(&mut self, mut areas: Vec<Numbers>, told: &mut Vec<(Range<u64>, Structure)>) -> Result<()> {
        areas.sort_by_key(|numbers| numbers.start);
        let total = areas.len() as u64;
        let mut left = areas.into_iter().peekable();
        let mut at = 0;
        while !self.active.is_empty() || left.peek().is_some() {
            if self.active.is_empty() {
                at = left.peek().map_or(at, |next| next.start);
            }
            while let Some(next) = left.next_if(|next| next.start <= at) {
                if self.active.len() < MOST_ACTIVE || self.visits > 0 {
                    let active = self.begin(next);
                    self.active.push(active);
                } else {
                    self.redacted.unsettled += 1;
                }
            }
            let end = self.active.iter().map(|active| active.numbers.end).min().unwrap_or(at);
            let end = left.peek().map_or(end, |next| end.min(next.start));
            if let Some(first) = self.active.first() {
                tell(told, at..end, first.numbers.role.structure());
            }
            self.visits = self.visits.saturating_sub((end - at) / 8 * self.active.len() as u64);
            self.range(at..end)?;
            for active in self.active.extract_if(.., |active| active.numbers.end <= end) {
                if active.entries.into_iter().flatten().any(Entries::are_a_table) {
                    match active.room {
                        Some(room) => (self.put)(room, &NO_ENTRY.to_be_bytes())?,
                        None => self.redacted.unsettled += 1,
                    }
                }
            }
            at = end;
            self.tables.view().report(total - left.len() as u64, total);
        }
        Ok(())
    }

    fn range(&mut self, range: Range<u64>) -> Result<()> {
        let tables = self.tables;
        let view = tables.view();
        self.note_room(&range);
        let mut buffer = vec![0; PIECE.min(range.end - range.start).next_multiple_of(8) as usize];
        let mut at = range.start;
        while let Some(data) = view.next_data(at..range.end) {
            // Words are whole, whatever the pieces of the file are.
            let start = data.start / 8 * 8;
            at = data.end.next_multiple_of(8).min(start + PIECE).min(range.end);
            // A copy first: what is judged is what is written, whoever writes to the image meanwhile.
            let length = (at - start) as usize;
            let bytes = view.read(start, buffer.get_mut(..length).unwrap_or_default());
            self.words(start, bytes);
            put_not_zero(start, bytes, &mut self.put)?;
        }
        Ok(())
    }

    /// Notes where a leaked cluster has nothing.
    fn note_room(&mut self, range: &Range<u64>) {
        let at = range.start.next_multiple_of(16);
        let is_free = at.saturating_add(8) <= range.end && !self.fixed.intersects(at / 8..at / 8 + 1);
        if let ([active], true) = (self.active.as_mut_slice(), is_free) {
            active.room = active.room.or(Some(at));
        }
    }

    fn words(&mut self, start: u64, bytes: &mut [u8]) {
        let end = start + bytes.len() as u64;
        for active in self.active.iter_mut().filter(|active| active.next_at != start) {
            active.first_half = 0;
        }
        let has_fixed = self.fixed.intersects(start / 8..end.div_ceil(8));
        for (at, place) in (start..).step_by(8).zip(bytes.chunks_mut(8)) {
            // What the file's end cuts short reads as if zeroes followed.
            let mut word = [0; 8];
            word.iter_mut().zip(&*place).for_each(|(to, from)| *to = *from);
            let free = Decided { free: u64::MAX << (8 * (8 - place.len())), bits: 0 };
            let old = u64::from_be_bytes(word);
            let new = if has_fixed { self.with_fixed(at, old, free) } else { self.choose(at, old, free) };
            self.went_by(at, old, new);
            place.iter_mut().zip(new.to_be_bytes()).for_each(|(to, from)| *to = from);
        }
        self.active.iter_mut().for_each(|active| active.next_at = end);
    }

    fn with_fixed(&mut self, at: u64, old: u64, free: Decided) -> u64 {
        let Some(fixed) = self.fixed.word(at).copied() else { return self.choose(at, old, free) };
        if old != 0 && fixed.name == 0 && self.active.iter().any(|active| self.is_place(active, at, old)) {
            // It says where a cluster is, and nothing else, whatever else it is taken for.
            self.fixed.settle(at, old.to_be_bytes());
            return old;
        }
        let is_whole = fixed.exact | fixed.filler == u8::MAX;
        let rest = if is_whole { 0 } else { self.choose(at, old, free) }.to_be_bytes();
        let with = |filler| u64::from_be_bytes(fixed.over(rest, filler));
        let settled = FILLERS.into_iter().map(with).find(|&word| self.all_accept(at, old, word));
        let word = settled.unwrap_or_else(|| {
            // No name, then, but what stands in for the entry that it is to others.
            let instead = self.choose(at, old, free).to_be_bytes();
            let word = u64::from_be_bytes(fixed.exactly_over(instead));
            let is_settled = self.all_accept(at, old, word) && !fixed.tells(old.to_be_bytes(), instead);
            self.redacted.unsettled += u64::from(!is_settled);
            if is_settled { word } else { with(b'x') }
        });
        self.fixed.settle(at, word.to_be_bytes());
        word
    }

    /// What is copied of a word of which some bits are decided.
    fn choose(&mut self, at: u64, old: u64, decided: Decided) -> u64 {
        let is_public = |active: &Active| self.is_public(active, at, old);
        let may_stay = old == 0 || self.active.iter().any(is_public) && self.all_accept(at, old, old);
        if may_stay && decided.over(old) == old {
            return old;
        }
        let mut best = (0, decided.over(0));
        for active in &self.active {
            let offers = self.offers(active, at, old);
            best = self.best(best, offers.into_iter().map(|offer| decided.over(offer)), at, old);
        }
        if best.0 <= self.active.len() && self.active.len() > 1 && self.searches < MOST_SEARCHES {
            self.searches += 1;
            for active in &self.active {
                let offers = self.judge.offers_to_several(old, active.follows.1);
                best = self.best(best, offers.map(|offer| decided.over(offer)), at, old);
            }
        }
        self.redacted.replaced += u64::from(best.1 != old);
        let is_withheld = self.active.iter().any(|active| self.refcounts(active, at, old).1);
        self.redacted.unsettled += u64::from(best.0 <= self.active.len() || is_withheld);
        best.1
    }

    /// The offer that most tables take for what was there, and by how many more than none.
    fn best(
        &self,
        mut best: (usize, u64),
        offers: impl Iterator<Item = u64>,
        at: u64,
        old: u64,
    ) -> (usize, u64) {
        for offer in offers {
            let accepts = |other: &&Active| self.accepts(other, at, old, offer);
            let count = 1 + self.active.iter().filter(accepts).count();
            if count > best.0 {
                best = (count, offer);
            }
            if best.0 > self.active.len() {
                break;
            }
        }
        best
    }

    fn all_accept(&self, at: u64, old: u64, new: u64) -> bool {
        self.active.iter().all(|active| self.accepts(active, at, old, new))
    }

    /// Whether a check makes the same of both words of a table.
    fn accepts(&self, active: &Active, at: u64, old: u64, new: u64) -> bool {
        let judge = &self.judge;
        match active.numbers.role {
            Role::L1 { active } => old == new || judge.l1(old, active) == judge.l1(new, active),
            Role::RefcountTable => old == new || judge.refcount_table(old) == judge.refcount_table(new),
            Role::BitmapTable => old == new || judge.bitmap_table(old) == judge.bitmap_table(new),
            Role::RefcountBlock { .. } => {
                let expected = self.refcounts(active, at, old).0;
                new == expected || self.refcounts(active, at, new).0 == expected
            }
            Role::BitmapData => old == new,
            Role::Leaked => true,
            Role::LostTable { .. } => {
                old == new || self.is_second_half(active, at) || self.lost_entry(old) == self.lost_entry(new)
            }
            Role::L2 { .. } if self.is_second_half(active, at) => {
                let (old, new) = (Judge::subclusters(old), Judge::subclusters(new));
                match (old, new) {
                    (Facts::Subclusters { any: a, .. }, Facts::Subclusters { any: b, .. })
                        if L2Entry::new(active.first_half).is_compressed() =>
                    {
                        a == b
                    }
                    (old, new) => old == new,
                }
            }
            Role::L2 { active: is_active, .. } => {
                let follows = |word, next| judge.host(word).map(|host| next != 0 && next != host);
                follows(old, active.follows.0) == follows(new, active.follows.1)
                    && (old == new || judge.l2(old, is_active) == judge.l2(new, is_active))
            }
        }
    }

    /// Whether a word of a table tells nothing but where a cluster is, or how often it is referred to.
    fn is_public(&self, active: &Active, at: u64, word: u64) -> bool {
        let judge = &self.judge;
        match active.numbers.role {
            Role::L1 { active } => judge.is_public(judge.l1(word, active), word),
            Role::RefcountTable => judge.is_public(judge.refcount_table(word), word),
            Role::BitmapTable => judge.is_public(judge.bitmap_table(word), word),
            Role::RefcountBlock { .. } => self.refcounts(active, at, word).0 == word,
            Role::BitmapData => true,
            Role::Leaked => false,
            Role::LostTable { .. } => !self.is_second_half(active, at) && judge.l2_is_public(word),
            Role::L2 { .. } if self.is_second_half(active, at) => active.sound,
            Role::L2 { .. } => judge.l2_is_public(word),
        }
    }

    /// Whether a word of a table is nothing but the offset of a cluster, with its flags.
    fn is_place(&self, active: &Active, at: u64, word: u64) -> bool {
        let is_entry = match active.numbers.role {
            Role::L1 { .. } | Role::RefcountTable | Role::BitmapTable => true,
            Role::L2 { .. } => !self.is_second_half(active, at) && !L2Entry::new(word).is_compressed(),
            _ => false,
        };
        is_entry && self.is_public(active, at, word)
    }

    /// What may stand in for a word.
    fn offers(&self, active: &Active, at: u64, word: u64) -> Vec<u64> {
        match active.numbers.role {
            Role::L1 { .. } => self.judge.l1_offers(word),
            Role::RefcountTable => self.judge.refcount_table_offers(word),
            Role::BitmapTable => self.judge.bitmap_table_offers(word),
            Role::RefcountBlock { .. } => vec![self.refcounts(active, at, word).0],
            Role::BitmapData => Vec::new(),
            Role::Leaked => vec![0],
            Role::LostTable { .. } => vec![0, 1, word],
            Role::L2 { .. } if self.is_second_half(active, at) => {
                let zero = std::iter::once(0);
                zero.chain(Judge::SUBCLUSTER_OFFERS).collect()
            }
            Role::L2 { .. } => self.judge.l2_offers(word, active.follows.1),
        }
    }

    fn is_second_half(&self, active: &Active, at: u64) -> bool {
        let words = match active.numbers.role {
            Role::LostTable { words } => words,
            _ if self.judge.geometry().extended_l2() => 2,
            _ => 1,
        };
        words == 2 && !(at - active.numbers.start).is_multiple_of(16)
    }

    /// What a word says of a lost table; `None`: that it is none.
    fn lost_entry(&self, word: u64) -> Option<Entries> {
        let mut entries = Entries::default();
        self.areas.lost_tables().count_one(word, &mut entries).map(|()| entries)
    }

    /// A word of a refcount block, each of its refcounts replaced; and whether it is withheld.
    fn refcounts(&self, active: &Active, at: u64, word: u64) -> (u64, bool) {
        let Role::RefcountBlock { first, is_doubtful } = active.numbers.role else { return (word, false) };
        let Some(order) = self.judge.geometry().refcount_order() else { return (0, false) };
        let skipped = (at - active.numbers.start) / 8 * (64 >> order);
        let counts = &self.areas.survey.counts;
        let clusters = RefcountWord { counts, order, first: first.saturating_add(skipped), is_doubtful };
        self.stand_ins.of_word(&clusters, word)
    }

    fn went_by(&mut self, at: u64, old: u64, new: u64) {
        let extended = self.judge.geometry().extended_l2();
        let size = self.judge.geometry().cluster_size();
        let leaked = self.areas.lost_tables();
        for active in &mut self.active {
            let is_second = !(at - active.numbers.start).is_multiple_of(16);
            for (words, seen) in (1..).zip(&mut active.entries).filter(|(words, _)| *words == 1 || !is_second)
            {
                *seen = seen.filter(|_| words == 1 || extended).and_then(|mut entries| {
                    leaked.count_one(new, &mut entries)?;
                    Some(entries)
                });
            }
            if extended && is_second {
                continue;
            }
            if !matches!(active.numbers.role, Role::L2 { .. }) {
                continue;
            }
            active.first_half = old;
            if let Some(host) = self.judge.host(old) {
                active.follows.0 = host + size;
            }
            if let Some(host) = self.judge.host(new) {
                active.follows.1 = host + size;
            }
        }
    }
}

/// Notes a range, together with the one before it where both are of one structure.
fn tell(told: &mut Vec<(Range<u64>, Structure)>, range: Range<u64>, structure: Structure) {
    match told.last_mut() {
        Some((last, of)) if last.end == range.start && *of == structure => last.end = range.end,
        _ => told.push((range, structure)),
    }
}
