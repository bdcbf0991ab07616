//! `shrink`.

use crate::documents::Shrunk;
use crate::support::{ABORT, BARE, Place, TESTDEV, document};

#[test]
fn what_is_not_needed_goes() {
    let place = Place::new();
    let list =
        ["outb 0x80 1\n".repeat(3000), "outb 0x2014 0\n".to_owned(), "outb 0x80 2\n".repeat(10)].concat();
    let list = place.file("list.txt", &list);
    let run = place.run_on(&TESTDEV, &["shrink", &list, "-o", "short.txt", "--json"]).expect(1);
    let shrunk: Shrunk = document(&run);
    assert_eq!((shrunk.operations, shrunk.shrunk_operations, shrunk.is_minimal), (3011, 1, true));
    assert_eq!((shrunk.signature.as_str(), shrunk.signal), (ABORT, Some(6)));
    assert_eq!(shrunk.instructions, ["outb 0x2014 0x0"]);
    let short = std::fs::read_to_string(place.path("short.txt")).unwrap();
    assert!(short.starts_with("# crash: ") && short.ends_with("\noutb 0x2014 0x0\n"), "{short}");
    // Without -o it is on standard output, and can be shrunk again.
    let run = place.run_on(&TESTDEV, &["shrink", "short.txt"]).expect(1);
    assert_eq!(run.out(), short);
}

#[test]
fn what_finds_nothing_cannot_be_shrunk() {
    let place = Place::new();
    let list = place.file("list.txt", "outb 0x80 1\n");
    let run = place.run_on(&BARE, &["shrink", &list]).expect(3);
    assert!(run.err().contains("nothing to shrink: its end is completed"), "{run}");
}
