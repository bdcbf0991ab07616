//! Prints where the data of a QED image's virtual disk are.

use std::error::Error;

use vdisk_format::Image;
use vdisk_format::qed::{Tables, map::map};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: map_qed FILE")?;
    let image = Image::open(path)?;
    for extent in map(&Tables::new(&image)?) {
        println!("{} {} {:?}", extent.start, extent.length, extent.kind);
    }
    Ok(())
}
