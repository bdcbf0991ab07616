//! What a guest may do to itself, and what a machine may do: each with its name.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::documents::Replayed;
use crate::signals::{Running, children};
use crate::support::{Place, document};

/// The power management's ports, where firmware puts them.
const PM: &str = "pci_writel 00:01.3 0x40 0x601\npci_writeb 00:01.3 0x80 1\n";

#[track_caller]
fn replayed(list: &str, machine: &[&str]) -> Replayed {
    let place = Place::new();
    let list = place.file("list.txt", list);
    let machine = [&["--", "-M", "pc", "-nodefaults"], machine].concat();
    document(&place.run_on(&machine, &["replay", &list, "--json"]).expect(0))
}

#[test]
fn orderly_ends() {
    let exit = ["-device", "isa-debug-exit,iobase=0x501,iosize=4"];
    for (list, machine, verdict, code) in [
        (format!("{PM}outw 0x604 0x2000\n"), &[][..], "guest-shutdown", None),
        (format!("{PM}outw 0x604 0x2400\n"), &[], "guest-suspend", None),
        ("outb 0x505 1\n".to_owned(), &["-device", "pvpanic"], "guest-panic", None),
        ("outb 0x501 0x31\n".to_owned(), &exit, "debug-exit", Some(0x63)),
        ("outl 0x501 0\n".to_owned(), &exit, "debug-exit", Some(1)),
        ("outb 0xcf9 2\noutb 0xcf9 6\n".to_owned(), &[], "guest-reset", None),
        ("outb 0x64 0xfe\n".to_owned(), &[], "guest-reset", None),
        ("inb 0x64\n".to_owned(), &[], "completed", None),
    ] {
        let replayed = replayed(&list, machine);
        assert_eq!((replayed.verdict.as_str(), replayed.code), (verdict, code), "{list}");
        assert_eq!((replayed.signature.as_str(), replayed.signal), ("", None), "{list}");
    }
}

/// Replays something long, and sends `signals` to its QEMU, with pauses between them.
fn disturbed(signals: &[(Signal, Duration)]) -> Replayed {
    let place = Place::new();
    // Many seconds, if it were let.
    let list = place.file("list.txt", &"delay 1000000\n".repeat(200));
    let args =
        ["replay", &list, "--json", "--stall", "0.5", "--deadlock", "3s", "--", "-M", "pc", "-nodefaults"];
    let running = Running::start(place.command(&args));
    // The first QEMU is asked where it can be reached.
    let qemu = running.wait_for(|id| children(id).into_iter().find(|child| cpu_ticks(*child) > 40));
    for (signal, pause) in signals {
        kill(Pid::from_raw(qemu), *signal).unwrap();
        std::thread::sleep(*pause);
    }
    serde_json::from_slice(&running.output(Duration::from_secs(30)).stdout).unwrap()
}

/// How long a process has run, in hundredths of a second.
fn cpu_ticks(id: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    fields.get(11).and_then(|ticks| ticks.parse().ok()).unwrap_or(0)
}

#[test]
fn a_vmm_that_is_killed_stopped_or_stopped_for_good() {
    let end = Duration::from_millis(10);
    let killed = disturbed(&[(Signal::SIGKILL, end)]);
    assert_eq!((killed.verdict.as_str(), killed.signal), ("crash", Some(9)));
    assert!(killed.operation_in_flight.unwrap().text.starts_with("delay "));
    let deadlocked = disturbed(&[(Signal::SIGSTOP, end)]);
    assert_eq!(deadlocked.verdict, "vmm-deadlock");
    let stalled = disturbed(&[
        (Signal::SIGSTOP, Duration::from_millis(1800)),
        (Signal::SIGCONT, Duration::from_millis(500)),
        (Signal::SIGKILL, end),
    ]);
    assert!(stalled.verdicts.contains_key("crash"), "the worst of it: {stalled:?}");
}
