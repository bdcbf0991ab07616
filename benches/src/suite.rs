//! A suite: its images, its rows for each, and what it has to reach.

use std::path::Path;

use crate::images::Wanted;
use crate::measure::Measured;
use crate::programs::Programs;
use crate::row::Row;
use crate::{qcow2, qed};

/// The row of the process that does nothing.
pub(crate) const EMPTY: &str = "empty process";

pub(crate) struct Suite {
    pub(crate) images: fn() -> Vec<Wanted>,
    pub(crate) rows: fn(&Programs, &Path) -> Vec<Row>,
    pub(crate) goals: fn(&[Row], &[Measured]) -> Vec<Goal>,
}

/// Something to reach.
pub(crate) struct Goal {
    pub(crate) what: String,
    pub(crate) figure: String,
    pub(crate) met: bool,
}

pub(crate) const SUITES: [Suite; 2] = [
    Suite { images: qcow2::images, rows: qcow2::rows, goals: qcow2::goals },
    Suite { images: qed::images, rows: qed::rows, goals: qed::goals },
];

pub(crate) fn empty(programs: &Programs) -> Row {
    Row { is_ours: true, ..Row::new(EMPTY, [programs.empty.clone().into()]) }
}
