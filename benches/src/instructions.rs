//! Counting instructions: unlike times, the same on a busy machine.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::Command;

use crate::row::Row;

/// What counts them here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counter {
    /// perf(1): the processor itself, in user mode.
    Perf,
    /// Valgrind, which makes processes fifty times slower: for our own rows only.
    Valgrind,
    /// Neither works.
    Nothing,
}

impl Counter {
    /// The first one that can count an empty process: in many containers perf is installed and may not.
    pub(crate) fn detect(empty: &Path) -> Self {
        let counts = |counter: &Self| {
            let [program, args @ ..] = counter.prefix() else { return false };
            let output = Command::new(program).args(args).arg(empty).output();
            output.is_ok_and(|output| parse(&String::from_utf8_lossy(&output.stderr)).is_some())
        };
        [Self::Perf, Self::Valgrind].into_iter().find(counts).unwrap_or(Self::Nothing)
    }

    fn prefix(self) -> &'static [&'static str] {
        match self {
            Self::Perf => &["perf", "stat", "-x,", "-e", "instructions:u", "--"],
            Self::Valgrind => {
                &["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
            }
            Self::Nothing => &[],
        }
    }

    /// The instructions of one run.
    pub(crate) fn count(self, row: &Row) -> io::Result<Option<u64>> {
        if self == Self::Nothing || (self == Self::Valgrind && !row.is_ours) {
            return Ok(None);
        }
        let prefix: Vec<_> = self.prefix().iter().map(Into::into).collect();
        let output = row.command(&prefix).output()?;
        // Valgrind's own address space has no room for a map of 1 TiB.
        let counted = output.status.success().then(|| parse(&String::from_utf8_lossy(&output.stderr)));
        Ok(counted.flatten())
    }
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Perf => "Instructions: perf, user mode.",
            Self::Valgrind => "Instructions: Valgrind.",
            Self::Nothing => "No instruction counts: neither perf nor Valgrind works here.",
        })
    }
}

/// The number in the report of either.
fn parse(report: &str) -> Option<u64> {
    report.lines().find_map(|line| {
        let number = match line.split_once("refs:") {
            Some((_, number)) => number.trim().replace(',', ""),
            None => line.split_once(",,instructions")?.0.to_owned(),
        };
        number.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_reports_are_read() {
        assert_eq!(parse("12345,,instructions:u,600000,100.00,,\n"), Some(12345));
        assert_eq!(parse("==7== \n==7== I refs:        1,234,567\n"), Some(1_234_567));
        assert_eq!(parse("<not supported>,,instructions:u,0,100.00,,\n"), None);
        assert_eq!(parse("perf: command not found\n"), None);
    }
}
