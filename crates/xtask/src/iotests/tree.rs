//! A copy of QEMU's tests/qemu-iotests, with what QEMU's build tree would provide beside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

use crate::failure::Failure;
use crate::run::{Output, Run, quote};
use crate::{deps, qemu_source, scratch, workspace};

/// Seconds after which a test that is run by itself has failed: some never end on images that they are not made for.
const LIMIT: &str = "600";

/// What is said of a test that ended without a result, as one does that is ended.
pub(super) const NO_RESULT: &str = "fail, no result";

/// The folders of one run, below target/.
pub(super) struct Tree {
    /// Everything of this run.
    pub(super) top: PathBuf,
    /// The tests, and `check`, which runs them.
    pub(super) tests: PathBuf,
    /// Where they make their images, a folder for each test.
    pub(super) images: PathBuf,
    /// For programs that stand in the place of others.
    pub(super) programs: PathBuf,
    /// What the tests call as qemu-img.
    pub(super) qemu_img: PathBuf,
}

impl Tree {
    /// Copies the tests of the installed QEMU to target/`name`, which is emptied first.
    pub(super) fn prepare(name: &str) -> Result<Tree, Failure> {
        let source = qemu_source::ensure(&deps::qemu_version("qemu-img")?)?;
        let top = workspace::target().join(name);
        scratch::empty_folder(&top)?;
        let copy = top.join("tree");
        for part in ["tests/qemu-iotests", "python"] {
            let to = copy.join(part);
            let parent = to.parent().unwrap_or(&copy);
            fs::create_dir_all(parent).map_err(Failure::at(parent))?;
            Run::new("cp", ["-R"]).args([source.join(part).as_path(), &to]).status()?;
        }
        let tree = Tree {
            tests: copy.join("tests/qemu-iotests"),
            images: top.join("images"),
            programs: top.join("bin"),
            qemu_img: find("qemu-img")?,
            top,
        };
        for dir in [&tree.images, &tree.programs] {
            fs::create_dir_all(dir).map_err(Failure::at(dir))?;
        }
        let qemu = tree.programs.join("qemu-system-x86_64");
        write_program(&qemu, &qemu_wrapper(&find("qemu-system-x86_64")?))?;
        Ok(tree)
    }

    /// Runs QEMU's `check` for qcow2 with these arguments and hands back what it printed.
    pub(super) fn run(&self, arguments: &[&str]) -> Result<String, Failure> {
        let output =
            self.check(Run::new("python3", ["check", "-qcow2", "-j", &jobs().to_string()]), arguments)?;
        // The results are read from the text: a bad status says nothing new, a missing line does.
        eprint!("{}", output.stderr);
        Ok(output.stdout)
    }

    /// Runs these tests one by one, so that one that hangs ends no other, and hands back a line for each.
    pub(super) fn run_each(&self, options: &[&str], tests: &[&str]) -> Result<String, Failure> {
        let waiting = Mutex::new(tests.iter());
        let next = || waiting.lock().ok().and_then(|mut tests| tests.next());
        let work = || -> Result<String, Failure> {
            let mut lines = String::new();
            while let Some(test) = next() {
                let run = Run::new("timeout", ["-k", "10", LIMIT, "python3", "check", "-qcow2"]).silent();
                let output = self.check(run, &[options, &[test]].concat())?;
                let status = results(&output.stdout).first().map_or(NO_RESULT, |(_, status)| status);
                eprintln!("{test:35} {status}");
                lines.push_str(&format!("{test} {status}\n"));
            }
            Ok(lines)
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..jobs()).map(|_| scope.spawn(work)).collect();
            let ended = |worker: thread::ScopedJoinHandle<'_, _>| {
                worker.join().unwrap_or_else(|_| Err(Failure::new("a thread that runs tests panicked")))
            };
            workers.into_iter().map(ended).collect()
        })
    }

    /// The names of all tests there are, whether or not they are for qcow2.
    pub(super) fn names(&self) -> Result<String, Failure> {
        Ok(self.check(Run::new("python3", ["check", "-qcow2", "-n"]), &[])?.stdout)
    }

    fn check(&self, run: Run, arguments: &[&str]) -> Result<Output, Failure> {
        let qemu = self.programs.join("qemu-system-x86_64");
        let mut run = run
            .args(arguments)
            .env("TEST_DIR", &self.images)
            .env("QEMU_PROG", &qemu)
            .env("QEMU_IMG_PROG", &self.qemu_img)
            .dir(&self.tests);
        for (variable, name) in
            [("QEMU_IO_PROG", "qemu-io"), ("QEMU_NBD_PROG", "qemu-nbd"), ("QSD_PROG", "qemu-storage-daemon")]
        {
            run = run.env(variable, find(name)?);
        }
        run.output()
    }
}

fn jobs() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(4)
}

/// The last result of each test that `check` printed a line of, in its order.
pub(super) fn results(printed: &str) -> Vec<(&str, &'static str)> {
    let mut results: Vec<(&str, &'static str)> = Vec::new();
    for line in printed.split(['\n', '\r']) {
        let Some((test, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        let Some(status) = ["pass", "fail", "not run"].into_iter().find(|status| rest.starts_with(status))
        else {
            continue;
        };
        results.retain(|(other, _)| *other != test);
        results.push((test, status));
    }
    results
}

fn find(program: &str) -> Result<PathBuf, Failure> {
    workspace::find_program(program)
        .ok_or_else(|| Failure::new(format!("{program} is not on PATH; `cargo xtask deps` installs it")))
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

/// Writes a program that can be executed.
pub(super) fn write_program(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(Failure::at(path))?;
    Run::new("chmod", ["755"]).args([path]).status()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_a_test_counts() {
        let printed = "QEMU -- passed\n\
            031                ...        [1] ...\r031                pass       [1] [2]   1.0s\n\
            036                started    [1]\n036                not run    [1] [2]   no qtest\n\
            0310 pass\n054  fail [1]\n054  pass [1]\n";
        let expected = [("031", "pass"), ("036", "not run"), ("0310", "pass"), ("054", "pass")];
        assert_eq!(results(printed), expected);
    }
}
