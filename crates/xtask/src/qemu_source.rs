//! QEMU's own tests, taken from the source package of the installed qemu-img.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;

use crate::apt::Apt;
use crate::failure::Failure;
use crate::run::Run;
use crate::scratch::{self, Scratch};
use crate::workspace;

/// Names an unpacked source to use instead of ours.
const VARIABLE: &str = "VDISK_QEMU_SRC";
/// The file in target/qemu-src that says which version it is.
const STAMP: &str = ".vdisk-version";
/// What is unpacked: the tests, the Python packages they import, and the descriptions of the formats.
const WANTED: [&str; 5] = ["*/tests/qemu-iotests", "*/python", "*/docs/interop", "*/COPYING", "*/VERSION"];

/// Where the sources are, or would be.
pub(crate) fn place() -> PathBuf {
    env::var_os(VARIABLE)
        .map_or_else(|| workspace::target().join("qemu-src"), |dir| workspace::root().join(dir))
}

/// Fetches the test sources of this QEMU version unless they are there, and says where they are.
pub(crate) fn ensure(version: &str) -> Result<PathBuf, Failure> {
    let place = place();
    if env::var_os(VARIABLE).is_some() {
        if has_tests(&place) {
            return Ok(place);
        }
        return Err(Failure::new(format!("{VARIABLE}: no QEMU tests in {}", place.display())));
    }
    let stamp = fs::read_to_string(place.join(STAMP)).unwrap_or_default();
    if has_tests(&place) && stamp.trim() == version {
        return Ok(place);
    }
    let scratch = Scratch::new("qemu-src")?;
    // apt-get drops its rights to _apt for a download, which must be able to write here.
    let tarball = Apt::detect()?.fetch_qemu_source(scratch.path())?;
    check_version(&tarball, version)?;
    unpack(&tarball, &place, version)?;
    Ok(place)
}

fn has_tests(source: &Path) -> bool {
    source.join("tests/qemu-iotests/check").is_file()
}

/// `qemu_10.0.2+ds.orig.tar.xz` is of version 10.0.2; so is `qemu_10.0.2.orig.tar.xz`.
fn check_version(tarball: &Path, version: &str) -> Result<(), Failure> {
    let name = tarball.file_name().unwrap_or_default().to_string_lossy();
    if is_of_version(&name, version) {
        return Ok(());
    }
    Err(Failure::new(format!(
        "apt has {name}, but qemu-img is version {version}; install both from one suite, or unpack the \
         source of {version} yourself and name its folder in {VARIABLE}"
    )))
}

fn is_of_version(name: &str, version: &str) -> bool {
    // Debian names a first release without its last zero: 7.2 for what calls itself 7.2.0,
    // and its stable updates state the patch level only in the program.
    let major_minor = version.strip_suffix(".0").unwrap_or(version);
    let series = version.rsplit_once('.').map_or(version, |(series, _)| series);
    let Some(stated) = name.strip_prefix("qemu_") else { return false };
    [version, major_minor, series].iter().any(|candidate| {
        stated
            .strip_prefix(candidate)
            .is_some_and(|rest| rest.starts_with(['+', '~', '-']) || rest.starts_with(".orig"))
    })
}

fn unpack(tarball: &Path, place: &Path, version: &str) -> Result<(), Failure> {
    let beside = |suffix: &str| place.with_file_name(format!("qemu-src.{suffix}-{}", process::id()));
    let (new, old) = (beside("new"), beside("old"));
    scratch::empty_folder(&new)?;
    Run::new("tar", ["--extract", "--no-same-owner", "--strip-components=1", "--wildcards"])
        .args(["--no-wildcards-match-slash", "--file"])
        .args([tarball])
        .args([Path::new("--directory"), &new])
        .args(WANTED)
        .status()?;
    if !has_tests(&new) {
        return Err(Failure::new(format!("{}: holds no tests/qemu-iotests/check", tarball.display())));
    }
    let stamp = new.join(STAMP);
    fs::write(&stamp, format!("{version}\n")).map_err(Failure::at(&stamp))?;
    // Two renames: whoever looks finds the old sources, nothing for an instant, or the new ones.
    if place.exists() {
        fs::rename(place, &old).map_err(Failure::at(place))?;
    }
    fs::rename(&new, place).map_err(Failure::at(place))?;
    scratch::remove(&old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tarball_must_be_of_the_installed_version() {
        assert!(is_of_version("qemu_10.0.2+ds.orig.tar.xz", "10.0.2"));
        assert!(is_of_version("qemu_10.0.2.orig.tar.xz", "10.0.2"));
        assert!(is_of_version("qemu_7.2+dfsg.orig.tar.xz", "7.2.22"));
        assert!(is_of_version("qemu_8.2.0.orig.tar.xz", "8.2.0"));
        assert!(!is_of_version("qemu_10.0.20+ds.orig.tar.xz", "10.0.2"));
        assert!(!is_of_version("qemu_7.2+dfsg.orig.tar.xz", "10.0.2"));
        assert!(!is_of_version("other_10.0.2.orig.tar.xz", "10.0.2"));
    }
}
