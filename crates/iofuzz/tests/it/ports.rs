//! `ports`.

use crate::documents::Ports;
use crate::support::{BARE, Place, document};

#[test]
fn what_there_is_and_what_is_left_alone() {
    let place = Place::new();
    let run = place
        .run_on(&["--", "-M", "pc", "-nodefaults", "-device", "rtl8139"], &["ports", "--json"])
        .expect(0);
    let ports: Ports = document(&run);
    assert_eq!((ports.schema, ports.target.transport.as_str()), (1, "micro"));
    assert!(ports.regions.iter().any(|region| region.name == "rtc-index" && region.first == 0x70));
    let nic =
        ports.pci.iter().find(|function| (function.vendor, function.device) == (0x10ec, 0x8139)).unwrap();
    assert_eq!(nic.bars.len(), 2);
    assert!(!ports.prologue.is_empty() && ports.ram.is_some() && ports.skipped.is_empty());
    let text = place.run_on(&BARE, &["ports", "--skip", "reset"]).expect(0).out();
    assert!(text.contains("port 0x0070-0x0070  rtc-index\n"), "{text}");
    assert!(
        text.contains("left alone: port 0x0064-0x0064") && text.contains("pci 00:01.0  8086:7000"),
        "{text}"
    );
}

#[test]
fn there_is_no_network_unless_it_is_asked_for() {
    let place = Place::new();
    let ports: Ports = document(&place.run(&["ports", "--json"]).expect(0));
    assert!(ports.target.arguments.join(" ").ends_with("-M pc -net nic"), "{:?}", ports.target);
    // The machine's own network device is there all the same.
    assert!(ports.pci.iter().any(|function| function.class >> 16 == 2), "{:?}", ports.pci);
}
