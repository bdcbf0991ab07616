//! Where things are: the top of the checkout, cargo's output, the built programs.

use std::env;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::run::Run;

/// The crates that have a binary for users: each has an example `dist`.
pub(crate) const TOOLS: [&str; 3] = ["qcow2-tool", "qed-tool", "iofuzz"];

/// The top of the checkout.
pub(crate) fn root() -> PathBuf {
    let here =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    here.ancestors().nth(2).map_or_else(|| here.clone(), Path::to_path_buf)
}

/// Where cargo puts what it builds.
pub(crate) fn cargo_target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// Where the chores keep what they fetch and unpack: always inside the checkout, as tests look there.
pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// Builds a program, `qcow2`, `qed` or `iofuzz`, and says where it is.
pub(crate) fn build_tool(name: &str) -> Result<PathBuf, Failure> {
    let is_package = |tool: &&str| *tool == name || tool.strip_suffix("-tool") == Some(name);
    let package = TOOLS.into_iter().find(is_package);
    let package = package.ok_or_else(|| Failure::new(format!("there is no program {name}")))?;
    Run::cargo(["build", "-p", package]).status()?;
    let program = cargo_target().join("debug").join(format!("{name}{}", env::consts::EXE_SUFFIX));
    if program.is_file() {
        Ok(program)
    } else {
        Err(Failure::new(format!("cargo built {package}, but there is no {}", program.display())))
    }
}

/// Where on PATH `program` is.
pub(crate) fn find_program(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(program)).find(|candidate| is_executable(candidate))
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(path: &Path) -> bool {
    path.is_file() || path.with_extension("exe").is_file()
}
