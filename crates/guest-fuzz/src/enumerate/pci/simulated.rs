//! A machine of configuration spaces, in memory; and the scan of it.

use proptest::prelude::*;

use super::*;
use crate::target::{Identity, Progress, Recovery, Value};
use crate::verdict::Condition;

/// One function: registers, and which of their bits can be written.
#[derive(Clone)]
struct Function {
    parent: Option<usize>,
    slot: u8,
    registers: [u32; 64],
    writable: [u32; 64],
}

/// Functions on bus 0, or behind others that are bridges.
#[derive(Clone, Default)]
struct Machine {
    functions: Vec<Function>,
    accesses: usize,
}

const DEVICE: u32 = 0x8139_10ec;

impl Machine {
    /// Adds a function with BARs, each given as its writable bits and the bits that are always set.
    fn add(&mut self, parent: Option<usize>, slot: u8, header: u8, bars: &[(u32, u32)]) -> usize {
        let (mut registers, mut writable) = ([0; 64], [0; 64]);
        registers[0] = DEVICE;
        registers[2] = 0x0200_0010;
        registers[3] = u32::from(header) << 16;
        writable[1] = 0x7;
        for (index, &(mask, fixed)) in bars.iter().enumerate() {
            (registers[4 + index], writable[4 + index]) = (fixed, mask);
        }
        if header & 0x7f == 1 {
            writable[6..12].fill(u32::MAX);
        }
        self.functions.push(Function { parent, slot, registers, writable });
        self.functions.len() - 1
    }

    fn of(&self, address: PciAddress) -> Option<usize> {
        let bus = u32::from(address.0 >> 8);
        let here = |function: &Function| {
            u16::from(function.slot) == address.0 & 0xff && self.reaches(function.parent, bus, true)
        };
        self.functions.iter().position(here)
    }

    /// Whether `bus` is the one behind `bridge`, or, further up, one that it lets through.
    fn reaches(&self, bridge: Option<usize>, bus: u32, exactly: bool) -> bool {
        let Some(bridge) = bridge.map(|index| &self.functions[index]) else { return bus == 0 || !exactly };
        let (first, last) = (bridge.registers[6] >> 8 & 0xff, bridge.registers[6] >> 16 & 0xff);
        let here = if exactly { bus == first && bus <= last } else { (first..=last).contains(&bus) };
        first != 0 && here && self.reaches(bridge.parent, bus, false)
    }

    fn bar(&self, function: usize, index: usize) -> u32 {
        self.functions[function].registers[4 + index]
    }

    fn scan(&mut self, used: Vec<Region>) -> Scan {
        scan(self, &Windows::new(used)).unwrap()
    }
}

impl ConfigSpace for Machine {
    fn read(&mut self, function: PciAddress, register: u8, width: PortWidth) -> Result<u32> {
        self.accesses += 1;
        let Some(function) = self.of(function) else { return Ok(width.max()) };
        let value = self.functions[function].registers[usize::from(register / 4)];
        Ok(value >> (8 * (register & 3)) & width.max())
    }

    fn write(&mut self, function: PciAddress, register: u8, width: PortWidth, value: u32) -> Result<()> {
        self.accesses += 1;
        assert_eq!(value & !width.max(), 0, "more than the width has");
        let Some(function) = self.of(function) else { return Ok(()) };
        let shift = 8 * (register & 3);
        let function = &mut self.functions[function];
        let writable = function.writable[usize::from(register / 4)] & width.max() << shift;
        let old = &mut function.registers[usize::from(register / 4)];
        *old = *old & !writable | value << shift & writable;
        Ok(())
    }
}

const PORTS_256: (u32, u32) = (0xffff_ff00, 1);
const MEMORY_4K: (u32, u32) = (0xffff_f000, 0);

fn ranges(function: &PciFunction) -> Vec<(u64, u64)> {
    function.bars.iter().map(|bar| (bar.first, bar.last)).collect()
}

/// The prologue brings a machine that was just reset into the same state.
fn replayed(machine: &Machine, scan: &Scan) -> Machine {
    let mut machine = machine.clone();
    for instruction in &scan.prologue {
        let &Instruction::PciWrite { function, register, width, value } = instruction else { panic!() };
        machine.write(function, register, width, value).unwrap();
    }
    machine
}

