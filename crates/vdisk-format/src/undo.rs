//! Undo records: each is a committed plan on disk, from which the change can be taken back.
//!
//! A record is the text of the [plan](crate::plan), under two lines that say for which image, and over lines that are
//! added later:
//!
//! ```text
//! vdisk-undo 1
//! image /images/disk.qcow2
//! vdisk-plan 1
//! …
//! end 1f0c9e7a55d0b3c2
//!
//! committed 196624 5f2b8a90cc1e7d43 0d1c2b3a4f5e6d7c
//! ```
//!
//! It is complete and synced before the first byte of the image is written; `committed` follows when the last one is
//! synced, and `undoing` when the undo begins. Both end with a digest of their line: a line that was cut short counts
//! as not written. Records of one image are a stack, numbered from 1: `disk.qcow2.undo-1`, `disk.qcow2.undo-2`, …

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use twox_hash::XxHash3_64;

use crate::error::{Error, Reason, Result};
use crate::image::Image;
use crate::limits::MAX_PLAN_TEXT;
use crate::plan::{Commit, Fingerprint, Plan, State, digest};

const FIRST_LINE: &str = "vdisk-undo 1";

/// Where the undo records of one image are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UndoPlace {
    dir: PathBuf,
    stem: OsString,
}

impl UndoPlace {
    /// Beside the image: in its folder, under its name. A symbolic link stands for what it points to.
    ///
    /// # Errors
    /// [`Error::Io`] where there is no such image.
    pub fn beside(image: &Path) -> Result<Self> {
        let (dir, name) = split(image)?;
        Ok(Self { dir, stem: name })
    }

    /// In the folder `dir`, which the first record makes if it is not there yet, under the image's name and a digest of
    /// its path.
    ///
    /// # Errors
    /// [`Error::Io`] where there is no such image.
    pub fn in_dir(dir: &Path, image: &Path) -> Result<Self> {
        let (folder, mut name) = split(image)?;
        let path = folder.join(&name);
        let digest = XxHash3_64::oneshot(path.as_os_str().as_encoded_bytes());
        name.push(format!(".{digest:016x}"));
        Ok(Self { dir: dir.to_owned(), stem: name })
    }

    /// Whether records can be made here: the folder can be written, and the image is no device, for folders of
    /// devices are not kept.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        #[cfg(unix)]
        {
            use nix::unistd::{AccessFlags, access};
            use std::os::unix::fs::FileTypeExt;
            let image = fs::metadata(self.dir.join(&self.stem));
            let is_device = image.is_ok_and(|metadata| metadata.file_type().is_block_device());
            !is_device && access(&self.dir, AccessFlags::W_OK).is_ok()
        }
        #[cfg(not(unix))]
        true
    }

    /// The records, oldest first.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Syntax`] for a record that cannot be read.
    pub fn records(&self) -> Result<Vec<Record>> {
        self.numbers()?.into_iter().map(|number| Record::read(self.path(number))).collect()
    }

    /// The newest record: the one that an undo takes back.
    ///
    /// # Errors
    /// As [`records`](Self::records).
    pub fn last(&self) -> Result<Option<Record>> {
        self.numbers()?.pop().map(|number| Record::read(self.path(number))).transpose()
    }

    /// Whether the last commit recorded here was interrupted, and left the image neither as it was nor as it would be.
    ///
    /// # Errors
    /// As [`records`](Self::records).
    pub fn is_interrupted(&self, image: &Image) -> Result<bool> {
        let unfinished = self.last()?.filter(Record::is_unfinished);
        Ok(unfinished.is_some_and(|record| {
            !matches!(record.plan.state_of(image.bytes()), Ok(State::Before | State::After))
        }))
    }

    fn path(&self, number: u64) -> PathBuf {
        let mut name = self.stem.clone();
        name.push(format!(".undo-{number}"));
        self.dir.join(name)
    }

    fn numbers(&self) -> Result<Vec<u64>> {
        let what = format!("cannot list {}", self.dir.display());
        let mut prefix = self.stem.clone();
        prefix.push(".undo-");
        let mut numbers = Vec::new();
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(numbers),
            entries => entries.map_err(Error::io(what.clone()))?,
        };
        for entry in entries {
            let name = entry.map_err(Error::io(what.clone()))?.file_name();
            let digits = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
            numbers.extend(digits.and_then(record_number));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Writes and syncs the record of a plan about to be committed.
    pub(crate) fn save(&self, plan: &Plan, image: &Path) -> Result<Record> {
        let number = self.numbers()?.last().map_or(1, |last| last + 1);
        let path = self.path(number);
        let what = format!("cannot save the undo record {}", path.display());
        let image = fs::canonicalize(image).map_err(Error::io(what.clone()))?;
        let shown: String =
            image.to_string_lossy().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        let text = format!("{FIRST_LINE}\nimage {shown}\n{}", plan.to_text());
        let mut temporary = path.clone().into_os_string();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let write = || {
            make_dir(&self.dir)?;
            // What a crash left there goes; `create_new` follows no link that somebody may have put there.
            let _ = fs::remove_file(&temporary);
            let mut file = private(File::options().write(true).create_new(true)).open(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            sync_dir(&self.dir)
        };
        write().map_err(|source| {
            let _ = (fs::remove_file(&temporary), fs::remove_file(&path));
            Error::Io { what, source }
        })?;
        Ok(Record { path, image, plan: plan.clone(), progress: Progress::Unfinished })
    }
}

/// The number that these digits spell, as `path` spells it. The last ones of all have no successor, and are nobody's.
fn record_number(digits: &[u8]) -> Option<u64> {
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == digits && number < u64::MAX / 2).then_some(number)
}

