//! The documents of `--json`: each one object with a `schema` number. A change of shape raises the number. Keys have
//! underscores, but for those of `check`, which are `qemu-img`'s.

use std::path::Path;

use serde::{Serialize, Serializer};
use tool_support::output::Lossy;
use vdisk_format::qed::scrub::Scrubbed;
use vdisk_format::qed::{Entry, Geometry, Header, HeaderFields, Invalid, check};
use vdisk_format::report::Report;
use vdisk_format::units::HostOffset;

use crate::command::Shown;

const SCHEMA: u32 = 1;

fn name(path: &Path) -> String {
    path.display().to_string()
}

/// The document of `dump-header` and `show header`.
#[derive(Serialize)]
pub(crate) struct HeaderDocument<'h> {
    schema: u32,
    image: String,
    header: HeaderFields,
    /// Entries of a table; none where the sizes are wrong.
    table_entries: Option<u64>,
    backing_file: Option<Lossy<'h>>,
    findings: Report,
}

impl<'h> HeaderDocument<'h> {
    pub(crate) fn new(path: &Path, header: &Header<'h>) -> Self {
        Self {
            schema: SCHEMA,
            image: name(path),
            header: header.fields,
            table_entries: Geometry::new(header).ok().map(|geometry| geometry.entries()),
            backing_file: header.backing_file().map(Lossy),
            findings: check::header(header),
        }
    }
}

/// The document of `need_check`.
#[derive(Serialize)]
pub(crate) struct NeedCheckDocument {
    schema: u32,
    image: String,
    need_check: bool,
}

impl NeedCheckDocument {
    pub(crate) fn new(path: &Path, need_check: bool) -> Self {
        Self { schema: SCHEMA, image: name(path), need_check }
    }
}

/// The document of `copy_metadata`.
#[derive(Serialize)]
pub(crate) struct CopyDocument {
    schema: u32,
    image: String,
    copy: String,
    #[serde(flatten)]
    scrubbed: Scrubbed,
}

impl CopyDocument {
    pub(crate) fn new(path: &Path, copy: &Path, scrubbed: Scrubbed) -> Self {
        Self { schema: SCHEMA, image: name(path), copy: name(copy), scrubbed }
    }
}

/// The document of `show l1` and `show l2`.
#[derive(Serialize)]
pub(crate) struct TableDocument<'s> {
    schema: u32,
    image: String,
    table: &'static str,
    offset: HostOffset,
    l1_index: Option<u64>,
    guest_offset: Option<u64>,
    /// Entries of a table, and how many of this one's are in the file.
    entries: u64,
    entries_in_file: u64,
    runs: TableRuns<'s>,
}

impl<'s> TableDocument<'s> {
    pub(crate) fn new(path: &Path, shown: &'s Shown<'_, '_>) -> Self {
        let geometry = shown.tables.geometry();
        Self {
            schema: SCHEMA,
            image: name(path),
            table: if shown.is_l1 { "l1" } else { "l2" },
            offset: shown.offset,
            l1_index: shown.l1_index,
            guest_offset: shown.l1_index.and_then(|index| geometry.guest_offset(index, 0)),
            entries: geometry.entries(),
            entries_in_file: shown.entries_in_file(),
            runs: TableRuns(shown),
        }
    }
}

/// Entries that are not 0 and follow one another.
struct TableRuns<'s>(&'s Shown<'s, 's>);

#[derive(Serialize)]
struct RunObject {
    index: u64,
    count: u64,
    /// Value of the first entry. Those behind it are a cluster further each, unless it is 1.
    value: u64,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<Invalid>,
}

impl Serialize for TableRuns<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (shown, geometry) = (self.0, self.0.tables.geometry());
        serializer.collect_seq(shown.runs().map(|(run, entry)| {
            let (kind, why) = match (shown.is_l1.then(|| geometry.table_offset(run.value)), entry) {
                (Some(Ok(_)), _) => ("table", None),
                (Some(Err(why)), _) | (None, Entry::Invalid(why)) => ("invalid", Some(why)),
                (None, Entry::Zero) => ("zero", None),
                (None, _) => ("data", None),
            };
            RunObject { index: run.index, count: run.count, value: run.value, kind, why }
        }))
    }
}
