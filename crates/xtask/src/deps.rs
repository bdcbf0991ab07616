//! `deps`: everything the tests need that cargo does not fetch.
//!
//! Fast and silent about what is there already. Anything missing is installed with apt-get, as
//! root or with a sudo that asks for no password; otherwise the line to type is the failure.

use std::path::Path;

use crate::apt::Apt;
use crate::failure::Failure;
use crate::linux_guest;
use crate::qemu_source;
use crate::run::Run;
use crate::workspace;

/// Each program that a test or a chore runs, and the Debian package it comes in.
const PROGRAMS: &[(&str, &str)] = &[
    ("qemu-img", "qemu-utils"),
    ("qemu-io", "qemu-utils"),
    ("qemu-nbd", "qemu-utils"),
    ("qemu-storage-daemon", "qemu-utils"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("python3", "python3"),
    ("strace", "strace"),
    ("valgrind", "valgrind"),
    ("xz", "xz-utils"),
];

/// The two packages that must come from one suite.
const QEMU_PACKAGES: [&str; 2] = ["qemu-system-x86", "qemu-utils"];

/// Installs what is missing and fetches QEMU's test sources and a Linux guest.
pub(crate) fn deps() -> Result<(), Failure> {
    let packages = missing_packages(|program| workspace::find_program(program).is_some(), versions_differ);
    if !packages.is_empty() {
        eprintln!("xtask: to be installed: {}", packages.join(" "));
        Apt::detect()?.install(&packages)?;
        recheck()?;
    }
    let version = qemu_version("qemu-img")?;
    let sources = qemu_source::ensure(&version)?;
    println!("deps: QEMU {version}, its test sources in {}", shown(&sources));
    let guest = linux_guest::ensure()?;
    println!("deps: a Linux guest in {}", shown(&guest));
    Ok(())
}

/// The packages to install; QEMU's two always together, as one alone may pull the other away.
fn missing_packages(present: impl Fn(&str) -> bool, differ: impl Fn() -> bool) -> Vec<&'static str> {
    let missing = PROGRAMS.iter().filter(|(program, _)| !present(program)).map(|(_, package)| *package);
    let mut packages: Vec<&str> = missing.collect();
    let no_qemu = packages.iter().any(|package| QEMU_PACKAGES.contains(package));
    if no_qemu || differ() {
        packages.extend(QEMU_PACKAGES);
    }
    packages.sort_unstable();
    packages.dedup();
    packages
}

fn versions_differ() -> bool {
    match (qemu_version("qemu-img"), qemu_version("qemu-system-x86_64")) {
        (Ok(img), Ok(system)) if img == system => false,
        (img, system) => {
            let show =
                |version: Result<String, Failure>| version.unwrap_or_else(|failure| failure.to_string());
            eprintln!("xtask: qemu-img is {}, qemu-system-x86_64 is {}", show(img), show(system));
            true
        }
    }
}

fn recheck() -> Result<(), Failure> {
    let missing: Vec<&str> = PROGRAMS
        .iter()
        .map(|(program, _)| *program)
        .filter(|program| workspace::find_program(program).is_none())
        .collect();
    if !missing.is_empty() {
        return Err(Failure::new(format!("still not on PATH after installing: {}", missing.join(" "))));
    }
    if versions_differ() {
        return Err(Failure::new(
            "qemu-utils and qemu-system-x86 are of different versions even after installing both; \
             remove the one that stands in the way",
        ));
    }
    Ok(())
}

/// The version that `program --version` states.
pub(crate) fn qemu_version(program: &str) -> Result<String, Failure> {
    let text = Run::new(program, ["--version"]).stdout()?;
    parse_version(&text)
        .ok_or_else(|| Failure::new(format!("`{program} --version` states no version: {}", text.trim())))
}

fn parse_version(text: &str) -> Option<String> {
    let mut words = text.split_whitespace().skip_while(|word| *word != "version").skip(1);
    words.next().filter(|word| word.starts_with(|c: char| c.is_ascii_digit())).map(str::to_owned)
}

fn shown(path: &Path) -> String {
    path.strip_prefix(workspace::root()).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_missing_installs_nothing() {
        assert!(missing_packages(|_| true, || false).is_empty());
    }

    #[test]
    fn the_qemu_packages_go_together() {
        assert_eq!(missing_packages(|p| p != "qemu-io", || false), QEMU_PACKAGES);
        assert_eq!(missing_packages(|p| p != "qemu-system-x86_64", || true), QEMU_PACKAGES);
        assert_eq!(missing_packages(|_| true, || true), QEMU_PACKAGES);
        assert_eq!(missing_packages(|p| p != "strace", || false), ["strace"]);
    }

    #[test]
    fn both_kinds_of_version_line() {
        let debian = "qemu-img version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright";
        assert_eq!(parse_version(debian).as_deref(), Some("10.0.2"));
        assert_eq!(parse_version("QEMU emulator version 9.1.0\n").as_deref(), Some("9.1.0"));
        assert_eq!(parse_version("nothing"), None);
    }
}
