//! What a byte of the file is: who claims it ([`owners`]), which field of which structure it is in, what the field's value
//! means and whether it is valid ([`explain`]).

mod crypto;
mod directories;
mod header;
mod owners;
mod problem;
mod shared;
mod tables;

pub use owners::{MOST_CLAIMS, Owners, State, owners};
pub use problem::EntryProblem;
pub use shared::SharedTable;

use std::collections::BTreeMap;
use std::ops::Range;

use crate::bytes::clipped;
use crate::error::{Error, Result};
use crate::qcow2::bitmap::BitmapTableEntryKind;
use crate::qcow2::check;
use crate::qcow2::claims::{Claim, L1Place, Owner};
use crate::qcow2::geometry::Area;
use crate::qcow2::header::Header;
use crate::qcow2::l2::Mapping;
use crate::qcow2::tables::Tables;
use crate::record::{Field, Notation};
use crate::report::{Finding, Report, Severity};
use crate::units::HostOffset;
use crate::view::View;

/// Most bytes of a text that an explanation holds: as long as a name can be.
const MOST_TEXT: u64 = 1 << 16;

/// Findings that are not told where the field is that is wrong, but where something else begins.
const ELSEWHERE: [&str; 2] = ["bitmap-table", "crypto-header-unaligned"];

/// What the byte at an offset of the image file is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Explanation {
    /// The byte.
    pub offset: HostOffset,
    /// Who claims it; `None` where the header's cluster size is none, and only the header can be read.
    pub owners: Option<Owners>,
    /// What it is: once for each claim, or once where there is none.
    pub parts: Vec<Part>,
}

/// One thing that a byte is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Part {
    /// Whose it is; `None` where nobody claims it.
    pub owner: Option<Owner>,
    /// The bytes of the field, of the entry or of the text.
    pub place: Area,
    /// What these are.
    pub subject: Subject,
    /// What is wrong with them, a sentence each: none where nothing is.
    pub problems: Vec<String>,
}

/// What a part of the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(tag = "kind", rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Subject {
    /// A field of a structure.
    Field {
        /// The structure.
        structure: &'static str,
        /// The specification's name.
        name: &'static str,
        /// Its value.
        value: u64,
        /// How people write it.
        #[cfg_attr(feature = "serde", serde(skip))]
        notation: Notation,
        /// What the specification says of it.
        meaning: String,
    },
    /// A text.
    Text {
        /// The structure that it belongs to.
        structure: &'static str,
        /// What it is.
        name: &'static str,
        /// The text, cut at the end of the file; in JSON, what is not UTF-8 becomes U+FFFD.
        #[cfg_attr(feature = "serde", serde(serialize_with = "lossy"))]
        text: Vec<u8>,
    },
    /// What is nobody's business: salts, digests, key material.
    Secret {
        /// The structure that it belongs to.
        structure: &'static str,
        /// What it is.
        name: String,
    },
    /// An entry of an L1 table.
    L1Entry {
        /// Which.
        entry: L1Place,
        /// Its 64 bits.
        value: u64,
        /// Offset of the L2 table; 0: none.
        l2_table: HostOffset,
        /// Whether it says that the table's refcount is one.
        copied: bool,
        /// The part of the virtual disk that it is for.
        guest: Option<Range<u64>>,
    },
    /// An entry of an L2 table.
    L2Entry {
        /// The table.
        table: HostOffset,
        /// The entry.
        index: u64,
        /// Whose table that is, first of all.
        l1_entry: L1Place,
        /// Its 64 bits, or the first half of an extended one.
        value: u64,
        /// The second half of an extended one.
        bitmap: Option<u64>,
        /// What it says.
        mapping: Mapping,
        /// Whether it says that the cluster's refcount is one.
        copied: bool,
        /// The part of the virtual disk that it is for.
        guest: Option<Range<u64>>,
    },
    /// An entry of the refcount table.
    RefcountTableEntry {
        /// Which.
        index: u64,
        /// Its 64 bits.
        value: u64,
        /// Offset of the refcount block; 0: none.
        block: HostOffset,
        /// The clusters that the block is about.
        clusters: Option<Range<u64>>,
    },
    /// Refcounts: those that have bits in the byte.
    Refcounts {
        /// The entry of the refcount table that names their block.
        block: u64,
        /// Index of the first of them in the block.
        index: u64,
        /// The refcounts.
        refcounts: Vec<Refcount>,
    },
    /// An entry of a bitmap's table.
    BitmapTableEntry {
        /// The bitmap's place in the directory, from 0.
        bitmap: u32,
        /// The entry.
        index: u64,
        /// Its 64 bits.
        value: u64,
        /// What it says.
        says: BitmapTableEntryKind,
        /// Where the data are, if there are any.
        cluster: HostOffset,
        /// The part of the virtual disk that it is for.
        guest: Option<Range<u64>>,
    },
    /// Eight bits of a bitmap.
    BitmapBits {
        /// The bitmap's place in the directory, from 0; `None` where no bitmap's table has the entry any more.
        bitmap: Option<u32>,
        /// The byte.
        bits: u8,
        /// The part of the virtual disk that they are for.
        guest: Option<Range<u64>>,
    },
    /// Data of the virtual disk, or the place for them.
    Data {
        /// The byte of the virtual disk.
        guest: Option<u64>,
        /// The L2 table that says so.
        table: HostOffset,
        /// The entry.
        index: u64,
        /// Whose table that is, first of all.
        l1_entry: L1Place,
        /// Whether the guest reads it: not so where the cluster, or subcluster, is unallocated or reads as zeroes.
        is_read: bool,
    },
    /// Compressed data.
    Compressed {
        /// The cluster of the virtual disk.
        guest: Option<Range<u64>>,
        /// The L2 table that says so.
        table: HostOffset,
        /// The entry.
        index: u64,
        /// Whose table that is, first of all.
        l1_entry: L1Place,
    },
    /// Bytes that mean nothing: padding, the rest of a cluster, a structure that the file cuts short.
    Unused {
        /// Where they are.
        what: String,
    },
    /// Nobody claims the cluster.
    Nothing,
    /// The file ends before the byte.
    PastEnd,
}

