//! A guest that asks for a name and a password, and the options that answer: --user, --password, --prompt, --way.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use guest_fuzz::target::qemu::{Qemu, QemuCommand};
use test_support::binary::assert_refused;
use test_support::process::{Run, run_within};

use crate::documents::Report;
use crate::inside::packed;
use crate::session::file;
use crate::support::{Place, document};

/// How the guest's prompt ends: as no prompt that is looked for without --prompt.
const PROMPT: &str = "at your service:";
/// Where nothing is lost.
const HARMLESS: &str = "0x80-0x81";

/// A machine whose guest wants the password `secret`, and whose shells have [`PROMPT`].
fn machine(place: &Place, kernel: &str) -> Vec<String> {
    let root = place.path("root");
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(root.join("etc/profile"), format!("PS1='{PROMPT} '\n")).unwrap();
    let initramfs = place.path("initramfs.cpio");
    fs::write(&initramfs, [fs::read(file("initramfs.cpio")).unwrap(), packed(&root)].concat()).unwrap();
    let line = "console=ttyS0 quiet mitigations=off nokaslr no_timer_check iofuzz.password=secret";
    let words = ["-M", "pc", "-accel", "tcg", "-m", "192", "-nodefaults", "-append", line];
    let boot = ["-kernel", &file(kernel), "-initrd", initramfs.to_str().unwrap()];
    words.iter().chain(&boot).map(|&word| word.to_owned()).collect()
}

#[track_caller]
fn run(place: &Place, args: &[&str]) -> Run {
    // A machine with more to do is no guest that hangs.
    let mut command = place.command(&args[..1]);
    run_within(command.args(["--hang", "60s"]).args(&args[1..]), b"", Duration::from_secs(300))
}

#[test]
fn a_machine_of_ours_is_booted_and_logged_in_to() {
    let place = Place::new();
    let machine = machine(&place, "vmlinuz-cloud");
    let machine: Vec<&str> = machine.iter().map(String::as_str).collect();
    let options = ["--user", "root", "--password", "secret", "--prompt", PROMPT, "--way", "dev-port,iopl"];
    let args = ["run", "--transport", "session", "--ports", HARMLESS, "--ops", "2000", "--json"];
    let report: Report = document(&run(&place, &[&args[..], &options, &["--"], &machine].concat()).expect(0));
    assert_eq!((report.target.transport.as_str(), report.machines), ("session", 1));
    assert!(report.operations >= 2000 && report.findings.is_empty(), "{report:?}");

    // Debian's cloud kernel has no /dev/port: where nothing else is allowed, nothing else is taken.
    let options = ["--password", "secret", "--way", "dev-port"];
    let args = ["classic", "--transport", "session", "--ports", HARMLESS, "--out", "other"];
    let refused = run(&place, &[&args[..], &options, &["--"], &machine].concat());
    assert_refused(&refused, 3);
    assert!(refused.err().contains("/dev/port"), "{refused}");
    assert!(!place.path("other").exists());
}

#[test]
fn a_machine_of_the_users_own_is_logged_in_to() {
    let place = Place::new();
    let sockets = ["qmp", "console"].map(|name| place.path(name).into_os_string().into_string().unwrap());
    let mut command = QemuCommand::new("qemu-system-x86_64", machine(&place, "vmlinuz"));
    for (option, socket) in ["-qmp", "-serial"].iter().zip(&sockets) {
        command.arguments.extend([option.into(), format!("unix:{socket},server=on,wait=off").into()]);
    }
    let users = Qemu::spawn(&command, &[], Vec::new()).unwrap();
    let attached = |command: &str, options: &[&str]| {
        let args =
            [command, "--attach", &sockets[0], "--console", &sockets[1], "--ports", HARMLESS, "--json"];
        run(&place, &[&args[..], options].concat())
    };

    for (options, why) in [
        (&[][..], "the guest asks for a password, and none was given"),
        (&["--password", "wrong"], "session of `root` did not start: the guest says `login incorrect`"),
        (&["--user", "visitor", "--password", "secret", "--prompt", PROMPT], "root"),
    ] {
        let refused = attached("classic", options);
        assert_refused(&refused, 3);
        assert!(refused.err().contains(why), "{refused}");
    }
    log_out(Path::new(&sockets[1]));
    let whole = ["--user", "root", "--password", "secret", "--prompt", PROMPT];
    for way in ["dd", "dev-port", "iopl"] {
        let report: Report =
            document(&attached("classic", &[&whole[..], &["--way", way, "--out", way]].concat()).expect(0));
        // Two ports, in two ranges of the kernel's list: the bus, and what is on it.
        assert_eq!((report.operations, report.findings.len()), (2 * (2 + 2 + 20), 0), "{way}");
    }
    drop(users);
}

/// Ends the shell that a session left, and waits for the next login prompt.
fn log_out(console: &Path) {
    let mut console = UnixStream::connect(console).unwrap();
    console.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    console.write_all(b"\nexit\n").unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"login: ") {
        let mut byte = [0];
        console.read_exact(&mut byte).unwrap();
        said.push(byte[0]);
    }
}
