//! QEMU's own qcow2.py, the oracle.

use serde_json::{Value, json};
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use test_support::process::installed;
use test_support::scratch::text;

/// What the original makes of one command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It ended in good order, with this status, and printed this.
    Printed { status: i64, stdout: String },
    /// It died with an exception.
    Failed(String),
}

impl Answer {
    /// What it printed, if it lived.
    pub(crate) fn stdout(&self) -> Option<&str> {
        match self {
            Answer::Printed { stdout, .. } => Some(stdout),
            Answer::Failed(_) => None,
        }
    }
}

/// The four forms in which the original shows a header.
pub(crate) const DUMPS: [&[&str]; 4] =
    [&["dump-header"], &["dump-header", "-j"], &["dump-header-exts"], &["dump-header-exts", "-j"]];

/// A running Python process with the original loaded: starting one takes 80 ms, asking it 1 ms.
#[derive(Debug)]
pub(crate) struct Original {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Original {
    pub(crate) fn start() -> Original {
        let mut child = installed("python3")
            .args(["-c", include_str!("original_driver.py")])
            .arg(folder())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let requests = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Original { child, requests, answers }
    }

    fn ask(&mut self, request: &Value) -> Value {
        writeln!(self.requests.as_mut().unwrap(), "{request}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {request} -> {line}"))
    }

    /// Runs `qcow2.py FILE ARGS…` for each of `lines`.
    pub(crate) fn run(&mut self, file: &Path, lines: &[&[&str]], stdin: &[u8]) -> Vec<Answer> {
        let lines: Vec<Vec<&str>> = lines.iter().map(|line| [&[text(file)], *line].concat()).collect();
        let hex: String = stdin.iter().map(|byte| format!("{byte:02x}")).collect();
        let answers = self.ask(&json!({ "run": lines, "stdin": hex }));
        answers.as_array().unwrap().iter().map(answer).collect()
    }

    /// Runs one edit that the original has to manage.
    #[track_caller]
    pub(crate) fn edit(&mut self, file: &Path, args: &[&str], stdin: &[u8]) {
        let answers = self.run(file, &[args], stdin);
        let silent = Answer::Printed { status: 0, stdout: String::new() };
        assert_eq!(answers, [silent], "the original's {args:?}");
    }

    /// The four dumps, in the order of [`DUMPS`].
    pub(crate) fn dumps(&mut self, file: &Path) -> Vec<Answer> {
        self.run(file, &DUMPS, b"")
    }

    /// Its text dump of an image that it can read.
    #[track_caller]
    pub(crate) fn dump(&mut self, file: &Path) -> String {
        let answers = self.run(file, &[&["dump-header"]], b"");
        match &answers[..] {
            [Answer::Printed { stdout, .. }] => stdout.clone(),
            other => panic!("the original cannot read {}: {other:?}", file.display()),
        }
    }

    /// Python's `int(text, 0)` in decimal, or `None` where it refuses.
    pub(crate) fn numbers(&mut self, texts: &[&str]) -> Vec<Option<String>> {
        serde_json::from_value(self.ask(&json!({ "numbers": texts }))).unwrap()
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        drop(self.requests.take());
        drop(self.child.wait());
    }
}

fn answer(value: &Value) -> Answer {
    match value.get("failed") {
        Some(why) => Answer::Failed(why.as_str().unwrap().to_owned()),
        None => Answer::Printed {
            status: value["status"].as_i64().unwrap(),
            stdout: value["stdout"].as_str().unwrap().to_owned(),
        },
    }
}

/// The folder of the original: in `$VDISK_QEMU_SRC`, or where `cargo xtask deps` unpacks QEMU.
fn folder() -> PathBuf {
    let unpacked = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/qemu-src");
    let source = env::var_os("VDISK_QEMU_SRC").map_or_else(unpacked, PathBuf::from);
    let folder = source.join("tests/qemu-iotests");
    for file in ["qcow2.py", "qcow2_format.py"] {
        let path = folder.join(file);
        assert!(path.is_file(), "{} is missing; run `cargo xtask deps`", path.display());
    }
    folder
}
