//! A head and rows, as text and as JSON: written as they are found, none of them kept.

use std::cell::RefCell;
use std::io;
use std::path::Path;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use tool_support::Out;
use vdisk_format::qcow2::explain::EntryProblem;

/// What stands above the rows.
pub(super) trait Head: Serialize {
    /// The key of the rows.
    const ROWS: &'static str;

    /// Its lines.
    fn text(&self, out: &mut Out) -> io::Result<()>;
}

/// One row.
pub(super) trait Row: Serialize {
    /// Its lines.
    fn text(&self, out: &mut Out) -> io::Result<()>;
}

/// The document.
pub(super) struct Rows<'h, H, I> {
    image: String,
    head: &'h H,
    rows: RefCell<I>,
}

impl<'h, H, I> Rows<'h, H, I> {
    pub(super) fn new(path: &Path, head: &'h H, rows: I) -> Self {
        Self { image: path.display().to_string(), head, rows: RefCell::new(rows) }
    }
}

const SCHEMA: u32 = 1;

impl<H: Head, I: Iterator<Item: Row>> Serialize for Rows<'_, H, I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Document<'d, H: Serialize, R: Serialize> {
            schema: u32,
            image: &'d str,
            #[serde(flatten)]
            head: &'d H,
            #[serde(flatten)]
            rows: Keyed<'d, R>,
        }
        let rows = Keyed(H::ROWS, &InTurn(&self.rows));
        Document { schema: SCHEMA, image: &self.image, head: self.head, rows }.serialize(serializer)
    }
}

/// One key and its value.
struct Keyed<'k, T>(&'static str, &'k T);

impl<T: Serialize> Serialize for Keyed<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(self.0, self.1)?;
        map.end()
    }
}

struct InTurn<'r, I>(&'r RefCell<I>);

impl<I: Iterator<Item: Row>> Serialize for InTurn<'_, I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&mut *self.0.borrow_mut())
    }
}

/// `5`, or `5-8`.
pub(super) fn indices(index: u64, count: u64) -> String {
    if count == 1 { index.to_string() } else { format!("{index}-{}", index.saturating_add(count - 1)) }
}

/// `0x200`, or `0x200-0x800`, the end of the last one, where `count` of them follow one another in steps.
pub(super) fn offsets(first: u64, count: u64, step: u64) -> String {
    if count == 1 || step == 0 {
        return format!("{first:#x}");
    }
    format!("{first:#x}-{:#x}", first.saturating_add(count.saturating_mul(step)))
}

/// What is wrong with the first and the last entry of a run, each once: the file may end in between.
pub(super) fn different(of: [impl Iterator<Item = EntryProblem>; 2]) -> Vec<EntryProblem> {
    let mut problems = Vec::new();
    for problem in of.into_iter().flatten() {
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
    problems
}

/// `copied`, and what is wrong.
pub(super) fn remarks(copied: bool, problems: &[impl std::fmt::Display]) -> String {
    let mut text = if copied { "  copied".to_owned() } else { String::new() };
    for problem in problems {
        text.push_str(&format!("  wrong: {problem}"));
    }
    text
}
