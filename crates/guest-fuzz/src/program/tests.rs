use proptest::prelude::*;

use super::*;
use crate::instruction::strategy;

fn parsed(text: &str) -> Program {
    Program::parse(text, "test").unwrap()
}

fn refused(text: &str) -> String {
    Program::parse(text, "list.txt").expect_err(text).to_string()
}

#[test]
fn comments_empty_lines_and_line_ends_mean_nothing() {
    let text = "\u{feff}# ürgend öppis\r\n\r\n\toutb 0x80 1# once\n   \n  # more\nburst 7\r\nreset # end";
    assert_eq!(parsed(text).to_string(), "outb 0x80 0x1\nburst 7\nreset\n");
    assert_eq!(parsed(""), Program::default());
}

#[test]
fn errors_name_the_text_and_the_line() {
    assert_eq!(
        refused("reset\n\n# x\r\noutb 0x80 0x100\n"),
        "list.txt, line 4: expected a value, at most 0xff, found \"0x100\""
    );
    // A lone CR ends no line.
    assert_eq!(refused("reset\rreset"), "list.txt, line 1: expected the end of the line, found \"reset\"");
}

#[test]
fn lines_are_bounded_and_the_largest_block_fits() {
    let block = Instruction::WriteBlock { address: u64::MAX, bytes: vec![0xa5; MAX_BLOCK].into() };
    let program = Program::from(vec![block, Instruction::Reset]);
    assert_eq!(parsed(&program.to_string()), program);
    let comment = format!("#{}", "x".repeat(MAX_LINE - 1));
    assert_eq!(parsed(&comment), Program::default());
    let message = "list.txt, line 2: expected at most 135168 bytes, found 135169 bytes";
    assert_eq!(refused(&format!("\n{comment}x")), message);
}

#[test]
fn instructions_are_bounded() {
    let error = Program::parse_up_to(2, "reset\nreset\n# nothing\n\nburst 1", "list.txt").unwrap_err();
    assert_eq!(error.to_string(), "list.txt, line 5: expected at most 2 instructions, found \"burst 1\"");
    assert!(Program::parse_up_to(2, "reset\nreset\n# nothing\n", "list.txt").is_ok());
}

#[test]
fn a_program_has_its_bytes() {
    let program = parsed("outb 0x2014 0\nreset");
    assert_eq!(program.to_bytes(), b"GFP1\x02\x04\x14\x20\x00\x34");
    assert_eq!(Program::default().to_bytes(), b"GFP1\0");
}

#[test]
fn bytes_that_are_no_program_are_refused() {
    for (bytes, message) in [
        (
            &b"GFP"[..],
            "program at offset 0: expected the magic GFP1, found the end of the bytes, at offset 3",
        ),
        (b"GFP2\0", "program at offset 0: expected the magic GFP1, found \"GFP2\""),
        (b"GFP1\x01", "program at offset 4: expected at most 0 instructions, found 1"),
        (
            b"GFP1\xff\xff\xff\xff\x0f",
            "program at offset 4: expected a count of instructions, at most 16777216, found 4294967295",
        ),
        (b"GFP1\x80\x80\x80\x08\x34", "program at offset 4: expected at most 1 instructions, found 16777216"),
        (b"GFP1\x01\x34\x34", "program at offset 6: expected the end, found 1 bytes more"),
        (
            b"GFP1\x02\x34\x00",
            "program at offset 7: expected a port, found the end of the bytes, at offset 7",
        ),
    ] {
        assert_eq!(Program::from_bytes(bytes).expect_err(message).to_string(), message);
    }
}

proptest! {
    #[test]
    fn both_forms_round_trip(program in strategy::program(20)) {
        prop_assert_eq!(&parsed(&program.to_string()), &program);
        prop_assert_eq!(&Program::from_bytes(&program.to_bytes()).unwrap(), &program);
    }

    #[test]
    fn a_program_with_a_byte_changed_is_another_one_or_none(
        program in strategy::program(8),
        at in any::<prop::sample::Index>(),
        change in 1..=255u8,
    ) {
        let mut bytes = program.to_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        if let Ok(other) = Program::from_bytes(&bytes) {
            prop_assert_ne!(&other, &program);
            prop_assert_eq!(other.to_bytes(), bytes);
        }
    }

    #[test]
    fn cut_bytes_are_no_program(program in strategy::program(8), at in any::<prop::sample::Index>()) {
        let bytes = program.to_bytes();
        prop_assert!(Program::from_bytes(&bytes[..at.index(bytes.len())]).is_err());
    }
}