fn registers(machine: &Machine) -> Vec<[u32; 64]> {
    machine.functions.iter().map(|function| function.registers).collect()
}

#[test]
fn devices_of_all_kinds_get_addresses() {
    let mut machine = Machine::default();
    machine.add(None, 0x00, 0, &[]);
    machine.add(None, 0x18, 0x80, &[PORTS_256, MEMORY_4K]);
    machine.add(None, 0x1a, 0, &[(0x0000_ffe0, 1), (0, 0), (0xffff_c000, 0xc), (u32::MAX, 0)]);
    machine.add(None, 0x20, 0, &[(0, 0xc), (0xffff_fffe, 0)]);
    // Function 1 of a device with one function is not looked for.
    machine.add(None, 0x21, 0, &[PORTS_256]);
    let fresh = machine.clone();
    let used = vec![Region::new(Space::Port, 0xc010, 0xc013, "mine").unwrap()];
    let scan = machine.scan(used);
    let addresses: Vec<_> =
        scan.functions.iter().map(|function| function.pci_address().to_string()).collect();
    assert_eq!(addresses, ["00:00.0", "00:03.0", "00:03.2", "00:04.0"]);
    assert_eq!(ranges(&scan.functions[1]), [(0xc100, 0xc1ff), (0xe000_0000, 0xe000_0fff)]);
    assert_eq!(ranges(&scan.functions[2]), [(0xc200, 0xc21f), (0xe000_4000, 0xe000_7fff)]);
    // 8 GiB do not fit below 4 GiB.
    assert_eq!(ranges(&scan.functions[3]), [(0x10_0000_0000, 0x11_ffff_ffff)]);
    assert_eq!((machine.bar(3, 0), machine.bar(3, 1)), (0xc, 0x10));
    let function = &scan.functions[1];
    assert_eq!((function.vendor, function.device, function.class), (0x10ec, 0x8139, 0x02_0000));
    assert_eq!(function.bars[0].name, "pci 00:03.0 [10ec:8139] bar 0");
    assert!(machine.functions[..4].iter().all(|function| function.registers[1] & 7 == 7));
    assert_eq!(registers(&replayed(&fresh, &scan)), registers(&machine));
    assert_eq!(scan.notes, Vec::<String>::new());
    assert_eq!(scan.prologue_text()[1], "pci_writel 00:03.0 0x10 0xc100");
    assert_eq!(scan.prologue_text()[3], "pci_writew 00:03.0 0x4 0x7");
}

#[test]
fn addresses_in_use_are_kept_and_in_the_prologue() {
    let mut machine = Machine::default();
    machine.add(None, 0x18, 0, &[PORTS_256, MEMORY_4K]);
    let fresh = machine.clone();
    let kept = machine.add(None, 0x20, 0, &[PORTS_256]);
    machine.functions[kept].registers[4] = 0xc001;
    machine.functions[kept].registers[1] = 1;
    let scan = machine.scan(vec![]);
    assert_eq!(ranges(&scan.functions[1]), [(0xc000, 0xc0ff)]);
    assert_eq!(ranges(&scan.functions[0])[0], (0xc100, 0xc1ff));
    let mut reset = fresh;
    reset.add(None, 0x20, 0, &[PORTS_256]);
    assert_eq!(registers(&replayed(&reset, &scan)), registers(&machine));
}

#[test]
fn bridges_get_buses_and_windows() {
    let mut machine = Machine::default();
    let outer = machine.add(None, 0x10, 1, &[]);
    let inner = machine.add(Some(outer), 0x08, 1, &[]);
    machine.add(Some(inner), 0x18, 0, &[PORTS_256, MEMORY_4K]);
    let empty = machine.add(None, 0x18, 1, &[]);
    machine.add(None, 0x20, 0, &[PORTS_256, MEMORY_4K]);
    let fresh = machine.clone();
    let scan = machine.scan(vec![]);
    let addresses: Vec<_> =
        scan.functions.iter().map(|function| function.pci_address().to_string()).collect();
    assert_eq!(addresses, ["00:02.0", "01:01.0", "02:03.0", "00:03.0", "00:04.0"]);
    let buses = |index: usize| machine.functions[index].registers[6];
    assert_eq!((buses(outer), buses(inner), buses(empty)), (0x02_0100, 0x02_0201, 0x03_0300));
    assert_eq!(ranges(&scan.functions[2]), [(0xc000, 0xc0ff), (0xe000_0000, 0xe000_0fff)]);
    for bridge in [outer, inner] {
        let window = |register: usize| machine.functions[bridge].registers[register];
        assert_eq!((window(7), window(8)), (0xc0c0, 0xe000_e000));
    }
    let closed = &machine.functions[empty].registers;
    assert_eq!((closed[7], closed[8], closed[9]), (0x00f0, 0x0000_fff0, 0x0000_fff0));
    // Behind the windows, not in them.
    assert_eq!(ranges(&scan.functions[4]), [(0xd000, 0xd0ff), (0xe010_0000, 0xe010_0fff)]);
    assert_eq!(registers(&replayed(&fresh, &scan)), registers(&machine));
}

