//! QEMU's arguments: what the user wants, a machine where none is named, and no network unless it is asked for.

use std::ffi::OsString;

use guest_fuzz::target::qemu::QemuCommand;

use crate::args::MachineArgs;

/// The machine where none is named.
const MACHINE: &str = "pc";

/// The arguments for the machine that `args` describes.
pub(crate) fn of(args: &MachineArgs) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let given = QemuCommand::new("", args.arguments.clone());
    match &args.machine {
        Some(machine) => arguments.extend(["-M".into(), machine.clone()]),
        None if !given.has(&["-M", "-machine"]) => arguments.extend(["-M", MACHINE].map(OsString::from)),
        None => {}
    }
    for device in &args.devices {
        arguments.extend(["-device".into(), device.clone()]);
    }
    arguments.extend(args.arguments.iter().cloned());
    // The machine's own network device stays, and has nobody to talk to: without this, QEMU connects it to the host.
    if !given.has(&["-nodefaults", "-nic", "-net", "-netdev"]) {
        arguments.extend(["-net", "nic"].map(OsString::from));
    }
    arguments
}

/// The options that a journal may bring along: those that say what a machine is. They reach nothing outside of it.
const HARMLESS: [&str; 17] = [
    "M",
    "machine",
    "cpu",
    "smp",
    "m",
    "accel",
    "device",
    "global",
    "vga",
    "nodefaults",
    "no-user-config",
    "action",
    "rtc",
    "boot",
    "no-reboot",
    "no-shutdown",
    "drive",
];
/// Of those, the ones without a value.
const FLAGS: [&str; 4] = ["nodefaults", "no-user-config", "no-reboot", "no-shutdown"];

/// The first of a journal's arguments that may reach a file, a program or a network: a journal can come from a stranger.
pub(crate) fn first_that_reaches_out(arguments: &[String]) -> Option<&str> {
    let mut rest = arguments.iter();
    while let Some(option) = rest.next() {
        let name = option.strip_prefix("--").or_else(|| option.strip_prefix('-')).unwrap_or("");
        if name == "net" || name == "nic" {
            match rest.next().map(String::as_str) {
                Some("nic" | "none") => continue,
                _ => return Some(option),
            }
        }
        if !HARMLESS.contains(&name) {
            return Some(option);
        }
        if FLAGS.contains(&name) {
            continue;
        }
        let value = rest.next().map_or("", String::as_str);
        if !is_harmless(name, value) {
            return Some(option);
        }
    }
    None
}

/// Keys whose values name files, programs or devices of the host, of devices, machines and `-boot`.
const KEYS_OF_FILES: [&str; 22] = [
    "append",
    "bios",
    "dtb",
    "dumpdtb",
    "file",
    "filename",
    "firmware",
    "host",
    "hostaddr",
    "hostbus",
    "hostdevice",
    "hostport",
    "initrd",
    "kernel",
    "mem-path",
    "path",
    "romfile",
    "rootdir",
    "script",
    "splash",
    "sysfsdev",
    "desc",
];

/// Whether a device is, or takes, one of the host's.
fn is_of_the_host(driver: &str) -> bool {
    let starts =
        ["ccid", "emulated", "loader", "guest-loader", "u2f", "usb-host", "usb-mtp", "vfio", "vhost", "xen"];
    let parts = ["passthr", "-host", "loader"];
    starts.iter().any(|start| driver.starts_with(start)) || parts.iter().any(|part| driver.contains(part))
}

fn is_harmless(name: &str, value: &str) -> bool {
    // A drive without a file: one that is read as zeroes, and forgets what is written.
    let null = ["file=null-co://", "file=null-aio://", "driver=null-co", "driver=null-aio", "read-zeroes=on"];
    let parts = || value.split(',').filter(|part| !null.contains(part));
    if name == "drive" {
        let rest = ["if=", "id=", "format=raw", "media=", "index=", "bus=", "unit="];
        let known = |part: &str| rest.iter().any(|start| part.starts_with(start));
        return parts().all(known) && value.split(',').any(|part| part.contains("null-"));
    }
    // JSON says the same in other words.
    if value.contains(['{', '/', '\\']) {
        return false;
    }
    let reaches_out = |part: &str| {
        let (key, driver) = part.split_once('=').unwrap_or(("", part));
        // `-global` puts a driver in front of the key.
        let (prefix, key) = key.rsplit_once('.').unwrap_or(("", key));
        [prefix, driver].iter().any(|driver| is_of_the_host(driver)) || KEYS_OF_FILES.contains(&key)
    };
    !parts().any(reaches_out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::SessionArgs;

    fn arguments(machine: Option<&str>, devices: &[&str], given: &[&str]) -> String {
        let args = MachineArgs {
            qemu: None,
            machine: machine.map(OsString::from),
            devices: devices.iter().map(OsString::from).collect(),
            transport: None,
            hang: None,
            stall: None,
            deadlock: None,
            arguments: given.iter().map(OsString::from).collect(),
            session: SessionArgs::default(),
        };
        of(&args).join(&OsString::from(" ")).into_string().unwrap()
    }

    #[test]
    fn a_machine_and_no_network_unless_asked_for() {
        assert_eq!(arguments(None, &[], &[]), "-M pc -net nic");
        assert_eq!(arguments(Some("q35"), &["sb16"], &["-m", "1"]), "-M q35 -device sb16 -m 1 -net nic");
        for given in ["-nodefaults", "-nic none", "--net none", "-netdev user,id=n"] {
            let words: Vec<&str> = given.split(' ').collect();
            assert_eq!(arguments(None, &[], &words), format!("-M pc {given}"));
        }
        assert_eq!(arguments(None, &[], &["-machine", "isapc"]), "-machine isapc -net nic");
    }

    #[test]
    fn a_strangers_journal_reaches_nothing_outside() {
        let first = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            first_that_reaches_out(&words).map(str::to_owned)
        };
        for line in [
            "-M pc,usb=on -nodefaults -device pc-testdev -net nic",
            "-M q35 --nodefaults -nic none -cpu max -smp 2",
            "-drive if=none,id=d,file=null-co://,format=raw -device ide-hd,drive=d",
        ] {
            assert_eq!(first(line), None, "{line}");
        }
        for (line, culprit) in [
            ("-M pc -drive file=disk.img", "-drive"),
            ("-drive if=none,id=d,file=null-co://,file=disk.img", "-drive"),
            ("-net tap,script=x", "-net"),
            ("-nodefaults -chardev file,id=c,path=x", "-chardev"),
            ("--kernel x", "--kernel"),
            ("-device loader,file=x", "-device"),
            ("-device vfio-pci,host=00:01.0", "-device"),
            ("-device driver=vfio-pci,x=1", "-device"),
            (r#"-device {"driver":"vfio-pci","host":"0000:00:01.0"}"#, "-device"),
            ("-device usb-host,hostbus=1,hostport=1", "-device"),
            ("-device usb-mtp,rootdir=.", "-device"),
            ("-device x,rootdir=..", "-device"),
            ("-global usb-mtp.rootdir=.", "-global"),
            ("-global virtio-net-pci.romfile=x", "-global"),
            ("-boot splash=x", "-boot"),
            ("-M pc,kernel=x", "-M"),
            ("-M pc,initrd=x", "-M"),
            ("-M pc,dumpdtb=x", "-M"),
            ("-device vhost-vsock-pci,guest-cid=3", "-device"),
            ("-M pc,firmware=x", "-M"),
            ("x", "x"),
            ("-netdev user,id=n", "-netdev"),
        ] {
            assert_eq!(first(line).as_deref(), Some(culprit), "{line}");
        }
    }
}
