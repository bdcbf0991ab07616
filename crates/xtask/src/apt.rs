//! apt-get, for `deps`: which suite QEMU comes from, who may install, where sources are listed.

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::run::{Output, Run, quote};
use crate::workspace;

/// The file we add to apt's sources where something is not listed.
const OUR_LIST: &str = "/etc/apt/sources.list.d/vdisk-tools.sources";
const DEBIAN_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const UBUNTU_KEYRING: &str = "/usr/share/keyrings/ubuntu-archive-keyring.gpg";

/// What this release of the distribution needs.
pub(crate) struct Apt {
    distribution: String,
    codename: String,
}

impl Apt {
    /// Reads /etc/os-release; a system without apt-get is a failure that says what to install.
    pub(crate) fn detect() -> Result<Apt, Failure> {
        if workspace::find_program("apt-get").is_none() {
            return Err(Failure::new(
                "this system has no apt-get: install QEMU (qemu-img, qemu-io, qemu-nbd, \
                 qemu-storage-daemon and qemu-system-x86_64 of one version), python3, strace and xz, \
                 and point VDISK_QEMU_SRC at an unpacked source of that QEMU",
            ));
        }
        let path = Path::new("/etc/os-release");
        let text = fs::read_to_string(path).map_err(Failure::at(path))?;
        let field = |name| os_release_field(&text, name).unwrap_or_default();
        Ok(Apt { distribution: field("ID"), codename: field("VERSION_CODENAME") })
    }

    /// The suite both QEMU packages are taken from, where it is not the release itself.
    ///
    /// Debian 12: qemu-utils may be installed from backports already, and a plain
    /// `apt-get install qemu-system-x86` would then take 7.2 and remove it.
    pub(crate) fn suite(&self) -> Option<&'static str> {
        (self.distribution == "debian" && self.codename == "bookworm").then_some("bookworm-backports")
    }

    /// Installs `packages`, all from one suite.
    pub(crate) fn install(&self, packages: &[&str]) -> Result<(), Failure> {
        let mut script = Vec::new();
        if let Some(suite) = self.suite()
            && !listed_suites().contains(suite)
        {
            script.push(self.write_list(suite));
        }
        script.push("apt-get update -q".to_owned());
        let suite = self.suite().map(|suite| format!("-t {suite} ")).unwrap_or_default();
        script.push(format!(
            "DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends {suite}{}",
            packages.join(" ")
        ));
        as_root(&script.join(" && "))
    }

    /// Fetches the original tarball of the installed QEMU's source package into `dir`.
    pub(crate) fn fetch_qemu_source(&self, dir: &Path) -> Result<PathBuf, Failure> {
        let mut output = self.fetch_once(dir)?;
        if !output.success {
            eprint!("{}", output.stderr);
            eprintln!("xtask: apt knows no sources of QEMU yet");
            let suite = self.suite().map_or_else(|| self.codename.clone(), str::to_owned);
            let list = if source_suites().contains(&suite) {
                String::new()
            } else {
                format!("{} && ", self.write_list(&suite))
            };
            as_root(&format!("{list}apt-get update -q"))?;
            output = self.fetch_once(dir)?;
        }
        if !output.success {
            return Err(Failure::new(format!("apt-get source qemu failed:\n{}", output.stderr)));
        }
        find_tarball(dir)
    }

    /// The exact version first; a mirror may have dropped its entry but kept a newer one.
    fn fetch_once(&self, dir: &Path) -> Result<Output, Failure> {
        let get = |suite: &[&str], what: String| {
            Run::new("apt-get", ["source", "-q", "--download-only", "--tar-only"])
                .args(suite)
                .args([what])
                .dir(dir)
                .output()
        };
        let query = Run::new("dpkg-query", ["-W", "-f=${source:Version}", "qemu-utils"]).output()?;
        if query.success && !query.stdout.is_empty() {
            let exact = get(&[], format!("qemu={}", query.stdout.trim()))?;
            if exact.success {
                return Ok(exact);
            }
        }
        match self.suite() {
            Some(suite) => get(&["-t", suite], "qemu".to_owned()),
            None => get(&[], "qemu".to_owned()),
        }
    }

    /// The shell command that lists packages and sources of `suite`.
    fn write_list(&self, suite: &str) -> String {
        let (uri, components, keyring) = match self.distribution.as_str() {
            "ubuntu" => ("http://archive.ubuntu.com/ubuntu", "main universe", UBUNTU_KEYRING),
            _ => ("http://deb.debian.org/debian", "main", DEBIAN_KEYRING),
        };
        // Two keys for one suite are an error that stops apt altogether: take over what is stated.
        let lists: String = list_files().iter().map(|(_, text)| listing(text, suite)).collect();
        let (types, key) = match lists.is_empty() {
            true => ("deb deb-src", Path::new(keyring).is_file().then(|| keyring.to_owned())),
            false => ("deb-src", signed_by(&lists)),
        };
        let key = key.map(|key| format!("\\nSigned-By: {key}")).unwrap_or_default();
        let text =
            format!("Types: {types}\\nURIs: {uri}\\nSuites: {suite}\\nComponents: {components}{key}\\n");
        format!("printf {} > {OUR_LIST}", quote(&text))
    }
}

