//! [`Program`]: instructions, one after the other, as text and as bytes.

use std::fmt;

use crate::error::{Error, Result};
use crate::instruction::binary::{Reader, binary, number};
use crate::instruction::text::TextError;
use crate::instruction::{Instruction, MAX_BLOCK};
use crate::quoted::quoted;

/// What the binary form begins with; its last character is the version.
pub const MAGIC: [u8; 4] = *b"GFP1";
/// The largest number of instructions that is read. What is longer is a `Journal`'s, which does
/// not hold its instructions.
pub const MAX_PROGRAM: usize = 1 << 24;
/// The longest line of a text, in bytes, comments included: an instruction that writes [`MAX_BLOCK`] bytes fits.
pub const MAX_LINE: usize = 2 * MAX_BLOCK + 4096;

/// Instructions, in the order in which they are executed.
///
/// A [`Burst`](Instruction::Burst) may count past the end, which then ends it.
///
/// ```
/// use guest_fuzz::program::Program;
/// let program = Program::parse("outb 0x70 0x8f  # select a register\ninb 0x71\n", "example")?;
/// assert_eq!(program.to_string(), "outb 0x70 0x8f\ninb 0x71\n");
/// assert_eq!(Program::from_bytes(&program.to_bytes())?, program);
/// # Ok::<(), guest_fuzz::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Program {
    /// The instructions.
    pub instructions: Vec<Instruction>,
}

impl Program {
    /// Reads a text: an instruction a line, in the form that [`instruction::text`](crate::instruction::text) lists.
    /// What follows a `#` is a comment; empty lines mean nothing; lines end with LF or CR LF. `name` is what errors
    /// call the text.
    ///
    /// # Errors
    /// [`Error::Syntax`] naming the line; also where there are more than [`MAX_PROGRAM`] instructions, or a line is
    /// longer than [`MAX_LINE`].
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        Self::parse_up_to(MAX_PROGRAM, text, name)
    }

    fn parse_up_to(limit: usize, text: &str, name: &str) -> Result<Self> {
        let mut instructions = Vec::new();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (index, line) in text.split('\n').enumerate() {
            let syntax = |TextError { expected, found }| Error::Syntax {
                what: name.to_owned(),
                line: index + 1,
                expected,
                found,
            };
            if line.len() > MAX_LINE {
                let expected = format!("at most {MAX_LINE} bytes");
                return Err(syntax(TextError { expected, found: format!("{} bytes", line.len()) }));
            }
            let code = line.split_once('#').map_or(line, |(code, _comment)| code);
            let code = code.trim_ascii();
            if code.is_empty() {
                continue;
            }
            if instructions.len() == limit {
                let expected = format!("at most {limit} instructions");
                return Err(syntax(TextError { expected, found: quoted(code) }));
            }
            instructions.push(code.parse().map_err(syntax)?);
        }
        Ok(Self { instructions })
    }

    /// Reads the bytes of [`to_bytes`](Self::to_bytes), and nothing else: what is read is written as the same bytes.
    ///
    /// # Errors
    /// [`Error::Binary`] naming the offset.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let magic = reader.take(MAGIC.len(), "the magic GFP1")?;
        if magic != MAGIC {
            return Err(binary(0, "the magic GFP1", format!("\"{}\"", magic.escape_ascii())));
        }
        let at = reader.at;
        let count = reader.number("a count of instructions", MAX_PROGRAM)?;
        // The shortest instruction has one byte.
        if count > reader.left() {
            return Err(binary(at, format!("at most {} instructions", reader.left()), count.to_string()));
        }
        // One byte may become an instruction of 32: room is made as they are read.
        let mut instructions = Vec::new();
        for _ in 0..count {
            instructions.push(Instruction::decode(&mut reader)?);
        }
        match reader.left() {
            0 => Ok(Self { instructions }),
            left => Err(binary(reader.at, "the end", format!("{left} bytes more"))),
        }
    }

    /// The binary form: [`MAGIC`], the number of instructions as LEB128, and the instructions, in the form that
    /// [`instruction::binary`](crate::instruction::binary) describes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        number(&mut bytes, self.instructions.len() as u64);
        self.instructions.iter().for_each(|instruction| instruction.encode(&mut bytes));
        bytes
    }
}

/// Writes the text that [`parse`](Program::parse) reads, an instruction a line.
impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.instructions.iter().try_for_each(|instruction| writeln!(f, "{instruction}"))
    }
}

impl From<Vec<Instruction>> for Program {
    fn from(instructions: Vec<Instruction>) -> Self {
        Self { instructions }
    }
}

impl FromIterator<Instruction> for Program {
    fn from_iter<I: IntoIterator<Item = Instruction>>(instructions: I) -> Self {
        Self { instructions: instructions.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests;
