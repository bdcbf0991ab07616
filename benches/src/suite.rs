//! A suite: its images, its rows for each, and what it has to reach.

use crate::images::{Image, Wanted};
use crate::measure::Measured;
use crate::programs::Programs;
use crate::row::Row;
use crate::{qcow2, qcow2_check, qed};

/// The row of the process that does nothing.
pub(crate) const EMPTY: &str = "empty process";

pub(crate) struct Suite {
    pub(crate) images: fn() -> Vec<Wanted>,
    pub(crate) rows: fn(&Programs, &Image) -> Vec<Row>,
    pub(crate) goals: fn(&Image, &[Row], &[Measured]) -> Vec<Goal>,
    /// What images have to reach beside one another.
    pub(crate) growth: fn(&Results) -> Vec<Goal>,
}

/// The images of a suite that were measured, by their names.
pub(crate) type Results = Vec<(&'static str, Vec<Row>, Vec<Measured>)>;

/// Something to reach.
pub(crate) struct Goal {
    pub(crate) what: String,
    pub(crate) figure: String,
    pub(crate) met: bool,
}

pub(crate) const SUITES: [Suite; 3] = [
    Suite { images: qcow2::images, rows: qcow2::rows, goals: qcow2::goals, growth: |_| Vec::new() },
    Suite {
        images: qcow2_check::images,
        rows: qcow2_check::rows,
        goals: qcow2_check::goals,
        growth: qcow2_check::growth,
    },
    Suite { images: qed::images, rows: qed::rows, goals: qed::goals, growth: |_| Vec::new() },
];

pub(crate) fn empty(programs: &Programs) -> Row {
    Row { is_ours: true, ..Row::new(EMPTY, [programs.empty.clone().into()]) }
}
