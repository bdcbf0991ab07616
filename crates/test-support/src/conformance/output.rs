//! Standard output: closed early, full, a terminal, a pipe.

use crate::binary::{Binary, assert_orderly, assert_refused};
use crate::process::{Run, installed, run};
use crate::scratch::{Snapshot, scratch};
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs with standard output going to `stdout`, and returns status and standard error.
fn into(command: &mut Command, stdout: impl Into<Stdio>) -> (Option<i32>, String) {
    let mut child = command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    (child.wait().unwrap().code(), stderr)
}

/// A pipe that nobody reads.
pub fn a_reader_that_went_away_is_no_error(binary: &Binary) {
    let folder = scratch();
    let image = folder.path().join("image");
    (binary.good)(&image);
    let mut lines: Vec<Vec<&str>> = vec![vec!["--help"], vec!["--version"]];
    lines.extend(binary.reading.iter().map(|line| line.to_vec()));
    lines.extend(binary.editing.iter().map(|line| [line, &["--dry-run"][..]].concat()));
    for line in lines {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let (status, stderr) = into(binary.program.command().arg(&image).args(&line), writer);
        // No status at all is a death by SIGPIPE, as quiet as the rest.
        assert!(matches!(status, None | Some(0)), "{line:?}: {status:?}");
        // What is said beside the output is said all the same.
        let undisturbed = run(binary.program.command().arg(&image).args(&line), b"");
        assert_eq!(stderr, undisturbed.err(), "{line:?}");
    }
}

/// A disk that is full.
pub fn output_that_cannot_be_written_is_an_error(binary: &Binary) {
    let folder = scratch();
    let image = folder.path().join("image");
    (binary.good)(&image);
    for line in binary.reading {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let (status, stderr) = into(binary.program.command().arg(&image).args(*line), full);
        assert_eq!(status, Some(1), "{line:?} to a full disk: {stderr}");
        assert!(stderr.to_lowercase().contains("no space"), "{line:?}: {stderr}");
    }
}

/// Every `--json` document is one object with a `schema` number.
pub fn json_documents_have_a_schema(binary: &Binary) {
    let folder = scratch();
    for (name, make) in [("good", binary.good), ("hostile", binary.hostile)] {
        let image = folder.path().join(name);
        make(&image);
        let before = Snapshot::of(&image);
        let reading = binary.reading.iter().map(|line| [line, &["--json"][..]].concat());
        let editing = binary.editing.iter().map(|line| [line, &["--dry-run", "--json"][..]].concat());
        let listing = [vec!["undo", "--list", "--json"]];
        for line in reading.chain(editing).chain(listing) {
            let run = run(binary.program.command().arg(&image).args(&line), b"data");
            if name == "hostile" && run.status.code() == Some(1) {
                continue;
            }
            let run = run.expect(0);
            let document: Value =
                serde_json::from_slice(&run.stdout).unwrap_or_else(|e| panic!("{e}: {run}"));
            assert!(document["schema"].is_u64(), "{run}");
            assert!(run.stdout.ends_with(b"\n"), "{run}");
            before.unchanged(&image, &run);
        }
    }
}

/// Runs with output to a terminal of its own, and returns what appears there.
fn in_a_terminal(command: &mut Command) -> Run {
    let mut python = installed("python3");
    let script = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    python.args(["-c", script, "sh", "-c", "exec \"$0\" \"$@\" </dev/null"]);
    python.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => python.env(name, value),
            None => python.env_remove(name),
        };
    }
    python.env("TERM", "xterm-256color");
    run(&mut python, b"")
}

/// Not into pipes, and not where `NO_COLOR` is set.
pub fn no_colour_goes_where_none_is_wanted(binary: &Binary) {
    let folder = scratch();
    let image = folder.path().join("image");
    (binary.good)(&image);
    let absent = folder.path().join("absent");
    let lines: [(&Path, &[&str]); 4] = [
        (&image, binary.reading[0]),
        (&absent, binary.reading[0]),
        (&image, &["--no-such"]),
        (&image, &["--help"]),
    ];
    for (file, line) in lines {
        let piped = run(binary.program.command().arg(file).args(line), b"");
        let plain = in_a_terminal(binary.program.command().env("NO_COLOR", "1").arg(file).args(line));
        for run in [piped, plain] {
            assert!(!run.stdout.contains(&0x1b) && !run.stderr.contains(&0x1b), "{run}");
        }
    }
}

/// Lines end on a terminal where they do in a pipe, in whichever way texts are made safe for it.
pub fn terminals_show_what_pipes_get(binary: &Binary) {
    let folder = scratch();
    let image = folder.path().join("image");
    (binary.good)(&image);
    let mut lines: Vec<Vec<&str>> = binary.reading.iter().map(|line| line.to_vec()).collect();
    lines.extend(binary.editing.iter().map(|line| [line, &["--dry-run"][..]].concat()));
    for line in lines.iter().filter(|line| !line.iter().any(|word| word.contains("json"))) {
        let command = || {
            let mut command = binary.program.command();
            command.env("NO_COLOR", "1").arg(&image).args(line);
            command
        };
        let (piped, shown) = (run(&mut command(), b""), in_a_terminal(&mut command()));
        let shown_lines = shown.out().replace("\r\n", "\n");
        for text in piped.out().lines() {
            assert!(shown_lines.lines().any(|shown| shown == text), "{line:?}: no line {text:?} in {shown}");
        }
    }
}

/// No control character of an image, or of a command line, reaches a terminal.
pub fn terminals_are_safe_from_images(binary: &Binary) {
    let folder = scratch();
    let image = folder.path().join("image\u{1b}[31m");
    (binary.hostile)(&image);
    let mut lines: Vec<Vec<&str>> = binary.reading.iter().map(|line| line.to_vec()).collect();
    lines.extend(binary.editing.iter().map(|line| [line, &["--dry-run"][..]].concat()));
    for line in lines {
        let run = in_a_terminal(binary.program.command().env("NO_COLOR", "1").arg(&image).args(&line));
        assert_orderly(&run);
        // The terminal itself turns each line end into "\r\n".
        let text = run.out().replace("\r\n", "\n");
        let control = |c: char| c.is_control() && c != '\n' && c != '\t';
        let found: Vec<char> = text.chars().filter(|&c| control(c)).collect();
        assert!(found.is_empty(), "{line:?}: {found:?} on a terminal: {text:?}");
    }
    // What is wrong with a file is said on a terminal, too.
    let absent = folder.path().join("absent\u{1b}[31m\u{7}");
    let run =
        in_a_terminal(binary.program.command().env("NO_COLOR", "1").arg(&absent).args(binary.reading[0]))
            .expect(1);
    assert!(!run.stdout.contains(&0x1b) && !run.stdout.contains(&7), "{run}");
    let run = in_a_terminal(binary.program.command().env("NO_COLOR", "1").arg(&image).arg("\u{1b}[31m\u{7}"));
    assert_eq!(run.status.code(), Some(64), "{run}");
    assert!(!run.stdout.contains(&0x1b) && !run.stdout.contains(&7), "an unknown command: {run}");
    assert_refused(&self::run(binary.program.command().arg(&absent).args(binary.reading[0]), b""), 1);
}
