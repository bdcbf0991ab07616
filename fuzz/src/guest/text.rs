//! Any text as a program.

use guest_fuzz::Instruction;
use guest_fuzz::program::Program;

/// Reads the input as a text, and makes a valid program of its bytes.
///
/// # Panics
/// Where a program that was read does not write itself as what is read as the same, or its lines are other
/// instructions alone.
pub fn instruction_text(input: &[u8]) {
    super::kept(&super::program(input));
    let Ok(text) = std::str::from_utf8(input) else { return };
    let lines = || text.split('\n').map(|line| line.split('#').next().unwrap_or_default());
    match Program::parse(text, "fuzz") {
        Ok(program) => {
            super::kept(&program);
            let alone: Vec<Instruction> = lines().filter_map(|line| line.parse().ok()).collect();
            assert_eq!(program.instructions, alone);
        }
        // Errors go to terminals.
        Err(error) => assert!(!error.to_string().chars().any(char::is_control), "{error}"),
    }
}
