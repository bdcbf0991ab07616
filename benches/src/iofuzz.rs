//! The iofuzz suite: how fast operations are executed, by whom; and what the commands take from start to end.
//!
//! Who executes them is QEMU, a process of its own, that is started anew for each run; its start is measured where a
//! command is, and not where a rate is. The rows take turns. QEMU's share of a row is most of it: on a machine with less
//! than two idle cores compare the ratios, and those with care.

mod commands;
mod linux;
mod rates;
mod seed;

use std::error::Error;
use std::path::Path;

use crate::suite::Goal;

/// What all rows' names begin with: `--image` is looked for in the name with it.
const SUITE: &str = "iofuzz: ";
/// The rows that others are compared with.
const SEED: &str = "the seed's dd in a Linux guest";
const SEED_WAITING: &str = "the same, with its session's waits";
const PIPELINED: &str = "qtest, pipelined";
const MICRO: &str = "micro guest, port 0x80";

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// More are better.
    PerSecond,
    /// Fewer are better.
    Seconds,
}

/// One run of a row.
struct Sample {
    figure: f64,
    /// What came out, in a few words.
    answer: String,
    /// Whether that is what had to come out.
    right: bool,
}

/// One row.
struct Row {
    label: &'static str,
    unit: Unit,
    /// It takes long: no more than that many runs.
    most: u32,
    goal: Option<f64>,
    run: Box<dyn Fn() -> Result<Sample, Box<dyn Error>>>,
}

impl Row {
    fn new(
        label: &'static str,
        unit: Unit,
        most: u32,
        run: impl Fn() -> Result<Sample, Box<dyn Error>> + 'static,
    ) -> Self {
        Self { label, unit, most, goal: None, run: Box::new(run) }
    }

    fn goal(self, goal: f64) -> Self {
        Self { goal: Some(goal), ..self }
    }
}

/// What came out of a row.
struct Measured {
    label: &'static str,
    unit: Unit,
    goal: Option<f64>,
    /// Sorted.
    figures: Vec<f64>,
    answer: String,
    right: bool,
}

impl Measured {
    fn median(&self) -> f64 {
        self.figures.get(self.figures.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

/// Measures the rows whose name contains `wanted`, and prints them: their goals, and whether all answers are right.
pub(crate) fn bench(
    iofuzz: &Path,
    dir: &Path,
    wanted: &str,
    runs: u32,
) -> Result<(Vec<Goal>, bool), Box<dyn Error>> {
    let mut rows = rates::rows();
    rows.extend(commands::rows(iofuzz, dir)?);
    rows.extend(linux::rows());
    rows.retain(|row| format!("{SUITE}{}", row.label).contains(wanted));
    if rows.is_empty() {
        return Ok((Vec::new(), true));
    }
    let measured = in_turns(&rows, runs)?;
    println!("\n### iofuzz, QEMU's machine pc\n\n{}", table(&measured));
    let mut right = true;
    for row in measured.iter().filter(|row| !row.right) {
        println!("\nWRONG ANSWER: {}", row.label);
        right = false;
    }
    Ok((goals(&measured), right))
}

fn in_turns(rows: &[Row], runs: u32) -> Result<Vec<Measured>, Box<dyn Error>> {
    let measured = |row: &Row| Measured {
        label: row.label,
        unit: row.unit,
        goal: row.goal,
        figures: Vec::new(),
        answer: String::new(),
        right: true,
    };
    let mut all: Vec<Measured> = rows.iter().map(measured).collect();
    for round in 0..runs {
        for (row, measured) in rows.iter().zip(&mut all).filter(|(row, _)| round < row.most) {
            let sample = (row.run)().map_err(|error| format!("{}: {error}", row.label))?;
            measured.figures.push(sample.figure);
            measured.right &= sample.right;
            measured.answer = sample.answer;
        }
    }
    all.iter_mut().for_each(|measured| measured.figures.sort_by(f64::total_cmp));
    Ok(all)
}

fn find<'m>(measured: &'m [Measured], label: &str) -> Option<&'m Measured> {
    measured.iter().find(|row| row.label == label)
}

/// All rows, the ones that miss their goal included.
fn table(measured: &[Measured]) -> String {
    let mut out = String::from(
        "| what | median | least–most | runs | × the seed | × qtest | goal | answer |\n|---|--:|--:|--:|--:|--:|---|---|\n",
    );
    for row in measured {
        let ratio = |label| match (row.unit, find(measured, label)) {
            (Unit::PerSecond, Some(peer)) => short(row.median() / peer.median()),
            _ => "–".to_owned(),
        };
        let (least, most) = (row.figures.first(), row.figures.last());
        let spread = least.zip(most).map(|(least, most)| format!("{}–{}", short(*least), short(*most)));
        out.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} |\n",
            row.label,
            figure(row.unit, row.median()),
            spread.unwrap_or_default(),
            row.figures.len(),
            ratio(SEED),
            ratio(PIPELINED),
            verdict(row),
            row.answer.replace('|', "\\|"),
        ));
    }
    out
}

