//! The targets of `guest-fuzz`: what strangers' files are read as.

mod binary;
mod journal;
mod text;

use arbitrary::{Arbitrary, Unstructured};
use guest_fuzz::program::Program;

pub use binary::instruction_binary;
pub use journal::journal;
pub use text::instruction_text;

/// Seeds for the target called `name`, out of `choices`.
pub(crate) fn seed(name: &str, choices: &[u8]) -> Vec<u8> {
    let program = program(choices);
    match name {
        "instruction_text" => program.to_string().into_bytes(),
        "instruction_binary" => program.to_bytes(),
        _ => journal::seed(program).into_bytes(),
    }
}

/// The valid program that `choices` are; none is too short for one.
fn program(choices: &[u8]) -> Program {
    Program::arbitrary_take_rest(Unstructured::new(choices)).unwrap_or_default()
}

/// What both forms of `program` promise: they are read as what was written.
#[track_caller]
fn kept(program: &Program) {
    let bytes = program.to_bytes();
    assert_eq!(Program::from_bytes(&bytes).ok().as_ref(), Some(program), "binary round trip");
    let text = program.to_string();
    assert_eq!(Program::parse(&text, "fuzz").ok().as_ref(), Some(program), "text round trip");
}