/// Makes a folder with those above it, each name synced: a record in a folder that is lost is lost.
fn make_dir(dir: &Path) -> std::io::Result<()> {
    if dir.as_os_str().is_empty() || dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().unwrap_or(Path::new("."));
    make_dir(parent)?;
    fs::create_dir(dir)?;
    sync_dir(parent)
}

fn split(image: &Path) -> Result<(PathBuf, OsString)> {
    let what = format!("cannot find {}", image.display());
    let path = fs::canonicalize(image).map_err(Error::io(what))?;
    let dir = path.parent().unwrap_or(Path::new("/")).to_owned();
    Ok((dir, path.file_name().unwrap_or_default().to_owned()))
}

#[cfg(unix)]
fn private(options: &mut fs::OpenOptions) -> &mut fs::OpenOptions {
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600)
}

#[cfg(not(unix))]
fn private(options: &mut fs::OpenOptions) -> &mut fs::OpenOptions {
    options
}

/// Makes a new or removed name in `dir` last, where the system has a way to.
fn sync_dir(dir: &Path) -> std::io::Result<()> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

/// How far the commit of a record came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case", tag = "state"))]
#[non_exhaustive]
pub enum Progress {
    /// It was interrupted, or its undo was: each byte is the old or the new one.
    Unfinished,
    /// It was completed and synced.
    Committed {
        /// Length of the image afterwards, in bytes.
        length: u64,
        /// Its fingerprint afterwards. In JSON 16 hexadecimal digits, for a number of 64 bits is none to many readers.
        #[cfg_attr(feature = "serde", serde(serialize_with = "as_digits"))]
        fingerprint: u64,
    },
}

#[cfg(feature = "serde")]
fn as_digits<S: serde::Serializer>(fingerprint: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{fingerprint:016x}"))
}

/// One undo record.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    image: PathBuf,
    plan: Plan,
    progress: Progress,
}

impl Record {
    fn read(path: PathBuf) -> Result<Self> {
        let what = || format!("undo record {} (move it away to do without it)", path.display());
        let text = read_text(&path, &what())?;
        let syntax = |line, expected| Error::Syntax {
            what: what(),
            line,
            expected,
            found: "something else".to_owned(),
        };
        let rest = text.strip_prefix(FIRST_LINE).and_then(|rest| rest.strip_prefix("\nimage "));
        let (image, rest) = rest
            .and_then(|rest| rest.split_once('\n'))
            .ok_or_else(|| syntax(1, "vdisk-undo 1 and image PATH"))?;
        let (plan, rest) = Plan::from_text_prefix(rest, &what())?;
        let image = PathBuf::from(image);
        let progress = rest.split_inclusive('\n').filter_map(Progress::from_line).next_back();
        Ok(Self { plan, image, progress: progress.unwrap_or(Progress::Unfinished), path })
    }

