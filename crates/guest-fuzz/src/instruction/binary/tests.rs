use proptest::prelude::*;

use super::*;
use crate::instruction::strategy;

fn encoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    text.parse::<Instruction>().unwrap().encode(&mut bytes);
    bytes
}

fn decoded(bytes: &[u8]) -> Result<(Instruction, usize)> {
    let mut reader = Reader::new(bytes);
    Instruction::decode(&mut reader).map(|instruction| (instruction, reader.at))
}

/// The bytes are for ever: programs are kept in files.
#[test]
fn every_instruction_has_its_bytes() {
    let cases: [(&str, &[u8]); 16] = [
        ("inw 0x3f8", &[0x01, 0xf8, 0x03]),
        ("outb 0x2014 0xab", &[0x04, 0x14, 0x20, 0xab]),
        ("outl 0xcf8 0x80000001", &[0x06, 0xf8, 0x0c, 1, 0, 0, 0x80]),
        ("insb 0x1f0 0x80 512", &[0x08, 0xf0, 0x01, 0x80, 0x01, 0x80, 0x04]),
        ("outsl 0x1f0 0x7f 1", &[0x0e, 0xf0, 0x01, 0x7f, 1]),
        ("readq 0x0", &[0x13, 0]),
        ("writew 0x4000 0x1234", &[0x15, 0x80, 0x80, 0x01, 0x34, 0x12]),
        ("write 0x1 3 0x010203", &[0x18, 1, 3, 1, 2, 3]),
        ("memset 0x1 2 0x3", &[0x1c, 1, 2, 3]),
        ("fillq 0x1 9 0x3", &[0x1f, 1, 9, 3, 0, 0, 0, 0, 0, 0, 0]),
        ("pci_readb 01:02.3 0x4", &[0x20, 0x13, 0x01, 4]),
        ("pci_writew 01:02.3 0x4 0x5", &[0x25, 0x13, 0x01, 4, 5, 0]),
        ("delay 300", &[0x28, 0xac, 0x02]),
        ("clock_step 1", &[0x2c, 1]),
        ("burst 2", &[0x30, 2]),
        ("reset", &[0x34]),
    ];
    for (text, bytes) in cases {
        assert_eq!(encoded(text), bytes, "{text}");
        let (instruction, length) = decoded(bytes).unwrap();
        assert_eq!((instruction.to_string().as_str(), length), (text, bytes.len()));
        for cut in 0..bytes.len() {
            assert!(decoded(&bytes[..cut]).is_err(), "{text}, cut to {cut} bytes");
        }
    }
}

#[test]
fn errors_name_the_offset() {
    let max = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    assert_eq!(decoded(&[&[0x10][..], &max].concat()).unwrap().1, 11);
    let more_than_64_bits = [&[0x10][..], &max[..9], &[2]].concat();
    let eleven_bytes = [&[0x10][..], &max[..9], &[0x81, 0]].concat();
    let cases: [(&[u8], &str); 16] = [
        (&[], "program at offset 0: expected an instruction, found the end of the bytes, at offset 0"),
        (&[0x00, 1], "program at offset 1: expected a port, found the end of the bytes, at offset 2"),
        (&[0x03, 1, 0], "program at offset 0: expected an instruction's kind and width, found 0x03"),
        (&[0x35], "program at offset 0: expected an instruction's kind and width, found 0x35"),
        (&[0x19, 0, 0], "program at offset 0: expected an instruction's kind and width, found 0x19"),
        (&[0x29, 0], "program at offset 0: expected an instruction's kind and width, found 0x29"),
        (&[0x38], "program at offset 0: expected an instruction's kind and width, found 0x38"),
        (&[0xff], "program at offset 0: expected an instruction's kind and width, found 0xff"),
        (
            &[0x10, 0x80, 0x00],
            "program at offset 1: expected an address, at most 18446744073709551615, found a number with needless zeros",
        ),
        (
            &more_than_64_bits,
            "program at offset 1: expected an address, at most 18446744073709551615, found a number of more than 64 bits",
        ),
        (
            &eleven_bytes,
            "program at offset 1: expected an address, at most 18446744073709551615, found a number of more than 64 bits",
        ),
        (
            &[0x18, 0, 5, 1, 2],
            "program at offset 3: expected the bytes of a block, found the end of the bytes, at offset 5",
        ),
        (&[0x18, 0, 0x81, 0x80, 0x04], "program at offset 2: expected a length, at most 65536, found 65537"),
        (&[0x30, 0x81, 0x08], "program at offset 1: expected a count, at most 1024, found 1025"),
        (&[0x30, 0x80, 0x80, 0x04], "program at offset 1: expected a count, at most 1024, found 65536"),
        (
            &[0x1c, 0, 0x81, 0x80, 0x40, 0],
            "program at offset 2: expected a length, at most 1048576, found 1048577",
        ),
    ];
    for (bytes, message) in cases {
        assert_eq!(decoded(bytes).expect_err(message).to_string(), message);
    }
}

#[test]
fn a_value_that_does_not_fit_is_cut_to_what_moves() {
    let mut bytes = Vec::new();
    Instruction::Out { port: 0, width: PortWidth::Byte, value: 0x1ff }.encode(&mut bytes);
    assert_eq!(bytes, encoded("outb 0 0xff"));
}

proptest! {
    #[test]
    fn binary_round_trip(instruction in strategy::instruction()) {
        let mut bytes = Vec::new();
        instruction.encode(&mut bytes);
        let length = bytes.len();
        prop_assert_eq!(decoded(&bytes).unwrap(), (instruction, length));
    }

    /// Small bytes make instructions more often than any ones.
    #[test]
    fn what_is_read_is_canonical(bytes in prop::collection::vec(prop_oneof![0..0x40u8, any::<u8>()], 0..24)) {
        if let Ok((instruction, length)) = decoded(&bytes) {
            let mut again = Vec::new();
            instruction.encode(&mut again);
            prop_assert_eq!(&again, &bytes[..length]);
        }
    }
}
