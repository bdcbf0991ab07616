//! The options of every command that changes an image, and the way from a plan to a commit.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use vdisk_format::undo::UndoPlace;
use vdisk_format::{Error, Image, Plan};

use super::show::Shown;
use super::{Format, OpenArgs, sigbus};
use crate::output::Out;
use crate::status::{Failure, Outcome};

/// Where undo records go.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct UndoDirArgs {
    /// Keep undo records in this folder instead of beside the image [env: VDISK_UNDO_DIR]
    #[arg(long, value_name = "DIR")]
    undo_dir: Option<PathBuf>,
}

impl UndoDirArgs {
    /// The folder that the user chose: by the option, or else by a variable that is set and not empty.
    fn chosen(&self) -> Option<PathBuf> {
        let variable = || std::env::var_os("VDISK_UNDO_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
        self.undo_dir.clone().or_else(variable)
    }

    /// Where a new record goes: the folder given; else beside the image; else, where that folder cannot be written or
    /// the image is a device, the user's state folder.
    pub(super) fn place(&self, image: &Path) -> Outcome<UndoPlace> {
        if let Some(dir) = self.chosen() {
            return Ok(UndoPlace::in_dir(&dir, image)?);
        }
        let beside = UndoPlace::beside(image)?;
        if beside.is_usable() {
            return Ok(beside);
        }
        let Some(state) = state_dir() else {
            let message = "no folder for undo records: give --undo-dir DIR, or --no-undo to do without";
            return Err(Failure::failed(message));
        };
        Ok(UndoPlace::in_dir(&state, image)?)
    }

    /// Everywhere that records of the image may be: in the folder given, beside it, in the state folder.
    pub(super) fn all_places(&self, image: &Path) -> Outcome<Vec<UndoPlace>> {
        let dirs = self.chosen().into_iter().chain(state_dir());
        let mut places = dirs.map(|dir| UndoPlace::in_dir(&dir, image)).collect::<Result<Vec<_>, _>>()?;
        places.push(UndoPlace::beside(image)?);
        Ok(places)
    }

    /// Where the newest record is: in the folder given; else beside the image or in the state folder, whichever has it.
    pub(super) fn place_of_last(&self, image: &Path) -> Outcome<UndoPlace> {
        if self.chosen().is_some() {
            return self.place(image);
        }
        let made = |place: &UndoPlace| {
            let record = place.last().ok().flatten()?;
            fs::metadata(record.path()).ok()?.modified().ok()
        };
        let newest = self.all_places(image)?.into_iter().max_by_key(made);
        newest.map_or_else(|| self.place(image), Ok)
    }
}

fn state_dir() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    state.map(|state| state.join("vdisk-tools/undo"))
}

/// The options of a command that changes an image.
#[derive(Debug, Clone, clap::Args)]
pub struct PlanArgs {
    /// Show the plan on standard output, and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Save the plan for `apply`, and change nothing ("-" for standard output)
    #[arg(long, value_name = "PLAN")]
    pub save_plan: Option<PathBuf>,

    #[command(flatten)]
    undo_dir: UndoDirArgs,

    /// Keep no undo record: a crash half-way is then for good
    #[arg(long)]
    pub no_undo: bool,

    /// Show the plan on standard error before it is committed
    #[arg(short, long)]
    pub verbose: bool,
}

impl PlanArgs {
    /// Opens the image at `path`, has `make` plan the change, and shows, saves or commits it as the options say.
    ///
    /// # Errors
    /// Whatever `make` returns, and what opening and committing do.
    pub fn run<E>(
        &self,
        format: Format,
        open: OpenArgs,
        json: bool,
        path: &Path,
        make: impl FnOnce(&[u8]) -> Result<Plan, E>,
    ) -> Outcome
    where
        Failure: From<E>,
    {
        self.run_on(format, open, json, path, |image| make(image.bytes()))
    }

