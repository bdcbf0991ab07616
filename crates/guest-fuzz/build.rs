//! Assembles the programs that run inside guests.

use std::path::PathBuf;
use std::{env, error, fs};

#[path = "build/helper.rs"]
mod helper;

fn main() -> Result<(), Box<dyn error::Error>> {
    println!("cargo::rerun-if-changed=build");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo names no OUT_DIR")?);
    fs::write(out.join("helper.elf"), helper::assemble()?)?;
    Ok(())
}
