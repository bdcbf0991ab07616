//! `--transport dev-port` where it belongs: inside a Linux guest, as root. Witnesses besides iofuzz itself are the guest's
//! own `dd` on /dev/port, and a device of the machine that writes each byte it gets into a file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use guest_fuzz::instruction::{Instruction, PortWidth};
use guest_fuzz::program::Program;
use serde::de::DeserializeOwned;
use test_support::process::{installed, run_within};
use test_support::qemu;

use crate::documents::{Ports, Replayed, Report};
use crate::session::file;
use crate::support::{IOFUZZ, Place};

/// Around what the guest's script is: the guest's folders before, its end behind.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mkdir -p /proc /dev /tmp
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp
cd /tmp
iofuzz() { /iofuzz "$@" --transport dev-port --fuzz-this-machine --hang 60s; }
# The byte at a port, in decimal, as the kernel has it.
port() { dd if=/dev/port bs=1 skip=$(($1)) count=1 2>/dev/null | od -An -tu1 | tr -d ' '; }
# What a command prints, and its status, between lines that name it.
part() { name=$1; shift; echo "<$name>"; "$@"; echo "</$name $?>"; }
. /script > /dev/ttyS0 2>&1
/bin/busybox poweroff -f
"#;

/// What a guest printed.
struct Printed(String);

impl Printed {
    /// What is in the part of that name, whose status has to be `status`.
    #[track_caller]
    fn part(&self, name: &str, status: i32) -> &str {
        let (begin, end) = (format!("<{name}>\n"), format!("</{name} {status}>"));
        let behind = self.0.split_once(&begin).map(|(_, behind)| behind);
        let part = behind.and_then(|behind| behind.split_once(&end));
        part.unwrap_or_else(|| panic!("no part {name} with status {status} in\n{}", self.0)).0
    }

