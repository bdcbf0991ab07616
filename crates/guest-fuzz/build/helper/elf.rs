//! The file's headers.

use super::{DATA, DATA_SIZE, HEADERS, TEXT};

/// The ELF header and three program headers: code, data, and a stack that is not executable.
pub(super) fn headers(code: u64) -> Vec<u8> {
    const LOAD: u32 = 1;
    const GNU_STACK: u32 = 0x6474_e551;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let mut put = |bytes: &[u8]| file.extend_from_slice(bytes);
    put(&2_u16.to_le_bytes()); // an executable
    put(&62_u16.to_le_bytes()); // x86-64
    put(&1_u32.to_le_bytes());
    [TEXT + HEADERS, 64, 0].iter().for_each(|number| put(&number.to_le_bytes()));
    put(&0_u32.to_le_bytes());
    [64_u16, 56, 3, 0, 0, 0].iter().for_each(|number| put(&number.to_le_bytes()));
    let in_file = HEADERS + code;
    let segments = [
        (LOAD, 5_u32, [0, TEXT, TEXT, in_file, in_file, 0x1000]),
        (LOAD, 6, [0, DATA, DATA, 0, DATA_SIZE, 0x1000]),
        (GNU_STACK, 6, [0, 0, 0, 0, 0, 16]),
    ];
    for (kind, flags, numbers) in segments {
        put(&kind.to_le_bytes());
        put(&flags.to_le_bytes());
        numbers.iter().for_each(|number: &u64| put(&number.to_le_bytes()));
    }
    file
}
