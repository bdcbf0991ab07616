//! What a walk finds wrong, gathered into ranges, and told as findings at its end.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::fault::{Fault, L2Fault};
use super::named;
use super::owners::Owners;
use crate::check::Findings;
use crate::qcow2::claims::L1Places;
use crate::qcow2::geometry::{Area, Geometry};
use crate::qcow2::l1_tables::L1Tables;
use crate::qcow2::l2::L2Entry;
use crate::qcow2::tables::Tables;
use crate::report::{Finding, joined};

/// An entry of an L2 table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct L2Place {
    pub(super) table: u64,
    pub(super) index: u64,
}

/// Neighbouring entries of an L2 table with the same fault.
#[derive(Debug, Clone, PartialEq, Eq)]
struct L2Problem {
    fault: L2Fault,
    place: L2Place,
    count: u64,
    /// The first of them.
    entry: L2Entry,
}

/// The problems of one walk.
#[derive(Debug, Default)]
pub(super) struct Problems {
    kept: Vec<Fault>,
    in_l2_tables: Vec<L2Problem>,
    /// Those of the table that is being visited that may still grow, no two of one kind.
    open: Vec<L2Problem>,
}

impl Problems {
    /// Something is wrong.
    pub(super) fn add(&mut self, fault: Fault, findings: &mut Findings) {
        if self.kept.last_mut().is_some_and(|last| last.joins(&fault)) {
            return;
        }
        if findings.admits(fault.code()) {
            self.kept.push(fault);
        }
    }

    /// Something is wrong with an entry of the L2 table that is being visited.
    pub(super) fn l2(&mut self, fault: L2Fault, place: L2Place, entry: L2Entry, findings: &mut Findings) {
        self.l2_run(fault, place, 1, entry, findings);
    }

    /// The same, with `count` entries.
    pub(super) fn l2_run(
        &mut self,
        fault: L2Fault,
        place: L2Place,
        count: u64,
        entry: L2Entry,
        findings: &mut Findings,
    ) {
        let new = L2Problem { fault, place, count, entry };
        match self.open.iter_mut().find(|open| open.fault.code() == new.fault.code()) {
            Some(open) if open.is_followed_by(&new) => open.count += count,
            Some(open) => {
                let ended = std::mem::replace(open, new);
                self.keep(ended, findings);
            }
            None => self.open.push(new),
        }
    }

    /// A visit to an L2 table ends.
    pub(super) fn end_of_table(&mut self, findings: &mut Findings) {
        for ended in std::mem::take(&mut self.open) {
            self.keep(ended, findings);
        }
    }

    fn keep(&mut self, problem: L2Problem, findings: &mut Findings) {
        if findings.admits(problem.fault.code()) {
            self.in_l2_tables.push(problem);
        }
    }

    /// Makes findings of all.
    pub(super) fn tell(mut self, tables: &Tables<'_>, findings: &mut Findings) {
        self.end_of_table(findings);
        if self.kept.is_empty() && self.in_l2_tables.is_empty() {
            return;
        }
        let geometry = tables.geometry();
        let contested = self.kept.iter().filter_map(|fault| fault.contested(&geometry));
        let visited = self.in_l2_tables.iter().map(|problem| problem.clusters(&geometry));
        let mut owners = Owners::new(tables, contested.chain(visited));
        let l1_tables = L1Tables::new(tables);
        let l2_tables = self.l2_tables(&l1_tables, tables);
        let guest = |table: u64, index, count| {
            let places = l2_tables.get(&table).into_iter();
            joined(places.flat_map(|places| l1_tables.guest(&geometry, places, index, count)))
        };
        for fault in &self.kept {
            let mut finding = fault.finding(tables);
            named::fault(fault, &mut finding);
            if let Some(clusters) = fault.contested(&geometry) {
                owners.name(&clusters, &l1_tables, &mut finding);
            }
            if let Fault::L1Entry { at, .. } = fault
                && let Some(places) = l1_tables.places(*at)
            {
                let entries = geometry.l2_entries();
                finding.place = places.to_string();
                named::places(&places, &mut finding);
                finding.guest = joined(l1_tables.guest(&geometry, &places, 0, entries));
            }
            if let Fault::MissingTables { entries, .. } = fault {
                let places: Vec<_> = entries.iter().filter_map(|entry| l1_tables.places(entry.at)).collect();
                if let Some(first) = places.first() {
                    finding.place = first.to_string();
                }
                places.iter().for_each(|places| named::places(places, &mut finding));
                let entries = geometry.l2_entries();
                let parts = places.iter().flat_map(|places| l1_tables.guest(&geometry, places, 0, entries));
                finding.guest = joined(parts);
            }
            if let Some(table) = fault.l2_table() {
                finding.guest = guest(table, 0, geometry.l2_entries());
            }
            // Whose table it is has been said.
            if fault.is_in_table() && finding.owners.len() == 1 {
                finding.owners.clear();
            }
            findings.push(finding);
        }
        for problem in &self.in_l2_tables {
            let mut finding = problem.finding(tables);
            owners.name(&problem.clusters(&geometry), &l1_tables, &mut finding);
            finding.guest = guest(problem.place.table, problem.place.index, problem.count);
            findings.push(finding);
        }
    }
}

impl Problems {
    /// The L2 tables that findings are about, each with the entries that name it.
    fn l2_tables(&self, l1_tables: &L1Tables, tables: &Tables<'_>) -> BTreeMap<u64, L1Places> {
        let visited = self.in_l2_tables.iter().map(|problem| problem.place.table);
        let wanted: BTreeSet<u64> = visited.chain(self.kept.iter().filter_map(Fault::l2_table)).collect();
        let Some(&last) = wanted.last() else { return BTreeMap::new() };
        // Most that are not wanted are no tables at all.
        let is_wanted = |table| table <= last && wanted.contains(&table);
        l1_tables.l2_tables(tables, is_wanted).collect()
    }
}

impl L2Problem {
    fn is_followed_by(&self, next: &Self) -> bool {
        self.fault == next.fault
            && self.place.table == next.place.table
            && self.place.index + self.count == next.place.index
    }

    fn finding(&self, tables: &Tables<'_>) -> Finding {
        let L2Place { table, index } = self.place;
        let entries = match self.count {
            1 => format!("entry {index}"),
            count => format!("entries {index}-{}", index + count - 1),
        };
        let place = format!("L2 table {table:#x}, {entries}");
        let offset = table.saturating_add(index * tables.geometry().l2_entry_size());
        let bits = tables.geometry().cluster_bits();
        let (expected, found) = self.fault.expected_and_found(self.entry, bits);
        Finding::new(self.fault.severity(), self.fault.code(), place, offset, expected, found)
    }

    /// Of the table.
    fn clusters(&self, geometry: &Geometry) -> Range<u64> {
        geometry.clusters(Area::new(self.place.table, geometry.cluster_size()))
    }
}