    /// As [`run`](Self::run), for a change that needs more than the image's bytes: its holes, or a preview.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_on<E>(
        &self,
        format: Format,
        open: OpenArgs,
        json: bool,
        path: &Path,
        make: impl FnOnce(&Image) -> Result<Plan, E>,
    ) -> Outcome
    where
        Failure: From<E>,
    {
        let image = self.open(open, path)?;
        let plan = make(&image)?;
        if self.show(format, json, path, &image, &plan)? {
            return Ok(());
        }
        let undo = self.undo_place(path, &image)?;
        committing(|| Ok(plan.commit(image, undo.as_ref(), format.fingerprint)?))
    }

    /// Opens for writing only where something will be written.
    pub(super) fn open(&self, open: OpenArgs, path: &Path) -> Outcome<Image> {
        if self.dry_run || self.save_plan.is_some() { open.read(path) } else { open.write(path) }
    }

    /// Where the undo record goes, if one is wanted. Also without one, and wherever its record is, an interrupted commit
    /// comes first: it is completed where the plan is its own, and else refuses the new one.
    pub(super) fn undo_place(&self, path: &Path, image: &Image) -> Outcome<Option<UndoPlace>> {
        for place in self.undo_dir.all_places(path)? {
            match place.is_interrupted(image) {
                Ok(true) => return Ok(Some(place)),
                // A folder that this user may not list holds no record of this user's.
                Err(Error::Io { source, .. }) if source.kind() == ErrorKind::PermissionDenied => {}
                is_interrupted => drop(is_interrupted?),
            }
        }
        if self.no_undo { Ok(None) } else { self.undo_dir.place(path).map(Some) }
    }

    /// Shows and saves the plan where that was asked for; returns whether that was all that was asked for.
    pub(super) fn show(
        &self,
        format: Format,
        json: bool,
        path: &Path,
        image: &Image,
        plan: &Plan,
    ) -> Outcome<bool> {
        if self.dry_run || self.verbose {
            let shown = Shown::new(format, path, image, plan)?;
            if self.dry_run {
                shown.print(json)?;
            } else {
                shown.note();
            }
        }
        if let Some(file) = &self.save_plan {
            save(plan, file, path)?;
        }
        Ok(self.dry_run || self.save_plan.is_some())
    }
}

/// Runs what writes to an image: whatever ends it now ends it half-way.
pub(super) fn committing<T>(commit: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    sigbus::writing(true);
    let outcome = commit();
    sigbus::writing(false);
    outcome
}

fn save(plan: &Plan, file: &Path, image: &Path) -> Outcome {
    if file == Path::new("-") {
        let mut out = Out::stdout();
        out.write_all(plan.to_text().as_bytes())?;
        return Ok(out.finish()?);
    }
    if same_file(file, image) {
        return Err(Failure::usage("--save-plan names the image itself"));
    }
    if is_something_else(file) {
        let message = format!("cannot save the plan {}: it exists, and is no plan", file.display());
        return Err(Failure::failed(message));
    }
    fs::write(file, plan.to_text())
        .map_err(|error| Failure::failed(format!("cannot save the plan {}: {error}", file.display())))
}

/// Whether a path is a file that holds something, and no plan: another image, say, which a slip would cost its owner.
fn is_something_else(file: &Path) -> bool {
    use std::io::Read;
    const PLAN: &[u8] = b"vdisk-plan ";
    if !fs::metadata(file).is_ok_and(|metadata| metadata.is_file()) {
        return false;
    }
    let mut head = Vec::new();
    let read = fs::File::open(file).and_then(|file| file.take(PLAN.len() as u64).read_to_end(&mut head));
    read.is_ok() && !head.is_empty() && head != PLAN
}

/// Whether two paths are one file: links of any kind included.
#[cfg(unix)]
#[must_use]
pub fn same_file(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
    a == b || id(a).is_some_and(|a| Some(a) == id(b))
}

/// Whether two paths are one file: symbolic links included.
#[cfg(not(unix))]
#[must_use]
pub fn same_file(a: &Path, b: &Path) -> bool {
    fs::canonicalize(a).is_ok_and(|a| fs::canonicalize(b).is_ok_and(|b| a == b))
}
