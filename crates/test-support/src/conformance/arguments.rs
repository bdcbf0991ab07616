//! Help, version and command lines that are wrong.

use crate::binary::{Binary, assert_orderly, assert_refused};
use crate::process::run;
use crate::scratch::{Snapshot, scratch};

/// `--help` names every command, each explains itself, and the exit status is always explained.
pub fn help_is_complete(binary: &Binary) {
    let whole = run(binary.program.command().arg("--help"), b"").expect(0).out();
    for line in binary.lines() {
        assert!(whole.contains(line[0]), "--help names {}:\n{whole}", line[0]);
        for flag in ["--help", "-h"] {
            // No file is needed to read about a command.
            let run = run(binary.program.command().args(["no-such-file", line[0], flag]), b"").expect(0);
            assert!(run.stderr.is_empty() && run.out().contains(line[0]), "{run}");
            // Only what writes can end half-way.
            let only_reads = binary.reading.iter().any(|reading| reading[0] == line[0]);
            assert_explains_status(&run.out(), if only_reads { &[] } else { &["70"] });
        }
    }
    for flag in ["--help", "-h"] {
        let run = run(binary.program.command().arg(flag), b"").expect(0);
        assert!(run.stderr.is_empty() && run.out().contains("Usage:"), "{run}");
        assert_explains_status(&run.out(), &["70"]);
        assert!(run.out().lines().all(|line| line.chars().count() <= 120), "no line is too wide: {run}");
    }
}

#[track_caller]
fn assert_explains_status(help: &str, more: &[&str]) {
    assert!(help.to_lowercase().contains("exit status"), "the exit status is explained:\n{help}");
    for status in ["0", "1", "64"].iter().chain(more) {
        assert!(help.contains(status), "exit status {status}:\n{help}");
    }
}

/// `--version` is the name and a number.
pub fn version_is_one_line(binary: &Binary) {
    for flag in ["--version", "-V"] {
        let run = run(binary.program.command().arg(flag), b"").expect(0);
        assert!(run.out().starts_with(&format!("{} ", binary.name)), "{run}");
        assert!(run.out().lines().count() == 1 && run.stderr.is_empty(), "{run}");
    }
}

/// Each of [`Binary::bad`] fails as it should.
pub fn wrong_command_lines_say_so_and_change_nothing(binary: &Binary) {
    let folder = scratch();
    let image = folder.path().join("image");
    (binary.good)(&image);
    let before = Snapshot::of(&image);
    for bad in binary.bad {
        let run = run(binary.program.command().arg(&image).args(bad.args), b"data");
        assert_orderly(&run);
        match bad.says {
            Some(words) => {
                assert_eq!(run.out(), words, "{run}");
                assert_eq!(run.status.code(), Some(bad.status), "{run}");
            }
            None => {
                assert_refused(&run, bad.status);
                assert!(run.stdout.is_empty(), "nothing on standard output: {run}");
            }
        }
        before.unchanged(&image, &run);
    }
    assert_refused(&run(&mut binary.program.command(), b""), 64);
}

/// Before the FILE and behind every command.
pub fn unknown_options_are_refused_everywhere(binary: &Binary) {
    let folder = scratch();
    let image = folder.path().join("image");
    (binary.good)(&image);
    let before = Snapshot::of(&image);
    for line in binary.lines() {
        for option in ["--no-such-option", "--help=yes"] {
            let after = run(binary.program.command().arg(&image).args(line).arg(option), b"");
            let first = run(binary.program.command().arg(option).arg(&image).args(line), b"");
            for run in [after, first] {
                assert_refused(&run, 64);
                before.unchanged(&image, &run);
            }
        }
    }
    assert_refused(&run(binary.program.command().arg("--no-such-option"), b""), 64);
    assert_refused(&run(binary.program.command().arg("-Z"), b""), 64);
}