    #[track_caller]
    fn document<T: DeserializeOwned>(&self, name: &str) -> T {
        let text = self.part(name, 0);
        // In front of it are notes: in the guest, both streams are the console.
        let at = text.find('{').unwrap_or_else(|| panic!("no document in\n{text}"));
        serde_json::from_str(&text[at..]).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

/// Boots Debian's kernel with iofuzz and its shared libraries, has it run `script`, and returns what that prints.
fn inside(place: &Place, script: &str, devices: &[&str]) -> Printed {
    let root = place.path("root");
    fs::create_dir(&root).unwrap();
    let ldd = run_within(installed("ldd").arg(IOFUZZ.path()), b"", Duration::from_secs(10)).expect(0).out();
    for library in ldd.split_whitespace().filter(|word| word.starts_with('/')) {
        let to = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(library, to).unwrap();
    }
    fs::copy(IOFUZZ.path(), root.join("iofuzz")).unwrap();
    fs::write(root.join("script"), script).unwrap();
    fs::write(root.join("inside"), INIT).unwrap();
    fs::set_permissions(root.join("inside"), PermissionsExt::from_mode(0o755)).unwrap();

    // One archive behind the other is unpacked over it.
    let mut archive = fs::read(file("initramfs.cpio")).unwrap();
    archive.extend(packed(&root));
    let (initramfs, console) = (place.path("initramfs.cpio"), place.path("console"));
    fs::write(&initramfs, archive).unwrap();
    let line =
        "console=ttyS0 quiet loglevel=0 mitigations=off nokaslr no_timer_check panic=-1 rdinit=/inside";
    let mut machine = qemu::program("qemu-system-x86_64");
    machine.args(["-M", "pc", "-accel", "tcg", "-m", "512", "-nodefaults", "-display", "none", "-no-reboot"]);
    machine.args(["-kernel", &file("vmlinuz"), "-append", line]).arg("-initrd").arg(&initramfs);
    machine.args(["-serial", &format!("file:{}", console.display()), "-serial", "null"]).args(devices);
    let run = run_within(&mut machine, b"", Duration::from_secs(300));
    let printed = String::from_utf8_lossy(&fs::read(console).unwrap_or_default()).replace('\r', "");
    assert_eq!(run.status.code(), Some(0), "{run}\n--- console\n{printed}");
    Printed(printed)
}

/// The archive of a folder, in the form that Linux unpacks.
pub(crate) fn packed(root: &Path) -> Vec<u8> {
    let mut shell = installed("sh");
    let script = "find . | \"$0\" cpio -o -H newc";
    let run = run_within(
        shell.current_dir(root).args(["-c", script, &file("busybox")]),
        b"",
        Duration::from_secs(30),
    );
    run.expect(0).stdout
}

#[test]
fn ports_of_the_machine_that_it_runs_in() {
    let place = Place::new();
    // A byte that the second serial port sends to itself waits in it until port 0x2f8 is read: no other will do.
    let script = r"
part ports iofuzz ports --json
part run iofuzz run --ports 0x80 --ops 1000 --seed 7 --json --out run
part classic iofuzz classic --ports 0x9e9 --fuzz-count 500 --seed 7 --json --out classic
part notes cat classic/operations.txt
for way in iopl dev-port; do
    echo 'outb 0x2ff 0x5a' > write
    part write-$way iofuzz replay write --json --way $way
    part scratch-$way port 0x2ff
    printf 'outb 0x2fc 0x10\noutb 0x2f8 0x41\n' > send
    part send-$way iofuzz replay send --json --way $way
    printf 'inb 0x0\ninb 0x80\ninb 0x2f9\ninb 0x2ff\n' > others
    part others-$way iofuzz replay others --json --way $way
    part waiting-$way port 0x2fd
    echo 'inb 0x2f8' > read
    part read-$way iofuzz replay read --json --way $way
    part taken-$way port 0x2fd
    dd if=/dev/zero of=/dev/port bs=1 seek=767 count=1 2>/dev/null
done
part usage /iofuzz run --transport dev-port
";
    let written = place.path("written");
    let witness = format!("file,id=witness,path={}", written.display());
    let devices = ["-chardev", &witness, "-device", "isa-debugcon,iobase=0x9e9,chardev=witness"];
    let printed = inside(&place, script, &devices);

    let ports: Ports = printed.document("ports");
    assert_eq!(ports.target.transport, "dev-port");
    let names: Vec<&str> = ports.regions.iter().map(|region| region.name.as_str()).collect();
    assert!(names.contains(&"serial") && names.contains(&"PCI conf1"), "{names:?}");
    let report: Report = printed.document("run");
    assert_eq!((report.target.transport.as_str(), report.operations), ("dev-port", 1000));
    assert_eq!((report.findings.len(), report.machines, report.resets), (0, 1, 0));

    // What the report and the notes say was written is what the device got: those bytes, in that order.
    let report: Report = printed.document("classic");
    assert_eq!((report.operations, report.findings.len()), (1 + 1 + 500, 0));
    let notes = Program::parse(printed.part("notes", 0), "notes").unwrap().instructions;
    let noted: Vec<u8> = notes
        .iter()
        .filter_map(|instruction| match *instruction {
            Instruction::Out { port: 0x9e9, width: PortWidth::Byte, value } => u8::try_from(value).ok(),
            _ => None,
        })
        .collect();
    assert_eq!((notes.len(), noted.len(), noted[0]), (502, 501, 0));
    assert!(fs::read(written).unwrap() == noted);

    for way in ["iopl", "dev-port"] {
        let replayed: Replayed = printed.document(&format!("others-{way}"));
        assert_eq!((replayed.verdict.as_str(), replayed.operations), ("completed", 4), "{way}");
        let number = |name: &str| -> u8 {
            let text = printed.part(&format!("{name}-{way}"), 0).trim();
            text.parse().unwrap_or_else(|error| panic!("{name}-{way}: {error}: {text}"))
        };
        assert_eq!(number("scratch"), 0x5a, "{way}: the value that was asked for, at its port");
        assert_eq!(number("waiting") & 1, 1, "{way}: other ports do not take the byte");
        assert_eq!(number("taken") & 1, 0, "{way}: the port that was asked for does");
    }
    assert!(printed.part("usage", 64).contains("--fuzz-this-machine"));
}
