//! [`Process`]: a child that does not outlive us, and what it last said on standard error.

#![expect(
    unsafe_code,
    reason = "what a child does between fork and exec: its death signal, and the files it inherits"
)]

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use crate::error::{Error, Result};
use crate::verdict::Death;

/// How much of standard error is kept.
const TAIL: usize = 16 << 10;
/// How long the last words of a process that is gone are waited for: another one may have its standard error open.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// A child process. It is killed when this is dropped, and by the system when this process ends, however that is.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    tail: Arc<Tail>,
    death: Option<Death>,
}

impl Process {
    /// Starts `program`. It inherits `files`, under the numbers that they have here, and nothing else.
    pub(crate) fn spawn(program: &Path, arguments: &[OsString], files: Vec<OwnedFd>) -> Result<Self> {
        let what = format!("cannot run {}", program.display());
        let (answer, child) = channel();
        let order = Order { program: program.to_owned(), arguments: arguments.to_vec(), files, answer };
        let gone = || Error::io(what.clone())(io::Error::other("the thread that starts processes is gone"));
        let orders = spawner().lock().unwrap_or_else(PoisonError::into_inner);
        orders.send(order).map_err(|_| gone())?;
        drop(orders);
        let started = child.recv().map_err(|_| gone())?;
        let mut child = started.map_err(Error::io(what))?;
        let tail = Arc::new(Tail::default());
        if let Some(stderr) = child.stderr.take() {
            let tail = Arc::clone(&tail);
            thread::spawn(move || tail.follow(stderr));
        }
        Ok(Self { child, tail, death: None })
    }

    /// How it ended, if it has.
    pub(crate) fn death(&mut self) -> Option<Death> {
        if self.death.is_none() {
            let status = self.child.try_wait().ok().flatten()?;
            let stderr = self.tail.last_words();
            self.death = Some(Death { code: status.code(), signal: status.signal(), stderr });
        }
        self.death.clone()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it said last on standard error.
    pub(crate) fn said(&self) -> String {
        self.tail.text()
    }

    /// Ends it. It has no say.
    pub(crate) fn kill(&mut self) {
        // It may be gone already. With a script around it, it is not our child, but of its group.
        if self.death.is_none() && matches!(self.child.try_wait(), Ok(None)) {
            let group = nix::unistd::Pid::from_raw(self.child.id() as i32);
            let _ = nix::sys::signal::killpg(group, Signal::SIGKILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Order {
    program: PathBuf,
    arguments: Vec<OsString>,
    files: Vec<OwnedFd>,
    answer: Sender<io::Result<Child>>,
}

/// The thread that starts all processes. The death signal comes when the *thread* ends that made the child, so this one
/// never ends.
fn spawner() -> &'static Mutex<Sender<Order>> {
    static SPAWNER: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    SPAWNER.get_or_init(|| {
        let (sender, orders) = channel::<Order>();
        thread::spawn(move || {
            for order in orders {
                let child = start(&order);
                // Whoever asked may have gone; the child then ends with its `Child`'s pipe, or with us.
                let _ = order.answer.send(child);
            }
        });
        Mutex::new(sender)
    })
}

fn start(order: &Order) -> io::Result<Child> {
    let mut command = Command::new(&order.program);
    command.args(&order.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let inherited: Vec<i32> = order.files.iter().map(AsRawFd::as_raw_fd).collect();
    let parent = nix::unistd::getpid();
    let prepare = move || {
        set_pdeathsig(Signal::SIGKILL)?;
        if nix::unistd::getppid() != parent {
            return Err(io::Error::other("the parent is gone"));
        }
        for &file in &inherited {
            // SAFETY: the file is open in the parent until `start` has returned, and so it is in this copy of it.
            let file = unsafe { std::os::fd::BorrowedFd::borrow_raw(file) };
            fcntl(file, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made, and nothing is allocated where they succeed.
    unsafe { command.pre_exec(prepare) };
    // A process group of its own: a Ctrl-C in the terminal is for us, and we end the child.
    command.process_group(0).spawn()
}

/// The end of a stream.
#[derive(Debug, Default)]
struct Tail {
    bytes: Mutex<VecDeque<u8>>,
    ended: OnceLock<()>,
}

impl Tail {
    fn follow(&self, mut stream: impl Read) {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
            bytes.extend(buffer.iter().take(count));
            let surplus = bytes.len().saturating_sub(TAIL);
            bytes.drain(..surplus);
        }
        let _ = self.ended.set(());
    }

    fn text(&self) -> String {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(bytes.make_contiguous()).into_owned()
    }

    fn last_words(&self) -> String {
        let begun = Instant::now();
        while self.ended.get().is_none() && begun.elapsed() < LAST_WORDS {
            thread::sleep(Duration::from_millis(1));
        }
        self.text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        Process::spawn(Path::new("/bin/sh"), &["-c".into(), script.into()], Vec::new()).unwrap()
    }

    fn death(mut process: Process) -> Death {
        let begun = Instant::now();
        loop {
            if let Some(death) = process.death() {
                return death;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "it lives");
            thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn how_it_ended_and_what_it_said_last() {
        let said = death(shell("echo last words >&2; exit 3"));
        assert_eq!(said, Death { code: Some(3), signal: None, stderr: "last words\n".to_owned() });
        assert_eq!(death(shell("kill -ABRT $$")).signal, Some(6));
        let much = death(shell(
            "i=0; while [ $i -lt 4000 ]; do echo 1234567890 >&2; i=$((i+1)); done; echo end >&2",
        ));
        assert_eq!(much.stderr.len(), TAIL);
        assert!(much.stderr.ends_with("0\nend\n"));
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let error = Process::spawn(Path::new("/no/such/program"), &[], Vec::new()).unwrap_err();
        assert!(error.to_string().starts_with("cannot run /no/such/program: "), "{error}");
    }

    #[test]
    fn it_inherits_the_files_it_is_given() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let script = format!("echo hello >&{}", theirs.as_raw_fd());
        let process =
            Process::spawn(Path::new("/bin/sh"), &["-c".into(), script.into()], vec![theirs.into()]).unwrap();
        let mut text = String::new();
        (&ours).read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello\n");
        assert_eq!(death(process).code, Some(0));
    }

    #[test]
    fn it_is_killed_when_dropped() {
        let process = shell("sleep 100");
        let id = process.id();
        drop(process);
        assert!(!Path::new(&format!("/proc/{id}/exe")).exists());
    }
}
