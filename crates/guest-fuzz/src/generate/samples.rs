//! Region maps for tests.

use crate::region::{PciFunction, Region, RegionMap, Skipped, Space};

pub(super) fn region(space: Space, first: u64, last: u64) -> Region {
    Region { space, first, last, name: format!("{space:?} {first:x}") }
}

pub(super) fn skipped(space: Space, first: u64, last: u64) -> Skipped {
    Skipped { region: region(space, first, last), reason: "test".to_owned() }
}

pub(super) fn map(regions: &[(Space, u64, u64)]) -> RegionMap {
    let regions = regions.iter().map(|&(space, first, last)| region(space, first, last));
    RegionMap { regions: regions.collect(), ..RegionMap::default() }
}

fn function(device: u16, id: (u16, u16), class: u32, bars: &[(Space, u64, u64)]) -> PciFunction {
    let bars = bars.iter().map(|&(space, first, last)| region(space, first, last)).collect();
    PciFunction { address: device << 3, vendor: id.0, device: id.1, class, bars }
}

/// A PC with the usual devices, a network card and a sound card; its power and reset ports are skipped.
pub(super) fn pc() -> RegionMap {
    use Space::{Memory, Port};
    let named = |name: &str, first, last| Region { space: Port, first, last, name: name.to_owned() };
    let mut regions = vec![
        named("dma", 0x00, 0x0f),
        named("pic", 0x20, 0x21),
        named("pit", 0x40, 0x43),
        named("i8042-data", 0x60, 0x60),
        named("pcspk", 0x61, 0x61),
        named("i8042-cmd", 0x64, 0x64),
        named("rtc", 0x70, 0x71),
        named("dma-page", 0x80, 0x8f),
        named("pic", 0xa0, 0xa1),
        named("dma", 0xc0, 0xdf),
        named("ide", 0x170, 0x177),
        named("ide", 0x1f0, 0x1f7),
        named("parallel", 0x378, 0x37f),
        named("ide", 0x376, 0x376),
        named("vga", 0x3c0, 0x3cf),
        named("vga", 0x3d4, 0x3da),
        named("fdc", 0x3f1, 0x3f5),
        named("ide", 0x3f6, 0x3f6),
        named("fdc", 0x3f7, 0x3f7),
        named("serial", 0x3f8, 0x3ff),
        named("elcr", 0x4d0, 0x4d1),
        named("pci-conf-idx", 0xcf8, 0xcfb),
        named("pci-conf-data", 0xcfc, 0xcff),
        named("acpi", 0x600, 0x63f),
        named("PCI Bus 0000:00", 0xd00, 0xffff),
    ];
    let pci = vec![
        function(0, (0x8086, 0x1237), 0x06_0000, &[]),
        function(1, (0x8086, 0x7010), 0x01_0180, &[(Port, 0xc080, 0xc08f)]),
        function(2, (0x1234, 0x1111), 0x03_0000, &[(Memory, 0xfd00_0000, 0xfdff_ffff)]),
        function(
            3,
            (0x8086, 0x100e),
            0x02_0000,
            &[(Port, 0xc000, 0xc03f), (Memory, 0xfebc_0000, 0xfebd_ffff)],
        ),
        function(4, (0x8086, 0x2415), 0x04_0100, &[(Port, 0xc400, 0xc7ff), (Port, 0xc040, 0xc07f)]),
    ];
    regions.extend(pci.iter().flat_map(|function| function.bars.iter().cloned()));
    let skipped = vec![skipped(Port, 0x64, 0x64), skipped(Port, 0xcf9, 0xcf9), skipped(Port, 0x600, 0x63f)];
    RegionMap { regions, skipped, pci, prologue: Vec::new(), ram: Some((0x10_0000, 0x70_0000)) }
}
