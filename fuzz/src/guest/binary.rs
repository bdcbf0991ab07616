//! Any bytes as a program's binary form.

use guest_fuzz::program::{MAGIC, Program};

/// Reads the input as a program's bytes, as it is and with the magic and a count in front.
///
/// # Panics
/// Where a program that was read is written as other bytes, or is not what its text is.
pub fn instruction_binary(input: &[u8]) {
    one(input);
    let Some((&count, instructions)) = input.split_first() else { return };
    one(&[&MAGIC, &[count & 0x7f][..], instructions].concat());
}

fn one(bytes: &[u8]) {
    let Ok(program) = Program::from_bytes(bytes) else { return };
    assert_eq!(program.to_bytes(), bytes, "there is another spelling");
    super::kept(&program);
}
