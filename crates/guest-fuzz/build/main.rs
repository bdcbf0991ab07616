//! Assembles the micro guest.

#[cfg(feature = "qemu")]
mod firmware;
#[cfg(feature = "qemu")]
#[expect(dead_code, reason = "half of it is the host's")]
#[path = "../src/target/micro_guest/layout.rs"]
mod layout;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=src/target/micro_guest/layout.rs");
    #[cfg(feature = "qemu")]
    {
        let folder = std::env::var_os("OUT_DIR").ok_or("cargo sets no OUT_DIR")?;
        std::fs::write(std::path::Path::new(&folder).join("firmware.bin"), firmware::image()?)?;
    }
    Ok(())
}
