//! What QEMU lists, and what a scan of its PCI functions does: on each of its machines.
//!
//! `GUEST_FUZZ_QEMU` names the program to be tested, with its first options: `/opt/old/qemu-system-x86_64 -L /opt/old/bios`.
#![cfg(all(feature = "qemu", unix))]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use guest_fuzz::Result;
use guest_fuzz::enumerate::mtree::{self, MemoryTree};
use guest_fuzz::enumerate::pci::{ConfigSpace, Scan, Windows, scan};
use guest_fuzz::enumerate::region_map;
use guest_fuzz::instruction::{Instruction, PciAddress, PortWidth};
use guest_fuzz::region::{Region, Space};
use guest_fuzz::skip::SkipList;

const PATIENCE: Duration = Duration::from_secs(60);

fn program() -> Command {
    let line = std::env::var("GUEST_FUZZ_QEMU").unwrap_or_else(|_| "qemu-system-x86_64".to_owned());
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words).env("LC_ALL", "C");
    command
}

/// A QEMU whose guest does not run, with its two sockets. It ends with the test.
struct Qemu {
    child: Child,
    qmp: BufReader<UnixStream>,
    qtest: BufReader<UnixStream>,
    _folder: tempfile::TempDir,
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Qemu {
    fn start(options: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (qmp, qtest) = (folder.path().join("qmp"), folder.path().join("qtest"));
        let socket = |path: &Path| format!("unix:{},server=on,wait=off", path.display());
        let mut command = program();
        command.args(options.split_whitespace()).args(["-display", "none", "-accel", "tcg", "-S"]);
        command.arg("-qmp").arg(socket(&qmp)).arg("-qtest").arg(socket(&qtest)).args(["-qtest-log", "none"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child =
            command.spawn().expect("qemu-system-x86_64 has to be installed: apt-get install qemu-system-x86");
        let mut qemu = Self { child, qmp: connect(&qmp), qtest: connect(&qtest), _folder: folder };
        assert!(line(&mut qemu.qmp).contains("QMP"));
        qemu.command(r#"{"execute": "qmp_capabilities"}"#);
        qemu
    }

    /// The answer to a QMP command.
    fn command(&mut self, command: &str) -> serde_json::Value {
        writeln!(self.qmp.get_mut(), "{command}").unwrap();
        loop {
            let mut answer: serde_json::Value = serde_json::from_str(&line(&mut self.qmp)).unwrap();
            if answer.get("event").is_none() {
                return answer["return"].take();
            }
        }
    }

    fn monitor(&mut self, command: &str) -> String {
        let line =
            serde_json::json!({"execute": "human-monitor-command", "arguments": {"command-line": command}});
        self.command(&line.to_string()).as_str().expect("a text").to_owned()
    }

    fn tree(&mut self) -> MemoryTree {
        let tree = mtree::parse(&self.monitor("info mtree -f")).unwrap();
        assert_eq!(tree.notes, []);
        tree
    }

    fn scan(&mut self) -> Scan {
        let tree = self.tree();
        let used = tree.ports.into_iter().chain(tree.memory).collect();
        scan(self, &Windows::new(used)).unwrap()
    }

    /// The answer to a line of qtest, without its `OK`.
    fn qtest(&mut self, command: &str) -> String {
        writeln!(self.qtest.get_mut(), "{command}").unwrap();
        loop {
            let answer = line(&mut self.qtest);
            if !answer.starts_with("IRQ") {
                return answer.trim().strip_prefix("OK").expect("OK").trim().to_owned();
            }
        }
    }
}

fn connect(path: &Path) -> BufReader<UnixStream> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                return BufReader::new(stream);
            }
            Err(error) if Instant::now() > deadline => panic!("{}: {error}", path.display()),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn line(stream: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    assert!(!line.is_empty(), "QEMU has ended");
    line
}

/// Configuration mechanism 1, over qtest.
impl ConfigSpace for Qemu {
    fn read(&mut self, function: PciAddress, register: u8, width: PortWidth) -> Result<u32> {
        self.qtest(&format!("outl 0xcf8 {:#x}", function.configuration_address(register)));
        let value = self.qtest(&format!("in{} {:#x}", suffix(width), 0xcfc + (register & 3) as u16));
        Ok(u32::from_str_radix(value.trim_start_matches("0x"), 16).unwrap())
    }

    fn write(&mut self, function: PciAddress, register: u8, width: PortWidth, value: u32) -> Result<()> {
        self.qtest(&format!("outl 0xcf8 {:#x}", function.configuration_address(register)));
        self.qtest(&format!("out{} {:#x} {value:#x}", suffix(width), 0xcfc + (register & 3) as u16));
        Ok(())
    }
}

fn suffix(width: PortWidth) -> char {
    match width {
        PortWidth::Byte => 'b',
        PortWidth::Word => 'w',
        PortWidth::Long => 'l',
    }
}

fn names(regions: &[Region], at: u64) -> Vec<&str> {
    let here = regions.iter().filter(|region| (region.first..=region.last).contains(&at));
    here.map(|region| region.name.as_str()).collect()
}

fn start_address(region: &Region) -> (Space, u64, u64) {
    (region.space, region.first, region.last)
}

/// All machines that the program knows, without those that this crate has nothing to do with.
fn machines() -> Vec<String> {
    let output = program().args(["-M", "help"]).output().expect("qemu-system-x86_64 has to be installed");
    let text = String::from_utf8(output.stdout).unwrap();
    let names = text.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    let known = |name: &&str| !["none", "x-remote"].contains(name) && !name.starts_with("xen");
    // Those with a version differ in details: one in ten of them will do.
    let (versions, plain): (Vec<_>, Vec<_>) = names.filter(known).partition(|name| name.contains('.'));
    plain.into_iter().chain(versions.into_iter().step_by(10)).map(str::to_owned).collect()
}

#[test]
fn qemu_lists_the_ports_of_each_machine() {
    let machines = machines();
    assert!(
        machines.iter().any(|name| name == "pc") && machines.iter().any(|name| name == "q35"),
        "{machines:?}"
    );
    for machine in machines {
        let mut qemu = Qemu::start(&format!("-M {machine} -nodefaults -serial null"));
        let tree = qemu.tree();
        assert_eq!(names(&tree.ports, 0x3f8), ["serial"], "{machine}");
        assert_eq!(names(&tree.ports, 0x3ff), ["serial"], "{machine}");
        assert!(names(&tree.ports, 0x70)[0].starts_with("rtc"), "{machine}");
        if machine != "microvm" {
            assert_eq!(names(&tree.ports, 0x64), ["i8042-cmd"], "{machine}");
        }
        if machine.contains("pc-") || machine == "pc" || machine == "q35" {
            assert_eq!(names(&tree.ports, 0xcf8), ["pci-conf-idx"], "{machine}");
            assert_eq!(names(&tree.ports, 0xcfc), ["pci-conf-data"], "{machine}");
        }
        // Each port is a device's or nobody's.
        let count =
            |regions: &[Region]| regions.iter().map(|region| region.last - region.first + 1).sum::<u64>();
        assert_eq!(count(&tree.ports) + count(&tree.unassigned), 65_536, "{machine}");
        assert!(tree.ram.is_some_and(|(_, length)| length > 1 << 20), "{machine}");
        assert!(names(&tree.memory, 0xfee0_0000).iter().all(|name| name.contains("apic")), "{machine}");
    }
}

#[test]
fn qemu_with_owners_is_the_same_list() {
    let mut qemu = Qemu::start("-M q35 -nodefaults -device pci-bridge,chassis_nr=1 -device qemu-xhci");
    let tree = qemu.tree();
    let with_owners = mtree::parse(&qemu.monitor("info mtree -f -o")).unwrap();
    assert_eq!(tree, with_owners);
}

const DEVICES: [&str; 12] = [
    "rtl8139",
    "e1000",
    "nvme,serial=a",
    "qemu-xhci",
    "virtio-net-pci",
    "virtio-scsi-pci",
    "pci-serial",
    "lsi53c895a",
    "i82550",
    "VGA",
    "sdhci-pci",
    "usb-ehci",
];

fn all_devices(machine: &str) -> String {
    let devices: String = DEVICES.iter().map(|device| format!(" -device {device}")).collect();
    format!("-M {machine} -nodefaults{devices}")
}

#[test]
fn qemu_maps_what_the_scan_programs() {
    for machine in ["pc", "q35"] {
        let mut qemu = Qemu::start(&all_devices(machine));
        let scan = qemu.scan();
        assert!(scan.functions.len() > DEVICES.len(), "{machine}: {}", scan.functions.len());
        assert_eq!(scan.notes, Vec::<String>::new(), "{machine}");
        let tree = qemu.tree();
        let mapped: Vec<&Region> = tree.ports.iter().chain(&tree.memory).collect();
        let bars: Vec<&Region> = scan.functions.iter().flat_map(|function| &function.bars).collect();
        assert!(bars.len() > DEVICES.len(), "{machine}: {}", bars.len());
        // The first of each BAR is a device's now. A frame buffer is RAM, and not in this list.
        let unmapped = bars
            .iter()
            .filter(|bar| !mapped.iter().any(|region| region.meets(bar.space, bar.first, bar.last)));
        let unmapped: Vec<_> = unmapped.map(|bar| &bar.name).collect();
        assert!(unmapped.iter().all(|name| name.contains("[1234:1111] bar 0")), "{machine}: {unmapped:?}");
        let buffer = bars.iter().find(|bar| bar.name.contains("[1234:1111] bar 0")).unwrap();
        assert!(tree.storage.iter().any(|region| region.meets(Space::Memory, buffer.first, buffer.last)));
        let map = region_map(tree.clone(), &scan, &SkipList::parse("power").unwrap());
        let is_offered =
            |bar: &Region| map.regions.iter().any(|region| region.meets(bar.space, bar.first, bar.last));
        assert!(!is_offered(buffer), "{machine}");
        assert!(bars.iter().all(|bar| bar == buffer || is_offered(bar)), "{machine}");
        assert!(map.skipped_by(Space::Port, 0xcf9, 1).is_some());
        assert_eq!(names(&map.regions, 0xcf9), Vec::<&str>::new());
    }
}

#[test]
fn qemu_after_a_reset_is_brought_back_by_the_prologue() {
    for machine in ["pc", "q35"] {
        let mut qemu = Qemu::start(&all_devices(machine));
        let scan = qemu.scan();
        let programmed = qemu.tree();
        let again = qemu.scan();
        assert_eq!(again.functions, scan.functions, "{machine}: what has an address keeps it");
        assert_eq!(again.prologue, scan.prologue);
        qemu.command(r#"{"execute": "system_reset"}"#);
        // The main loop resets it a little later.
        let deadline = Instant::now() + PATIENCE;
        while qemu.tree() == programmed && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_ne!(qemu.tree(), programmed, "{machine}");
        for instruction in &scan.prologue {
            let &Instruction::PciWrite { function, register, width, value } = instruction else { panic!() };
            qemu.write(function, register, width, value).unwrap();
        }
        assert_eq!(qemu.tree(), programmed, "{machine}");
    }
}

#[test]
fn qemu_devices_behind_bridges_are_reached() {
    let bridges = [
        "-M pc -nodefaults -device pci-bridge,id=one,chassis_nr=1 -device pci-bridge,id=two,chassis_nr=2,bus=one,addr=2 \
         -device rtl8139,bus=two,addr=3 -device e1000,bus=one,addr=4 -device rtl8139",
        "-M q35 -nodefaults -device pcie-root-port,id=one,chassis=1 -device nvme,serial=a,bus=one \
         -device pcie-root-port,id=two,chassis=2 -device pcie-pci-bridge,id=three,bus=two -device rtl8139,bus=three,addr=1",
    ];
    for options in bridges {
        let mut qemu = Qemu::start(options);
        let scan = qemu.scan();
        let buses: BTreeSet<u16> = scan.functions.iter().map(|function| function.address >> 8).collect();
        assert!(buses.len() >= 3, "{options}: {buses:?}");
        let behind = scan
            .functions
            .iter()
            .filter(|function| function.address >> 8 != 0 && function.class >> 8 != 0x604);
        let tree = qemu.tree();
        let mut count = 0;
        for bar in behind.flat_map(|function| &function.bars) {
            let regions = tree.ports.iter().chain(&tree.memory);
            let reached = regions.filter(|region| region.meets(bar.space, bar.first, bar.first)).count();
            assert_eq!(reached, 1, "{options}: {bar:?}");
            count += 1;
        }
        assert!(count >= 3, "{options}: {count}");
        let unique: BTreeSet<_> =
            scan.functions.iter().flat_map(|function| function.bars.iter().map(start_address)).collect();
        assert_eq!(unique.len(), scan.functions.iter().map(|function| function.bars.len()).sum::<usize>());
    }
}
