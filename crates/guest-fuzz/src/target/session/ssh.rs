//! [`Ssh`]: a guest's shell through the system's ssh.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::wire::Wire;
use crate::error::{Error, Result};

/// Words of ssh after which trying again is of no use.
const FINAL: [&str; 4] =
    ["Permission denied", "Host key verification failed", "Could not resolve hostname", "Bad configuration"];

/// Where ssh goes. It asks nothing: keys and known hosts are the user's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ssh {
    /// `user@host`, or a host of the user's configuration.
    pub target: String,
    /// The program.
    pub program: PathBuf,
    /// Options for it: `-p 2222`, `-i key`.
    pub options: Vec<String>,
}

impl Ssh {
    /// The `ssh` on PATH, without options.
    #[must_use]
    pub fn new(target: impl Into<String>) -> Self {
        Self { target: target.into(), program: PathBuf::from("ssh"), options: Vec::new() }
    }

    /// Starts ssh, with a shell at the other end.
    pub(super) fn connect(&self) -> Result<(SshProcess, Wire)> {
        let what = || format!("cannot run {}", self.program.display());
        let (ours, theirs) = UnixStream::pair().map_err(Error::io("cannot make a socket"))?;
        let copy = || theirs.try_clone().map(|end| Stdio::from(OwnedFd::from(end)));
        let settings =
            ["BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=5", "ServerAliveCountMax=3"];
        let child = Command::new(&self.program)
            .arg("-T")
            .args(&self.options)
            .args(settings.iter().flat_map(|setting| ["-o", setting]))
            .args(["--", &self.target, "exec sh"])
            .stdin(copy().map_err(Error::io(what()))?)
            .stdout(copy().map_err(Error::io(what()))?)
            // What it says of itself is what an error message needs.
            .stderr(copy().map_err(Error::io(what()))?)
            .spawn()
            .map_err(Error::io(what()))?;
        Ok((SshProcess(child), Wire::new(ours)?))
    }
}

/// Whether what ssh said means that it will never get through.
pub(super) fn is_final(words: &str) -> bool {
    FINAL.iter().any(|word| words.contains(word))
}

/// A running ssh. It ends with this, and also with us, as its input does.
#[derive(Debug)]
pub(super) struct SshProcess(Child);

impl Drop for SshProcess {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