/// Runs a shell script as root, or fails with the one line to type.
fn as_root(script: &str) -> Result<(), Failure> {
    let is_root = Run::new("id", ["-u"]).stdout()?.trim() == "0";
    if is_root {
        return Run::new("sh", ["-c", script]).status();
    }
    let sudo = workspace::find_program("sudo").is_some();
    if sudo && Run::new("sudo", ["-n", "true"]).output()?.success {
        return Run::new("sudo", ["-n", "sh", "-c", script]).status();
    }
    Err(Failure::new(format!(
        "this needs root; type this line and try again:\n\nsudo sh -c {}\n",
        quote(script)
    )))
}

/// The suites listed for anything, as one text to search in.
fn listed_suites() -> String {
    list_files().iter().map(|(_, text)| without_comments(text)).collect()
}

/// The suites listed with their sources, as one text to search in.
fn source_suites() -> String {
    list_files().iter().map(|(path, text)| source_part(path, text)).collect()
}

fn list_files() -> Vec<(PathBuf, String)> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
    }
    files.retain(|path| {
        path.extension().is_some_and(|extension| extension == "list" || extension == "sources")
    });
    files.into_iter().filter_map(|path| fs::read_to_string(&path).ok().map(|text| (path, text))).collect()
}

fn without_comments(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with('#')).flat_map(|line| [line, "\n"]).collect()
}

fn source_part(path: &Path, text: &str) -> String {
    let text = without_comments(text);
    if path.extension().is_some_and(|extension| extension == "list") {
        return text
            .lines()
            .filter(|line| line.starts_with("deb-src"))
            .flat_map(|line| [line, "\n"])
            .collect();
    }
    let wanted = |stanza: &&str| stanza.lines().any(|l| l.starts_with("Types:") && l.contains("deb-src"));
    text.split("\n\n").filter(wanted).flat_map(|stanza| [stanza, "\n"]).collect()
}

/// `text` without comments where it lists `suite`, otherwise nothing.
fn listing(text: &str, suite: &str) -> String {
    let text = without_comments(text);
    let stanzas = text.split("\n\n").flat_map(|stanza| match stanza.contains("Types:") {
        true => vec![stanza],
        false => stanza.lines().collect(),
    });
    let of_suite = |part: &&str| part.split_whitespace().any(|word| word == suite);
    stanzas.filter(of_suite).flat_map(|part| [part, "\n"]).collect()
}

/// The key that a listing in either form names.
fn signed_by(listing: &str) -> Option<String> {
    let (_, after) = listing.split_once("Signed-By:").or_else(|| listing.split_once("signed-by="))?;
    let key = after.split(|c: char| c.is_whitespace() || c == ']').find(|word| !word.is_empty())?;
    key.starts_with('/').then(|| key.to_owned())
}

fn find_tarball(dir: &Path) -> Result<PathBuf, Failure> {
    let entries = fs::read_dir(dir).map_err(Failure::at(dir))?;
    let mut names = entries.filter_map(|entry| Some(entry.ok()?.path()));
    names
        .find(|path| path.to_string_lossy().contains(".orig.tar"))
        .ok_or_else(|| Failure::new("apt-get source fetched no .orig.tar file"))
}

fn os_release_field(text: &str, name: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apt(distribution: &str, codename: &str) -> Apt {
        Apt { distribution: distribution.to_owned(), codename: codename.to_owned() }
    }

    #[test]
    fn only_debian_12_takes_backports() {
        assert_eq!(apt("debian", "bookworm").suite(), Some("bookworm-backports"));
        assert_eq!(apt("debian", "trixie").suite(), None);
        assert_eq!(apt("ubuntu", "noble").suite(), None);
    }

    #[test]
    fn the_list_we_write_has_packages_and_sources() {
        let command = apt("debian", "bookworm").write_list("a-suite-not-listed");
        assert!(command.contains("Types: deb deb-src") && command.contains("Suites: a-suite-not-listed"));
        assert!(apt("ubuntu", "noble").write_list("noble").contains("main universe"));
    }

    #[test]
    fn the_key_is_the_one_stated_for_the_suite() {
        let stanzas = "Types: deb\nSuites: a a-updates\nSigned-By: /k/a.pgp\n\nTypes: deb\nSuites: b\nSigned-By: /k/b.gpg\n";
        assert_eq!(signed_by(&listing(stanzas, "b")).as_deref(), Some("/k/b.gpg"));
        assert_eq!(signed_by(&listing(stanzas, "a")).as_deref(), Some("/k/a.pgp"));
        assert!(listing(stanzas, "c").is_empty());
        let lines = "# deb http://x c main\ndeb [signed-by=/k/b.gpg] http://x b main\ndeb http://x a main\n";
        assert_eq!(signed_by(&listing(lines, "b")).as_deref(), Some("/k/b.gpg"));
        assert_eq!(signed_by(&listing(lines, "a")), None);
        assert!(!listing(lines, "a").is_empty() && listing(lines, "c").is_empty());
    }

    #[test]
    fn os_release_with_and_without_quotes() {
        let text = "ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n";
        assert_eq!(os_release_field(text, "ID").as_deref(), Some("debian"));
        assert_eq!(os_release_field(text, "VERSION_ID").as_deref(), Some("12"));
        assert_eq!(os_release_field(text, "NAME"), None);
    }

    #[test]
    fn sources_are_found_in_both_forms() {
        let stanza = "Types: deb\nSuites: a\n\nTypes: deb deb-src\nSuites: b\n";
        let found = source_part(Path::new("x.sources"), stanza);
        assert!(found.contains("Suites: b") && !found.contains("Suites: a"));
        let line = "deb http://x a main\n# deb-src http://x c main\ndeb-src http://x b main\n";
        assert_eq!(source_part(Path::new("x.list"), line), "deb-src http://x b main\n");
    }
}
