//! Each way to the ports, in a machine that is the user's own: through its console, and through ssh.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use guest_fuzz::instruction::{Instruction, PortWidth};
use guest_fuzz::random::Random;
use guest_fuzz::target::Target;
use guest_fuzz::target::qemu::Qemu;
use guest_fuzz::target::session::{Guest, Line, Session, SessionOptions, Ssh, Way};
use guest_fuzz::verdict::Condition;

use crate::guest::{BOOT, inb, machine, options, outb, read, run, started};

/// The third serial port's scratch register.
const SCRATCH: u16 = 0x3ef;

/// A machine of the user's: its control connection, its console, and a shell that `ssh` finds, are sockets in `folder`.
fn users_machine(folder: &Path) -> Qemu {
    let mut command = machine("vmlinuz", "iofuzz.shell");
    let socket = |name: &str| format!("unix:{},server=on,wait=off", folder.join(name).display());
    for word in [
        "-qmp",
        &socket("qmp"),
        "-serial",
        &socket("console"),
        "-serial",
        &socket("shell"),
        "-serial",
        "null",
    ] {
        command.arguments.push(word.into());
    }
    Qemu::spawn(&command, &[], Vec::new()).unwrap()
}

fn attached(folder: &Path, line: Line, way: Way) -> SessionOptions {
    let options = SessionOptions::new(Guest::Attach { qmp: folder.join("qmp") }, line);
    SessionOptions { boot_timeout: BOOT, ways: vec![way], ..options }
}

/// What stands in for ssh: a program that connects its input and output with the guest's second serial port.
fn ssh(folder: &Path) -> Ssh {
    let program = folder.join("ssh");
    let socket = folder.join("shell");
    let script = format!(
        "#!/usr/bin/env python3\n\
         import os, select, socket\n\
         guest = socket.socket(socket.AF_UNIX)\n\
         guest.connect('{}')\n\
         while True:\n\
         \x20   for ready in select.select([0, guest], [], [])[0]:\n\
         \x20       data = os.read(0, 65536) if ready == 0 else guest.recv(65536)\n\
         \x20       if not data: raise SystemExit\n\
         \x20       guest.sendall(data) if ready == 0 else os.write(1, data)\n",
        socket.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    Ssh { program, ..Ssh::new("root@guest") }
}

/// Writes and reads back; says how fast that was.
fn verify(session: &mut Session, count: usize, what: &str) -> f64 {
    let mut random = Random::new(2);
    let program: Vec<Instruction> =
        (0..count).flat_map(|_| [outb(SCRATCH, random.below(256) as u32), inb(SCRATCH)]).collect();
    let begun = Instant::now();
    let values = read(session, &program);
    let rate = program.len() as f64 / begun.elapsed().as_secs_f64();
    eprintln!("session, {what}: {rate:.0} verified operations a second");
    let written = program.iter().filter_map(|instruction| match instruction {
        Instruction::Out { value, .. } => Some(u64::from(*value)),
        _ => None,
    });
    assert!(values.into_iter().eq(written), "{what}");
    rate
}

#[test]
fn every_way_to_the_ports_of_a_machine_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    let mut users = users_machine(folder.path());
    let console = || Line::Socket(folder.path().join("console"));

    let mut session = started(attached(folder.path(), console(), Way::Iopl));
    assert_eq!((session.way(), session.shares_memory()), (Some(Way::Iopl), false));
    assert_eq!(session.condition(Duration::from_secs(5)), Condition::Responsive);
    verify(&mut session, 4000, "our program on the console");
    let word = [Instruction::In { port: 0xcfc, width: PortWidth::Long }];
    assert_eq!(read(&mut session, &word).len(), 1);
    drop(session);

    let mut session = started(attached(folder.path(), Line::Ssh(ssh(folder.path())), Way::Iopl));
    verify(&mut session, 4000, "our program through ssh");
    drop(session);

    let mut session = started(attached(folder.path(), console(), Way::DevPort));
    verify(&mut session, 2000, "/dev/port");
    assert!(read(&mut session, &word).is_empty(), "no words, as the kernel would make bytes of them");
    assert_eq!(session.without_effect(), 1);
    drop(session);

    let mut session = started(attached(folder.path(), console(), Way::Dd));
    assert_eq!(session.condition(Duration::from_secs(5)), Condition::Responsive);
    verify(&mut session, 40, "dd");
    // The seed's `inb` read port 0, whatever it was asked for.
    run(&mut session, &[outb(SCRATCH, 0x5a)], Duration::from_secs(10));
    assert_eq!(read(&mut session, &[inb(0x80), inb(SCRATCH)])[1], 0x5a);

    // The machine dies: what went in one line is in flight.
    let done = session.progress().done;
    session.submit(&[inb(0x80), inb(0x80), inb(0x80)]).unwrap();
    users.kill();
    let condition = session.condition(Duration::from_secs(5));
    assert!(matches!(condition, Condition::Dead(_)), "{condition:?}");
    let progress = session.progress();
    assert_eq!((progress.started, progress.done), (done + 3, done));
}

#[test]
fn a_kernel_without_dev_port_is_left_iopl() {
    let mut command = machine("vmlinuz-cloud", "");
    command.arguments.extend(["-device".into(), "isa-serial,index=2,chardev=n".into()]);
    command.arguments.extend(["-chardev".into(), "null,id=n".into()]);
    let ways = vec![Way::DevPort, Way::Dd, Way::Iopl];
    let mut session = started(SessionOptions { ways, ..options(command) });
    assert_eq!((session.way(), session.shares_memory()), (Some(Way::Iopl), true));
    verify(&mut session, 20_000, "Debian's cloud kernel");
}

#[test]
fn ssh_that_is_refused_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("ssh");
    fs::write(&program, "#!/bin/sh\necho 'root@guest: Permission denied (publickey).' >&2\nexit 255\n")
        .unwrap();
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let line = Line::Ssh(Ssh { program, ..Ssh::new("root@guest") });
    let mut command = machine("vmlinuz", "");
    command.arguments.push("-S".into());
    let mut session = Session::new(SessionOptions { line, ..options(command) });
    let error = session.start().unwrap_err().to_string();
    assert!(error.contains("Permission denied (publickey)"), "{error}");
}