#[test]
fn bridges_that_are_set_up_stay() {
    let mut machine = Machine::default();
    let bridge = machine.add(None, 0x10, 1, &[]);
    machine.functions[bridge].registers[6..9].copy_from_slice(&[0x05_0500, 0xd0d0, 0xfe00_fe00]);
    let device = machine.add(Some(bridge), 0x00, 0, &[PORTS_256, MEMORY_4K]);
    machine.functions[device].registers[1] = 1;
    machine.functions[device].registers[4] = 0xd001;
    let scan = machine.scan(vec![]);
    assert_eq!(scan.functions[1].address, 0x500);
    assert_eq!(ranges(&scan.functions[1]), [(0xd000, 0xd0ff)]);
    assert_eq!(machine.functions[bridge].registers[6..9], [0x05_0500, 0xd0d0, 0xfe00_fe00]);
    // Its memory has no address, and the window is not ours to move.
    assert_eq!(scan.notes, ["05:00.0: no room for BAR 1 of 0x1000 bytes"]);
}

#[test]
fn broken_devices_are_left_alone() {
    let mut machine = Machine::default();
    machine.add(None, 0x08, 0, &[(0, u32::MAX), (0x1000, 0), PORTS_256]);
    machine.add(None, 0x10, 0x7f, &[PORTS_256]);
    machine.add(None, 0x18, 2, &[MEMORY_4K, PORTS_256]);
    let liar = machine.add(None, 0x20, 1, &[]);
    machine.functions[liar].registers[6] = 0x01_0000;
    machine.functions[liar].writable[6] = 0;
    let endless = machine.add(None, 0x28, 1, &[]);
    machine.functions[endless].registers[6] = 0x00ff_0000 | 0x0100;
    machine.functions[endless].parent = None;
    let scan = machine.scan(vec![]);
    assert_eq!(
        scan.functions.iter().map(|function| function.bars.len()).collect::<Vec<_>>(),
        [1, 0, 1, 0, 0]
    );
    assert_eq!(scan.notes.len(), 4, "{:?}", scan.notes);
}

#[test]
fn a_register_that_holds_no_address_is_none() {
    /// A register whose bits can all be written while it is measured, and never again.
    struct Sticky(Machine);
    impl ConfigSpace for Sticky {
        fn read(&mut self, function: PciAddress, register: u8, width: PortWidth) -> Result<u32> {
            self.0.read(function, register, width)
        }
        fn write(&mut self, function: PciAddress, register: u8, width: PortWidth, value: u32) -> Result<()> {
            if register == 0x10 && value != u32::MAX && value != 0 {
                Ok(())
            } else {
                self.0.write(function, register, width, value)
            }
        }
    }
    let mut machine = Machine::default();
    machine.add(None, 0x08, 0, &[MEMORY_4K]);
    let scan = scan(&mut Sticky(machine), &Windows::new(vec![])).unwrap();
    assert_eq!((scan.functions[0].bars.len(), scan.notes.len()), (0, 1));
}

#[test]
fn a_machine_that_answers_everywhere_ends() {
    struct Everywhere(u64);
    impl ConfigSpace for Everywhere {
        fn read(&mut self, _: PciAddress, register: u8, width: PortWidth) -> Result<u32> {
            self.0 += 1;
            // A bridge with many functions, whose bus is another one each time.
            let value = match register {
                0x0e => 0x81,
                BUSES => 0xff00 | (self.0 as u32) << 8,
                _ => 0x0001_0001,
            };
            Ok(value & width.max())
        }
        fn write(&mut self, _: PciAddress, _: u8, _: PortWidth, _: u32) -> Result<()> {
            Ok(())
        }
    }
    let mut space = Everywhere(0);
    let scan = scan(&mut space, &Windows::new(vec![])).unwrap();
    assert_eq!(scan.functions.len(), MAX_FUNCTIONS);
    assert!(space.0 < 20_000, "{} reads", space.0);
}

