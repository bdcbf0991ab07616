//! `iotests`: QEMU's own tests, with our `qcow2` where they call qcow2.py.
//!
//! The tests run from a copy of QEMU's tests/qemu-iotests. In that copy qcow2.py is a shim that
//! notes which test called it and becomes our program. The chore fails when a test fails, when
//! one is skipped, in part or whole, and when one passes without having called the shim.

use std::fs;
use std::path::Path;

use crate::failure::Failure;
use crate::workspace;

mod answers;
pub(crate) mod check;
mod explained;
mod tree;

use tree::{Tree, write_program};

/// The tests that call qcow2.py, themselves or (039, 137) through common.rc.
const TESTS: [&str; 11] =
    ["031", "036", "039", "054", "060", "061", "114", "137", "287", "303", "qcow2-encryption"];

/// Tests of the list that may fail or be skipped, each with the reason.
///
/// A test belongs here only where `cargo xtask iotests --original` shows that QEMU's own
/// qcow2.py fares no better. With Debian's QEMU 10.0.2 there is none.
const EXCEPTIONS: [(&str, &str); 0] = [];

/// How `check` says that a test was run, but not all of it.
const PARTS_SKIPPED: &str = "Some cases not run in:";

/// One test's line of the result.
#[derive(Debug, PartialEq)]
struct Outcome {
    test: &'static str,
    status: String,
    calls: usize,
}

/// Runs the tests with our program or, where `original`, with QEMU's own.
pub(crate) fn iotests(original: bool) -> Result<(), Failure> {
    let tree = Tree::prepare("iotests")?;
    let (script, calls) = (tree.tests.join("qcow2.py"), tree.top.join("calls.log"));
    if original {
        let kept = tree.tests.join("qcow2_original.py");
        fs::rename(&script, &kept).map_err(Failure::at(&script))?;
        write_program(&script, &shim(&["sys.executable".to_owned(), python_string(&kept)], &calls))?;
    } else {
        let program = workspace::build_tool("qcow2")?;
        write_program(&script, &shim(&[python_string(&program)], &calls))?;
    }
    let printed = tree.run(&TESTS)?;
    print!("{printed}");
    let log = fs::read_to_string(&calls).unwrap_or_default();
    let outcomes = outcomes(&printed, &log);
    let who = if original { "QEMU's own qcow2.py" } else { "our qcow2" };
    println!("iotests with {who}:");
    for outcome in &outcomes {
        println!("  {:18} {:8} {:3} calls", outcome.test, outcome.status, outcome.calls);
    }
    let faults = faults(&outcomes, &printed);
    if faults.is_empty() {
        let calls: usize = outcomes.iter().map(|outcome| outcome.calls).sum();
        println!("iotests: {} tests passed, {calls} calls of {who}", outcomes.len());
        return Ok(());
    }
    Err(Failure::new(format!(
        "iotests with {who}:\n{}\nwhat the tests left is in {}",
        faults.join("\n"),
        tree.images.display()
    )))
}

/// The Python program that notes its caller and its arguments and becomes `command`.
fn shim(command: &[String], log: &Path) -> String {
    let command = command.join(", ");
    format!(
        "#!/usr/bin/env python3\n\
         import os\n\
         import sys\n\
         test = os.path.basename(os.environ.get('TEST_DIR', '?')).rpartition('-file-')[2]\n\
         line = '\\t'.join([test] + sys.argv[2:3])\n\
         with open({}, 'a', encoding='utf-8') as log:\n    \
             log.write(line + '\\n')\n\
         command = [{command}]\n\
         os.execv(command[0], command + sys.argv[1:])\n",
        python_string(log)
    )
}

fn python_string(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\\', r"\\").replace('\'', r"\'"))
}

/// Reads each test's result from what `check` printed, and counts its calls in the shim's log.
fn outcomes(printed: &str, log: &str) -> Vec<Outcome> {
    let results = tree::results(printed);
    let of = |test: &'static str| {
        let calls = log.lines().filter(|line| line.split('\t').next() == Some(test)).count();
        let status = results.iter().find(|(name, _)| *name == test).map_or("no result", |(_, status)| status);
        Outcome { test, status: status.to_owned(), calls }
    };
    TESTS.into_iter().map(of).collect()
}

/// What is not as it must be, one line each.
fn faults(outcomes: &[Outcome], printed: &str) -> Vec<String> {
    let excused = |test: &str| EXCEPTIONS.iter().find(|(name, _)| *name == test).map(|(_, reason)| *reason);
    let mut faults = Vec::new();
    for outcome in outcomes {
        match (excused(outcome.test), outcome.status.as_str()) {
            (None, "pass") if outcome.calls == 0 => {
                faults.push(format!("{}: passed, but never called qcow2.py's stand-in", outcome.test));
            }
            (None, "pass") => {}
            (None, status) => faults.push(format!("{}: {status}", outcome.test)),
            (Some(reason), "pass") => {
                faults.push(format!("{}: passes; take it off the exceptions ({reason})", outcome.test));
            }
            (Some(reason), status) => println!("  {}: {status}, as expected: {reason}", outcome.test),
        }
    }
    let parts = printed.lines().filter(|line| line.starts_with(PARTS_SKIPPED));
    faults.extend(parts.map(str::to_owned));
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "031                ...        [1] ...\r031                pass       [1] [2]   1.0s\n\
        036                started    [1]\n036                not run    [1] [2]   no qtest\n\
        0310 pass\n054  fail [1]\n";

    #[test]
    fn results_and_calls_are_read() {
        let outcomes = outcomes(PRINTED, "031\tdump-header\n031\tset-header\n0311\tx\n036\n");
        let of = |test| outcomes.iter().find(|outcome| outcome.test == test).unwrap();
        assert_eq!((of("031").status.as_str(), of("031").calls), ("pass", 2));
        assert_eq!((of("036").status.as_str(), of("036").calls), ("not run", 1));
        assert_eq!((of("054").status.as_str(), of("054").calls), ("fail", 0));
        assert_eq!(of("303").status, "no result");
    }

    #[test]
    fn only_a_pass_that_called_us_is_good() {
        let outcome = |status: &str, calls| [Outcome { test: "031", status: status.to_owned(), calls }];
        assert!(faults(&outcome("pass", 1), "").is_empty());
        assert_eq!(faults(&outcome("pass", 0), "").len(), 1);
        assert_eq!(faults(&outcome("not run", 1), "").len(), 1);
        assert_eq!(faults(&outcome("fail", 1), "").len(), 1);
        assert_eq!(faults(&outcome("no result", 1), "").len(), 1);
        assert_eq!(faults(&outcome("pass", 1), "Some cases not run in: 303\n").len(), 1);
    }
}
