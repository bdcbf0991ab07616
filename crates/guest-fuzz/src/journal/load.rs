//! Reading of journals, and of everything else that can be replayed. Such files come from strangers.

use serde::Deserialize;

use super::{InFlight, Journal, MAX_JOURNAL, MAX_RESETS, Operations, SCHEMA};
use crate::error::{Error, Result};
use crate::instruction::{Instruction, TextError};
use crate::program::{MAGIC, Program};
use crate::region;

/// What can be executed again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replayable {
    /// A journal.
    Journal(Box<Journal>),
    /// A list of instructions, as text or as bytes.
    Program(Program),
}

impl Replayable {
    /// Reads whichever of the three forms `bytes` are: a journal, a program's bytes, or a program's text. `name` is
    /// what errors call them.
    ///
    /// ```
    /// use guest_fuzz::journal::Replayable;
    /// let list = Replayable::load(b"outb 0x2014 0 # aborts pc-testdev\n", "list.txt")?;
    /// assert!(matches!(list, Replayable::Program(program) if program.instructions.len() == 1));
    /// # Ok::<(), guest_fuzz::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Journal::load`], [`Program::from_bytes`] or [`Program::parse`].
    pub fn load(bytes: &[u8], name: &str) -> Result<Self> {
        // Without the version: other ones are to be called programs, too.
        let [magic @ .., _version] = MAGIC;
        if is_journal(bytes) {
            Journal::load(bytes, name).map(|journal| Self::Journal(Box::new(journal)))
        } else if bytes.starts_with(&magic) {
            Program::from_bytes(bytes).map(Self::Program)
        } else {
            Program::parse(utf8(bytes, name)?, name).map(Self::Program)
        }
    }
}

/// Whether `bytes` are to be read as a journal: whether they begin as a JSON object does, which no program does.
#[must_use]
pub fn is_journal(bytes: &[u8]) -> bool {
    without_mark(bytes).trim_ascii_start().starts_with(b"{")
}

impl Journal {
    /// Reads a journal's JSON. `name` is what errors call it.
    ///
    /// What is read can be replayed: instructions are instructions, resets are in order and, like what was in flight,
    /// among the operations, episodes have a source, and the map is [one that can be worked with](crate::region::RegionMap::check).
    /// Counts of operations may be of any size.
    ///
    /// # Errors
    /// [`Error::Syntax`] naming the line; also where it is larger than [`MAX_JOURNAL`], or of another schema.
    pub fn load(bytes: &[u8], name: &str) -> Result<Self> {
        let syntax = |line, expected: &str, found: String| Error::Syntax {
            what: name.to_owned(),
            line,
            expected: expected.to_owned(),
            found,
        };
        if bytes.len() > MAX_JOURNAL {
            let expected = format!("a journal of at most {MAX_JOURNAL} bytes");
            return Err(syntax(1, &expected, format!("{} bytes", bytes.len())));
        }
        let text = utf8(without_mark(bytes), name)?;
        let no_json = |error: serde_json::Error| syntax(error.line(), "a journal", shown(&error));
        // First of all: what another schema calls its fields is none of this one's business.
        let Schema { schema } = serde_json::from_str(text).map_err(no_json)?;
        if schema != SCHEMA {
            return Err(syntax(
                line_of_field(text, "schema"),
                &format!("schema {SCHEMA}"),
                format!("schema {schema}"),
            ));
        }
        let journal: Self = serde_json::from_str(text).map_err(no_json)?;
        let wrong = |Fault { field, expected, found }| syntax(line_of_field(text, field), &expected, found);
        journal.check().map_err(wrong)?;
        Ok(journal)
    }

