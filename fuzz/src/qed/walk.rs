//! A walk over the tables, beside one that reads entry for entry.

use std::collections::BTreeSet;
use std::ops::Range;

use vdisk_format::qed::walk::{Event, Scattered, walk};
use vdisk_format::qed::{Entry, Tables};
use vdisk_format::units::HostOffset;

use super::model::{Met, Model, Table};
use crate::input::Input;

/// Walks over an image that the input chooses, and over the input itself.
///
/// # Panics
/// Where the walk meets anything else than the plain one, or in another order; where it visits a table twice, or finds
/// data outside the file.
pub fn qed_walk(input: &[u8]) {
    one(input);
    one(&super::image(&mut Input::new(input)));
}

fn one(image: &[u8]) {
    let (Ok(tables), Some(model)) = (Tables::new(image), Model::new(image)) else { return };
    let mut walked = Walked { model: &model, met: Vec::new(), last: 0..0 };
    walk(&tables, |event| walked.meet(event));
    let (expected, _) = model.walk();
    assert_eq!(walked.met, expected);

    let mut visited = BTreeSet::new();
    for met in &walked.met {
        let Met::Table(table) = met else { continue };
        assert!(visited.insert(table.at), "the table at {:#x} is visited twice", table.at);
        for &(_, value, wrong) in &table.entries {
            let is_inside = value >= model.header_end && value < model.file_end;
            assert!(wrong.is_some() || is_inside, "{value:#x} is no data");
        }
    }
}

/// What a walk met, entry by entry.
struct Walked<'m> {
    model: &'m Model<'m>,
    met: Vec<Met>,
    /// Indices of the run before.
    last: Range<u64>,
}

impl Walked<'_> {
    fn meet(&mut self, event: Event) {
        match event {
            Event::NoTable { l1_index, invalid } => self.met.push(Met::NoTable(l1_index, invalid)),
            Event::Overlap { l1_index, table, clusters, first } => {
                self.met.push(Met::Overlap(l1_index, table.0, clusters, first));
            }
            Event::Table { l1_index, table } => {
                self.last = 0..0;
                self.met.push(Met::Table(Table { l1_index, at: table.0, ..Table::default() }));
            }
            Event::Run(run, entry) => {
                self.last = run.index..run.index + run.count;
                let size = self.model.cluster_size;
                let kind = match entry {
                    Entry::Data(offset) => (None, offset),
                    Entry::Invalid(why) => (Some(why), HostOffset(run.value)),
                    entry => (None, HostOffset(u64::from(entry != Entry::Unallocated))),
                };
                assert_eq!(kind.1, HostOffset(run.value), "a run that is no data, or begins elsewhere");
                let entries = (0..run.count).map(|i| (run.index + i, run.value + i * size, kind.0));
                self.table().entries.extend(entries);
            }
            Event::Scattered(scattered) => self.scattered(scattered),
            Event::Again { from, clusters } => {
                let last = from + (clusters.end - clusters.start);
                assert!(self.last.start <= from && last <= self.last.end, "{from} is not of {:?}", self.last);
                self.table().again.extend((from..).zip(clusters));
            }
            event => assert_eq!(format!("{event:?}"), "an event that is known here"),
        }
    }

    fn scattered(&mut self, scattered: Scattered) {
        let Scattered { index, count, first, last, breaks } = scattered;
        let (model, at) = (self.model, self.table().at);
        let values: Vec<u64> = (index..index + count).map_while(|index| model.entry(at, index)).collect();
        assert_eq!(values.len() as u64, count);
        assert_eq!((values.first(), values.last()), (Some(&first), Some(&last)));
        let follows =
            |pair: &&[u64]| pair.first().map(|value| value + model.cluster_size) == pair.last().copied();
        assert_eq!(values.windows(2).filter(|pair| !follows(pair)).count() as u64, breaks);
        // That nothing before has one of these is told by the list of those that something has.
        self.table().entries.extend((index..).zip(values).map(|(index, value)| (index, value, None)));
        self.last = 0..0;
    }

    /// The table that is being visited.
    fn table(&mut self) -> &mut Table {
        if !matches!(self.met.last(), Some(Met::Table(_))) {
            self.met.push(Met::Table(Table { l1_index: u64::MAX, ..Table::default() }));
        }
        match self.met.last_mut() {
            Some(Met::Table(table)) => table,
            _ => std::process::abort(), // one was pushed just above
        }
    }
}
