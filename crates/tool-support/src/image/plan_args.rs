//! The options of every command that changes an image, and the way from a plan to a commit.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use vdisk_format::undo::UndoPlace;
use vdisk_format::{Image, Plan};

use super::show::Shown;
use super::{Format, OpenArgs, sigbus};
use crate::output::Out;
use crate::status::{Failure, Outcome};

/// Where undo records go.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct UndoDirArgs {
    /// Keep undo records in this folder instead of beside the image
    #[arg(long, value_name = "DIR", env = "VDISK_UNDO_DIR")]
    undo_dir: Option<PathBuf>,
}

impl UndoDirArgs {
    /// Where a new record goes: the folder given; else beside the image; else, where that folder cannot be written or
    /// the image is a device, the user's state folder.
    pub(super) fn place(&self, image: &Path) -> Outcome<UndoPlace> {
        if let Some(dir) = &self.undo_dir {
            return Ok(UndoPlace::in_dir(dir, image)?);
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

    /// Where the records are: as for a new one, but in the state folder if there are none beside the image.
    pub(super) fn place_of_records(&self, image: &Path) -> Outcome<UndoPlace> {
        let place = self.place(image)?;
        if self.undo_dir.is_none() && place.last()?.is_none() {
            // The folder may have been read-only then.
            if let Some(state) = state_dir().filter(|state| state.is_dir()) {
                return Ok(UndoPlace::in_dir(&state, image)?);
            }
        }
        Ok(place)
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
        let image = self.open(open, path)?;
        let plan = make(image.bytes())?;
        if self.show(format, json, path, &image, &plan)? {
            return Ok(());
        }
        let undo = self.undo_place(path)?;
        committing(|| Ok(plan.commit(image, undo.as_ref(), format.fingerprint)?))
    }

    /// Opens for writing only where something will be written.
    pub(super) fn open(&self, open: OpenArgs, path: &Path) -> Outcome<Image> {
        if self.dry_run || self.save_plan.is_some() { open.read(path) } else { open.write(path) }
    }

    /// Where the undo record goes, if one is wanted. Also without one, an interrupted commit comes first.
    pub(super) fn undo_place(&self, path: &Path) -> Outcome<Option<UndoPlace>> {
        if !self.no_undo {
            return self.undo_dir.place(path).map(Some);
        }
        if let Ok(place) = self.undo_dir.place(path) {
            place.refuse_interrupted()?;
        }
        Ok(None)
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
            let shown = Shown::new(format, path, image, plan);
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
    if let (Ok(file), Ok(image)) = (fs::canonicalize(file), fs::canonicalize(image))
        && same_file(&file, &image)
    {
        return Err(Failure::usage("--save-plan names the image itself"));
    }
    fs::write(file, plan.to_text())
        .map_err(|error| Failure::failed(format!("cannot save the plan {}: {error}", file.display())))
}

/// Whether two paths, both canonical, are one file: hard links included.
#[cfg(unix)]
fn same_file(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
    a == b || id(a).is_some_and(|a| Some(a) == id(b))
}

#[cfg(not(unix))]
fn same_file(a: &Path, b: &Path) -> bool {
    a == b
}
