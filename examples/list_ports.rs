//! Prints where a machine of QEMU can be reached: `list_ports q35 -device e1000`.

use std::error::Error;

use guest_fuzz::skip::SkipList;
use guest_fuzz::target::Target;
use guest_fuzz::target::micro_guest::MicroGuest;
use guest_fuzz::target::qemu::QemuCommand;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments: Vec<_> = std::env::args().skip(1).collect();
    if arguments.is_empty() {
        return Err("usage: list_ports MACHINE [QEMU ARGUMENTS]".into());
    }
    arguments.insert(0, "-M".to_owned());
    let mut guest = MicroGuest::new(QemuCommand::new("qemu-system-x86_64", arguments))?;
    guest.start()?;
    let map = guest.survey(&SkipList::parse("power")?)?; // the devices' registers get addresses, too
    for region in &map.regions {
        println!("{:?} {:#x}-{:#x} {}", region.space, region.first, region.last, region.name);
    }
    for skipped in &map.skipped {
        println!("left alone: {:#x}-{:#x}, {}", skipped.region.first, skipped.region.last, skipped.reason);
    }
    Ok(())
}
