//! From a login prompt to a shell, and what stands in the way.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use guest_fuzz::Error;
use guest_fuzz::target::Target;
use guest_fuzz::target::qemu::Qemu;
use guest_fuzz::target::session::{Guest, Line, Session, SessionOptions};

use crate::guest::{BOOT, inb, machine, options, read};

/// Ends the shell that a session left, and waits for the next login prompt.
fn log_out(console: &Path) {
    let mut console = UnixStream::connect(console).unwrap();
    console.set_read_timeout(Some(BOOT)).unwrap();
    console.write_all(b"\nexit\n").unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"login: ") {
        let mut byte = [0];
        console.read_exact(&mut byte).unwrap();
        said.push(byte[0]);
    }
}

#[test]
fn names_and_passwords_and_who_is_not_root() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = machine("vmlinuz-cloud", "iofuzz.password=secret");
    let socket = |name: &str| format!("unix:{},server=on,wait=off", folder.path().join(name).display());
    for word in ["-qmp", &socket("qmp"), "-serial", &socket("console")] {
        command.arguments.push(word.into());
    }
    let _machine = Qemu::spawn(&command, &[], Vec::new()).unwrap();
    let session = |user: &str, password: Option<&str>| {
        let line = Line::Socket(folder.path().join("console"));
        let options = SessionOptions::new(Guest::Attach { qmp: folder.path().join("qmp") }, line);
        let (user, password) = (user.to_owned(), password.map(str::to_owned));
        Session::new(SessionOptions { user, password, boot_timeout: BOOT, ..options })
    };

    let error = session("root", Some("wrong")).start().unwrap_err().to_string();
    assert_eq!(error, "the session of `root` did not start: the guest says `login incorrect`");
    let error = session("root", None).start().unwrap_err().to_string();
    assert!(error.contains("asks for a password, and none was given"), "{error}");

    // The guest still asks for a password that nobody gave.
    let mut visitor = session("visitor", Some("secret"));
    let error = visitor.start().unwrap_err();
    assert!(
        matches!(&error, Error::Unsupported { why, .. } if why.contains("number 1000; only root")),
        "{error}"
    );
    let error = visitor.read_proc_ioports().unwrap_err().to_string();
    assert!(
        error.ends_with("every port in it is 0, as it is shown to all but root: log in as root"),
        "{error}"
    );
    drop(visitor);
    log_out(&folder.path().join("console"));

    let mut root = session("root", Some("secret"));
    root.start().unwrap();
    root.keep_values(true);
    assert_eq!(read(&mut root, &[inb(0x80)]).len(), 1);
    assert!(root.read_proc_ioports().unwrap().contains("0000-001f : dma1"));
}

#[test]
fn a_guest_that_does_not_come_up_is_waited_for_that_long() {
    let boot_timeout = Duration::from_secs(1);
    let begun = Instant::now();
    let mut session = Session::new(SessionOptions { boot_timeout, ..options(machine("vmlinuz-cloud", "")) });
    let error = session.start().unwrap_err().to_string();
    assert!(error.contains("nobody was logged in after 1 s"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_machine_that_does_not_start_says_why() {
    let mut command = machine("vmlinuz-cloud", "");
    command.arguments.extend(["-device".into(), "no-such-device".into()]);
    let error = Session::new(options(command)).start().unwrap_err().to_string();
    assert!(error.contains("no-such-device"), "{error}");
}
