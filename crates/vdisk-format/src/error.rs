//! [`Error`]: "I cannot answer". What is wrong *with an image* is a [`Finding`](crate::report::Finding) instead.

use std::io;
use std::path::PathBuf;

use crate::lock::Access;
use crate::units::HostOffset;

/// A `Result` whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a question could not be answered, or a change not be made.
///
/// Every message names what, at which absolute offset, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, with the path where there is one.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The file ends inside a structure without which there is no answer.
    #[error("{what} at offset {at}: needs {need} bytes, the file has {have} there")]
    Truncated {
        /// The structure, in the specification's words.
        what: &'static str,
        /// Where it starts.
        at: HostOffset,
        /// Its size in bytes.
        need: u64,
        /// How many of these bytes lie inside the file.
        have: u64,
    },
    /// This kind of file, or this system, cannot do it.
    #[error("{what}: {why}")]
    Unsupported {
        /// What was asked.
        what: String,
        /// What stands against it.
        why: String,
    },
    /// Something else has the image open. Nothing was written.
    #[error("{}: the image is in use: {what}", path.display())]
    InUse {
        /// The image.
        path: PathBuf,
        /// Which lock, or which kind of holder, stands in the way.
        what: String,
        /// What was to be done with it, where a lock refused it.
        access: Option<Access>,
    },
    /// The file system has no locks. Nothing was read or written.
    #[error("cannot lock {}: {source}", path.display())]
    NoLocks {
        /// The image.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The change was refused before anything was written.
    #[error(transparent)]
    Refused(#[from] Box<Refused>),
    /// It is one of the images that the image is backed by that stands in the way: offsets are those in its file.
    #[error("backing file {depth}: {source}")]
    InBackingFile {
        /// How many images down it is: 1 for the one that the image itself names.
        depth: usize,
        /// What is wrong there.
        source: Box<Error>,
    },
    /// The text of a plan or of an undo record cannot be read.
    #[error("{what}, line {line}: expected {expected}, found {found}")]
    Syntax {
        /// Which file, or which kind of text.
        what: String,
        /// Line number, from 1.
        line: usize,
        /// What should stand there.
        expected: &'static str,
        /// What stands there, shortened.
        found: String,
    },
    /// A commit ended half-way: the image holds a part of the change.
    #[error("commit ended half-way: {source}; {}", undo_advice(undo.as_deref()))]
    HalfWay {
        /// What ended it.
        source: Box<Error>,
        /// The record that takes the change back, if there is one.
        undo: Option<PathBuf>,
    },
}

/// A refusal: what was asked, where, what would have been needed and what is there instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}{}: expected {expected}, found {found}", place(*at))]
pub struct Refused {
    /// Why, as a code that tests can compare.
    pub reason: Reason,
    /// What was asked.
    pub what: String,
    /// The absolute offset concerned, if there is one.
    pub at: Option<HostOffset>,
    /// What the change needs.
    pub expected: String,
    /// What is there.
    pub found: String,
}

/// The kinds of [`Refused`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The image changed since the plan was made.
    Stale,
    /// The first cluster has no room for the header, its extensions and the backing file name.
    NoRoom,
    /// The image's version or header length has no such field.
    NoSuchField,
    /// The value does not fit the field.
    OutOfRange,
    /// There is no header extension of this type.
    NoSuchExtension,
    /// The header extension area cannot be rewritten without losing bytes that nothing explains.
    BadExtensionArea,
    /// A plan's writes overlap, or lie outside the file.
    BadPlan,
    /// An earlier commit was interrupted and is neither undone nor completed.
    Interrupted,
    /// The header's sizes are none that tables can be read with.
    BadGeometry,
    /// A field of the header is wrong, and the change needs a header that is right.
    UnsoundHeader,
    /// What was asked for lies behind the end of the disk.
    PastDisk,
    /// There is no table, or none that a change of it needs.
    NoTable,
    /// What the change would write is a table to one entry, and another has the same clusters for something else.
    Contested,
    /// The table has no entry that the change needs.
    NoSuchEntry,
    /// An entry of a table says what the specification does not allow, and so nobody can tell what is there.
    InvalidEntry,
    /// Compressed data do not decode to a cluster.
    Undecodable,
    /// The image is encrypted.
    Encrypted,
    /// There is nothing to undo.
    NothingToUndo,
    /// The undo record does not fit the image as it is now.
    DoesNotFit,
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    pub(crate) fn refused(
        reason: Reason,
        what: impl Into<String>,
        at: Option<HostOffset>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::Refused(Box::new(Refused {
            reason,
            what: what.into(),
            at,
            expected: expected.into(),
            found: found.into(),
        }))
    }

    /// The reason, where the error is a refusal, of a backing file's image too.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Refused(refused) => Some(refused.reason),
            Self::InBackingFile { source, .. } => source.reason(),
            _ => None,
        }
    }
}

fn place(at: Option<HostOffset>) -> String {
    at.map_or_else(String::new, |at| format!(" at offset {at}"))
}

fn undo_advice(undo: Option<&std::path::Path>) -> String {
    match undo {
        Some(path) => format!("{} can take it back", path.display()),
        None => "there is no undo record".to_owned(),
    }
}
