//! `--transport session` on a real Linux guest, and `--transport dev-port` as far as a test may go.

use std::path::Path;
use std::time::Duration;

use guest_fuzz::target::qemu::{Qemu, QemuCommand};
use test_support::binary::assert_refused;
use test_support::process::{Run, run_within};

use crate::documents::{Ports, Report};
use crate::support::{ABORT, Place, document};

/// Where nothing is lost: the second serial port, which the machine does not have.
const HARMLESS: &str = "0x2f8-0x2ff";
/// The ports that kill the machine: each write to one of them.
const DEADLY: &str = "0x2010-0x2017";

/// A file that `cargo xtask deps` fetches.
pub(crate) fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/linux-guest").join(name);
    assert!(path.is_file(), "{} is missing: run `cargo xtask deps`", path.display());
    path.into_os_string().into_string().unwrap()
}

/// The machine with Debian's cloud kernel, which boots fastest, and the device with the fault.
fn machine() -> Vec<String> {
    let words = ["-M", "pc", "-accel", "tcg", "-m", "192", "-nodefaults", "-device", "pc-testdev"];
    let kernel_line = "console=ttyS0 quiet mitigations=off nokaslr no_timer_check";
    let boot =
        ["-append", kernel_line, "-kernel", &file("vmlinuz-cloud"), "-initrd", &file("initramfs.cpio")];
    words.iter().chain(&boot).map(|&word| word.to_owned()).collect()
}

/// `iofuzz ARGS…`, with time for boots.
#[track_caller]
fn run(place: &Place, args: &[&str]) -> Run {
    run_within(&mut place.command(args), b"", Duration::from_secs(180))
}

/// `iofuzz COMMAND --transport session ARGS… -- MACHINE…`
#[track_caller]
fn run_booted(place: &Place, command: &str, args: &[&str]) -> Run {
    let machine = machine();
    let machine: Vec<&str> = machine.iter().map(String::as_str).collect();
    run(place, &[&[command, "--transport", "session"], args, &["--"], &machine].concat())
}

#[test]
fn ports_are_what_the_guests_kernel_lists() {
    let place = Place::new();
    let ports: Ports = document(&run_booted(&place, "ports", &["--json"]).expect(0));
    assert_eq!(ports.target.transport, "session");
    let names: Vec<&str> = ports.regions.iter().map(|region| region.name.as_str()).collect();
    assert!(names.contains(&"serial") && names.contains(&"PCI conf1"), "{names:?}");
    assert_eq!(names[..2], ["PCI Bus 0000:00", "dma1"], "in the kernel's order");
    assert_eq!((ports.prologue.len(), ports.ram), (0, None));
}

#[test]
fn classic_ends_well_where_nothing_is_wrong() {
    let place = Place::new();
    let args = ["--ports", HARMLESS, "--seed", "1", "--json"];
    let report: Report = document(&run_booted(&place, "classic", &args).expect(0));
    assert_eq!((report.operations, report.machines, report.findings.len()), (8 + 8 + 80, 1, 0));
    assert_eq!((report.target.transport.as_str(), report.resets), ("session", 0));
    assert!(place.path("iofuzz-out/report.json").is_file());
}

#[test]
fn a_machine_that_dies_is_found_with_what_was_in_flight() {
    let place = Place::new();
    let run = run_booted(&place, "classic", &["--ports", DEADLY, "--json"]).expect(1);
    let report: Report = document(&run);
    let finding = &report.findings[0];
    assert_eq!(
        (finding.verdict.as_str(), finding.signal, finding.signature.as_str()),
        ("crash", Some(6), ABORT)
    );
    let in_flight = finding.operation_in_flight.as_ref().unwrap();
    assert_eq!((in_flight.index, in_flight.text.as_str()), (8, "outb 0x2010 0x0"), "behind eight reads");
    assert_eq!((finding.runs, finding.hits, finding.shrunk_operations), (1, 1, None));
}

#[test]
fn a_machine_of_the_users_own_lives_on_unless_it_dies() {
    let place = Place::new();
    let sockets = ["qmp", "console"].map(|name| place.path(name).into_os_string().into_string().unwrap());
    let mut command = QemuCommand::new("qemu-system-x86_64", machine());
    for (option, socket) in ["-qmp", "-serial"].iter().zip(&sockets) {
        command.arguments.extend([option.into(), format!("unix:{socket},server=on,wait=off").into()]);
    }
    let mut users = Qemu::spawn(&command, &[], Vec::new()).unwrap();
    let attach = ["--attach", &sockets[0], "--console", &sockets[1], "--json", "--ports"];

    let args = [&["run", "--time", "2"], &attach[..], &[HARMLESS]].concat();
    let report: Report = document(&run(&place, &args).expect(0));
    assert!(report.operations > 100, "{report:?}");
    assert_eq!((report.resets, report.machines, report.target.command.len()), (0, 1, 0));
    assert_eq!(users.death(), None);
    assert_eq!(users.qmp().status(Duration::from_secs(5)).unwrap(), "running");

    // One end of it is a finding, and the end of the campaign: there is no other machine.
    let args = [&["run", "--time", "60", "--out", "died"], &attach[..], &[DEADLY]].concat();
    let report: Report = document(&run(&place, &args).expect(1));
    assert_eq!((report.machines, report.findings.len(), report.findings[0].runs), (1, 1, 0));
    assert_eq!(report.findings[0].verdict, "crash");
    assert!(report.seconds < 30.0, "{report:?}");
    assert_eq!(users.wait_for_death(Duration::from_secs(5)).and_then(|death| death.signal), Some(6));
}

#[test]
fn command_lines_that_name_no_guest() {
    let place = Place::new();
    for (line, why) in [
        (&["run", "--transport", "session"][..], "a Linux guest is needed"),
        (&["run", "--attach", "qmp"], "say how to log in"),
        (&["run", "--attach", "qmp", "--console", "c", "--", "-M", "pc"], "runs already"),
        (&["run", "--attach", "qmp", "--console", "c", "--jobs", "2"], "there is one machine"),
        (
            &["run", "--transport", "micro", "--attach", "qmp", "--console", "c"],
            "are for --transport session",
        ),
        (&["run", "--console", "c"], "--attach"),
        (&["run", "--way", "outb"], "outb"),
    ] {
        let run = run(&place, line);
        assert_refused(&run, 64);
        assert!(run.err().contains(why), "{run}");
    }
    let run = run(&place, &["classic", "--attach", "no-such-socket", "--console", "c"]);
    assert_refused(&run, 3);
    assert!(run.err().contains("no-such-socket"), "{run}");
    assert!(!place.path("iofuzz-out").exists());
}

#[test]
fn the_machine_that_it_runs_on_is_left_alone_unless_it_is_meant() {
    let place = Place::new();
    let list = place.file("list.txt", "outb 0x80 0\n");
    for line in [&["run"][..], &["classic"], &["replay", &list], &["shrink", &list]] {
        let run = run(&place, &[line, &["--transport", "dev-port"]].concat());
        assert_refused(&run, 64);
        let words = run.err();
        assert!(
            words.contains("destroy what is on its disks") && words.contains("--fuzz-this-machine"),
            "{run}"
        );
    }
    assert!(!place.path("iofuzz-out").exists());
}
