//! Ctrl-C, SIGTERM and kill -9: an end in good order, and no QEMU left behind.

use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::documents::Report;
use crate::support::{BARE, Place, document_in};

/// A process that runs. It is killed with the test.
pub(crate) struct Running(Option<Child>);

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(Some(piped.spawn().unwrap()))
    }

    pub(crate) fn id(&self) -> i32 {
        self.0.as_ref().unwrap().id() as i32
    }

    /// Waits until there is an answer.
    pub(crate) fn wait_for<T>(&self, answer: impl Fn(i32) -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(answer) = answer(self.id()) {
                return answer;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "waited in vain");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What it wrote, once it has ended.
    pub(crate) fn output(mut self, limit: Duration) -> Output {
        let begun = Instant::now();
        while self.0.as_mut().unwrap().try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < limit, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The processes that have `id` for a parent.
pub(crate) fn children(id: i32) -> Vec<i32> {
    let is_child = |process: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)) == Some(&id.to_string())
    };
    let entries =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    entries.filter_map(|name| name.parse().ok()).filter(is_child).collect()
}

fn is_gone(process: i32) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat"));
        // Whoever inherits it may be slow to bury it.
        if stat.is_err() || stat.is_ok_and(|stat| stat.contains(") Z ")) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

/// A run that has begun, and its QEMU.
fn begun(place: &Place) -> (Running, i32) {
    let args = ["run", "--time", "60", "--ports", "0x80", "--generator", "stream"];
    let running = Running::start(place.command(&[&args[..], &BARE].concat()));
    let folder = place.path("iofuzz-out");
    running.wait_for(|_| folder.exists().then_some(()));
    // Its second QEMU: the first one was asked where it can be reached.
    std::thread::sleep(Duration::from_secs(1));
    let qemu = running.wait_for(|id| children(id).first().copied());
    (running, qemu)
}

#[test]
fn a_signal_ends_it_with_the_report() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let place = Place::new();
        let (running, _) = begun(&place);
        let children = children(running.id());
        kill(Pid::from_raw(running.id()), signal).unwrap();
        let begun = Instant::now();
        let output = running.output(Duration::from_secs(10));
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let report: Report = document_in(&place.path("iofuzz-out/report.json"));
        assert!(report.operations > 0);
        assert!(children.into_iter().all(is_gone));
    }
}

#[test]
fn no_qemu_outlives_it_when_it_is_killed() {
    let place = Place::new();
    let (running, qemu) = begun(&place);
    kill(Pid::from_raw(running.id()), Signal::SIGKILL).unwrap();
    running.output(Duration::from_secs(5));
    assert!(is_gone(qemu));
}

#[test]
fn an_interrupted_shrink_says_so_and_keeps_what_it_has() {
    let place = Place::new();
    // The five that are needed are far from each other: seconds of work.
    let needed = ["outb 0x2004 1\n", "outb 0x2005 2\n", "inb 0x2006\n", "outb 0x2007 4\n", "outb 0x2004 5\n"];
    let list = place.file("list.txt", &needed.join(&"outb 0x70 1\n".repeat(3000)));
    let running = Running::start(place.command(&["shrink", &list, "--transport", "sim", "-o", "short.txt"]));
    std::thread::sleep(Duration::from_secs(2));
    kill(Pid::from_raw(running.id()), Signal::SIGINT).unwrap();
    let output = running.output(Duration::from_secs(10));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("; interrupted") && !said.contains("the time was over"), "{said}");
    let left = std::fs::read_to_string(place.path("short.txt")).unwrap();
    let count = left.lines().filter(|line| !line.starts_with('#')).count();
    assert!((6..=12_005).contains(&count), "{count}");
}
