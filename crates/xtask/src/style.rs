//! `style`: the house rules that neither rustfmt nor clippy knows.

use std::fs;
use std::path::Path;

use crate::failure::Failure;
use crate::lexer::{code_only, has_word};
use crate::run::Run;
use crate::workspace;

/// A source file stops here; a longer one holds two subjects.
const MAX_LINES: usize = 600;
/// A tracked file stops here: test images are generated, not kept.
const MAX_BYTES: usize = 512 * 1024;

/// One file of the repository.
struct File {
    /// Its path below the top, with forward slashes.
    path: String,
    bytes: Vec<u8>,
}

/// Reads every file that git has or would add, and holds it against the rules.
pub(crate) fn style() -> Result<(), Failure> {
    let root = workspace::root();
    let files = repository_files(&root)?;
    let mut faults = Vec::new();
    for file in &files {
        check_file(file, &root.to_string_lossy(), &mut faults);
    }
    check_unsafe(&files, &mut faults);
    if faults.is_empty() {
        println!("style: {} files, nothing to say", files.len());
        return Ok(());
    }
    for fault in &faults {
        eprintln!("{fault}");
    }
    Err(Failure::new(format!("style: faults found: {}", faults.len())))
}

fn repository_files(root: &Path) -> Result<Vec<File>, Failure> {
    // A clone that belongs to another user, as on some builders, is no reason for git to refuse.
    let names = Run::new("git", ["-c", "safe.directory=*", "ls-files", "-z"])
        .args(["--cached", "--others", "--exclude-standard"])
        .stdout()?;
    let mut files = Vec::new();
    for name in names.split_terminator('\0') {
        let path = root.join(name);
        // A file deleted but not yet staged, or a link, has nothing to hold against the rules.
        if path.is_file() && !path.is_symlink() {
            let bytes = fs::read(&path).map_err(Failure::at(&path))?;
            files.push(File { path: name.to_owned(), bytes });
        }
    }
    Ok(files)
}

fn check_file(file: &File, checkout: &str, faults: &mut Vec<String>) {
    let path = &file.path;
    if file.bytes.len() > MAX_BYTES {
        faults.push(format!("{path}: {} bytes; a file in git stops at {MAX_BYTES}", file.bytes.len()));
    }
    let Ok(text) = std::str::from_utf8(&file.bytes) else { return };
    for (index, line) in text.lines().enumerate() {
        if names_path(line, checkout) {
            faults.push(format!("{path}:{}: names the folder of this checkout", index + 1));
        }
    }
    if !path.ends_with(".rs") {
        return;
    }
    let lines = text.lines().count();
    let budgeted = path.starts_with("crates/") && path.contains("/src/");
    if budgeted && lines > MAX_LINES {
        faults.push(format!("{path}: {lines} lines; a source file stops at {MAX_LINES}"));
    }
    for (index, line) in text.lines().enumerate() {
        for mark in [concat!("TO", "DO"), concat!("FIX", "ME")].iter().filter(|mark| has_word(line, mark)) {
            faults.push(format!("{path}:{}: {mark}; do it or open an issue", index + 1));
        }
    }
    for (index, line) in code_only(text).lines().enumerate() {
        let at = index + 1;
        let squeezed: String = line.chars().filter(|c| !c.is_whitespace()).collect();
        for call in ["todo!", "unimplemented!"].iter().filter(|call| squeezed.contains(**call)) {
            faults.push(format!("{path}:{at}: {call}; a verb ships whole or not at all"));
        }
        if squeezed.contains("#[ignore") {
            faults.push(format!("{path}:{at}: an ignored test; run it or remove it"));
        }
        if squeezed.contains("#[allow(") || squeezed.contains("#![allow(") {
            faults.push(format!("{path}:{at}: allow; use #[expect(…, reason = \"…\")]"));
        }
    }
}

/// Whether `line` has the absolute path of the checkout, not merely a longer path that begins alike.
fn names_path(line: &str, checkout: &str) -> bool {
    if checkout.matches('/').count() < 2 {
        return false;
    }
    let part = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    line.match_indices(checkout).any(|(at, _)| {
        !line.get(at + checkout.len()..).and_then(|rest| rest.chars().next()).is_some_and(part)
    })
}

