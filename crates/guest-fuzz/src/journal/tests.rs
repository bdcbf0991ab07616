use super::*;
use crate::program::Program;
use crate::region::{self, PciFunction, Region, Skipped, Space};

/// A journal with everything in it.
fn full() -> Journal {
    let region =
        |first, name: &str| Region { space: Space::Port, first, last: first + 7, name: name.to_owned() };
    Journal {
        schema: SCHEMA,
        target: Identity {
            transport: "micro".into(),
            command: vec!["qemu-system-x86_64".into(), "-device".into(), "pc-testdev".into()],
            arguments: vec!["-device".into(), "pc-testdev".into()],
            version: "10.0.2".into(),
        },
        source: Some(Source {
            generator: "stream".into(),
            parameters: [("hot-ports".into(), 16)].into(),
            seed: u64::MAX,
        }),
        regions: RegionMap {
            regions: vec![region(0x3f8, "serial"), region(0x2000, "a \"name\"")],
            skipped: vec![Skipped { region: region(0x60, "i8042"), reason: "power".into() }],
            pci: vec![PciFunction { address: 9, vendor: 0x8086, device: 1, class: 2, bars: Vec::new() }],
            prologue: vec!["pci_writel 00:01.1 0x20 0xc001".into()],
            ram: Some((0x10_0000, 0x1000)),
        },
        operations: Operations::Episodes(vec![
            Part { episode: 3, operations: u64::MAX - 10 },
            Part { episode: 4, operations: 10 },
        ]),
        resets: vec![0, 7, 7, u64::MAX - 1],
        in_flight: Some(InFlight { index: u64::MAX - 1, text: "outb 0x2014 0x0".into() }),
        verdict: "crash".into(),
        signal: Some(6),
        signature: "testdev: assertion".into(),
    }
}

fn listed() -> Journal {
    let program = Program::parse("outb 0x80 0x1\nwrite 0x0 1 0xff\nreset", "test").unwrap();
    Journal::new(Operations::Instructions(program.instructions))
}

#[track_caller]
fn refused(json: &str) -> String {
    Journal::load(json.as_bytes(), "j.json").expect_err(json).to_string()
}

/// Loads `journal` with `old` replaced by `new` in its JSON.
#[track_caller]
fn changed(journal: &Journal, old: &str, new: &str) -> String {
    let json = journal.to_json();
    assert!(json.contains(old), "{json}");
    refused(&json.replacen(old, new, 1))
}

#[test]
fn round_trip() {
    for journal in [full(), listed(), Journal::new(Operations::Instructions(Vec::new()))] {
        assert_eq!(Journal::load(journal.to_json().as_bytes(), "test").unwrap(), journal);
    }
    assert_eq!((full().operations.count(), listed().operations.count()), (u64::MAX, 3));
}

/// Journals are kept: what was written once is to be read for ever.
#[test]
fn the_json_is_this() {
    let json = r#"{
        "schema": 1,
        "target": { "transport": "qtest", "command": ["qemu"], "arguments": [], "version": "7.2" },
        "source": { "generator": "classic", "parameters": { "fuzz-count": 10 }, "seed": 7 },
        "regions": {
            "regions": [{ "space": "port", "first": 96, "last": 96, "name": "keyboard" }],
            "skipped": [], "pci": [], "prologue": [], "ram": null
        },
        "operations": { "episodes": [{ "episode": 0, "operations": 12 }] },
        "resets": [3],
        "in_flight": { "index": 11, "text": "inb 0x60" },
        "verdict": "crash", "signal": 11, "signature": ""
    }"#;
    let journal = Journal::load(json.as_bytes(), "test").unwrap();
    let written: serde_json::Value = serde_json::from_str(&journal.to_json()).unwrap();
    assert_eq!(written, serde_json::from_str::<serde_json::Value>(json).unwrap());
    assert_eq!(journal.operations, Operations::Episodes(vec![Part { episode: 0, operations: 12 }]));
    let list = listed().to_json();
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let lines = serde_json::json!({ "instructions": ["outb 0x80 0x1", "write 0x0 1 0xff", "reset"] });
    assert_eq!(list["operations"], lines);
}

#[test]
fn another_schema_is_named_before_anything_else() {
    assert_eq!(refused("{\n\"schema\": 2, \"new\": 1}"), "j.json, line 2: expected schema 1, found schema 2");
    assert_eq!(
        refused("{}"),
        "j.json, line 1: expected a journal, found missing field `schema`, at column 2"
    );
}