/// The goal, and whether it is met.
fn verdict(row: &Measured) -> String {
    let Some(goal) = row.goal else { return "–".to_owned() };
    let (sign, met) = match row.unit {
        Unit::PerSecond => ('≥', row.median() >= goal),
        Unit::Seconds => ('≤', row.median() <= goal),
    };
    format!("{sign} {}: {}", figure(row.unit, goal), if met { "met" } else { "MISSED" })
}

/// What one row alone does not say.
fn goals(measured: &[Measured]) -> Vec<Goal> {
    let wanted = [(MICRO, PIPELINED, 30.0), (MICRO, SEED, 500_000.0)];
    let goal = |(ours, peer, least): (&'static str, &'static str, f64)| {
        let ratio = find(measured, ours)?.median() / find(measured, peer)?.median();
        let (what, figure) = (format!("{ours}: {}× {peer}", short(least)), format!("{}×", short(ratio)));
        Some(Goal { what, figure, met: ratio >= least })
    };
    wanted.into_iter().filter_map(goal).collect()
}

fn figure(unit: Unit, value: f64) -> String {
    match unit {
        Unit::PerSecond => format!("{}/s", short(value)),
        Unit::Seconds => format!("{} s", short(value)),
    }
}

/// Three digits, and what they count.
fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        size if size >= 1e6 => (value / 1e6, " M"),
        size if size >= 1e3 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let digits = if value >= 100.0 { 0 } else { 1 + usize::from(value < 10.0) };
    format!("{value:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let numbers = [0.5, 12.34, 123.4, 1234.0, 10_600_000.0].map(short);
        assert_eq!(numbers, ["0.50", "12.3", "123", "1.23 k", "10.6 M"]);
    }

    #[test]
    fn a_goal_is_the_medians() {
        let row = |unit, figures: &[f64]| Measured {
            label: MICRO,
            unit,
            goal: Some(10.0),
            figures: figures.to_vec(),
            answer: String::new(),
            right: true,
        };
        assert_eq!(verdict(&row(Unit::PerSecond, &[1.0, 11.0, 12.0])), "≥ 10.0/s: met");
        assert_eq!(verdict(&row(Unit::Seconds, &[1.0, 11.0, 12.0])), "≤ 10.0 s: MISSED");
    }

    #[test]
    fn a_ratio_is_a_goal_where_both_rows_are_there() {
        let row = |label, figure| Measured {
            label,
            unit: Unit::PerSecond,
            goal: None,
            figures: vec![figure],
            answer: String::new(),
            right: true,
        };
        let goals = goals(&[row(MICRO, 100.0), row(PIPELINED, 4.0)]);
        let told: Vec<_> = goals.iter().map(|goal| (goal.figure.as_str(), goal.met)).collect();
        assert_eq!(told, [("25.0×", false)]);
    }
}
