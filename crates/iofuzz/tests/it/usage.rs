//! Help, version, and command lines that are wrong.

use crate::support::Place;
use test_support::binary::assert_refused;

const COMMANDS: [&str; 5] = ["run", "classic", "replay", "shrink", "ports"];

#[test]
fn help_is_complete() {
    let place = Place::new();
    let whole = place.run(&["--help"]).expect(0);
    for command in COMMANDS {
        assert!(whole.out().contains(command), "{whole}");
        let help = place.run(&[command, "--help"]).expect(0).out();
        let statuses: &[&str] =
            if command == "ports" { &["  0 ", "  3 ", "  64 "] } else { &["  0 ", "  1 ", "  3 ", "  64 "] };
        assert!(statuses.iter().all(|status| help.contains(status)), "{help}");
        assert!(help.contains("--transport") && help.contains("--json"), "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 120), "{help}");
    }
    assert!(whole.out().contains("Exit status") && whole.out().contains("Examples"), "{whole}");
    let version = place.run(&["--version"]).expect(0);
    assert!(version.out().starts_with("iofuzz ") && version.out().lines().count() == 1, "{version}");
}

#[test]
fn wrong_command_lines_are_status_64_and_leave_nothing() {
    let place = Place::new();
    for line in [
        &["frob"][..],
        &["run", "--time", "soon"],
        &["run", "--seed", "x"],
        &["run", "--generator", "best"],
        &["run", "--ops", "0"],
        &["run", "--jobs", "0"],
        &["run", "--shard", "2/2"],
        &["run", "--transport", "pigeon"],
        &["run", "--transport", "sim", "--skip", "0x10000"],
        &["run", "--transport", "sim", "--ports", "no-such-device"],
        &["run", "--transport", "sim", "--ports", "9-1"],
        &["ports", "--transport", "sim", "--ports", "0x10000"],
        &["classic", "--transport", "sim", "--ports", "serial,no-such-device"],
        // What is wrong with the line is said before a machine is looked for.
        &["run", "--qemu", "/no/such/qemu", "--ports", "9-1"],
        &["classic", "--qemu", "/no/such/qemu", "--skip", "0x10000"],
        &["replay"],
        &["replay", "x", "--times", "0"],
        &["classic", "--fuzz-count", "-1"],
        &["ports", "--no-such-option"],
    ] {
        let run = place.run(line);
        assert_refused(&run, 64);
        assert!(run.stdout.is_empty(), "{run}");
    }
    assert!(!place.path("iofuzz-out").exists());
}

#[test]
fn a_file_of_regions_that_will_not_do_is_status_3_and_leaves_nothing() {
    let place = Place::new();
    let odd = place.file("odd", "0x80 diag\nserial here\n");
    let many: String = (0..5000).map(|port| format!("{port} r\n")).collect();
    let many = place.file("many", &many);
    let folder = place.path("").into_os_string().into_string().unwrap();
    for (file, why) in [
        (odd.as_str(), "odd, line 2: expected"),
        (&many, "at most 4096 regions, found 5000"),
        (&folder, "Is a directory"),
        ("./no-such-file", "No such file"),
    ] {
        for command in ["run", "classic", "ports"] {
            let run = place.run(&[command, "--transport", "sim", "--ports", &format!("@{file}")]);
            assert_refused(&run, 3);
            assert!(run.err().contains(why), "{run}");
        }
    }
    assert!(!place.path("iofuzz-out").exists());
}

#[test]
fn nothing_left_to_fuzz_is_status_3_and_leaves_nothing() {
    let place = Place::new();
    for command in ["run", "classic"] {
        let run = place.run(&[command, "--transport", "sim", "--skip", "*"]);
        assert_refused(&run, 3);
        assert!(run.err().contains("nothing left to fuzz: all of it is left alone"), "{run}");
    }
    assert!(!place.path("iofuzz-out").exists());
}

#[test]
fn a_program_that_is_no_qemu_is_called_so() {
    let place = Place::new();
    for (program, why) in [
        ("/bin/true", "/bin/true did not start: it ended with status 0, without a word; is this a QEMU?"),
        ("/bin/cat", "is this a QEMU?"),
        ("/nonexistent", "cannot run /nonexistent: No such file or directory"),
    ] {
        for command in ["run", "classic", "ports"] {
            let run = place.run(&[command, "--qemu", program]);
            assert_refused(&run, 3);
            assert!(run.err().contains(why), "{run}");
        }
    }
    assert!(!place.path("iofuzz-out").exists());
}

#[test]
fn what_does_not_start_is_status_3_in_qemus_words() {
    let place = Place::new();
    let run = place.run(&["run", "--machine", "no-such-machine"]);
    assert_refused(&run, 3);
    assert!(run.err().contains("unsupported machine type"), "{run}");
    let run = place.run(&["ports", "--device", "no-such-device"]);
    assert_refused(&run, 3);
    assert!(run.err().contains("no-such-device"), "{run}");
    let run = place.run(&["--qemu", "/no/such/qemu"]);
    assert_refused(&run, 3);
    assert!(run.err().contains("/no/such/qemu"), "{run}");
    assert!(!place.path("iofuzz-out").exists());
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let place = Place::new();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = place.command(&["ports", "--transport", "sim"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
}