/// A refcount, and what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Refcount {
    /// The cluster that it is about.
    pub cluster: u64,
    /// What the image says.
    pub refcount: u64,
    /// How many refer to the cluster.
    pub references: u64,
}

/// Says what the byte at `offset` is, to everybody who claims it.
///
/// ```
/// use vdisk_format::{generate::Qcow2, qcow2::explain::{Subject, explain}};
/// let image = Qcow2::new(1 << 20).data(0x30000, b"data").build()?;
/// let explanation = explain(&image, 0x17.into())?;
/// let Subject::Field { name, value, .. } = &explanation.parts[0].subject else { panic!() };
/// assert_eq!((*name, *value), ("cluster_bits", 16));
/// assert!(explanation.parts[0].problems.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Truncated`] where there is no header.
pub fn explain<'a>(image: impl Into<View<'a>>, offset: HostOffset) -> Result<Explanation> {
    let view = image.into();
    let (parts, owners) = match Tables::new(&view) {
        Ok(tables) => {
            let owners = owners(&tables, offset);
            let mut parts = parts(&tables, &owners);
            if parts.iter().any(Part::has_rules_of_its_own) {
                let report = check::fields(&tables);
                let judged = parts.iter_mut().filter(|part| part.has_rules_of_its_own());
                judged.for_each(|part| part.judge(&report));
            }
            (parts, Some(owners))
        }
        Err(Error::Refused { .. }) => {
            let header = Header::parse(view.bytes())?;
            let mut part = Part { owner: Some(Owner::Header), ..header::part(&header, offset.0) };
            part.judge(&check::header(&header));
            (vec![part], None)
        }
        Err(error) => return Err(error),
    };
    Ok(Explanation { offset, owners, parts })
}

fn parts(tables: &Tables<'_>, owners: &Owners) -> Vec<Part> {
    let offset = owners.offset.0;
    if owners.claims.is_empty() {
        let (area, subject) = if !owners.in_file {
            (Area::new(offset, 1), Subject::PastEnd)
        } else {
            let cluster = Area::new(
                owners.cluster << tables.geometry().cluster_bits(),
                tables.geometry().cluster_size(),
            );
            let subject = match owners.neighbours.first() {
                Some(neighbour) => Subject::Unused { what: format!("rest of a cluster ({neighbour})") },
                None => Subject::Nothing,
            };
            (cluster, subject)
        };
        return vec![Part {
            owner: None,
            place: area,
            subject,
            problems: owners.problem().into_iter().collect(),
        }];
    }
    let references = tables::references_at(tables, &owners.claims, offset);
    owners.claims.iter().map(|claim| part(tables, claim, offset, &references)).collect()
}

