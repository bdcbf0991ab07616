//! A QEMU that does not answer for a while: who looks how far it is does not wait for it.

use std::time::{Duration, Instant};

use guest_fuzz::instruction::Instruction;
use guest_fuzz::target::Target;
use guest_fuzz::target::qemu::Qemu;
use guest_fuzz::target::session::{Guest, Line, SessionOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::guest::{BOOT, inb, machine, outb, read, run, started};

#[test]
fn a_reset_is_asked_for_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = machine("vmlinuz-cloud", "");
    let socket = |name: &str| format!("unix:{},server=on,wait=off", folder.path().join(name).display());
    for word in ["-qmp", &socket("qmp"), "-serial", &socket("console")] {
        command.arguments.push(word.into());
    }
    let users = Qemu::spawn(&command, &[], Vec::new()).unwrap();
    let line = Line::Socket(folder.path().join("console"));
    let options = SessionOptions::new(Guest::Attach { qmp: folder.path().join("qmp") }, line);
    let mut session = started(SessionOptions { boot_timeout: BOOT, ..options });

    let process = Pid::from_raw(users.id() as i32);
    kill(process, Signal::SIGSTOP).unwrap();
    let begun = Instant::now();
    let program = [Instruction::Reset, outb(0x80, 1), inb(0x80)];
    assert_eq!(session.submit(&program).unwrap(), 3);
    for _ in 0..20 {
        let progress = session.progress();
        assert_eq!((progress.started, progress.done, progress.resets), (1, 0, 0), "in flight");
    }
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    kill(process, Signal::SIGCONT).unwrap();

    let begun = Instant::now();
    while session.wait(Duration::from_millis(100)).done < 3 {
        assert!(begun.elapsed() < BOOT, "{:?}", session.progress());
    }
    let progress = session.progress();
    assert_eq!((progress.started, progress.done, progress.resets), (3, 3, 1));
    assert_eq!(session.reset_points(), [1]);
    assert_eq!(session.values().len(), 1);
    // One after the other: the second one is asked for while the guest boots.
    run(&mut session, &[Instruction::Reset, Instruction::Reset], Duration::from_secs(30));
    assert_eq!(read(&mut session, &[inb(0x80)]).len(), 1);
}
