//! `run`, and iofuzz without a command.

use std::time::{Duration, Instant};

use crate::documents::Report;
use crate::support::{ABORT, BARE, Place, TESTDEV, document, document_in};

#[test]
fn a_newcomers_first_finding_comes_soon_and_can_be_replayed() {
    let place = Place::new();
    let begun = Instant::now();
    let run = place.run_on(&TESTDEV, &["run", "--time", "2", "--ports", "pc-testdev*,dma-page"]).expect(1);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}: {run}", begun.elapsed());
    assert!(run.out().starts_with("1 finding: "), "{run}");
    assert!(run.err().contains(ABORT) && run.err().contains("seed "), "{run}");
    let report: Report = document_in(&place.path("iofuzz-out/report.json"));
    let [finding] = &report.findings[..] else { panic!("one finding: {run}") };
    assert_eq!(
        (finding.verdict.as_str(), finding.signal, finding.signature.as_str()),
        ("crash", Some(6), ABORT)
    );
    assert_eq!((finding.runs, finding.hits, finding.shrunk_operations), (3, 3, Some(1)));
    let in_flight = finding.operation_in_flight.as_ref().unwrap();
    assert_eq!(in_flight.index + 1, finding.operations);
    assert!(finding.stderr.contains("isa_bus_get_irq"));
    let shrunk = std::fs::read_to_string(place.path("iofuzz-out/001-crash/shrunk.txt")).unwrap();
    assert!(shrunk.starts_with(&format!("# crash: {ABORT}\n# QEMU ")), "{shrunk}");
    assert!(shrunk.contains("-device pc-testdev"), "{shrunk}");
    let operations: Vec<&str> = shrunk.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(operations.len() == 1 && operations[0].contains(" 0x201"), "{shrunk}");
    let said = std::fs::read_to_string(place.path("iofuzz-out/001-crash/stderr.txt")).unwrap();
    assert_eq!(said, finding.stderr);
    // What the last line says to type.
    let line = run.out().lines().last().unwrap().trim().to_owned();
    let words: Vec<&str> = line.split(' ').skip(1).collect();
    let replay = place.run(&[&words[..], &["--times", "2"]].concat()).expect(1);
    assert!(replay.out().contains("shown by 2 of 2 replays"), "{replay}");
}

#[test]
fn the_same_seed_finds_the_same() {
    let place = Place::new();
    let report = |out: &str| -> Report {
        let args = ["run", "--seed", "0x2a", "--ops", "200000", "--generator", "stream"];
        let args = [&args[..], &["--ports", "pc-testdev*,0x80", "--json", "--out", out]].concat();
        document(&place.run_on(&TESTDEV, &args))
    };
    let (one, two) = (report("one"), report("two"));
    assert_eq!((one.schema, one.seed, one.shard.as_str(), one.generator.as_str()), (1, 42, "0/1", "stream"));
    assert!(!one.findings.is_empty());
    let told = |report: &Report| {
        let told = report.findings.iter();
        told.map(|one| (one.signature.clone(), one.operations, one.shrunk_operations)).collect::<Vec<_>>()
    };
    assert_eq!(told(&one), told(&two));
}

#[test]
fn operations_are_counted_exactly_and_nothing_found_is_status_0() {
    let place = Place::new();
    let args = ["run", "--ops", "100_001", "--seed", "1", "--ports", "0x80,dma-page", "--json"];
    let run = place.run_on(&BARE, &args).expect(0);
    let report: Report = document(&run);
    assert_eq!((report.operations, report.findings.len(), report.resets), (100_001, 0, 0));
    assert_eq!(report.target.arguments, ["-M", "pc", "-nodefaults"]);
    assert!(report.operations_per_second > 0.0 && report.seconds > 0.0);
    let kept: Report = document_in(&place.path("iofuzz-out/report.json"));
    assert_eq!(kept.operations, report.operations);
}

#[test]
fn without_a_qemu_it_is_the_machine_in_the_process() {
    let place = Place::new();
    let args = ["--seed", "1", "--ops", "100000", "--ports", "test-abort,0x80", "--json"];
    let run = place.run_without_qemu(&args).expect(1);
    assert!(run.err().starts_with("no QEMU on PATH"), "{run}");
    let report: Report = document(&run);
    assert_eq!(report.target.transport, "sim");
    assert!(report.findings.iter().any(|finding| finding.verdict == "crash"), "{run}");
    // A journal knows who made it.
    let journal = &report.findings[0].journal;
    let replay = place.run(&["replay", journal]).expect(1);
    assert!(replay.out().contains("shown by 1 of 1"), "{replay}");
    // Whoever names a machine does not want another one.
    let run = place.run_without_qemu(&["run", "--machine", "q35"]).expect(3);
    assert!(run.err().contains("no QEMU on PATH"), "{run}");
}

#[test]
fn no_folder_is_used_twice() {
    let place = Place::new();
    let short = ["--transport", "sim", "--ops", "10", "--ports", "0x80"];
    for _ in 0..2 {
        place.run(&short).expect(0);
    }
    for folder in ["iofuzz-out", "iofuzz-out-2"] {
        assert!(place.path(folder).join("report.json").exists());
    }
    let asked = [&short[..], &["--out", "a/b"]].concat();
    place.run(&asked).expect(0);
    let before = std::fs::read(place.path("a/b/report.json")).unwrap();
    let again = place.run(&asked).expect(3);
    assert!(again.err().contains("is not empty"), "{again}");
    assert_eq!(std::fs::read(place.path("a/b/report.json")).unwrap(), before);
}

#[test]
fn shards_of_one_seed_differ_and_are_named() {
    let place = Place::new();
    let journal = |shard: &str| -> Report {
        let args = ["--transport", "sim", "--seed", "7", "--ops", "100", "--ports", "0x80", "--json"];
        document(&place.run(&[&args[..], &["--shard", shard]].concat()))
    };
    assert_eq!(journal("0/2").shard, "0/2");
    assert_eq!(journal("1/2").shard, "1/2");
}

#[test]
fn what_qtest_finds_is_a_finding_if_a_processor_shows_it_too() {
    let place = Place::new();
    let args =
        ["run", "--transport", "qtest", "--generator", "classic", "--ops", "70000", "--json", "--ports"];
    let report: Report =
        document(&place.run_on(&TESTDEV, &[&args[..], &["pc-testdev-irq-line"]].concat()).expect(1));
    assert_eq!((report.target.transport.as_str(), report.findings[0].signature.as_str()), ("qtest", ABORT));
    assert!(report.unconfirmed.is_empty());
}
