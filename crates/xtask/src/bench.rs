//! `bench`: the release programs, measured as whole processes.

use std::ffi::OsString;

use crate::failure::Failure;
use crate::run::Run;
use crate::workspace;

/// Builds the release programs and hands the benchmark program their folder.
pub(crate) fn bench(args: &[String]) -> Result<(), Failure> {
    Run::cargo(["build", "--release", "--bins"]).status()?;
    run(args)
}

/// Fails where `qcow2 check` takes more instructions than it did.
pub(crate) fn gate() -> Result<(), Failure> {
    Run::cargo(["build", "--release", "--bins", "-p", "qcow2-tool", "-p", "vdisk-benches"]).status()?;
    run(&["--gate".to_owned()])
}

fn run(args: &[String]) -> Result<(), Failure> {
    let programs = workspace::cargo_target().join("release");
    let fixed: [OsString; 7] = [
        "run".into(),
        "--release".into(),
        "-p".into(),
        "vdisk-benches".into(),
        "--".into(),
        "--bin-dir".into(),
        programs.into(),
    ];
    Run::cargo(fixed).args(args).status()
}