fn part(tables: &Tables<'_>, claim: &Claim, offset: u64, references: &BTreeMap<u64, u64>) -> Part {
    let mut part = match claim.owner {
        Owner::Header => header::part(tables.header(), offset),
        Owner::L1Table { snapshot } => tables::l1_entry(tables, claim.area, snapshot, offset),
        Owner::L2Table { l1_entries } => tables::l2_entry(tables, claim.area, l1_entries.first, offset),
        Owner::Data { .. } | Owner::Compressed { .. } => tables::data(tables, claim, offset),
        Owner::RefcountTable => tables::refcount_table_entry(tables, offset),
        Owner::RefcountBlock { index } => tables::refcounts(tables, claim.area, index, offset, references),
        Owner::SnapshotTable => directories::snapshot_table(tables, offset),
        Owner::BitmapDirectory => directories::bitmap_directory(tables, offset),
        Owner::BitmapTable { bitmap } => directories::bitmap_table(tables, claim.area, bitmap, offset),
        Owner::BitmapData { entry, .. } => directories::bitmap_data(tables, claim.area, entry, offset),
        Owner::CryptoHeader => crypto::part(tables, claim.area, offset),
    };
    part.owner = Some(claim.owner);
    part
}

impl Part {
    fn new(place: Area, subject: Subject) -> Self {
        Self { owner: None, place, subject, problems: Vec::new() }
    }

    /// Bytes that mean nothing, from `start` to `end`.
    fn unused(start: u64, end: u64, what: impl Into<String>) -> Self {
        Self::new(Area::new(start, end.saturating_sub(start)), Subject::Unused { what: what.into() })
    }

    /// Whether it is one of those fields of which each means something else: a check knows what is right there.
    fn has_rules_of_its_own(&self) -> bool {
        matches!(self.owner, Some(Owner::Header | Owner::SnapshotTable | Owner::BitmapDirectory))
    }

    /// Adds what a check says of it. What is wrong with padding or with what is unknown is told where it begins.
    fn judge(&mut self, report: &Report) {
        let place = self.place.offset.0..self.place.end();
        let is_about = |finding: &&Finding| {
            let is_here = !ELSEWHERE.contains(&finding.code) && !finding.code.starts_with("luks-");
            finding.severity > Severity::Note && is_here && place.contains(&finding.offset.0)
        };
        self.problems.extend(report.findings().iter().filter(is_about).map(|finding| {
            format!("expected {}, found {} [{}]", finding.expected, finding.found, finding.code)
        }));
    }

    fn with(mut self, problems: impl IntoIterator<Item = EntryProblem>) -> Self {
        self.problems.extend(problems.into_iter().map(|problem| problem.to_string()));
        self
    }

    /// The field, of those of the structure at `start`, that has the byte at `offset`.
    fn field(
        structure: &'static str,
        mut fields: impl Iterator<Item = (&'static Field, u64)>,
        start: u64,
        offset: u64,
    ) -> Option<Self> {
        let (field, value) = fields.find(|(field, _)| {
            let at = start.saturating_add(field.offset);
            (at..at.saturating_add(field.width.into())).contains(&offset)
        })?;
        let place = Area::new(start + field.offset, field.width.into());
        let Field { name, notation, doc, .. } = *field;
        Some(Self::new(place, Subject::Field { structure, name, value, notation, meaning: meaning(doc) }))
    }

    /// The `length` bytes of text at `start`, if the byte at `offset` is one of them.
    fn text(
        image: &[u8],
        structure: &'static str,
        name: &'static str,
        (start, length): (u64, u64),
        offset: u64,
    ) -> Option<Self> {
        if !(start..start.saturating_add(length)).contains(&offset) {
            return None;
        }
        let text = clipped(image, start, length.min(MOST_TEXT)).to_vec();
        Some(Self::new(Area::new(start, length), Subject::Text { structure, name, text }))
    }
}

/// A field's documentation as one text, without what makes links of it.
fn meaning(doc: &[&str]) -> String {
    let lines: Vec<&str> = doc.iter().map(|line| line.trim()).collect();
    lines.join(" ").replace("[`", "`").replace("`]", "`")
}

#[cfg(feature = "serde")]
fn lossy<S: serde::Serializer>(text: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&String::from_utf8_lossy(text))
}

#[cfg(test)]
mod tests;
