//! Assembles the micro guest, and the program for Linux guests.

#[cfg(feature = "qemu")]
mod firmware;
#[cfg(feature = "qemu")]
mod helper;
#[cfg(feature = "qemu")]
#[expect(dead_code, reason = "half of it is the host's")]
#[path = "../src/target/micro_guest/layout.rs"]
mod layout;
#[cfg(feature = "qemu")]
#[path = "../src/target/session/layout.rs"]
mod ring_layout;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=src/target/micro_guest/layout.rs");
    println!("cargo::rerun-if-changed=src/target/session/layout.rs");
    #[cfg(feature = "qemu")]
    {
        let folder = std::env::var_os("OUT_DIR").ok_or("cargo sets no OUT_DIR")?;
        let folder = std::path::Path::new(&folder);
        std::fs::write(folder.join("firmware.bin"), firmware::image()?)?;
        std::fs::write(folder.join("helper.elf"), helper::assemble()?)?;
    }
    Ok(())
}
