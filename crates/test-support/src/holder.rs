//! Processes that have an image open or hold a lock on it, for as long as they are wanted.

use crate::process::installed;
use crate::qemu;
use crate::scratch::text;
use std::io::Read;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

/// A process that holds an image until it is dropped.
#[derive(Debug)]
pub struct Holder {
    child: Child,
    // Whoever waits on standard input ends with it.
    stdin: Option<ChildStdin>,
}

const LOCKER: &str = r#"
import fcntl, struct, sys
file = open(sys.argv[1], 'r+b')
def byte_range(command, kind, length):
    fcntl.fcntl(file, command, struct.pack('hhqqi4x', kind, 0, 0, length, 0))
{
    'ofd-write': lambda: byte_range(fcntl.F_OFD_SETLK, fcntl.F_WRLCK, 0),
    'ofd-read': lambda: byte_range(fcntl.F_OFD_SETLK, fcntl.F_RDLCK, 0),
    'posix-write': lambda: byte_range(fcntl.F_SETLK, fcntl.F_WRLCK, 0),
    'posix-read': lambda: byte_range(fcntl.F_SETLK, fcntl.F_RDLCK, 0),
    'first-byte': lambda: byte_range(fcntl.F_OFD_SETLK, fcntl.F_WRLCK, 1),
    'flock-exclusive': lambda: fcntl.flock(file, fcntl.LOCK_EX),
    'flock-shared': lambda: fcntl.flock(file, fcntl.LOCK_SH),
}[sys.argv[2]]()
print('ready', flush=True)
sys.stdin.read()
"#;

impl Holder {
    /// A qemu-io at its prompt.
    #[must_use]
    pub fn qemu_io(format: &str, image: &Path, flags: &[&str]) -> Holder {
        let mut qemu_io = qemu::program("qemu-io");
        Holder::start(qemu_io.args(["-f", format]).args(flags).arg(image), "qemu-io> ")
    }

    /// A storage daemon with the image attached for writing.
    #[must_use]
    pub fn storage_daemon(format: &str, image: &Path) -> Holder {
        let mut daemon = qemu::program("qemu-storage-daemon");
        daemon.arg("--blockdev").arg(format!("driver=file,node-name=file,filename={}", text(image)));
        daemon.arg("--blockdev").arg(format!("driver={format},node-name=disk,file=file"));
        daemon.args(["--chardev", "stdio,id=monitor", "--monitor", "chardev=monitor"]);
        Holder::start(&mut daemon, "\"QMP\"")
    }

    /// A Python that holds a lock: `ofd-write`, `posix-read`, `flock-shared`, `first-byte`, …
    #[must_use]
    pub fn python(image: &Path, kind: &str) -> Holder {
        Holder::start(installed("python3").args(["-c", LOCKER]).arg(image).arg(kind), "ready")
    }

    /// Starts a process and waits until it says `ready`.
    fn start(command: &mut Command, ready: &str) -> Holder {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take();
        let mut said = Vec::new();
        let mut byte = [0];
        let stdout = child.stdout.as_mut().unwrap();
        while !String::from_utf8_lossy(&said).contains(ready) {
            let count = stdout.read(&mut byte).unwrap();
            assert_ne!(count, 0, "{command:?} ended, having said {:?}", String::from_utf8_lossy(&said));
            said.push(byte[0]);
        }
        Holder { child, stdin }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.stdin.take());
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