    /// The record's own file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The image it was made for, as its path was then.
    #[must_use]
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// The plan that was committed.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How far its commit came.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Whether the commit, or its undo, was interrupted.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        self.progress == Progress::Unfinished
    }

    /// Whether the record fits the image as it is now: each range holds its old or new bytes, and where the commit
    /// was completed, all of them the new ones, and the image has the length and the fingerprint it had then.
    ///
    /// # Errors
    /// A refusal, [`Reason::DoesNotFit`].
    pub fn fits(&self, image: &Image, fingerprint: Fingerprint) -> Result<()> {
        let differs = |what: &str, expected: String, found: String| {
            Err(Error::refused(Reason::DoesNotFit, format!("undo: {what}"), None, expected, found))
        };
        let state = match self.plan.state_of(image.bytes()) {
            Ok(state) => state,
            Err(error) => {
                return differs(
                    "the image was changed since",
                    format!("the bytes that {} tells of", self.path.display()),
                    error.to_string(),
                );
            }
        };
        let Progress::Committed { length, fingerprint: expected } = self.progress else { return Ok(()) };
        if state != State::After || image.bytes().len() as u64 != length {
            return differs(
                "the image was changed since",
                format!("the {length} bytes after the commit"),
                format!("{} bytes, others in the plan's ranges", image.bytes().len()),
            );
        }
        let found = fingerprint(image);
        if found != expected {
            return differs(
                "the image was used since",
                format!("header and tables with fingerprint {expected:016x}"),
                format!("{found:016x}"),
            );
        }
        Ok(())
    }

    /// Takes the change back, and removes the record. `force` overrides [`fits`](Self::fits).
    ///
    /// # Errors
    /// [`Reason::DoesNotFit`]; [`Error::HalfWay`] where it was interrupted: the record stays, and another undo works.
    pub fn undo(self, image: Image, fingerprint: Fingerprint, force: bool) -> Result<()> {
        if !force {
            self.fits(&image, fingerprint)?;
        }
        Commit::begin_undo(image, self)?.run(fingerprint)
    }

    /// The refusal of a change that comes before this record's commit is settled; `fits`: whether it can be.
    pub(crate) fn interrupted(&self, fits: bool) -> Error {
        let path = self.path.display();
        let found = if fits {
            format!("the one of {path}: undo it, or apply that record again")
        } else {
            format!(
                "the one of {path}, whose bytes are no longer there: move that record away if it is of no use"
            )
        };
        Error::refused(Reason::Interrupted, "commit", None, "no interrupted commit", found)
    }

    pub(crate) fn begin_undo(&self) -> Result<()> {
        self.append("undoing")
    }

    pub(crate) fn seal(&self, length: u64, fingerprint: u64) -> Result<()> {
        self.append(&format!("committed {length} {fingerprint:016x}"))
    }

    pub(crate) fn remove(&self) -> Result<()> {
        let what = format!("cannot remove the undo record {}", self.path.display());
        fs::remove_file(&self.path).map_err(Error::io(what.clone()))?;
        sync_dir(self.path.parent().unwrap_or(Path::new("."))).map_err(Error::io(what))
    }

    fn append(&self, line: &str) -> Result<()> {
        let what = format!("cannot write the undo record {}", self.path.display());
        let write = || {
            let mut file = File::options().append(true).open(&self.path)?;
            // A line that an earlier crash cut short has no end: this one must not become a part of it.
            file.write_all(format!("\n{line} {}\n", digest(line)).as_bytes())?;
            file.sync_all()
        };
        write().map_err(Error::io(what))
    }
}

impl Progress {
    /// What one line behind the plan says; `None` for one that was cut short.
    fn from_line(line: &str) -> Option<Self> {
        let (line, found) = line.strip_suffix('\n')?.rsplit_once(' ')?;
        if found != digest(line) {
            return None;
        }
        if line == "undoing" {
            return Some(Self::Unfinished);
        }
        let (length, fingerprint) = line.strip_prefix("committed ")?.split_once(' ')?;
        let fingerprint = u64::from_str_radix(fingerprint, 16).ok()?;
        Some(Self::Committed { length: length.parse().ok()?, fingerprint })
    }
}

/// Reads a plan from a file, as `Plan::to_text` wrote it; or the plan of an undo record.
///
/// # Errors
/// [`Error::Io`], [`Error::Syntax`].
pub fn read_plan(path: &Path) -> Result<Plan> {
    let what = format!("plan {}", path.display());
    let text = read_text(path, &what)?;
    if text.starts_with(FIRST_LINE) {
        return Record::read(path.to_owned()).map(|record| record.plan);
    }
    Plan::from_text(&text, &what)
}

fn read_text(path: &Path, what: &str) -> Result<String> {
    let cannot = || format!("cannot read {what}");
    let metadata = fs::metadata(path).map_err(Error::io(cannot()))?;
    if !metadata.is_file() || metadata.len() > MAX_PLAN_TEXT {
        let why = format!("expected a file of at most {MAX_PLAN_TEXT} bytes");
        return Err(Error::Unsupported { what: cannot(), why });
    }
    let bytes = fs::read(path).map_err(Error::io(cannot()))?;
    let not_text = |_| Error::Unsupported { what: cannot(), why: "it is not text".to_owned() };
    String::from_utf8(bytes).map_err(not_text)
}