#[test]
fn unknown_fields_are_refused_everywhere() {
    for place in [
        "\"schema\": 1,",
        "\"transport\": \"micro\",",
        "\"generator\": \"stream\",",
        "\"episode\": 3,",
        "\"index\": 18446744073709551614,",
        "\"reason\": \"power\"",
    ] {
        let (field, comma) = place.strip_suffix(',').map_or((place, ""), |field| (field, ","));
        let error = changed(&full(), place, &format!("{field}, \"extra\": 0{comma}"));
        assert!(error.contains("unknown field `extra`"), "{error}");
    }
    let error = changed(&listed(), "\"instructions\":", "\"lines\":");
    assert!(error.contains("unknown variant `lines`"), "{error}");
}

#[test]
fn what_is_missing_or_twice_is_refused() {
    let error = changed(&full(), "\"resets\": [", "\"verdict\": \"x\", \"resets\": [");
    assert!(error.contains("duplicate field `verdict`"), "{error}");
    let error = changed(&full(), "\"verdict\": \"crash\",", "");
    assert!(error.contains("missing field `verdict`"), "{error}");
    let error = refused(&full().to_json().replace("\"signature\"", "}\"signature\""));
    assert!(error.contains("expected a journal"), "{error}");
}

#[test]
fn text_that_is_no_instruction_is_named() {
    assert_eq!(
        changed(&listed(), "write 0x0 1 0xff", "write 0x0 1"),
        "j.json, line 20: expected a journal, found instructions[1]: expected 0x and 2 hexadecimal digits, \
         for 1 byte, found the end of the line, at column 19"
    );
    let error = changed(&full(), "\"pci_writel 00", "\"pci_write 00");
    assert!(error.contains("as prologue[0], found \"pci_write\""), "{error}");
    let error = changed(&full(), "\"outb 0x2014 0x0\"", "\"outb 0x2014 0x100\"");
    assert!(error.ends_with("a value, at most 0xff, found \"0x100\""), "{error}");
}

#[test]
fn what_cannot_be_replayed_is_refused() {
    let with = |change: fn(&mut Journal)| {
        let mut journal = full();
        change(&mut journal);
        let error = refused(&journal.to_json());
        error.split_once("expected ").unwrap().1.to_owned()
    };
    assert_eq!(with(|j| j.source = None), "a source, which makes the episodes, found none");
    assert_eq!(
        with(|j| j.operations = Operations::Episodes(vec![Part { episode: 0, operations: 1 << 63 }; 2])),
        "at most 18446744073709551615 operations, found more"
    );
    let few = |j: &mut Journal| j.operations = Operations::Instructions(vec![Instruction::Reset; 9]);
    let mut journal = full();
    few(&mut journal);
    journal.resets = vec![8, 9];
    journal.in_flight = None;
    assert!(refused(&journal.to_json()).ends_with("expected resets[1] from 8 on and below 9, found 9"));
    journal.resets = vec![8, 7];
    assert!(refused(&journal.to_json()).ends_with("expected resets[1] from 8 on and below 9, found 7"));
    journal.resets = vec![7, 8];
    assert!(Journal::load(journal.to_json().as_bytes(), "test").is_ok());
    journal.in_flight = Some(InFlight { index: 9, text: "reset".into() });
    assert!(refused(&journal.to_json()).ends_with("expected an operation in flight below 9, found 9"));
}

#[test]
fn a_map_that_no_machine_has_is_refused() {
    let port = |first, last| Region { space: Space::Port, first, last, name: String::new() };
    let with = |change: &dyn Fn(&mut RegionMap)| {
        let mut journal = full();
        change(&mut journal.regions);
        let error = refused(&journal.to_json());
        error.split_once("expected ").unwrap().1.to_owned()
    };
    let many = || vec![port(1, 1); region::MAX_REGIONS + 1];
    assert_eq!(with(&|map| map.regions = many()), "at most 4096 regions, found 4097");
    let skip = |region| Skipped { region, reason: String::new() };
    let skips = || many().into_iter().map(skip).collect();
    assert_eq!(with(&|map| map.skipped = skips()), "at most 4096 regions, found 4097");
    let expected = "to end behind its beginning, and ports below 0x10000, found 0x9 to 0x8";
    assert_eq!(with(&|map| map.regions.push(port(9, 8))), format!("regions[2] {expected}"));
    assert_eq!(with(&|map| map.skipped.push(skip(port(9, 8)))), format!("skipped[1] {expected}"));
    assert_eq!(
        with(&|map| map.regions = vec![port(0, 0xffff); 33]),
        "each address in at most 32 regions, found 0x0 in 33"
    );
    assert!(with(&|map| map.ram = Some((u64::MAX, 2))).starts_with("memory below 2^64"));
}