#[test]
fn a_full_window_leaves_the_rest_without_an_address() {
    let mut machine = Machine::default();
    for slot in 0..20 {
        machine.add(None, slot << 3, 0, &[(0xffff_f000, 1)]);
    }
    let scan = machine.scan(vec![]);
    assert_eq!(scan.functions.iter().map(|function| function.bars.len()).sum::<usize>(), 4);
    assert_eq!(scan.notes.len(), 16);
}

proptest! {
    #[test]
    fn whatever_the_registers_are(
        devices in proptest::collection::vec((any::<u8>(), any::<u8>(), proptest::array::uniform6(any::<(u32, u32)>())), 0..6),
        fixed in any::<bool>(),
    ) {
        let mut machine = Machine::default();
        for (slot, header, bars) in devices {
            let bars = bars.map(|(mask, fixed_bits)| match fixed {
                true => (u32::MAX << (mask % 32).max(4), fixed_bits & 0xf),
                false => (mask, fixed_bits),
            });
            machine.add(None, slot, header, &bars);
        }
        let scan = machine.scan(vec![]);
        let mut bars: Vec<_> = scan.functions.iter().flat_map(|function| &function.bars).collect();
        bars.sort_by_key(|bar| (bar.space, bar.first));
        for bar in &bars {
            prop_assert!(bar.first % (bar.last - bar.first + 1) == 0);
            prop_assert!(bar.space == Space::Memory || bar.first >= 0xc000 && bar.last <= 0xffff);
        }
        prop_assert!(bars.windows(2).all(|two| (two[0].space, two[0].last) < (two[1].space, two[1].first)));
    }
}

/// A target that executes configuration accesses, and sometimes nothing.
struct OneMachine {
    machine: Machine,
    progress: Progress,
    values: Vec<Value>,
    is_silent: bool,
}

impl Target for OneMachine {
    fn identity(&self) -> Identity {
        Identity::default()
    }
    fn start(&mut self) -> Result<()> {
        Ok(())
    }
    fn submit(&mut self, instructions: &[Instruction]) -> Result<usize> {
        for instruction in instructions {
            self.progress.started += 1;
            match *instruction {
                Instruction::PciRead { function, register, width } => {
                    let value = self.machine.read(function, register, width)?.into();
                    self.values.push(Value { index: self.progress.done, value });
                }
                Instruction::PciWrite { function, register, width, value } => {
                    self.machine.write(function, register, width, value)?;
                }
                _ => panic!("{instruction:?}"),
            }
            self.progress.done += u64::from(!self.is_silent);
        }
        Ok(instructions.len())
    }
    fn progress(&mut self) -> Progress {
        self.progress
    }
    fn wait(&mut self, _: Duration) -> Progress {
        self.progress
    }
    fn reset_points(&mut self) -> Vec<u64> {
        Vec::new()
    }
    fn condition(&mut self, _: Duration) -> Condition {
        Condition::Responsive
    }
    fn recover(&mut self, _: Recovery, _: Duration) -> Result<()> {
        Ok(())
    }
    fn keep_values(&mut self, _: bool) {}
    fn values(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.values)
    }
    fn set_prologue(&mut self, _: &[Instruction]) {}
    fn stop(&mut self) {}
}

#[test]
fn any_target_can_be_scanned() {
    let mut machine = Machine::default();
    machine.add(None, 0x18, 0, &[PORTS_256, MEMORY_4K]);
    let expected = machine.clone().scan(vec![]);
    let progress = Progress::default();
    let mut target = OneMachine { machine, progress, values: vec![], is_silent: false };
    let mut space = TargetConfigSpace::new(&mut target, Duration::from_secs(1));
    assert_eq!(scan(&mut space, &Windows::new(vec![])).unwrap(), expected);
    target.is_silent = true;
    let mut space = TargetConfigSpace::new(&mut target, Duration::from_millis(1));
    assert!(matches!(scan(&mut space, &Windows::new(vec![])), Err(Error::Protocol { .. })));
}
