//! Carrying a plan out on a file, so that a crash at any point leaves what was, what will be, or what can be undone.

use super::{Plan, State};
use crate::error::{Error, Reason, Result};
use crate::image::{Image, LockedFile};
use crate::undo::{Record, UndoPlace};

/// A digest of an image's header and tables, such as [`qcow2::fingerprint`](crate::qcow2::fingerprint): what an undo
/// record keeps, to know whether the image was used since.
pub type Fingerprint = fn(&Image) -> u64;

/// A commit on its way: the undo record is on disk, and each [`step`](Self::step) writes one range.
///
/// Dropping it half-way is what a crash does; [`UndoPlace::last`] then finds the record. Most callers want
/// [`Plan::commit`].
#[derive(Debug)]
pub struct Commit {
    plan: Plan,
    file: LockedFile,
    next: usize,
    done: Done,
}

/// What becomes of the undo record at the end.
#[derive(Debug)]
enum Done {
    NoRecord,
    Seal(Record),
    Remove(Record),
}

impl Plan {
    /// Carries the plan out: checks that the image still holds the old bytes, saves the undo record, writes, and syncs.
    ///
    /// Without `undo`, a crash half-way leaves an image that nothing takes back.
    ///
    /// # Errors
    /// Any but [`Error::HalfWay`] mean that the file is as it was. [`Reason::Stale`] where it does not hold the old
    /// bytes, [`Reason::Interrupted`] where an earlier commit is neither undone nor completed.
    pub fn commit(&self, image: Image, undo: Option<&UndoPlace>, fingerprint: Fingerprint) -> Result<()> {
        Commit::begin(image, self, undo)?.run(fingerprint)
    }

    /// As [`commit`](Self::commit), but completes a commit of this same plan that was interrupted, and does nothing
    /// where the plan is carried out already. Returns whether anything was written.
    ///
    /// Without a record of that commit, the image must be as an interruption leaves it: some writes done, in order, one
    /// perhaps in part, and the others not.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub fn complete(&self, image: Image, undo: Option<&UndoPlace>, fingerprint: Fingerprint) -> Result<bool> {
        let mut commit = Commit::prepare(image, self)?;
        let state = commit.state()?;
        if let Some(record) = commit.unfinished(undo)? {
            commit.done = Done::Seal(record);
            commit.run(fingerprint)?;
            return Ok(true);
        }
        match state {
            State::After => return Ok(false),
            State::Before => {}
            // Its commit kept no record. What is undone later is this one, so that it starts from what is there now.
            State::Between => {
                commit.plan =
                    self.rest(commit.file.length()?, |at, length| commit.file.read_clipped(at, length))?;
            }
        }
        if let Some(place) = undo {
            commit.done = Done::Seal(place.save(&commit.plan, &commit.file.path)?);
        }
        commit.run(fingerprint)?;
        Ok(true)
    }
}

impl Commit {
    /// Checks that the image holds the plan's old bytes, and saves the undo record. Nothing is written to the image.
    ///
    /// # Errors
    /// As [`Plan::commit`].
    pub fn begin(image: Image, plan: &Plan, undo: Option<&UndoPlace>) -> Result<Self> {
        let mut commit = Self::prepare(image, plan)?;
        if plan.is_empty() {
            return Ok(commit);
        }
        if commit.state()? != State::Before {
            return Err(Error::refused(
                Reason::Stale,
                "plan",
                None,
                "an image that holds the plan's old bytes",
                "one on which a part of the plan, or all of it, is carried out already",
            ));
        }
        if let Some(record) = commit.unfinished(undo)? {
            return Err(record.interrupted(true));
        }
        if let Some(place) = undo {
            commit.done = Done::Seal(place.save(plan, &commit.file.path)?);
        }
        Ok(commit)
    }

    /// Begins to take back what `record` describes.
    pub(crate) fn begin_undo(image: Image, record: Record) -> Result<Self> {
        let mut commit = Self::prepare(image, &record.plan().inverse())?;
        record.begin_undo()?;
        commit.done = Done::Remove(record);
        Ok(commit)
    }

