//! Folders for images, which vanish with the test.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// An empty folder, in memory where there is a place for that: a commit syncs several times.
#[must_use]
pub fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let builder = tempfile::Builder::new().prefix("vdisk-it-").to_owned();
    if memory.is_dir() { builder.tempdir_in(memory) } else { builder.tempdir() }.unwrap()
}

/// The names in a folder, sorted.
#[must_use]
pub fn names(folder: &Path) -> Vec<OsString> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

/// The path as text; ours are all plain.
#[must_use]
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What has to be unchanged after a command that failed: the image, its folder and its times.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot {
    names: Vec<OsString>,
    bytes: Vec<u8>,
    modified: std::time::SystemTime,
}

impl Snapshot {
    /// Of `image`, as it is now.
    #[must_use]
    pub fn of(image: &Path) -> Snapshot {
        Snapshot {
            names: names(image.parent().unwrap()),
            bytes: fs::read(image).unwrap(),
            modified: fs::metadata(image).unwrap().modified().unwrap(),
        }
    }

    /// The image's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Fails where anything is not as it was; `because` says what was tried.
    #[track_caller]
    pub fn unchanged(&self, image: &Path, because: impl std::fmt::Display) {
        let now = Snapshot::of(image);
        assert_eq!(now.names, self.names, "files beside the image after: {because}");
        assert!(now.bytes == self.bytes, "the image changed: {because}");
        assert_eq!(now.modified, self.modified, "the image was written to: {because}");
    }
}
