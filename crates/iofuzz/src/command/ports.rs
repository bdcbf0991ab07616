//! `ports`: where a machine can be reached, and what is left alone.

use std::fmt::Write;
use std::process::ExitCode;

use guest_fuzz::region::{Region, RegionMap, Space};
use tool_support::Outcome;

use super::print;
use crate::args::PortsArgs;
use crate::document::{Ports, SCHEMA};
use crate::machine::{Machine, Places};

pub(super) fn run(args: &PortsArgs) -> Outcome<ExitCode> {
    let places = Places::of(&args.places, "none")?;
    let machine = Machine::of(&args.machine)?;
    let (mut map, target) = machine.explored()?;
    places.select(&mut map)?;
    let document = Ports { schema: SCHEMA, target, map };
    print(args.json, &document, || text(&document.map))?;
    Ok(ExitCode::SUCCESS)
}

fn text(map: &RegionMap) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    for region in &map.regions {
        let _ = writeln!(text, "{}", line(region));
    }
    for function in &map.pci {
        let (address, class) = (function.pci_address(), function.class);
        let _ = writeln!(
            text,
            "pci {address}  {:04x}:{:04x}  class {class:06x}",
            function.vendor, function.device
        );
        for bar in &function.bars {
            let _ = writeln!(text, "    {}", line(bar));
        }
    }
    for skipped in &map.skipped {
        let _ = writeln!(text, "left alone: {} ({})", line(&skipped.region), skipped.reason);
    }
    text
}

fn line(region: &Region) -> String {
    match region.space {
        Space::Port => format!("port {:#06x}-{:#06x}  {}", region.first, region.last, region.name),
        Space::Memory => format!("memory {:#x}-{:#x}  {}", region.first, region.last, region.name),
    }
}
