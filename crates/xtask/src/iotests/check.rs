//! `iotests --check`: QEMU's own tests, where each `qemu-img check` is answered by ours too.
//!
//! A program in the place of qemu-img asks both about the same file, notes the answers, and then
//! does what the test wanted, so that the test sees qemu-img alone. Where a test repairs, both are
//! asked before and after. The chore fails on any difference that CHECK.md does not explain.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::answers::{Asked, Line, Verdict};
use super::explained::Explained;
use super::tree::{NO_RESULT, Tree, results, write_program};
use crate::failure::Failure;
use crate::run::quote;
use crate::workspace;

/// What stands in the place of `qemu-img check`.
const BESIDE: &str = include_str!("beside.py");

/// Tests that ask much in little time: they must pass, too.
const QUICK: [&str; 9] = ["010", "039", "042", "060", "066", "108", "121", "138", "214"];

/// Options of images with which all tests that call `qemu-img check` are run again.
const VARIANTS: [&str; 10] = [
    "compat=0.10",
    "refcount_bits=1",
    "refcount_bits=64",
    "cluster_size=512",
    "cluster_size=2M",
    "cluster_size=4k,refcount_bits=4",
    "extended_l2=on",
    "compression_type=zstd",
    "data_file=$TEST_IMG.ext_data_file",
    "data_file=$TEST_IMG.ext_data_file,data_file_raw=on",
];

/// What was counted in the runs so far.
#[derive(Default)]
struct Tally {
    /// A line for each run.
    table: String,
    /// How often each difference was explained, by name.
    explained: BTreeMap<String, usize>,
    /// How often ours was not asked, by reason.
    not_asked: BTreeMap<String, usize>,
    /// What nothing explains.
    differences: Vec<String>,
}

/// Runs a choice of tests or, where `all`, every test there is, and in all variants those that check.
pub(crate) fn check(all: bool) -> Result<(), Failure> {
    let mut tree = Tree::prepare("iotests-check")?;
    let answers = stand_in(&mut tree)?;
    let mut tally = Tally::default();
    if all {
        everything(&tree, &answers, &mut tally)?;
    } else {
        let printed = tree.run(&QUICK)?;
        print!("{printed}");
        tally.add("as the tests make them", &printed, &read(&answers)?)?;
        must_pass(&printed)?;
    }
    tally.print();
    if tally.differences.is_empty() {
        return Ok(());
    }
    let differences = tally.differences.join("\n");
    Err(Failure::new(format!("answers differ, and CHECK.md does not say why:\n{differences}")))
}

/// All tests, and in all variants those that asked anything.
fn everything(tree: &Tree, answers: &Path, tally: &mut Tally) -> Result<(), Failure> {
    let names = tree.names()?;
    let printed = tree.run_each(&[], &names.lines().collect::<Vec<_>>())?;
    let log = read(answers)?;
    tally.add("as the tests make them", &printed, &log)?;
    let mut tests: Vec<&str> = log.lines().filter_map(|line| line.split('\t').next()).collect();
    tests.sort_unstable();
    tests.dedup();
    // One that hangs would do so each time.
    tests.retain(|test| {
        let has_ended = !printed.lines().any(|line| line == format!("{test} {NO_RESULT}"));
        if !has_ended {
            eprintln!("{test}: {NO_RESULT}, and not run again");
        }
        has_ended
    });
    for variant in VARIANTS {
        fs::remove_file(answers).map_err(Failure::at(answers))?;
        let printed = tree.run_each(&["-o", variant], &tests)?;
        tally.add(variant, &printed, &read(answers)?)?;
    }
    Ok(())
}

/// Puts our program in the place of qemu-img, and says where it notes the answers.
fn stand_in(tree: &mut Tree) -> Result<PathBuf, Failure> {
    let ours = workspace::build_tool("qcow2")?;
    let beside = tree.programs.join("beside.py");
    fs::write(&beside, BESIDE).map_err(Failure::at(&beside))?;
    let kept = tree.top.join("kept");
    fs::create_dir(&kept).map_err(Failure::at(&kept))?;
    let shim = tree.programs.join("qemu-img");
    write_program(&shim, &shim_text(&beside, &tree.qemu_img, &ours, &tree.top))?;
    tree.qemu_img = shim;
    Ok(tree.top.join("answers.log"))
}

