//! Runs a fuzz target on inputs from files, on any toolchain: `replay TARGET FILE…`.

use std::error::Error;
use std::fs;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let name = args.next().ok_or("usage: replay TARGET FILE…")?;
    let target = name.to_str().and_then(vdisk_fuzz::target).ok_or_else(|| {
        let names = vdisk_fuzz::TARGETS.map(|(name, _)| name).join(", ");
        format!("there is no target {}: expected one of {names}", name.display())
    })?;
    for file in args {
        eprintln!("{}", file.display());
        target(&fs::read(file)?);
    }
    Ok(())
}
