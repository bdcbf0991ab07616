//! Writes a small QED image: some data, zero clusters, and tables of one cluster, which QEMU does not open.

use std::error::Error;
use std::fs::File;

use vdisk_format::generate::Qed;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: make_qed OUT")?;
    let mut out = File::create_new(path)?; // an image that is there already may be somebody's
    let length = Qed::new(64 << 20)
        .table_size(1)
        .data(1 << 20, b"the first bytes of the second MiB")
        .zero(2 << 20..3 << 20)
        .write_to(&mut out)?;
    println!("{length} bytes");
    Ok(())
}