/// The most that a stranger's journal may have is made ready in seconds, not minutes.
#[test]
fn the_worst_map_is_made_ready_soon() {
    let port = |first, last, name: String| Region { space: Space::Port, first, last, name };
    let most = region::MAX_REGIONS as u64;
    let mut journal = full();
    let nested = (0..31).map(|n| port(0, 0xffff - n, format!("r{n}")));
    let alone = (0..most - 31).map(|n| port(16 * n, 16 * n + 15, "rtl8139".to_owned()));
    journal.regions.regions = nested.chain(alone).collect();
    let skipped = |n| Skipped { region: port(16 * n + 8, 16 * n + 8, String::new()), reason: String::new() };
    journal.regions.skipped = (0..most).map(skipped).collect();
    let begun = std::time::Instant::now();
    let journal = Journal::load(journal.to_json().as_bytes(), "test").unwrap();
    for generator in ["classic", "stream", "model", "mixed"] {
        let generator: crate::generate::Generator = generator.parse().unwrap();
        assert_eq!(generator.prepare(&journal.regions).episode(1, 0).take(1000).count(), 1000);
        eprintln!("{generator}: {:?}", begun.elapsed());
    }
    assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[test]
fn as_many_resets_are_written_as_are_read() {
    let mut journal = full();
    journal.set_reset_points(&vec![u64::MAX; MAX_RESETS + 1]);
    assert_eq!(journal.resets.len(), MAX_RESETS);
    assert!(journal.check().is_ok());
    journal.resets.push(u64::MAX - 1);
    assert!(refused(&journal.to_json()).ends_with("expected at most 1048576 resets, found 1048577"));
}

#[test]
fn the_size_is_bounded_and_messages_too() {
    let mut json = listed().to_json();
    json.push_str(&" ".repeat(MAX_JOURNAL - json.len()));
    assert!(Journal::load(json.as_bytes(), "test").is_ok());
    json.push(' ');
    assert_eq!(
        refused(&json),
        "j.json, line 1: expected a journal of at most 67108864 bytes, found 67108865 bytes"
    );
    let field = "\\u001b[2J".repeat(1000);
    let error = changed(&listed(), "\"schema\": 1,", &format!("\"schema\": 1, \"{field}\": 1,"));
    assert!(error.len() < 600 && !error.contains('\u{1b}'), "{error}");
    // Nested as deeply as that, a reader that calls itself for each level would not come back.
    for field in ["target", "unknown"] {
        let nested = format!("{{\"schema\": 1, \"{field}\": {}", "[".repeat(1 << 20));
        assert!(refused(&nested).contains("expected a journal"));
    }
}

#[test]
fn each_form_is_known_by_its_beginning() {
    let program = Program::parse("outb 0x80 0x1\nreset", "test").unwrap();
    let same = Replayable::Program(program.clone());
    assert_eq!(Replayable::load(program.to_string().as_bytes(), "test").unwrap(), same);
    assert_eq!(Replayable::load(&program.to_bytes(), "test").unwrap(), same);
    assert_eq!(Replayable::load(b"", "test").unwrap(), Replayable::Program(Program::default()));
    let journal = Replayable::Journal(Box::new(full()));
    let json = format!("\u{feff}\r\n {}", full().to_json());
    assert_eq!(Replayable::load(json.as_bytes(), "test").unwrap(), journal);
    assert!(is_journal(b"{") && !is_journal(b"") && !is_journal(b"# {") && !is_journal(b"GFP1{"));

    let error = |bytes: &[u8]| Replayable::load(bytes, "file").unwrap_err().to_string();
    assert_eq!(error(b"GFP9"), "program at offset 0: expected the magic GFP1, found \"GFP9\"");
    assert_eq!(
        error(b"reset\n\xff"),
        "file, line 2: expected a text in UTF-8, or a program's bytes, found byte 0xff"
    );
    assert!(error(b"{").starts_with("file, line 1: expected a journal, found EOF while parsing"));
}
