//! Running a process to its end, or killing it when it takes too long.

use std::env;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// The longest that any of our commands may take on any input.
pub const LIMIT: Duration = Duration::from_secs(5);

/// A command for a program that the tests need, or a panic that says how to get it.
#[must_use]
pub fn installed(name: &str) -> Command {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).any(|folder| folder.join(name).is_file());
    assert!(found, "{name} is missing; run `cargo xtask deps`");
    Command::new(name)
}

/// A process that has ended.
#[derive(Debug)]
pub struct Run {
    /// The command line.
    pub line: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
}

impl Run {
    /// Standard output as text; bytes that are no UTF-8 are replaced.
    #[must_use]
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    #[must_use]
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Panics with everything that is known unless the process exited with `code`.
    #[track_caller]
    pub fn expect(self, code: i32) -> Run {
        assert_eq!(self.status.code(), Some(code), "exit status of {self}");
        self
    }

    /// Whether it died of a signal, or of a Rust panic or abort.
    #[must_use]
    pub fn crashed(&self) -> bool {
        matches!(self.status.code(), None | Some(101 | 134..))
    }

    /// Whether our time limit ended it.
    #[must_use]
    pub fn too_slow(&self) -> bool {
        self.status.signal() == Some(9)
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}\n{}", self.line, self.status)?;
        writeln!(f, "--- stdout\n{}", self.out())?;
        write!(f, "--- stderr\n{}", self.err())
    }
}

/// Runs `command` with `input` on its standard input. A process that is still there after
/// `limit` is killed, which its status then shows as signal 9.
#[track_caller]
pub fn run_within(command: &mut Command, input: &[u8], limit: Duration) -> Run {
    let line = format!("{command:?}");
    command.stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {line}: {e}"));

    let (done, ended) = mpsc::channel();
    let reader = |mut from: Box<dyn Read + Send>| {
        let done = done.clone();
        thread::spawn(move || {
            let mut all = Vec::new();
            let result = from.read_to_end(&mut all);
            done.send(()).ok();
            result.map(|_| all).unwrap()
        })
    };
    let stdout = reader(Box::new(child.stdout.take().unwrap()));
    let stderr = reader(Box::new(child.stderr.take().unwrap()));
    let writer = child.stdin.take().map(|mut stdin| {
        let input = input.to_vec();
        // A child that does not read its input is no fault of the test.
        thread::spawn(move || drop(stdin.write_all(&input)))
    });

    let start = Instant::now();
    let left = || limit.saturating_sub(start.elapsed());
    for _stream in 0..2 {
        ended.recv_timeout(left()).ok();
    }
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if left().is_zero() {
            drop(child.kill());
            break child.wait().unwrap();
        }
        thread::sleep(Duration::from_micros(100));
    };
    if let Some(writer) = writer {
        writer.join().unwrap();
    }
    Run { line, status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

/// [`run_within`] our own limit.
#[track_caller]
pub fn run(command: &mut Command, input: &[u8]) -> Run {
    run_within(command, input, LIMIT)
}
