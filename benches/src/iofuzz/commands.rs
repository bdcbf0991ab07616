//! The commands, from typing them to their end.

use std::error::Error;
use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use guest_fuzz::target::qemu;
use guest_fuzz::target::sim::Plant;
use serde_json::Value;

use super::{Row, Sample, Unit};

/// The machine with a device whose register ends it, for tests.
const TESTDEV: [&str; 6] = ["--", "-M", "pc", "-nodefaults", "-device", "pc-testdev"];
/// How many operations are shrunk.
const LIST: usize = 6000;
/// How many seeds stand for all of them.
const SEEDS: usize = 11;

/// The binary, and where it may write.
#[derive(Clone)]
struct Tool {
    iofuzz: PathBuf,
    dir: PathBuf,
}

/// The rows of the binary `iofuzz`; what they write goes to `dir`.
pub(super) fn rows(iofuzz: &Path, dir: &Path) -> Result<Vec<Row>, Box<dyn Error>> {
    let tool = Tool { iofuzz: iofuzz.to_owned(), dir: dir.to_owned() };
    let (testdev, sequence) = (dir.join("testdev.txt"), dir.join("sequence.txt"));
    fs::write(&testdev, hidden(&["outb 0x2014 0x0".to_owned()], LIST - 1))?;
    let trigger: Vec<String> = Plant::Sequence.trigger().iter().map(ToString::to_string).collect();
    fs::write(&sequence, hidden(&trigger, LIST / trigger.len() - 1))?;
    let mut rows = Vec::new();
    if qemu::find().is_some() {
        for generator in ["stream", "mixed"] {
            let label = if generator == "stream" { "iofuzz run, stream" } else { "iofuzz run, mixed" };
            let words = ["run", "--generator", generator, "--time", "3", "--seed", "1", "--machine", "pc"];
            rows.push(tool.row(label, Unit::PerSecond, 5, &words, rate));
        }
        rows.push(tool.first_operations("iofuzz run --ops 100000, the median seed").goal(1.0));
        let words = ["classic", "--ports", "0-0xffff", "--seed", "1"];
        rows.push(tool.row("iofuzz classic --ports 0-0xffff", Unit::Seconds, 3, &words, classic).goal(10.0));
        let list = testdev.to_string_lossy();
        let words = [&["shrink", &list][..], &TESTDEV].concat();
        rows.push(tool.row("iofuzz shrink, pc-testdev", Unit::Seconds, 5, &words, shrunk_to_1).goal(10.0));
    }
    let list = sequence.to_string_lossy();
    let words = ["shrink", &list, "--transport", "sim"];
    rows.push(
        tool.row("iofuzz shrink, five steps in the Sim", Unit::Seconds, 5, &words, shrunk_to_5).goal(10.0),
    );
    Ok(rows)
}

impl Tool {
    /// A row of `iofuzz` with `words`: the seconds that it takes, unless `judge` has another figure; with its answer, and
    /// whether that is right.
    fn row(
        &self,
        label: &'static str,
        unit: Unit,
        most: u32,
        words: &[&str],
        judge: fn(&Value) -> (Option<f64>, String, bool),
    ) -> Row {
        let words: Vec<OsString> = words.iter().map(Into::into).collect();
        let tool = self.clone();
        Row::new(label, unit, most, move || {
            let (seconds, document) = tool.run(&words)?;
            let (figure, answer, right) = judge(&document);
            Ok(Sample { figure: figure.unwrap_or(seconds), answer, right })
        })
    }

    /// The first 100,000 operations, with [`SEEDS`] seeds: what a device is told to do, and so how
    /// long it takes, is another thing with each seed.
    fn first_operations(&self, label: &'static str) -> Row {
        let tool = self.clone();
        Row::new(label, Unit::Seconds, 3, move || {
            let mut times = Vec::new();
            let mut right = true;
            for seed in 1..=SEEDS {
                let words = ["run", "--ops", "100000", "--seed", &seed.to_string()];
                let (seconds, report) = tool.run(&words.map(OsString::from))?;
                right &= number(&report, "operations") == 100_000;
                times.push(seconds);
            }
            times.sort_by(f64::total_cmp);
            let at = |index: usize| times.get(index).copied().unwrap_or(f64::NAN);
            let answer = format!("{:.2} to {:.1} s with {SEEDS} seeds", at(0), at(SEEDS - 1));
            Ok(Sample { figure: at(SEEDS / 2), answer, right })
        })
    }

    /// How long it takes, and what it prints.
    fn run(&self, words: &[OsString]) -> Result<(f64, Value), Box<dyn Error>> {
        let out = self.dir.join("found");
        let mut command = Command::new(&self.iofuzz);
        let (command_name, rest) = words.split_first().ok_or("no command")?;
        command.arg(command_name).arg("--json");
        if command_name != "shrink" {
            command.arg("--out").arg(&out);
        }
        command.args(rest).stdin(Stdio::null());
        let begun = Instant::now();
        let output = command.output()?;
        let seconds = begun.elapsed().as_secs_f64();
        let _ = fs::remove_dir_all(&out);
        let document = serde_json::from_slice(&output.stdout).map_err(|error| {
            format!("{}: {error}: {}", output.status, String::from_utf8_lossy(&output.stderr))
        })?;
        Ok((seconds, document))
    }
}

/// The steps, each with `noise` operations before it that have nothing to do with it.
fn hidden(steps: &[String], noise: usize) -> String {
    let mut list = String::new();
    for step in steps {
        for number in 0..noise {
            let _ = match number % 3 {
                0 => writeln!(list, "outb 0x80 {:#x}", number & 0xff),
                1 => writeln!(list, "outb 0x3ff {:#x}", number & 0xff),
                _ => writeln!(list, "inb 0x71"),
            };
        }
        let _ = writeln!(list, "{step}");
    }
    list
}

fn number(document: &Value, name: &str) -> u64 {
    document.get(name).and_then(Value::as_u64).unwrap_or(0)
}

fn rate(report: &Value) -> (Option<f64>, String, bool) {
    let rate = report.get("operations_per_second").and_then(Value::as_f64);
    let findings = report.get("findings").and_then(Value::as_array).map_or(0, Vec::len);
    let (machines, resets) = (number(report, "machines"), number(report, "resets"));
    let answer = format!("{machines} machines, {resets} resets, {findings} findings");
    (rate, answer, rate.is_some_and(|rate| rate > 0.0))
}

fn classic(report: &Value) -> (Option<f64>, String, bool) {
    let (operations, resets) = (number(report, "operations"), number(report, "resets"));
    // Twelve for each port: a read, a zero, and ten random bytes. A port that two regions have is there twice.
    (None, format!("{operations} operations, {resets} resets"), operations >= 12 << 16)
}

fn shrunk_to_1(document: &Value) -> (Option<f64>, String, bool) {
    shrunk(document, 1)
}

fn shrunk_to_5(document: &Value) -> (Option<f64>, String, bool) {
    shrunk(document, 5)
}

fn shrunk(document: &Value, expected: u64) -> (Option<f64>, String, bool) {
    let (from, to, runs) =
        (number(document, "operations"), number(document, "shrunk_operations"), number(document, "runs"));
    (None, format!("from {from} to {to} operations in {runs} runs"), to == expected)
}
