//! Fuzzes a machine with planted faults for two seconds, and prints what it finds.

use std::error::Error;
use std::time::Duration;

use guest_fuzz::campaign::{Campaign, Options};
use guest_fuzz::engine::Patience;
use guest_fuzz::target::Target;
use guest_fuzz::target::sim::{Plant, Sim, SimOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let seed = std::env::args().nth(1).ok_or("usage: fuzz_ports SEED")?.parse()?;
    let plants = vec![Plant::Abort, Plant::IndexData, Plant::Exit];
    let mut options = Options::new(Sim::regions_of(&plants), seed);
    options.time = Some(Duration::from_secs(2));
    options.patience = Patience { hang: Duration::from_millis(300), ..Patience::default() };
    let start = || {
        let mut sim = Sim::new(SimOptions { plants: plants.clone(), ..SimOptions::default() });
        sim.start().map(|()| Box::new(sim) as Box<dyn Target>) // MicroGuest is a QEMU, and starts likewise
    };
    let report = Campaign::new(options).run(&start, &|_| None)?;
    for finding in &report.findings {
        println!("{}, {}, {:?} operations", finding.verdict, finding.signature, finding.shrunk_operations);
    }
    println!("{} operations, seed {}", report.operations, report.seed);
    Ok(())
}