fn shim_text(beside: &Path, qemu_img: &Path, ours: &Path, folder: &Path) -> String {
    let [beside, qemu_img, ours, folder] =
        [beside, qemu_img, ours, folder].map(|path| quote(&path.to_string_lossy()));
    format!(
        "#!/usr/bin/env bash\n\
         if [ \"$1\" = check ]; then\n\
         exec python3 {beside} {qemu_img} {ours} {folder} \"$@\"\n\
         fi\n\
         exec {qemu_img} \"$@\"\n"
    )
}

fn read(answers: &Path) -> Result<String, Failure> {
    fs::read_to_string(answers).map_err(Failure::at(answers))
}

/// Of the quick ones none is there in vain.
fn must_pass(printed: &str) -> Result<(), Failure> {
    let results = results(printed);
    let passed = |test: &str| results.contains(&(test, "pass"));
    let others: Vec<&str> = QUICK.into_iter().filter(|test| !passed(test)).collect();
    if others.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("QEMU's tests that did not pass: {}", others.join(" "))))
}

impl Tally {
    /// Adds a run's results and answers.
    fn add(&mut self, variant: &str, printed: &str, log: &str) -> Result<(), Failure> {
        let known = Explained::read();
        let (mut both, mut same, mut explained) = (0, 0, 0);
        let before = self.differences.len();
        for line in log.lines() {
            let Line { test, command, asked } = Line::parse(line)?;
            let pair = match asked {
                Asked::No(reason) => {
                    *self.not_asked.entry(reason.to_owned()).or_default() += 1;
                    continue;
                }
                Asked::Both(pair) => pair,
            };
            both += 1;
            match pair.judge(&known) {
                Verdict::Same => same += 1,
                Verdict::Explained(name) => {
                    explained += 1;
                    *self.explained.entry(name).or_default() += 1;
                }
                Verdict::Different => {
                    self.differences.push(format!(
                        "{test}, {variant}: qemu-img {command} ({}): {}",
                        pair.when, pair.kept
                    ));
                }
            }
        }
        let results = results(printed);
        let tests = |wanted: &str| results.iter().filter(|(_, status)| *status == wanted).count();
        let different = self.differences.len() - before;
        let [passed, failed, not_run] = ["pass", "fail", "not run"].map(tests);
        let row = format!(
            "  {variant:50} {passed:6} {failed:6} {not_run:8} {both:8} {same:6} {explained:10} {different:10}\n"
        );
        // The next run may take ten minutes.
        eprint!("{row}");
        self.table.push_str(&row);
        Ok(())
    }

    fn print(&self) {
        println!(
            "\n  {:50} {:>6} {:>6} {:>8} {:>8} {:>6} {:>10} {:>10}",
            "images", "passed", "failed", "not run", "answers", "same", "explained", "different"
        );
        println!("{}", self.table);
        for (title, counts) in [("explained in CHECK.md", &self.explained), ("not asked", &self.not_asked)] {
            println!("{title}:");
            for (name, count) in counts {
                println!("  {count:6}  {name}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted() {
        let log = "010\tcheck a\tas it is\tstatus=0 leaks=0\tstatus=0 leaks=0\t\t-\n\
            060\tcheck a\tas it is\tstatus=0 leaks=0\tstatus=2 leaks=0 finding=dirty\t\t/kept/1\n\
            060\tcheck a\tbefore repair\tstatus=0 leaks=0\tstatus=3 leaks=1\t\t/kept/2\n\
            302\tcheck nbd:a\tnot asked\tprotocol nbd\n";
        let mut tally = Tally::default();
        tally.add("x=y", "010  pass [1]\n060  fail [1]\n302 not run\n", log).unwrap();
        assert_eq!(tally.explained, BTreeMap::from([("dirty".to_owned(), 1)]));
        assert_eq!(tally.not_asked, BTreeMap::from([("protocol nbd".to_owned(), 1)]));
        assert_eq!(tally.differences, ["060, x=y: qemu-img check a (before repair): /kept/2"]);
        let words: Vec<&str> = tally.table.split_whitespace().collect();
        assert_eq!(words, ["x=y", "1", "1", "1", "3", "1", "1", "1"]);
    }

    #[test]
    fn only_check_goes_to_both() {
        let text = shim_text(Path::new("b"), Path::new("q"), Path::new("o u"), Path::new("f"));
        assert!(text.contains("exec python3 b q 'o u' f \"$@\""), "{text}");
    }
}
