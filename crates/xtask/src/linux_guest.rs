//! A real Linux guest for the tests: Debian's kernels, and an initramfs with its busybox. Fetched, not installed.

mod cpio;

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::run::{Run, quote};
use crate::scratch::Scratch;
use crate::workspace;
use cpio::Cpio;

const INIT: &str = include_str!("linux_guest/init.sh");
/// What is in the folder when it is complete.
const FILES: [&str; 3] = ["vmlinuz", "vmlinuz-cloud", "initramfs.cpio"];

/// Where the guest's files are, or would be.
fn place() -> PathBuf {
    workspace::target().join("linux-guest")
}

/// Fetches the kernels and makes the initramfs unless they are there, and says where they are.
pub(crate) fn ensure() -> Result<PathBuf, Failure> {
    let place = place();
    let stamp = place.join("init.sh");
    let up_to_date = fs::read_to_string(&stamp).is_ok_and(|init| init == INIT);
    if up_to_date && FILES.iter().all(|file| place.join(file).is_file()) {
        return Ok(place);
    }
    fs::create_dir_all(&place).map_err(Failure::at(&place))?;
    let kernels = [("vmlinuz", "linux-image-amd64"), ("vmlinuz-cloud", "linux-image-cloud-amd64")];
    for (file, package) in kernels {
        let kernel = place.join(file);
        if !kernel.is_file() {
            fetch(&newest_of(package)?, "./boot/vmlinuz-*", &kernel)?;
        }
    }
    let busybox = place.join("busybox");
    if !busybox.is_file() {
        fetch("busybox-static", "./bin/busybox", &busybox)?;
    }
    let busybox = fs::read(&busybox).map_err(Failure::at(&busybox))?;
    let initramfs = place.join("initramfs.cpio");
    fs::write(&initramfs, archive(&busybox)).map_err(Failure::at(&initramfs))?;
    fs::write(&stamp, INIT).map_err(Failure::at(&stamp))?;
    Ok(place)
}

fn archive(busybox: &[u8]) -> Vec<u8> {
    let mut cpio = Cpio::new();
    ["bin", "dev", "etc", "proc", "sys", "tmp", "root"].iter().for_each(|folder| cpio.folder(folder));
    // The kernel opens it for init, before there is a /dev.
    cpio.device("dev/console", 5, 1);
    cpio.program("bin/busybox", busybox);
    cpio.program("init", INIT.as_bytes());
    cpio.finish()
}

/// The package that `package`, which has nothing itself, depends on.
fn newest_of(package: &str) -> Result<String, Failure> {
    let text = Run::new("apt-cache", ["depends", package]).stdout()?;
    dependency(&text).ok_or_else(|| Failure::new(format!("apt-cache knows no kernel behind {package}")))
}

fn dependency(text: &str) -> Option<String> {
    let kernel = |line: &str| {
        line.trim()
            .strip_prefix("Depends: ")
            .filter(|name| name.starts_with("linux-image-"))
            .map(str::to_owned)
    };
    text.lines().find_map(kernel)
}

/// Downloads a package, without installing it, and takes the one file that `wanted` matches out of it.
fn fetch(package: &str, wanted: &str, to: &Path) -> Result<(), Failure> {
    let scratch = Scratch::new("linux-guest")?;
    let downloaded = Run::new("apt-get", ["download", "-q", package]).dir(scratch.path()).output()?;
    if !downloaded.success {
        return Err(Failure::new(format!(
            "apt-get download {package} failed; is `apt-get update` due?\n{}",
            downloaded.stderr
        )));
    }
    let script = format!(
        "dpkg --fsys-tarfile *.deb | tar --extract --wildcards {} && mv {wanted} found",
        quote(wanted)
    );
    Run::new("sh", ["-ec", &script]).dir(scratch.path()).status()?;
    let new = to.with_extension("new");
    fs::copy(scratch.path().join("found"), &new).map_err(Failure::at(&new))?;
    fs::rename(&new, to).map_err(Failure::at(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_behind_the_package_without_contents() {
        let text = "linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n  Suggests: x\n";
        assert_eq!(dependency(text).as_deref(), Some("linux-image-6.1.0-56-amd64"));
        assert_eq!(dependency("linux-image-amd64\n"), None);
    }

    #[test]
    fn the_archive_has_an_init() {
        let archive = archive(b"BUSYBOX");
        let has = |text: &[u8]| archive.windows(text.len()).any(|window| window == text);
        assert!(has(b"init\0") && has(INIT.as_bytes()) && has(b"BUSYBOX") && has(b"dev/console\0"));
    }
}
