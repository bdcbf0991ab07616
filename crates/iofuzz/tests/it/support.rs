//! The binary under test, and the machines that it is tested on.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tempfile::TempDir;
use test_support::process::{Run, run_within};
use test_support::program::Program;
use test_support::scratch::scratch;

pub(crate) const IOFUZZ: Program = Program::new(env!("CARGO_BIN_EXE_iofuzz"));
/// QEMU's device with the fault that all the examples find.
pub(crate) const TESTDEV: [&str; 6] = ["--", "-M", "pc", "-nodefaults", "-device", "pc-testdev"];
/// The smallest machine.
pub(crate) const BARE: [&str; 4] = ["--", "-M", "pc", "-nodefaults"];
/// What `pc-testdev` dies of.
pub(crate) const ABORT: &str =
    "SIGABRT: hw/isa/isa-bus.c:N: isa_bus_get_irq: Assertion `irqnum < ISA_NUM_IRQS' failed.";

/// A folder to run in.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        // A QEMU has to be there for nearly all of them.
        drop(test_support::qemu::program("qemu-system-x86_64"));
        Self(scratch())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = IOFUZZ.command();
        command.current_dir(self.0.path()).args(args);
        command
    }

    /// `iofuzz ARGS…`, whatever comes of it.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Run {
        run_within(&mut self.command(args), b"", Duration::from_secs(60))
    }

    /// `iofuzz ARGS… -- MACHINE…`
    #[track_caller]
    pub(crate) fn run_on(&self, machine: &[&str], args: &[&str]) -> Run {
        self.run(&[args, machine].concat())
    }

    /// The same without a QEMU on PATH.
    #[track_caller]
    pub(crate) fn run_without_qemu(&self, args: &[&str]) -> Run {
        run_within(self.command(args).env("PATH", "/nonexistent"), b"", Duration::from_secs(60))
    }

    /// A file with `text`.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// The document that a run printed.
#[track_caller]
pub(crate) fn document<T: DeserializeOwned>(run: &Run) -> T {
    serde_json::from_slice(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run}"))
}

/// The document in a file.
#[track_caller]
pub(crate) fn document_in<T: DeserializeOwned>(path: &Path) -> T {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