/// Holds ARCHITECTURE.md's list of modules with unsafe code and the code together.
fn check_unsafe(files: &[File], faults: &mut Vec<String>) {
    let text_of = |file: &File| String::from_utf8_lossy(&file.bytes).into_owned();
    let architecture = files.iter().find(|file| file.path == "ARCHITECTURE.md").map(text_of);
    let listed = unsafe_list(architecture.as_deref().unwrap_or_default());
    for file in files.iter().filter(|file| file.path.ends_with(".rs")) {
        let is_unsafe = has_word(&code_only(&text_of(file)), "unsafe");
        match (is_unsafe, listed.contains(&file.path)) {
            (true, false) => faults.push(format!(
                "{}: has unsafe code, but is not in ARCHITECTURE.md's list of modules that may",
                file.path
            )),
            (false, true) => {
                faults.push(format!("ARCHITECTURE.md: lists {} as unsafe, which it is not", file.path));
            }
            _ => {}
        }
    }
    for path in listed.iter().filter(|path| !files.iter().any(|file| file.path == **path)) {
        faults.push(format!("ARCHITECTURE.md: lists {path} as unsafe; there is no such file"));
    }
}

/// The backticked `.rs` paths in the bullets of the section whose heading says "unsafe".
fn unsafe_list(architecture: &str) -> Vec<String> {
    let mut inside = false;
    let mut paths = Vec::new();
    for line in architecture.lines() {
        if line.starts_with('#') {
            inside = line.to_lowercase().contains("unsafe");
        } else if inside && (line.starts_with("- ") || line.starts_with("* ")) {
            paths
                .extend(line.split('`').skip(1).step_by(2).filter(|p| p.ends_with(".rs")).map(str::to_owned));
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), bytes: text.as_bytes().to_vec() }
    }

    fn faults(path: &str, text: &str) -> Vec<String> {
        let mut faults = Vec::new();
        check_file(&file(path, text), "/home/someone/vdisk", &mut faults);
        faults
    }

    #[test]
    fn clean_code_passes() {
        assert!(faults("crates/a/src/lib.rs", "//! Fine.\nfn f() {}\n").is_empty());
        assert!(faults("crates/a/src/lib.rs", "const NAME: &str = \"todo!() #[ignore]\";\n").is_empty());
    }

    #[test]
    fn long_files_only_in_sources() {
        let long = "\n".repeat(MAX_LINES + 1);
        assert_eq!(faults("crates/a/src/b.rs", &long).len(), 1);
        assert!(faults("crates/a/tests/b.rs", &long).is_empty());
        assert!(faults("crates/a/src/b.rs", &"\n".repeat(MAX_LINES)).is_empty());
    }

    #[test]
    fn leftovers_are_found() {
        for line in [
            "todo!()",
            "unimplemented!()",
            "#[ignore]",
            "#[ignore = \"slow\"]",
            "#[ allow(x)]",
            "#![allow(x)]",
        ] {
            assert_eq!(faults("fuzz/a.rs", line).len(), 1, "{line}");
        }
        assert_eq!(faults("a.rs", concat!("// TO", "DO: later")).len(), 1);
        assert_eq!(faults("a.rs", concat!("// FIX", "ME")).len(), 1);
    }

    #[test]
    fn big_files_and_local_paths() {
        assert_eq!(faults("a.bin", &"x".repeat(MAX_BYTES + 1)).len(), 1);
        assert_eq!(faults("README.md", "see /home/someone/vdisk/x").len(), 1);
        assert_eq!(faults("README.md", "at /home/someone/vdisk").len(), 1);
        assert!(faults("README.md", "see /home/someone/vdisk-tools/x").is_empty());
    }

    #[test]
    fn a_checkout_at_the_top_is_no_name_to_search_for() {
        assert!(!names_path("see /src/x", "/src"));
    }

    const LIST: &str =
        "# A\n- `no.rs`\n## Where unsafe code is\ntext `not.rs`\n- `a.rs` the map\n\n# B\n- `no.rs`\n";

    #[test]
    fn the_list_is_the_bullets_of_its_section() {
        assert_eq!(unsafe_list(LIST), ["a.rs"]);
    }

    #[test]
    fn list_and_code_agree() {
        let check = |files: &[File]| {
            let mut faults = Vec::new();
            check_unsafe(files, &mut faults);
            faults.len()
        };
        let list = || file("ARCHITECTURE.md", LIST);
        let map = || file("a.rs", "fn f() { unsafe { g() } }");
        assert_eq!(check(&[list(), map()]), 0);
        assert_eq!(check(&[map()]), 1, "not listed");
        assert_eq!(check(&[list()]), 1, "no such file");
        assert_eq!(check(&[list(), file("a.rs", "// unsafe\nfn f() {}")]), 1, "listed in vain");
        assert_eq!(check(&[list(), map(), file("b.rs", "#![deny(unsafe_code)]")]), 0);
    }
}
