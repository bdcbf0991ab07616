//! What a walk finds wrong, gathered into ranges of entries, and told as findings at its end.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use crate::check::Findings;
use crate::cluster_set::ClusterSet;
use crate::qed::check::owners::{self, Owner};
use crate::qed::geometry::{Geometry, Invalid};
use crate::qed::tables::Tables;
use crate::report::Severity;
use crate::units::HostOffset;

/// Neighbouring entries of a table with the same fault.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    place: Place,
    kind: Kind,
}

/// Entries of the L1 table, or of an L2 table: from `index` on, `count` of them.
#[derive(Debug, Clone, Copy)]
struct Place {
    l2: Option<L2>,
    index: u64,
    count: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct L2 {
    l1_index: u64,
    table: HostOffset,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Invalid(Invalid),
    /// A table that takes clusters of something before it, `first` is one.
    Overlap {
        table: HostOffset,
        first: u64,
    },
    /// Data in a cluster that something before it has.
    Again {
        first: u64,
    },
}

/// The problems of one walk.
#[derive(Debug)]
pub(super) struct Problems {
    kept: Vec<Problem>,
    /// May still grow.
    last: Option<Problem>,
    /// The table being visited.
    l2: Option<L2>,
    /// The L1 entries whose tables were visited.
    visited: ClusterSet,
}

impl Problems {
    pub(super) fn new(geometry: Geometry) -> Self {
        Self { kept: Vec::new(), last: None, l2: None, visited: ClusterSet::new(geometry.entries()) }
    }

    /// The walk visits a table.
    pub(super) fn table(&mut self, l1_index: u64, table: HostOffset) {
        self.l2 = Some(L2 { l1_index, table });
        self.visited.insert(l1_index, 1, |_| {});
    }

    /// Something is wrong with an L1 entry.
    pub(super) fn l1(&mut self, index: u64, kind: Kind, findings: &mut Findings) {
        self.add(Problem { place: Place { l2: None, index, count: 1 }, kind }, findings);
    }

    /// Something is wrong with entries of the table being visited.
    pub(super) fn l2(&mut self, index: u64, count: u64, kind: Kind, findings: &mut Findings) {
        self.add(Problem { place: Place { l2: self.l2, index, count }, kind }, findings);
    }

    fn add(&mut self, problem: Problem, findings: &mut Findings) {
        match &mut self.last {
            Some(last) if last.goes_on_with(&problem) => last.place.count += problem.place.count,
            _ => {
                self.keep_last(findings);
                self.last = Some(problem);
            }
        }
    }

    fn keep_last(&mut self, findings: &mut Findings) {
        self.kept.extend(self.last.take().filter(|problem| findings.admits(problem.code())));
    }

    /// Makes findings of all.
    pub(super) fn tell(mut self, tables: &Tables<'_>, findings: &mut Findings) {
        self.keep_last(findings);
        let mut owners: BTreeMap<u64, Option<Owner>> =
            self.kept.iter().filter_map(|problem| Some((problem.contested()?, None))).collect();
        if !owners.is_empty() {
            owners::find(tables, &self.visited, &mut owners);
        }
        for problem in self.kept {
            let owner = problem.contested().and_then(|cluster| owners.get(&cluster).copied().flatten());
            problem.tell(tables, owner, findings);
        }
    }
}

impl Problem {
    fn goes_on_with(&self, next: &Self) -> bool {
        let (place, next_place) = (&self.place, &next.place);
        let follows = place.l2 == next_place.l2 && place.index + place.count == next_place.index;
        follows && self.code() == next.code()
    }

    fn code(&self) -> &'static str {
        match (self.kind, self.place.l2) {
            (Kind::Invalid(invalid), None) => invalid.codes().0,
            (Kind::Invalid(invalid), Some(_)) => invalid.codes().1,
            (Kind::Overlap { .. }, _) => "l2-table-overlap",
            (Kind::Again { .. }, _) => "l2-entry-duplicate",
        }
    }

    /// The cluster that something else has, too.
    fn contested(&self) -> Option<u64> {
        match self.kind {
            Kind::Invalid(_) => None,
            Kind::Overlap { first, .. } | Kind::Again { first } => Some(first),
        }
    }

    fn tell(&self, tables: &Tables<'_>, owner: Option<Owner>, findings: &mut Findings) {
        let geometry = tables.geometry();
        let Place { l2, index, count } = self.place;
        let table = l2.map_or(tables.header().fields.l1_table_offset, |l2| l2.table.0);
        let (start, end) = (geometry.header_end(), geometry.file_end());
        let expected = match (self.kind, l2) {
            (Kind::Invalid(_), None) => {
                format!("0, or {} bytes of table from {start} to {end}", geometry.table_bytes())
            }
            (Kind::Invalid(_), Some(_)) => format!("0, 1, or a cluster from {start} to {end}"),
            (Kind::Overlap { .. }, _) => "clusters that nothing else has".to_owned(),
            (Kind::Again { .. }, _) => "a cluster that nothing else has".to_owned(),
        };
        let times = if count == 1 { String::new() } else { format!(", {count} times") };
        let owned = |cluster: u64| {
            let offset = HostOffset(cluster << geometry.cluster_bits());
            match owner {
                Some(owner) => format!("{offset}, which {owner} has"),
                None => format!("{offset}, which something before it has"),
            }
        };
        let found = match self.kind {
            Kind::Invalid(invalid) => invalid.words().to_owned(),
            Kind::Overlap { table, first } => {
                format!("a table at {table}, with the cluster {}", owned(first))
            }
            Kind::Again { first } => format!("the cluster {}", owned(first)),
        };
        let place = self.place.name(geometry);
        let offset = table.saturating_add(index * 8);
        findings.add(Severity::Error, self.code(), place, offset, expected, found + &times);
    }

    /// Tells of clusters that nothing refers to.
    pub(super) fn leak(clusters: Range<u64>, geometry: Geometry, findings: &mut Findings) {
        const CODE: &str = "leak";
        if !findings.admits(CODE) {
            return;
        }
        let Range { start, end } = clusters;
        let offset = start << geometry.cluster_bits();
        let place = match end - start {
            1 => "cluster".to_owned(),
            count => format!("{count} clusters, up to {:#x}", end << geometry.cluster_bits()),
        };
        findings.add(Severity::Warning, CODE, place, offset, "an entry that refers to it", "none");
    }
}

impl Place {
    fn name(self, geometry: Geometry) -> String {
        let Self { l2, index, count } = self;
        let entries = match count {
            1 => format!("entry {index}"),
            _ => format!("entries {index} to {}", index + count - 1),
        };
        let guest = |l1_index, l2_index| {
            geometry.guest_offset(l1_index, l2_index).map_or("none".to_owned(), |guest| format!("{guest:#x}"))
        };
        match l2 {
            None => format!("L1 table, {entries} (guest offset {})", guest(index, 0)),
            Some(L2 { l1_index, table }) => {
                format!("L2 table at {table}, {entries} (guest offset {})", guest(l1_index, index))
            }
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::L1Table => write!(f, "the L1 table"),
            Self::L2Table { l1_index } => write!(f, "the L2 table of L1 entry {l1_index}"),
            Self::Data { table, index, .. } => write!(f, "entry {index} of the L2 table at {table}"),
        }
    }
}
