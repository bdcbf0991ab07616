//! `replay`: journals, lists, and what strangers send.

use crate::documents::{Replayed, Report};
use crate::support::{ABORT, BARE, Place, TESTDEV, document};

#[test]
fn a_list_of_operations() {
    let place = Place::new();
    let list = place.file("list.txt", "outb 0x80 1 # harmless\n\noutb 0x2014 0\noutb 0x80 1\n");
    let run = place.run_on(&TESTDEV, &["replay", &list, "--times", "3", "--json"]).expect(1);
    let replayed: Replayed = document(&run);
    assert_eq!((replayed.verdict.as_str(), replayed.signal, replayed.code), ("crash", Some(6), None));
    assert_eq!(replayed.signature, ABORT);
    let in_flight = replayed.operation_in_flight.unwrap();
    assert_eq!((in_flight.index, in_flight.text.as_str()), (1, "outb 0x2014 0x0"));
    assert_eq!((replayed.runs, replayed.hits, replayed.operations), (3, 3, 3));
    assert_eq!((replayed.schema, replayed.shrunk_operations, replayed.journal), (1, None, list));
    assert_eq!(replayed.verdicts.into_iter().collect::<Vec<_>>(), [("crash".to_owned(), 3)]);
}

#[test]
fn nothing_found_is_status_0_and_says_what_happened() {
    let place = Place::new();
    let list = place.file("list.txt", "outb 0x80 1\nreset\ninb 0x80\n");
    let run = place.run_on(&BARE, &["replay", &list, "--json"]).expect(0);
    let replayed: Replayed = document(&run);
    assert_eq!((replayed.verdict.as_str(), replayed.resets, replayed.hits), ("guest-reset", 1, 1));
    let list = place.file("empty.txt", "# nothing\n");
    let run = place.run_on(&BARE, &["replay", &list]).expect(0);
    assert!(run.out().starts_with("completed\n"), "{run}");
}

#[test]
fn a_clock_step_that_has_no_effect_is_said_to_have_none() {
    let place = Place::new();
    let list = place.file("list.txt", "inb 0x80\nclock_step 1000\nclock_step\n");
    let run = place.run_on(&BARE, &["replay", &list, "--transport", "qtest"]).expect(0);
    assert!(run.out().starts_with("completed\n"), "{run}");
    assert!(run.err().contains("2 clock_steps without effect: QEMU's clock stands"), "{run}");
    let run = place.run_on(&BARE, &["replay", &list]).expect(0);
    assert!(!run.err().contains("clock_step"), "{run}");
}

#[test]
fn a_journal_brings_its_machine_along_unless_that_reaches_out() {
    let place = Place::new();
    let args = ["run", "--ops", "70000", "--seed", "1", "--ports", "pc-testdev*,0x80", "--json"];
    let report: Report = document(&place.run_on(&TESTDEV, &args).expect(1));
    let path = &report.findings[0].journal;
    let journal = std::fs::read_to_string(path).unwrap();
    let run = place.run(&["replay", path, "--json"]).expect(1);
    let replayed: Replayed = document(&run);
    assert_eq!((replayed.hits, replayed.target.arguments), (1, report.target.arguments));
    // On another machine it does not happen, and that is no finding.
    let run = place.run_on(&BARE, &["replay", path, "--json"]).expect(0);
    let replayed: Replayed = document(&run);
    assert_eq!((replayed.hits, replayed.runs, replayed.verdict.as_str()), (0, 1, "completed"));
    // A stranger's journal that would have QEMU write to a file, or name another program.
    let evil = journal.replace(r#""-nodefaults""#, r#""-nodefaults", "-D", "log""#);
    let evil = place.file("evil.json", &evil);
    let run = place.run(&["replay", &evil]).expect(3);
    assert!(run.err().contains("-D, which may reach files") && run.err().contains("-- -M pc"), "{run}");
    let touched = place.path("touched").display().to_string();
    let other = journal.replace("/usr/bin/qemu-system-x86_64", &format!("touch {touched}"));
    let other = place.file("other.json", &other);
    place.run(&["replay", &other]).expect(1);
    assert!(!place.path("touched").exists());
}

#[test]
fn files_that_cannot_be_replayed() {
    let place = Place::new();
    let long = "outb 0x80 1\noutb 0x80\n";
    let files = [
        (place.path("absent").display().to_string(), "absent"),
        (place.file("syntax", long), "line 2"),
        (place.file("json", "{\"schema\": 1}"), "json"),
        (place.file("schema", "{\"schema\": 9}"), "schema 9"),
        (place.path("").display().to_string(), "directory"),
    ];
    for (file, words) in files {
        for command in ["replay", "shrink"] {
            let run = place.run_on(&BARE, &[command, &file]).expect(3);
            assert!(run.err().starts_with("error: ") && run.err().contains(words), "{run}");
            assert!(run.stdout.is_empty(), "{run}");
        }
    }
}
