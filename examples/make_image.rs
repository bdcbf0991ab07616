//! Writes a small qcow2 image: some data, a bitmap, a feature name table.

use std::error::Error;
use std::fs::File;

use vdisk_format::generate::{Bitmap, Qcow2};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: make_image OUT")?;
    let mut out = File::create_new(path)?; // an image that is there already may be somebody's
    let length = Qcow2::new(64 << 20)
        .feature_name_table(true)
        .data(1 << 20, b"the first bytes of the second MiB")
        .allocate(8 << 20..9 << 20)
        .bitmap(Bitmap::new("since-monday").dirty(1 << 20..2 << 20))
        .write_to(&mut out)?;
    println!("{length} bytes");
    Ok(())
}