    fn prepare(image: Image, plan: &Plan) -> Result<Self> {
        let file = image.into_file()?;
        let cannot = |why: &str| {
            let what = format!("writing {}", file.path.display());
            Err(Error::Unsupported { what, why: why.to_owned() })
        };
        if !file.writable {
            return cannot("it is open for reading");
        }
        if file.is_device && plan.length() != plan.new_length() {
            return cannot("the plan changes its length, and a block device has a fixed one");
        }
        Ok(Self { plan: plan.clone(), file, next: 0, done: Done::NoRecord })
    }

    fn state(&self) -> Result<State> {
        self.plan.state(self.file.length()?, |at, length| self.file.read_clipped(at, length))
    }

    /// The record of an interrupted commit of this plan, if there is one. Another plan's is an error, unless all of it
    /// is written, or nothing: then it is in nobody's way, and in the latter case goes.
    fn unfinished(&self, undo: Option<&UndoPlace>) -> Result<Option<Record>> {
        let Some(record) = undo.map(UndoPlace::last).transpose()?.flatten().filter(Record::is_unfinished)
        else {
            return Ok(None);
        };
        match record.plan().state(self.file.length()?, |at, length| self.file.read_clipped(at, length)) {
            Ok(State::Before) => record.remove().map(|()| None),
            Ok(_) if *record.plan() == self.plan => Ok(Some(record)),
            Ok(State::After) => Ok(None),
            state => Err(record.interrupted(state.is_ok())),
        }
    }

    /// Writes the next range; `false` where none is left.
    ///
    /// # Errors
    /// [`Error::HalfWay`] where a write fails after one that did not, else the failure itself.
    pub fn step(&mut self) -> Result<bool> {
        let Some(write) = self.plan.writes().get(self.next) else { return Ok(false) };
        if let Err(error) = self.file.write_all_at(&write.new, write.offset.0) {
            return Err(self.failed(error));
        }
        self.next += 1;
        Ok(true)
    }

    /// Gives the file its new length, syncs it, and marks the undo record as complete.
    ///
    /// # Errors
    /// [`Error::HalfWay`].
    pub fn finish(mut self, fingerprint: Fingerprint) -> Result<()> {
        if self.plan.is_empty() && matches!(self.done, Done::NoRecord) {
            return Ok(());
        }
        let undo = self.record_path();
        self.settle().map_err(|error| half_way(error, undo.clone()))?;
        let Self { file, done, .. } = self;
        let close = move || match done {
            Done::NoRecord => Ok(()),
            Done::Seal(record) => {
                let image = Image::from_locked(file)?;
                record.seal(image.bytes().len() as u64, fingerprint(&image))
            }
            Done::Remove(record) => record.remove(),
        };
        close().map_err(|error| half_way(error, undo))
    }

    fn settle(&mut self) -> Result<()> {
        let path = self.file.path.display();
        let (old, new) = (self.plan.length(), self.plan.new_length());
        let now = self.file.length()?;
        // A length that is none of the plan's is somebody else's doing, which a forced undo leaves alone.
        if old != new && now != new && (old.min(new)..=old.max(new)).contains(&now) {
            self.file.file.set_len(new).map_err(Error::io(format!("cannot set the length of {path}")))?;
        }
        self.file.file.sync_all().map_err(Error::io(format!("cannot sync {path}")))
    }

    /// All that is left.
    pub(crate) fn run(mut self, fingerprint: Fingerprint) -> Result<()> {
        while self.step()? {}
        self.finish(fingerprint)
    }

    /// Where the first write failed and left no trace, nothing happened, and the record goes.
    fn failed(&mut self, error: Error) -> Error {
        let untouched = self.state().is_ok_and(|state| state == State::Before);
        match std::mem::replace(&mut self.done, Done::NoRecord) {
            Done::Seal(record) if untouched => {
                let _ = record.remove();
                error
            }
            Done::NoRecord if untouched => error,
            Done::NoRecord => half_way(error, None),
            Done::Seal(record) | Done::Remove(record) => half_way(error, Some(record.path().to_owned())),
        }
    }

    fn record_path(&self) -> Option<std::path::PathBuf> {
        match &self.done {
            Done::NoRecord => None,
            Done::Seal(record) | Done::Remove(record) => Some(record.path().to_owned()),
        }
    }
}

fn half_way(source: Error, undo: Option<std::path::PathBuf>) -> Error {
    match source {
        Error::HalfWay { .. } => source,
        source => Error::HalfWay { source: Box::new(source), undo },
    }
}
