//! A folder that is gone when the chore is done with it.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;

use crate::failure::Failure;

/// A fresh, empty folder below the system's place for temporary files.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Makes the folder; `purpose` is part of its name.
    pub(crate) fn new(purpose: &str) -> Result<Scratch, Failure> {
        let base = env::temp_dir();
        for attempt in 0..1000 {
            let path = base.join(format!("vdisk-{purpose}-{}-{attempt}", process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Scratch(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Failure::at(&path)(error)),
            }
        }
        Err(Failure::new(format!("{}: full of old folders of ours", base.display())))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left behind in a temporary folder is no reason to fail.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Makes `path` an empty folder, whatever was there.
pub(crate) fn empty_folder(path: &Path) -> Result<(), Failure> {
    remove(path)?;
    fs::create_dir_all(path).map_err(Failure::at(path))
}

/// Removes the folder `path` if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::at(path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_are_distinct_and_both_go_away() {
        let (a, b) = (Scratch::new("test").unwrap(), Scratch::new("test").unwrap());
        let (first, second) = (a.path().to_owned(), b.path().to_owned());
        assert_ne!(first, second);
        drop((a, b));
        assert!(!first.exists() && !second.exists());
    }
}