    /// Whether it can be replayed.
    pub(super) fn check(&self) -> Result<(), Fault> {
        let operations = self.operations.count();
        if let Operations::Episodes(parts) = &self.operations {
            if self.source.is_none() {
                return Err(Fault::new("operations", "a source, which makes the episodes", "none"));
            }
            let sum = parts.iter().try_fold(0_u64, |sum, part| sum.checked_add(part.operations));
            if sum.is_none() {
                return Err(Fault::new("operations", format!("at most {} operations", u64::MAX), "more"));
            }
        }
        if self.resets.len() > MAX_RESETS {
            let found = self.resets.len().to_string();
            return Err(Fault::new("resets", format!("at most {MAX_RESETS} resets"), found));
        }
        let mut least = 0;
        for (index, &reset) in self.resets.iter().enumerate() {
            if !(least..operations).contains(&reset) {
                let expected = format!("resets[{index}] from {least} on and below {operations}");
                return Err(Fault::new("resets", expected, reset.to_string()));
            }
            least = reset;
        }
        if let Some(region::Fault { field, expected, found }) = self.regions.fault() {
            return Err(Fault::new(field, expected, found));
        }
        for (index, line) in self.regions.prologue.iter().enumerate() {
            let unlike = |error: TextError| {
                let expected = format!("{} as prologue[{index}]", error.expected);
                Fault::new("prologue", expected, error.found)
            };
            line.parse::<Instruction>().map_err(unlike)?;
        }
        let Some(InFlight { index, text }) = &self.in_flight else { return Ok(()) };
        if *index >= operations {
            let expected = format!("an operation in flight below {operations}");
            return Err(Fault::new("in_flight", expected, index.to_string()));
        }
        let unlike = |error: TextError| Fault::new("in_flight", error.expected, error.found);
        text.parse::<Instruction>().map(drop).map_err(unlike)
    }
}

/// Why a journal cannot be replayed.
pub(super) struct Fault {
    field: &'static str,
    expected: String,
    found: String,
}

impl Fault {
    fn new(field: &'static str, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { field, expected: expected.into(), found: found.into() }
    }
}

/// The one field that each schema has.
#[derive(Deserialize)]
struct Schema {
    schema: u32,
}

/// Instructions as a list of their text forms.
pub(super) mod lines {
    use std::fmt;

    use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
    use serde::ser::Serializer;

    use crate::instruction::Instruction;
    use crate::program::MAX_PROGRAM;

    pub(in crate::journal) fn serialize<S: Serializer>(
        instructions: &[Instruction],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(instructions.iter().map(ToString::to_string))
    }

    pub(in crate::journal) fn deserialize<'d, D: Deserializer<'d>>(
        deserializer: D,
    ) -> Result<Vec<Instruction>, D::Error> {
        deserializer.deserialize_seq(Lines)
    }

    struct Lines;

    impl<'d> Visitor<'d> for Lines {
        type Value = Vec<Instruction>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of instructions")
        }

        fn visit_seq<A: SeqAccess<'d>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut instructions = Vec::new();
            while let Some(instruction) = list.next_element_seed(Line(instructions.len()))? {
                instructions.push(instruction);
            }
            Ok(instructions)
        }
    }

    /// The instruction with this index. It is read as an element of its own, so that errors have its line.
    struct Line(usize);

    impl<'d> DeserializeSeed<'d> for Line {
        type Value = Instruction;

        fn deserialize<D: Deserializer<'d>>(self, deserializer: D) -> Result<Instruction, D::Error> {
            deserializer.deserialize_str(self)
        }
    }

    impl Visitor<'_> for Line {
        type Value = Instruction;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an instruction")
        }

        fn visit_str<E: Error>(self, line: &str) -> Result<Instruction, E> {
            let Self(index) = self;
            if index >= MAX_PROGRAM {
                return Err(E::custom(format_args!("more than {MAX_PROGRAM} instructions")));
            }
            line.parse().map_err(|error| E::custom(format_args!("instructions[{index}]: {error}")))
        }
    }
}

/// The line where the name of `field` first stands; 1 where it does not.
fn line_of_field(text: &str, field: &str) -> usize {
    text.find(&format!("\"{field}\"")).map_or(1, |at| line_of(text.as_bytes(), at))
}

/// Without the byte order mark that some editors begin a text with.
fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes)
}

fn utf8<'b>(bytes: &'b [u8], name: &str) -> Result<&'b str> {
    std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        let byte = bytes.get(at).copied().unwrap_or_default();
        Error::Syntax {
            what: name.to_owned(),
            line: line_of(bytes, at),
            expected: "a text in UTF-8, or a program's bytes".into(),
            found: format!("byte {byte:#04x}"),
        }
    })
}

/// The line of the byte at offset `at`, from 1.
fn line_of(bytes: &[u8], at: usize) -> usize {
    1 + bytes.iter().take(at).filter(|byte| **byte == b'\n').count()
}

/// What serde_json says, without the line, which our own error has. It may repeat what a stranger wrote, at any length:
/// it is escaped, and cut after 400 characters.
fn shown(error: &serde_json::Error) -> String {
    let (message, column) = (error.to_string(), error.column());
    let position = format!(" at line {} column {column}", error.line());
    let message = message.strip_suffix(&position).unwrap_or(&message);
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    let shown: String = message.chars().take(400).map(escaped).collect();
    let shown: String = shown.chars().take(400).collect();
    format!("{shown}, at column {column}")
}
