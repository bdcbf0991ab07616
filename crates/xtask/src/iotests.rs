//! `iotests`: QEMU's own tests, with our `qcow2` where they call qcow2.py.
//!
//! The tests run from a copy of QEMU's tests/qemu-iotests. In that copy qcow2.py is a shim that
//! notes which test called it and becomes our program. The chore fails when a test fails, when
//! one is skipped, in part or whole, and when one passes without having called the shim.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use crate::failure::Failure;
use crate::run::{Run, quote};
use crate::{deps, qemu_source, scratch, workspace};

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

/// The folders of one run.
struct Bench {
    tests: PathBuf,
    images: PathBuf,
    log: PathBuf,
    programs: PathBuf,
}

/// Runs the tests with our program or, where `original`, with QEMU's own.
pub(crate) fn iotests(original: bool) -> Result<(), Failure> {
    let source = qemu_source::ensure(&deps::qemu_version("qemu-img")?)?;
    let bench = prepare(&source)?;
    if original {
        let kept = bench.tests.join("qcow2_original.py");
        let script = bench.tests.join("qcow2.py");
        fs::rename(&script, &kept).map_err(Failure::at(&script))?;
        write_program(&script, &shim(&["sys.executable".to_owned(), python_string(&kept)], &bench.log))?;
    } else {
        let program = workspace::build_tool("qcow2")?;
        write_program(&bench.tests.join("qcow2.py"), &shim(&[python_string(&program)], &bench.log))?;
    }
    let printed = run_check(&bench)?;
    let log = fs::read_to_string(&bench.log).unwrap_or_default();
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
        bench.images.display()
    )))
}

/// Copies the tests and lays beside them what QEMU's build tree would provide.
fn prepare(source: &Path) -> Result<Bench, Failure> {
    let top = workspace::target().join("iotests");
    scratch::empty_folder(&top)?;
    let tree = top.join("tree");
    let bench = Bench {
        tests: tree.join("tests/qemu-iotests"),
        images: top.join("images"),
        log: top.join("calls.log"),
        programs: top.join("bin"),
    };
    for part in ["tests/qemu-iotests", "python"] {
        let to = tree.join(part);
        let parent = to.parent().unwrap_or(&tree);
        fs::create_dir_all(parent).map_err(Failure::at(parent))?;
        Run::new("cp", ["-R"]).args([source.join(part).as_path(), &to]).status()?;
    }
    for dir in [&bench.images, &bench.programs] {
        fs::create_dir_all(dir).map_err(Failure::at(dir))?;
    }
    Ok(bench)
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

/// Debian's qemu-system is built without the qtest accelerator, which the tests ask for so that
/// no guest runs; a machine that is never started serves as well.
fn qemu_wrapper(program: &Path) -> String {
    format!(
        "#!/usr/bin/env bash\n\
         args=()\n\
         for arg in \"$@\"; do\n\
         case $arg in\n\
         qtest) args+=(tcg -S) ;;\n\
         accel=qtest) args+=(accel=tcg -S) ;;\n\
         *) args+=(\"$arg\") ;;\n\
         esac\n\
         done\n\
         exec {} \"${{args[@]}}\"\n",
        quote(&program.to_string_lossy())
    )
}

fn write_program(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(Failure::at(path))?;
    Run::new("chmod", ["755"]).args([path]).status()
}

/// Runs `check` and hands back what it printed, which is shown too.
fn run_check(bench: &Bench) -> Result<String, Failure> {
    let find = |name: &str| {
        workspace::find_program(name)
            .ok_or_else(|| Failure::new(format!("{name} is not on PATH; `cargo xtask deps` installs it")))
    };
    let qemu = bench.programs.join("qemu-system-x86_64");
    write_program(&qemu, &qemu_wrapper(&find("qemu-system-x86_64")?))?;
    let jobs = thread::available_parallelism().map_or(1, usize::from).min(4).to_string();
    let mut run = Run::new("python3", ["check", "-qcow2", "-j", &jobs])
        .args(TESTS)
        .env("TEST_DIR", &bench.images)
        .env("QEMU_PROG", &qemu)
        .dir(&bench.tests);
    for (variable, name) in [
        ("QEMU_IMG_PROG", "qemu-img"),
        ("QEMU_IO_PROG", "qemu-io"),
        ("QEMU_NBD_PROG", "qemu-nbd"),
        ("QSD_PROG", "qemu-storage-daemon"),
    ] {
        run = run.env(variable, find(name)?);
    }
    let output = run.output()?;
    // The results are read from the text: a bad status says nothing new, a missing line does.
    print!("{}", output.stdout);
    eprint!("{}", output.stderr);
    Ok(output.stdout)
}

/// Reads each test's result from what `check` printed, and counts its calls in the shim's log.
fn outcomes(printed: &str, log: &str) -> Vec<Outcome> {
    let of = |test: &'static str| {
        let calls = log.lines().filter(|line| line.split('\t').next() == Some(test)).count();
        let mut lines = printed.split(['\n', '\r']).rev();
        let status = lines.find_map(|line| status_of(line.strip_prefix(test)?)).unwrap_or("no result");
        Outcome { test, status: status.to_owned(), calls }
    };
    TESTS.into_iter().map(of).collect()
}

fn status_of(after_name: &str) -> Option<&'static str> {
    let rest = after_name.strip_prefix(' ')?.trim_start();
    ["pass", "fail", "not run"].into_iter().find(|status| rest.starts_with(status))
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
