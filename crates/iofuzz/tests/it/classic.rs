//! `classic`: the original's workload.

use crate::documents::{Replayed, Report};
use crate::support::{ABORT, BARE, Place, TESTDEV, document, document_in};

#[test]
fn each_port_is_read_and_zeroed_and_ten_random_bytes_go_to_random_ones() {
    let place = Place::new();
    let args = ["classic", "--ports", "0x80-0x8f", "--seed", "5", "--json"];
    let report: Report = document(&place.run_on(&BARE, &args).expect(0));
    assert_eq!((report.operations, report.generator.as_str(), report.seed), (16 + 16 + 160, "classic", 5));
    let journal: serde_json::Value = document_in(report.journal.unwrap().as_ref());
    assert_eq!(journal["operations"]["episodes"][0]["operations"], 192);
    assert_eq!(journal["regions"]["skipped"].as_array().unwrap().len(), 0);
    let replay: Replayed = document(&place.run(&["replay", "iofuzz-out/journal.json", "--json"]).expect(0));
    assert_eq!((replay.operations, replay.hits), (192, 1));
}

#[test]
fn names_that_are_skipped_are_whole_names() {
    let place = Place::new();
    let args =
        ["classic", "--ports", "rtc,rtc-index,dma-page", "--fuzz_count", "1", "--skip_devices", "rtc dma"];
    let run = place.run_on(&BARE, &[&args[..], &["--json"]].concat()).expect(0);
    assert!(run.err().contains("nothing is called 'dma'"), "{run}");
    let report: Report = document(&run);
    let skipped: Vec<&str> = report.skipped.iter().map(|skipped| skipped.region.name.as_str()).collect();
    assert_eq!((skipped, report.generator.as_str()), (vec!["rtc"], "classic:1"));
}

#[test]
fn it_fails_when_the_machine_dies() {
    let place = Place::new();
    let args = ["classic", "--ports", "pc-testdev-irq-line", "--json"];
    let run = place.run_on(&TESTDEV, &args).expect(1);
    let report: Report = document(&run);
    assert_eq!(report.findings[0].signature, ABORT);
    assert_eq!((report.findings[0].shrunk_operations, report.findings[0].hits), (Some(1), 3));
    let replay: Replayed = document(&place.run(&["replay", &report.journal.unwrap(), "--json"]).expect(1));
    assert_eq!((replay.hits, replay.signature.as_str()), (1, ABORT));
}

#[test]
fn resets_are_counted_and_survived() {
    let place = Place::new();
    // Every value of the keyboard controller's command, many times: some of them reset the machine.
    let args = ["classic", "--ports", "0x64", "--fuzz-count", "3000", "--seed", "1", "--json"];
    let report: Report = document(&place.run_on(&BARE, &args).expect(0));
    assert_eq!(report.operations, 3002);
    assert!(report.resets > 10, "{report:?}");
    let journal: serde_json::Value = document_in(report.journal.unwrap().as_ref());
    assert!(journal["resets"].as_array().unwrap().len() as u64 >= report.resets / 2);
}
