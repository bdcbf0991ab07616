//! Writes the seeds of every fuzz target, a folder each, as cargo-fuzz expects them: `seeds [DIR]`, by default
//! `fuzz/corpus`.

use std::fs;
use std::io;
use std::path::PathBuf;

use vdisk_fuzz::{TARGETS, seeds::seeds};

fn main() -> io::Result<()> {
    let dir = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("fuzz/corpus"), PathBuf::from);
    for (name, _) in TARGETS {
        let dir = dir.join(name);
        fs::create_dir_all(&dir)?;
        let seeds = seeds(name);
        for (index, seed) in seeds.iter().enumerate() {
            fs::write(dir.join(format!("seed-{index}")), seed)?;
        }
        println!("{}: {} seeds", dir.display(), seeds.len());
    }
    Ok(())
}
