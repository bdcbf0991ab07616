//! Files, and what `qemu-img` says of them.

use std::ffi::OsStr;
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;
use vdisk_format::generate::Qcow2;

pub(crate) fn folder() -> TempDir {
    let shared_memory = Path::new("/dev/shm");
    if shared_memory.is_dir() { TempDir::new_in(shared_memory) } else { TempDir::new() }.unwrap()
}

pub(crate) fn run<S: AsRef<OsStr>>(program: &str, folder: &Path, args: &[S]) -> Output {
    match Command::new(program).current_dir(folder).args(args).output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => panic!(
            "{program} is not installed: this test compares with it. Install it (on Debian in qemu-utils)."
        ),
        Err(error) => panic!("{program} could not be started: {error}"),
    }
}

/// Runs qemu-img, which must succeed, and gives its output.
pub(crate) fn qemu_img(folder: &Path, args: &[&str]) -> String {
    let output = run("qemu-img", folder, args);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "qemu-img {args:?}: {}\n{out}{err}", output.status);
    out.into_owned()
}

pub(crate) fn write(wanted: &Qcow2, folder: &Path, name: &str) -> u64 {
    wanted.write_to(&mut File::create(folder.join(name)).unwrap()).unwrap()
}

/// The values of all `"key": value` lines of qemu-img's JSON, without quotes.
pub(crate) fn values<'a>(json: &'a str, key: &str) -> Vec<&'a str> {
    let key = format!("\"{key}\": ");
    let lines = json.lines().filter_map(|line| line.trim().strip_prefix(&key));
    lines.map(|value| value.trim_end_matches(',').trim_matches('"')).collect()
}
